"""Digests of components that live in torch.

`digest_leaves` is the recipe (:mod:`auditkit.formats.recipes`) word for word. `StateDigester`
gives the same digests where they are due at every step: what does not depend on the tensors'
contents, the frames and where their memory lies, is made once, and whether it still holds is
asked of all tensors at once.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress, count
from typing import Any, Final

import torch

from auditkit.formats.recipes import (
    digest_bytes,
    evidence_recipe,
    hasher,
    is_of_stream,
    json_frame,
)
from auditkit.observe.values.beside import all_at_once
from auditkit.observe.values.forms import Forms
from auditkit.observe.values.pieces import Stream, addresses_of
from auditkit.observe.values.summed import SummedLeaves, require_whole
from auditkit.observe.values.tensors import KeptLeaves, Leaves
from auditkit.records.digest import COMMITMENT_RECIPE

#: Bytes of a component from which on hashing it takes much longer than to begin a thread.
_LARGE = 1 << 22


def digest_leaves(recipe: str, leaves: Leaves) -> bytes:
    """Digest of a component.

    Args:
        recipe: ``xxh3-128/tensor-v1``, ``sha256/tensor-v1`` or ``int64-mix/1``.
        leaves: The component.

    Returns:
        16 or 32 bytes: those of `auditkit.formats.recipes.digest_raw` for the same content.

    Raises:
        UncapturedState: A tensor that is not plain strided memory; ``where`` names it.
        FormatError: Unknown recipe, or a name that is no Unicode text.
    """
    hasher(recipe)  # refuses an unknown one
    return Stream(leaves).digest(recipe, leaves)


def commitments(state: Mapping[str, Leaves]) -> dict[str, str]:
    """``sha256/tensor-v1`` of every component of a training state, in hexadecimal.

    Raises:
        AuditError: When a component that keeps its own digest holds something else.
    """
    require_whole(state)
    streams = {name: Stream(leaves) for name, leaves in state.items()}
    makes = {
        name: partial(stream.digest, COMMITMENT_RECIPE, state[name])
        for name, stream in streams.items()
    }
    large = [name for name, stream in streams.items() if stream.n_bytes >= _LARGE]
    found = dict(zip(large, all_at_once([makes[name] for name in large]), strict=True))
    return {name: (found.get(name) or make()).hex() for name, make in makes.items()}


#: Plans that are kept of states of other components.
_MOST_ASIDE: Final = 3


@dataclass
class _Plan:
    """How a state of certain components was digested last.

    Attributes:
        names: Of the components.
        leaves: Each component, where its owner keeps it; else nothing, so that nothing is kept
            alive here.
        values: The digests of those that are one text; nothing of the others.
        streams: The others: which component it is, and where its tensors are among all.
        tensors: Those of the kept components, in their places among all.
        forms: Of all tensors.
        addresses: Of all.
        large: Which components are hashed at the same time, each by a thread.
    """

    names: list[str]
    leaves: list[KeptLeaves | None]
    values: dict[str, bytes]
    streams: dict[int, tuple[Stream, slice]]
    tensors: list[Any]
    forms: Forms
    addresses: list[int]
    large: Sequence[int] = ()

    def forget(self) -> None:
        """Every component is to be taken in anew, and each of its tensors looked for."""
        self.leaves = [None] * len(self.leaves)
        self.tensors = [None] * len(self.tensors)
        self.addresses = []


class StateDigester:
    """Digests the components of a state again and again.

    A tensor's memory is read where it lies, by the address that the tensor itself gives in the
    same call, and nothing is kept alive that its owner does not keep. Frames and addresses are used
    again only while every tensor has the class, address, shape, dtype and contiguity that they were
    made for, so that ``p.data = other``, ``load_state_dict(assign=True)`` or a tensor in the place
    of a freed one cannot give a stale digest.

    Args:
        recipe: ``xxh3-128/tensor-v1`` or ``sha256/tensor-v1``.

    Raises:
        FormatError: Unknown recipe.
    """

    def __init__(self, recipe: str) -> None:
        hasher(recipe)  # refuses an unknown recipe here and not in the middle of a run
        self._recipe = recipe
        self._plan: _Plan | None = None
        #: Of states of other components, the latest first.
        self._aside: list[_Plan] = []
        self._streams: dict[str, Stream] = {}
        #: Of components that are one text: what keeps it, its name, itself, the digest.
        self._texts: dict[str, tuple[KeptLeaves | None, str, bytes, bytes]] = {}

    def digest(self, state: Mapping[str, Leaves]) -> dict[str, bytes]:
        """Digests of the components as they are now.

        Args:
            state: Components by name. The mappings may be other objects at every call.

        Returns:
            The bytes of `digest_leaves` by component.

        Raises:
            UncapturedState: A tensor that is not plain strided memory; ``where`` names it.
            FormatError: A name that is no Unicode text.
        """
        found, plan = [*state.values()], self._plan
        if plan is None or [*state] != plan.names:
            plan = self._plan = self._planned([*state])
        if plan is None or not self._follow(plan, found):
            self._plan = None  # not even half of it, should a component be refused
            plan = self._plan = self._made(state)
        values, names, large = plan.values.copy(), plan.names, plan.large
        for place, (stream, _) in plan.streams.items():
            if place not in large:
                values[names[place]] = self._digest(stream, found[place])
        if large:
            makes = [partial(self._digest, plan.streams[n][0], found[n]) for n in large]
            values.update(zip(map(names.__getitem__, large), all_at_once(makes), strict=True))
        return values

    def _digest(self, stream: Stream, leaves: Leaves) -> bytes:
        recipe = self._recipe
        own = evidence_recipe(recipe, leaves.get("")) if stream.has_texts else recipe
        return stream.digest(own, leaves)

    def commitment(self, name: str, leaves: Leaves) -> bytes:
        """SHA-256 of a component whose digest was made last, 32 bytes."""
        stream, values = self._streams.get(name), {} if self._plan is None else self._plan.values
        if stream is None or values.get(name, b"text"):
            return digest_leaves(COMMITMENT_RECIPE, leaves)
        return stream.digest(COMMITMENT_RECIPE, leaves)

    def _planned(self, names: list[str]) -> _Plan | None:
        """The plan of the components that there are now and were before, as gradients come and go.

        What it knows of how things stand, others may have changed meanwhile.
        """
        if self._plan is not None:
            self._plan.forget()
            self._aside.insert(0, self._plan)
        plan = next((one for one in self._aside if one.names == names), None)
        self._aside = [one for one in self._aside if one is not plan][:_MOST_ASIDE]
        if plan is not None:
            self._streams.update({names[place]: one for place, (one, _) in plan.streams.items()})
        return plan

    def _follow(self, plan: _Plan, found: list[Leaves]) -> bool:
        """Take in another state of the same components; False where a new plan is needed."""
        tensors = plan.tensors.copy()
        for place in compress(count(), map(operator.is_not, found, plan.leaves)):
            leaves, (stream, part) = found[place], plan.streams.get(place, _NO_STREAM)
            if stream is None:
                value = self._of_text(plan.names[place], leaves)
                if not value:
                    return False
                plan.values[plan.names[place]], plan.leaves[place] = value, _kept(leaves)
                continue
            own = stream.take(leaves)
            if own is None:
                return False
            tensors[part] = own
            if stream.is_kept(leaves):
                plan.tensors[part], plan.leaves[place] = own, _kept(leaves)
        if not plan.forms.are_of(tensors):
            return False
        addresses = addresses_of(tensors)
        if addresses != plan.addresses:
            if not all(stream.move(addresses[part]) for stream, part in plan.streams.values()):
                return False
            plan.addresses = addresses
        return True

    def _made(self, state: Mapping[str, Leaves]) -> _Plan:
        """The plan for a state."""
        plan = _Plan([*state], [], {}, {}, [], Forms([]), [])
        tensors: list[torch.Tensor] = []
        for place, (name, leaves) in enumerate(state.items()):
            text = self._texts.get(name)
            is_known = text is not None and text[0] is leaves
            value = text[3] if text and is_known else self._of_text(name, leaves)
            plan.values[name] = value
            if value:
                plan.leaves.append(_kept(leaves))
                continue
            stream, own = self._stream(name, leaves)
            is_kept = stream.is_kept(leaves)
            plan.streams[place] = stream, slice(len(tensors), len(tensors) + len(own))
            plan.leaves.append(_kept(leaves) if is_kept else None)
            plan.tensors += own if is_kept else [None] * len(own)
            plan.addresses += stream.addresses
            tensors += own
        plan.forms = Forms(tensors)
        plan.large = [n for n, (stream, _) in plan.streams.items() if stream.n_bytes >= _LARGE]
        return plan

    def _of_text(self, name: str, leaves: Leaves) -> bytes:
        """The digest of a component that is one text, as most streams are; of others nothing.

        Nor is one made of a component that keeps its own.
        """
        if isinstance(leaves, SummedLeaves):
            return leaves.digest()
        if len(leaves) != 1:
            return b""
        ((entry, text),) = leaves.items()
        if type(text) is not bytes:
            return b""
        known = self._texts.get(name)
        is_known = known is not None and known[1] == entry and known[2] == text
        value = known[3] if known and is_known else _digest_of_text(self._recipe, entry, text)
        self._texts[name] = (_kept(leaves), entry, text, value)
        return value

    def _stream(self, name: str, leaves: Leaves) -> tuple[Stream, list[torch.Tensor]]:
        """A component's stream, and its tensors that are read where they lie."""
        stream = self._streams.get(name)
        if stream is not None:
            own = stream.take(leaves)
            if own is not None and stream.forms.are_of(own) and stream.move(addresses_of(own)):
                return stream, own
        stream = self._streams[name] = Stream(leaves)
        own = stream.tensors(leaves)
        stream.forms = Forms(own)
        return stream, own


def _digest_of_text(recipe: str, name: str, text: bytes) -> bytes:
    """`digest_leaves` of one text, which is a stream's at every step that draws."""
    if not is_of_stream(recipe):
        return digest_leaves(recipe, {name: text})
    return digest_bytes(recipe, json_frame(name, len(text)) + text)


_NO_STREAM: tuple[None, slice] = (None, slice(0))


def _kept(leaves: Leaves) -> KeptLeaves | None:
    return leaves if type(leaves) is KeptLeaves else None
