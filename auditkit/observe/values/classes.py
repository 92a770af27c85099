"""Objects of classes that somebody else wrote, as data.

Collators and data sets yield them: a tokenizer's ``BatchEncoding``, a ``UserDict``, a
``ModelOutput``, a named tuple, a graph's ``Data``, a detector's ``NestedTensor``, a
``tv_tensors.BoundingBoxes`` and its format. They are taken apart into their items, and their class
is kept by name. What a mapping, named tuple or dataclass holds beside its items, a
``BatchEncoding`` for example the alignment of its text, is no part of the data; of a plain object
the attributes are its items, and of a tensor they are beside its elements.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import struct
import sys
import types
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final, Generic, Literal, Protocol
from weakref import WeakKeyDictionary

import torch

from auditkit.observe.values.own_attributes import own_dict, own_slots, slot_members
from auditkit.observe.values.tensors import Leaves, class_name

Kind = Literal["mapping", "named tuple", "dataclass", "enum", "tensor", "object"]

_KINDS: WeakKeyDictionary[type, Kind | None] = WeakKeyDictionary()
_POINTER: Final = struct.calcsize("P")
#: Paths, threads, symbolic numbers and the like are no data; the bases keep nothing but attributes.
_NO_DATA: Final = sys.stdlib_module_names | {"torch"}
_BASES: Final = frozenset((object, types.SimpleNamespace, Generic, Protocol, abc.ABC))
#: Of a class that is made while Python runs, as every class of Python code is.
_HEAP_TYPE: Final = 1 << 9


def kind_of(cls: type[Any]) -> Kind | None:
    """Which of these a class is; None for any other, whose objects may hold what nobody sees."""
    if cls not in _KINDS:  # a batch of objects asks of each
        _KINDS[cls] = _kind(cls)
    return _KINDS[cls]


def _kind(cls: type[Any]) -> Kind | None:
    if issubclass(cls, Mapping):  # before dataclass: a ModelOutput is both
        return "mapping"
    if issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make"):
        return "named tuple"
    if dataclasses.is_dataclass(cls):
        return "dataclass"
    if issubclass(cls, enum.Enum):
        return "enum"
    if issubclass(cls, torch.Tensor):
        return "tensor" if _is_plain_memory(cls) else None
    return "object" if _is_of_attributes(cls) else None


def _is_plain_memory(cls: type[Any]) -> bool:
    """Whether a tensor of a subclass is elements, and attributes beside them."""
    is_own = cls.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    is_told = hasattr(cls, "__tensor_flatten__") or cls in (torch.Tensor, torch.nn.Parameter)
    return not (is_own or is_told)


def _is_of_attributes(cls: type) -> bool:
    """Whether an object of it is its attributes and nothing that compiled code keeps in it."""
    slots = slot_members(cls)
    room = object.__basicsize__ + (len(slots) + 2) * _POINTER  # with __dict__ and __weakref__
    has_room_for_more = bool(cls.__itemsize__) or cls.__basicsize__ > room
    is_seen = bool(slots) or bool(cls.__dictoffset__)
    is_users = all(one in _BASES or _is_users(one) for one in cls.__mro__)
    return is_seen and is_users and not has_room_for_more and not issubclass(cls, torch.nn.Module)


def _is_users(cls: type) -> bool:
    package = cls.__module__.partition(".")[0]
    return bool(cls.__flags__ & _HEAP_TYPE) and package not in _NO_DATA


def items_of(value: Any) -> list[tuple[Any, Any]]:
    """Keys, or names of fields, with what lies under them, of an object of such a class.

    Raises:
        TypeError: When a mapping has another number of keys than its length says: it may go on for
            ever; when an object has two attributes of one name.
    """
    kind = kind_of(type(value))
    if kind == "mapping":
        keys = list(islice(value, len(value) + 1))
        if len(keys) != len(value):
            raise TypeError("a mapping has another number of keys than its length says")
        return [(key, value[key]) for key in keys]
    if kind == "named tuple":
        return list(zip(value._fields, value, strict=True))
    if kind == "enum":
        return [("value", value.value)]
    if kind == "tensor":
        return [("", value.as_subclass(torch.Tensor)), *_attributes(value)]
    if kind == "object":
        return _attributes(value)
    return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]


def of_items(cls: type[Any], keys: Sequence[Any], values: Sequence[Any]) -> Any:
    """An object of such a class with these items.

    Raises:
        TypeError: When it is no such class; whatever the class raises over them.
    """
    kind = kind_of(cls)
    if kind == "mapping":
        return cls(dict(zip(keys, values, strict=True)))
    if kind == "named tuple":
        return cls._make(values)
    if kind == "dataclass":
        return cls(**dict(zip(keys, values, strict=True)))
    if kind == "enum":
        return cls(*values)
    if kind == "tensor":
        made, keys, values = values[0].as_subclass(cls), keys[1:], values[1:]
    elif kind == "object":
        is_namespace = issubclass(cls, types.SimpleNamespace)
        made = (types.SimpleNamespace if is_namespace else object).__new__(cls)
    else:
        raise TypeError(f"{class_name(cls)} is no class of data")
    made_kind: type = cls
    slots, attributes = dict(slot_members(made_kind)), own_dict(made)
    for name, value in zip(keys, values, strict=True):
        if name in slots:
            slots[name].__set__(made, value)
        else:  # by no property of that name, nor what the class does when it is set
            attributes[name] = value
    return made


def _attributes(value: Any) -> list[tuple[Any, Any]]:
    found = [*own_slots(value), *own_dict(value).items()]
    if len({name for name, _ in found}) < len(found):
        raise TypeError("an object has two attributes of one name, in slots of two classes")
    return found


def loaded_class(name: str) -> type | None:
    """Such a class by ``module.name``, where its module is loaded; nothing is imported for it."""
    parts = name.split(".")
    for n_parts in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:n_parts]))
        for part in parts[n_parts:]:
            found = getattr(found, part, None)
        if isinstance(found, type) and class_name(found) == name and kind_of(found):
            return found
    return None


def holds_objects(leaves: Leaves) -> bool:
    """Whether a tree that was encoded as data holds an object of such a class."""
    text = leaves[""]
    return isinstance(text, bytes) and b'"$":"object"' in text  # no text of a tree has that
