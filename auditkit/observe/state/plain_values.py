"""Plain values of attributes: kept, compared, and written back."""

from __future__ import annotations

import enum
import operator
import types
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from auditkit.errors import UncapturedState
from auditkit.observe.values.codec import Leaves, flatten, pack, unflatten, unpack
from auditkit.observe.values.digests import digest_leaves
from auditkit.observe.values.tensors import memory_offset
from auditkit.records.digest import EVIDENCE_RECIPE

SCALARS = frozenset({bool, int, float, complex, str, bytes, type(None)})
_CONTAINERS = (list, tuple, dict, set, frozenset, deque, np.ndarray, np.generic, Tensor)
#: What is no state, wherever it came from.
CODE = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType)
#: Stands for an attribute that is not there.
MISSING: Final = object()


@dataclass
class KeptValue:
    """A value as it was when the program was built.

    Attributes:
        value: The object that was there.
        leaves: A copy of a container as entries; None of a number or text, or of what is not
            plain.
        plain: Whether it can be captured.
        items: The items of a list, tuple or dict of nothing but numbers and text.
    """

    value: Any
    leaves: Leaves | None = None
    plain: bool = True
    items: list[Any] | None = None
    digest: bytes = field(init=False, default=b"")

    def __post_init__(self) -> None:
        if self.leaves is not None:
            self.digest = digest_leaves(EVIDENCE_RECIPE, self.leaves)

    def copy(self) -> Any:
        """The value, in memory of its own."""
        return self.value if self.leaves is None else unflatten(self.leaves, where="attribute")


def is_plain(aliases: frozenset[int], value: Any) -> bool:
    """Whether a value can be captured.

    Args:
        aliases: Addresses of tensors that have a component.
        value: It.
    """
    return type(value) in SCALARS or _captured(value, aliases) is not None


def kept_value(aliases: frozenset[int], value: Any) -> KeptValue:
    """A value to compare with, in memory of its own."""
    if type(value) in SCALARS:
        return KeptValue(value)
    leaves = _captured(value, aliases)
    if leaves is None:
        return KeptValue(value, plain=False)
    if any(isinstance(leaf, Tensor) for leaf in leaves.values()):
        leaves = unpack(*pack({"attribute": leaves}))["attribute"]
    return KeptValue(value, leaves, items=_scalar_items(value))


def is_immutable(kept: KeptValue) -> bool:
    """Whether the same object always has the same value: a number, text, or a tuple of these."""
    return type(kept.value) in SCALARS or (type(kept.value) is tuple and kept.items is not None)


def is_constant(value: Any) -> bool:
    """The same of a value that was not kept; code is none that could change."""
    kind = type(value)
    if kind is tuple:
        return _scalar_items(value) is not None
    return kind in SCALARS or isinstance(value, CODE)


def changed(aliases: frozenset[int], before: KeptValue, value: Any) -> bool:
    """Whether a value is another now; what became code is none.

    Args:
        aliases: Addresses of tensors that have a component.
        before: The value as it was.
        value: The value now, or :data:`MISSING`.
    """
    if type(before.value) in SCALARS:
        return not (same_scalar(before.value, value) or isinstance(value, CODE))
    return _differs(aliases, before, value)


def _differs(aliases: frozenset[int], before: KeptValue, value: Any) -> bool:
    if before.value is value and before.items is not None:
        items = _scalar_items(value)
        same_length = items is not None and len(items) == len(before.items)
        if same_length and all(map(operator.is_, items or (), before.items)):
            return False
    if value is MISSING or type(value) in SCALARS:
        return True
    if isinstance(value, CODE):
        return False
    now = _captured(value, aliases)
    if not before.plain:
        # What is inside objects is looked at by itself; another one in their place is not.
        return now is not None or (isinstance(value, enum.Enum) and value is not before.value)
    return now is None or digest_leaves(EVIDENCE_RECIPE, now) != before.digest


def _captured(value: Any, aliases: frozenset[int]) -> Leaves | None:
    """A container as entries; None of what is not plain, or has a component."""
    if not isinstance(value, _CONTAINERS):
        return None
    try:
        leaves = flatten(value, where="attribute")
        tensors = [leaf for leaf in leaves.values() if isinstance(leaf, Tensor)]
        is_alias = any(
            isinstance(tensor, nn.Parameter) or (tensor.numel() and tensor.data_ptr() in aliases)
            for tensor in tensors
        )
    except UncapturedState:  # it holds objects, or results that still have a graph
        return None
    return None if is_alias else leaves


def _scalar_items(value: Any) -> list[Any] | None:
    if type(value) in (list, tuple, deque):
        items = list(value)
    elif type(value) is dict:
        items = [part for pair in value.items() for part in pair]
    else:
        return None
    return items if all(type(item) in SCALARS for item in items) else None


def same_scalar(before: Any, now: Any) -> bool:
    """Whether a number or text is the same, to its type and bits."""
    if now is before:
        return True
    if type(before) is not type(now):
        return False
    if isinstance(before, (float, complex)):
        return flatten(before, where="") == flatten(now, where="")
    return bool(before == now)


def device_of(value: Any) -> str | None:
    """The device of a value's tensors; None where all are on the host."""
    if type(value) in SCALARS:
        return None
    leaves = flatten(value, where="attribute").values()
    found = {str(leaf.device) for leaf in leaves if isinstance(leaf, Tensor) and not leaf.is_cpu}
    return min(found, default=None)


def move(value: Any, device: str) -> Any:
    """A value with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) in (list, tuple):
        return type(value)(move(item, device) for item in value)
    if isinstance(value, dict):
        return {key: move(item, device) for key, item in value.items()}
    return value


def write(owner: dict[str, Any], name: str, value: Any) -> None:
    """Set an attribute; a container that is there already stays the same object."""
    live: Any = owner.get(name)
    if type(live) is type(value) and isinstance(live, (list, dict, set, deque)):
        live.clear()
        (live.update if isinstance(live, (dict, set)) else live.extend)(value)
    elif isinstance(live, Tensor) and isinstance(value, Tensor) and _same_form(live, value):
        with torch.no_grad():
            live.copy_(value)
    else:
        owner[name] = value


def _same_form(live: Tensor, value: Tensor) -> bool:
    same = (live.shape, live.dtype, live.stride()) == (value.shape, value.dtype, value.stride())
    is_placed = memory_offset(value) in (0, memory_offset(live))
    return same and is_placed and live.requires_grad == value.requires_grad
