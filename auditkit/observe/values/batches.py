"""Digests of what is consumed at every step: batches of the same kind, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor

from auditkit.formats.recipes import digest_bytes
from auditkit.observe.values.beside import Beside
from auditkit.observe.values.digests import StateDigester
from auditkit.observe.values.flatten import batch_leaves, is_plain_batch
from auditkit.observe.values.forms import Forms
from auditkit.observe.values.pieces import Stream, addresses_of
from auditkit.observe.values.tensors import Leaves
from auditkit.records.digest import COMMITMENT_RECIPE, EVIDENCE_RECIPE

_NAME = "batch"

#: Kinds of batches that are told apart: the last one of an epoch is shorter, a step takes several.
_MOST_KNOWN = 4

#: Bytes of a batch from which on hashing them takes longer than to begin a thread, and up to which
#: a copy is kept.
_BESIDE = range(1 << 18, 1 << 28)

#: Of evidence, and the commitment.
Digests: TypeAlias = tuple[bytes, bytes]


@dataclass(frozen=True)
class _Known:
    """Batches of one kind: a tensor by itself, or a list or tuple of plain tensors, of some forms.

    Attributes:
        kind: List, tuple or tensor.
        forms: Of the tensors.
        text: Their structure.
        names: Of it, and of the tensors.
        places: Where in the batch the stream's tensors are; None where in the same order.
        stream: Reads them where they lie.
    """

    kind: Any
    forms: Forms
    text: bytes
    names: tuple[str, ...]
    places: tuple[int, ...] | None
    stream: Stream

    @classmethod
    def of(cls, batch: Any, leaves: Leaves) -> _Known | None:
        """The kind of a batch; None where it is of none that can be told at a glance."""
        text = leaves.get("")
        items = _items(batch)
        if not is_plain_batch(items) or not isinstance(text, bytes):
            return None
        by_tensor = {id(leaf): name for name, leaf in leaves.items()}
        names = tuple(by_tensor.get(id(item), "") for item in items)
        stream = Stream(leaves)
        if not all(names) or stream.names != sorted(names):  # some are copied, or aliases
            return None
        places = tuple(names.index(name) for name in stream.names)
        in_order = places == tuple(range(len(items)))
        forms = Forms(items, with_grad=True)  # which the structure says
        return cls(type(batch), forms, text, ("", *names), None if in_order else places, stream)

    def take(self, batch: Any) -> Leaves | None:
        """The leaves of a batch of this kind, and the stream stands for it; None of another."""
        if type(batch) is not self.kind:
            return None
        items, places = _items(batch), self.places
        if len(items) != len(self.names) - 1 or not self.forms.are_of(items):
            return None
        tensors = items if places is None else [items[place] for place in places]
        if not self.stream.move(addresses_of(tensors)):
            return None
        return dict(zip(self.names, (self.text, *items), strict=True))


def _items(batch: Any) -> Any:
    """The tensors of a batch of a kind that may be known."""
    return (batch,) if type(batch) is Tensor else batch


class BatchDigester:
    """Digests one batch after the other.

    Args:
        commit: Whether every batch gets a commitment, too.
        beside: Whether :meth:`begin` may leave a large one to another thread.
    """

    def __init__(self, *, commit: bool, beside: bool = False) -> None:
        self._recipes = (EVIDENCE_RECIPE, COMMITMENT_RECIPE)[: 1 + commit]
        self._known: list[_Known] = []  # the latest first
        self._others = StateDigester(EVIDENCE_RECIPE)
        self._beside = _BESIDE if commit and beside else range(0)
        #: Where a large batch is copied to, and who reads it there.
        self._copy = bytearray()
        self._reader: Beside[Digests] | None = None

    def digest(self, batch: Any) -> tuple[Leaves, bytes, bytes]:
        """Digest a batch.

        Args:
            batch: As collated.

        Returns:
            The batch as leaves (live views), its digest, and its SHA-256; nothing for the latter
            where none is asked for.

        Raises:
            UncapturedState: The batch holds something that has no digest.
        """
        leaves, stream = self._taken(batch)
        return leaves, *self._digests(leaves, stream)

    def begin(self, batch: Any) -> tuple[Leaves, Digests | Beside[Digests]]:
        """:meth:`digest`; of a large batch another thread makes the digests, from a copy.

        So they are those of the batch as it is now, whatever a step writes into it.
        """
        leaves, stream = self._taken(batch)
        if stream is None or stream.n_bytes not in self._beside:
            return leaves, self._digests(leaves, stream)
        if self._reader is not None:
            self._reader.wait()
        if len(self._copy) != stream.n_bytes:
            self._copy = bytearray(stream.n_bytes)
        stream.copy_to(self._copy)
        self._reader = Beside(partial(_digests_of, self._copy))
        return leaves, self._reader

    def _digests(self, leaves: Leaves, stream: Stream | None) -> Digests:
        if stream is not None:
            evidence, *commitment = stream.digests(self._recipes, leaves)
            return evidence, b"".join(commitment)
        evidence = self._others.digest({_NAME: leaves})[_NAME]
        if len(self._recipes) == 1:
            return evidence, b""
        return evidence, self._others.commitment(_NAME, leaves)

    def _taken(self, batch: Any) -> tuple[Leaves, Stream | None]:
        """The leaves of a batch, and what stands for them where it is of a known kind."""
        for known in self._known:
            leaves = known.take(batch)
            if leaves is not None:
                return leaves, known.stream
        leaves = batch_leaves(batch)
        new = _Known.of(batch, leaves)
        if new is not None:
            self._known = [new, *self._known[: _MOST_KNOWN - 1]]
        return leaves, None if new is None else new.stream


def _digests_of(stream: bytearray) -> Digests:
    return digest_bytes(EVIDENCE_RECIPE, stream), digest_bytes(COMMITMENT_RECIPE, stream)
