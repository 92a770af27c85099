"""Digests of components that live in torch.

`digest_leaves` is the recipe (:mod:`auditkit.formats.recipes`) word for word. `ComponentDigester`
gives the same digests where one is due at every step: what does not depend on the tensors'
contents, the frames and the views of their memory, is made once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from auditkit.formats.recipes import alias_frame, frame, hasher, json_frame
from auditkit.observe.values.tensors import (
    DTYPE_NAMES,
    Leaves,
    MemoryKey,
    alias_names,
    host_bytes,
    memory_key,
    refuse_unknown,
)
from auditkit.records.digest import COMMITMENT_RECIPE, EVIDENCE_RECIPE


def digest_leaves(recipe: str, leaves: Leaves) -> bytes:
    """Digest of a component.

    Args:
        recipe: ``xxh3-128/tensor-v1`` or ``sha256/tensor-v1``.
        leaves: The component.

    Returns:
        16 or 32 bytes: those of `auditkit.formats.recipes.digest_raw` for the same content.

    Raises:
        UncapturedState: A tensor that is not plain strided memory; ``where`` names it.
        FormatError: Unknown recipe, or a name that is no Unicode text.
    """
    return _digest_slots(recipe, _slots(leaves))


def digest_and_commitment(leaves: Leaves) -> tuple[bytes, bytes]:
    """Both digests of a component that is looked at once: 16 bytes xxh3-128, 32 bytes SHA-256.

    Raises:
        UncapturedState: As :func:`digest_leaves`.
    """
    slots = _slots(leaves)
    return _digest_slots(EVIDENCE_RECIPE, slots), _digest_slots(COMMITMENT_RECIPE, slots)


def commitments(state: Mapping[str, Leaves]) -> dict[str, str]:
    """``sha256/tensor-v1`` of every component of a training state, in hexadecimal."""
    return {name: digest_leaves(COMMITMENT_RECIPE, leaves).hex() for name, leaves in state.items()}


class ComponentDigester:
    """Digests one component again and again; there is one for each component.

    A cached view is used only while its entry has the address, dtype, shape and contiguity that
    it was made for, and a view owns the memory that it views, so that nothing else can come to
    lie there. ``p.data = other``, ``load_state_dict(assign=True)`` or a tensor in the place of
    a freed one therefore cannot give a stale digest. The price: memory that left the component
    lives on until the next digest, or until `forget`.

    Args:
        recipe: ``xxh3-128/tensor-v1`` or ``sha256/tensor-v1``.

    Raises:
        FormatError: Unknown recipe.
    """

    def __init__(self, recipe: str) -> None:
        hasher(recipe)  # refuses an unknown recipe here and not in the middle of a run
        self._recipe = recipe
        self._cache: _Cache | None = None

    def digest(self, leaves: Leaves) -> bytes:
        """Digest of the component as it is now.

        Args:
            leaves: The component. The mapping may be another object at every call.

        Returns:
            The bytes of `digest_leaves`.

        Raises:
            UncapturedState: A tensor that is not plain strided memory; ``where`` names it.
            FormatError: A name that is no Unicode text.
        """
        cache = self._cache
        if cache is not None and len(cache.slots) == len(leaves):
            value = _digest_if_valid(self._recipe, cache, leaves)
            if value is not None:
                return value
        self._cache = None  # frees the memory of the old views before the new ones are made
        slots = _slots(leaves)
        value = _digest_slots(self._recipe, slots)
        self._cache = _make_cache(slots, leaves)
        return value

    def forget(self) -> None:
        """Let go of the memory that the cache keeps alive."""
        self._cache = None


@dataclass(slots=True)
class _Slot:
    """One entry of a component.

    Attributes:
        name: Name of the entry.
        kind: Class of the tensor, or bytes.
        head: Its frame; of an alias, the whole record.
        content: What follows the frame; empty for an alias.
        nbytes: Length of the content.
        is_view: Whether the content is a tensor's own memory, so that it stays right as long as
            the tensor lies there; also of an alias of such a tensor.
        is_alias: Whether the entry is an alias.
        key: Memory of a tensor whose content must be copied each time, else None.
    """

    name: str
    kind: type
    head: bytes
    content: bytes | memoryview
    nbytes: int
    is_view: bool = False
    is_alias: bool = False
    key: MemoryKey | None = None


class _Views:
    """The conditions under which the slots that are views may be used, column by column.

    Each condition is one loop inside the interpreter over all tensors, which takes half as long
    as all conditions tensor by tensor.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        found = list(tensors.values())
        self._names = list(tensors)
        self._kinds = list(map(type, found))
        self._addresses = list(map(torch.Tensor.data_ptr, found))
        self._sizes = list(map(torch.Tensor.size, found))
        self._dtypes = [tensor.dtype for tensor in found]
        self._complex = [name for name, tensor in tensors.items() if tensor.is_complex()]

    def are_valid(self, leaves: Leaves) -> bool:
        """Whether every tensor lies where it lay, in the same form."""
        found: list[Any] = list(map(leaves.get, self._names))
        return (
            list(map(type, found)) == self._kinds
            and list(map(torch.Tensor.data_ptr, found)) == self._addresses
            and list(map(torch.Tensor.size, found)) == self._sizes
            and [tensor.dtype for tensor in found] == self._dtypes
            and all(map(torch.Tensor.is_contiguous, found))
            and not any(map(torch.Tensor.is_neg, found))
            and not any(torch.is_conj(cast(torch.Tensor, leaves[name])) for name in self._complex)
        )


@dataclass(frozen=True, slots=True)
class _Cache:
    slots: list[_Slot]
    views: _Views


def _make_cache(slots: list[_Slot], leaves: Leaves) -> _Cache:
    for slot in slots:
        if not slot.is_view:
            slot.content = b""  # a copy, or JSON: not used again
    views = {slot.name: leaves[slot.name] for slot in slots if slot.is_view}
    return _Cache(slots, _Views(cast(dict[str, torch.Tensor], views)))


def _slots(leaves: Leaves) -> list[_Slot]:
    for name, leaf in leaves.items():
        if isinstance(leaf, torch.Tensor):
            refuse_unknown(leaf, name)
    aliases = alias_names(leaves)
    slots = []
    for name in sorted(leaves):
        leaf = leaves[name]
        if isinstance(leaf, torch.Tensor):
            slots.append(_tensor_slot(name, leaf, aliases.get(name)))
        else:
            slots.append(_Slot(name, bytes, json_frame(name, len(leaf)), leaf, len(leaf)))
    return slots


def _tensor_slot(name: str, tensor: torch.Tensor, other: str | None) -> _Slot:
    nbytes = tensor.numel() * tensor.itemsize
    pending = tensor.is_conj() or tensor.is_neg()
    is_view = nbytes > 0 and tensor.is_cpu and tensor.is_contiguous() and not pending
    key = None if is_view else memory_key(tensor)
    if other is not None:
        head = alias_frame(name, other)
        return _Slot(name, type(tensor), head, b"", nbytes, is_view, True, key)
    head = frame(name, DTYPE_NAMES[tensor.dtype], tensor.shape, nbytes)
    return _Slot(name, type(tensor), head, host_bytes(tensor), nbytes, is_view, False, key)


def _digest_slots(recipe: str, slots: list[_Slot]) -> bytes:
    stream = hasher(recipe)
    for slot in slots:
        stream.update(slot.head)
        stream.update(slot.content)
    return stream.digest()


def _digest_if_valid(recipe: str, cache: _Cache, leaves: Leaves) -> bytes | None:
    """The digest, or None where an entry is not the one that its slot was made for."""
    stream = hasher(recipe)
    update = stream.update  # looked up once: the loop takes a fraction of a microsecond an entry
    try:
        if not cache.views.are_valid(leaves):
            return None
        for slot in cache.slots:
            if slot.is_view:
                update(slot.head)
                update(slot.content)
                continue
            leaf = leaves.get(slot.name)
            if isinstance(leaf, torch.Tensor):
                if memory_key(leaf) != slot.key or type(leaf) is not slot.kind:
                    return None
                update(slot.head)
                update(b"" if slot.is_alias else host_bytes(leaf))
            elif leaf is None or slot.key is not None:
                return None
            else:
                update(slot.head if len(leaf) == slot.nbytes else json_frame(slot.name, len(leaf)))
                update(leaf)
    except RuntimeError:  # a tensor without memory has no address
        return None
    return stream.digest()
