"""One component's stream of bytes, kept in pieces: frames that stay, and where its memory lies."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch

from auditkit.errors import UncapturedState
from auditkit.formats.recipes import (
    alias_frame,
    digest_bytes,
    frame,
    hasher,
    is_of_stream,
    json_frame,
    tensor_update,
)
from auditkit.formats.word_mix import WordMix
from auditkit.observe.values.forms import Forms
from auditkit.observe.values.tensors import (
    DTYPE_NAMES,
    KeptLeaves,
    Leaves,
    MemoryKey,
    alias_names,
    host_bytes,
    memory_key,
    memory_view,
    refuse_unknown,
)

#: Bytes of a component up to which its pieces are put together before they are hashed.
_JOINED = 1 << 15

#: Classes of which a glance tells whether they are plain memory.
_ORDINARY = (torch.Tensor, torch.nn.Parameter)


class Stream:
    """A component's stream of bytes, piece by piece.

    Args:
        leaves: The component.

    Attributes:
        names: Of the tensors that are read where they lie.
        forms: Of these.
        addresses: Where they lie.
        has_texts: Whether there are entries that are no tensors.
        n_bytes: The length of the stream; 0 where a tensor must be copied to be read.

    Raises:
        UncapturedState: A tensor that is not plain strided memory.
    """

    forms: Forms
    n_bytes: int

    def __init__(self, leaves: Leaves) -> None:
        self._n_leaves = len(leaves)
        self._pieces: list[bytes | memoryview] = []
        self._texts: list[tuple[int, str]] = []
        #: Of tensors that must be copied to be read: where the copy goes, if anywhere.
        self._copies: dict[str, tuple[type, MemoryKey, int | None]] = {}
        names, plain = sorted(leaves), _plain_tensors(leaves)
        aliases = _aliases(leaves, plain)
        self.names = [name for name in names if name in plain]
        self.addresses = [plain[name] for name in self.names]
        self._places: list[int] = []  # of their memory among the pieces, if none is an alias
        for name in names:
            leaf = leaves[name]
            if not isinstance(leaf, torch.Tensor):
                self._texts.append((len(self._pieces), name))
                self._pieces += (json_frame(name, len(leaf)), leaf)
            elif name in aliases:
                self._pieces.append(alias_frame(name, aliases[name]))
            elif name in plain:
                head = _tensor_frame(name, leaf.dtype, leaf.shape)
                self._pieces += (head, memory_view(plain[name], leaf.nbytes))
                self._places.append(len(self._pieces) - 1)
            else:
                self._pieces += (_tensor_frame(name, leaf.dtype, leaf.shape), b"")
            if isinstance(leaf, torch.Tensor) and name not in plain:
                place = None if name in aliases else len(self._pieces) - 1
                self._copies[name] = (type(leaf), memory_key(leaf), place)
        self.has_texts = bool(self._texts)
        self._is_small = self._fits()

    def tensors(self, leaves: Leaves) -> list[torch.Tensor]:
        """Those that are read where they lie."""
        return list(map(leaves.get, self.names))  # type: ignore[arg-type]

    def is_kept(self, leaves: Leaves) -> bool:
        """Whether it stands for these leaves, whatever their tensors hold, while they are there."""
        # What must be copied has to be looked at each time.
        return type(leaves) is KeptLeaves and not self._copies

    def take(self, leaves: Leaves) -> list[torch.Tensor] | None:
        """Take in the texts of another mapping of the same entries.

        Returns:
            The tensors that are read where they lie, which must be checked by the columns; None
            where the entries are others, or others of them must be copied.
        """
        if len(leaves) != self._n_leaves:
            return None
        for place, name in self._texts:
            text = leaves.get(name)
            if type(text) is not bytes:
                return None
            if text is not self._pieces[place + 1]:
                self._pieces[place : place + 2] = [json_frame(name, len(text)), text]
                self._is_small = self._fits()
        for name, (kind, key, _) in self._copies.items():
            leaf = leaves.get(name)
            if type(leaf) is not kind or memory_key(cast(torch.Tensor, leaf)) != key:
                return None
        return self.tensors(leaves)

    def move(self, addresses: list[int]) -> bool:
        """Read tensors of the same forms where they lie now; returns whether that will do."""
        before, pieces = self.addresses, self._pieces
        if addresses == before:
            return True
        are_apart = len({0, *addresses}) > len(addresses) == len(self._places)
        if not are_apart:
            return False
        self.addresses = addresses
        for place, address, other in zip(self._places, addresses, before, strict=True):
            if address != other:
                pieces[place] = memory_view(address, len(pieces[place]))
        return True

    def digest(self, recipe: str, leaves: Leaves) -> bytes:
        """The digest of the component that was taken in last."""
        if self._is_small and is_of_stream(recipe):
            return digest_bytes(recipe, b"".join(self._pieces))
        hash_ = hasher(recipe)
        update = hash_.update
        if not self._copies and not isinstance(hash_, WordMix):
            for piece in self._pieces:
                update(piece)
            return hash_.digest()
        content = tensor_update(hash_)
        copied = {place: name for name, (_, _, place) in self._copies.items()}
        for place, piece in enumerate(self._pieces):  # one copy at a time is in memory
            name = copied.get(place)
            if name is not None:
                content(host_bytes(cast(torch.Tensor, leaves[name])))
            else:
                (content if type(piece) is memoryview else update)(piece)
        return hash_.digest()

    def copy_to(self, memory: bytearray) -> None:
        """Copy the stream of the component that was taken in last, all of it read in place.

        Args:
            memory: As long as the stream.
        """
        done = 0
        for piece in self._pieces:
            memory[done : done + len(piece)] = piece
            done += len(piece)

    def digests(self, recipes: Sequence[str], leaves: Leaves) -> list[bytes]:
        """Digests by several recipes; what is small is put together once."""
        if not self._is_small or not all(map(is_of_stream, recipes)):
            return [self.digest(recipe, leaves) for recipe in recipes]
        whole = b"".join(self._pieces)
        return [digest_bytes(recipe, whole) for recipe in recipes]

    def _fits(self) -> bool:
        """Whether to put the pieces together costs less than to hash each by itself."""
        self.n_bytes = 0 if self._copies else sum(map(len, self._pieces))
        return not self._copies and self.n_bytes <= _JOINED


def addresses_of(tensors: Sequence[torch.Tensor]) -> list[int]:
    """Where tensors lie."""
    return list(map(torch.Tensor.data_ptr, tensors))


def _plain_tensors(leaves: Leaves) -> dict[str, int]:
    """Addresses of the tensors whose content is their own memory, in the host's.

    Such memory is viewed without a hold on it, to be read only while the tensor lies there: a view
    that holds it (by way of numpy) takes ten times as long to make, and keeps what the program has
    let go.
    """
    found = {}
    for name, leaf in leaves.items():
        if not isinstance(leaf, torch.Tensor):
            continue
        if type(leaf) not in _ORDINARY or not _has_known_form(leaf):
            refuse_unknown(leaf, name)
        is_plain = leaf.is_cpu and leaf.nbytes and leaf.is_contiguous()
        if is_plain and not (leaf.is_neg() or leaf.is_conj()):
            found[name] = leaf.data_ptr()
            if not found[name]:
                raise UncapturedState(
                    "a tensor whose memory was freed cannot be captured", where=name
                )
    return found


def _has_known_form(tensor: torch.Tensor) -> bool:
    is_strided = tensor.layout is torch.strided and not tensor.is_nested
    return is_strided and not tensor.is_meta and tensor.dtype in DTYPE_NAMES


def _aliases(leaves: Leaves, plain: Mapping[str, int]) -> Mapping[str, str]:
    """`alias_names`, which need not be asked where no two tensors begin at one address."""
    others = [
        leaf.data_ptr()
        for name, leaf in leaves.items()
        if name not in plain and isinstance(leaf, torch.Tensor) and leaf.numel()
    ]
    is_simple = len({*plain.values(), *others}) == len(plain) + len(others)
    return {} if is_simple else alias_names(leaves)


@functools.lru_cache(maxsize=4096)  # batches and gradients are other tensors at every step
def _tensor_frame(name: str, dtype: torch.dtype, shape: torch.Size) -> bytes:
    return frame(name, DTYPE_NAMES[dtype], shape, math.prod(shape) * dtype.itemsize)
