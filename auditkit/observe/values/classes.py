"""Mappings, named tuples and dataclasses of classes that somebody else wrote.

Collators and data sets yield them: a tokenizer's ``BatchEncoding``, a ``UserDict``, a
``ModelOutput``, a named tuple. They are taken apart into their items, and their class is kept by
name. What such an object holds beside its items, a ``BatchEncoding`` for example the alignment of
its text, is no part of the data.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Literal

from auditkit.observe.values.tensors import Leaves, class_name

Kind = Literal["mapping", "named tuple", "dataclass"]


def kind_of(cls: type[Any]) -> Kind | None:
    """Which of the three a class is; None for any other."""
    if issubclass(cls, Mapping):  # before dataclass: a ModelOutput is both
        return "mapping"
    if issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make"):
        return "named tuple"
    return "dataclass" if dataclasses.is_dataclass(cls) else None


def items_of(value: Any) -> list[tuple[Any, Any]]:
    """Keys, or names of fields, with what lies under them, of an object of such a class.

    Raises:
        TypeError: When a mapping has another number of keys than its length says: it may go on for
            ever.
    """
    kind = kind_of(type(value))
    if kind == "mapping":
        keys = list(islice(value, len(value) + 1))
        if len(keys) != len(value):
            raise TypeError("a mapping has another number of keys than its length says")
        return [(key, value[key]) for key in keys]
    if kind == "named tuple":
        return list(zip(value._fields, value, strict=True))
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
    raise TypeError(f"{class_name(cls)} is no mapping, named tuple or dataclass")


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
