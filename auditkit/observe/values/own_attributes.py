"""What an object keeps, read as Python lays it out.

``getattr`` asks the object's class, whose ``__getattr__``, ``__getattribute__`` and properties may
do anything: answer for another object, count how often they are asked, or raise.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, MutableMapping
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final

_MEMBERS: Final = (GetSetDescriptorType, MemberDescriptorType)


@functools.lru_cache(maxsize=1024)  # a batch of objects asks of each
def slot_members(cls: type) -> tuple[tuple[str, MemberDescriptorType], ...]:
    """Slots of a class and its bases, by name."""
    return tuple(
        (name, member)
        for kind in cls.__mro__
        if "__slots__" in vars(kind)
        for name, member in list(vars(kind).items())
        if isinstance(member, MemberDescriptorType)
    )


def own_slots(value: object) -> Iterator[tuple[str, Any]]:
    """What lies in the slots of an object; those that are empty have nothing."""
    kind: type = type(value)
    for name, member in slot_members(kind):
        try:
            yield name, member.__get__(value)
        except AttributeError:
            continue


def own_dict(value: object) -> MutableMapping[str, Any]:
    """The ``__dict__`` of an object itself; empty where it has none."""
    kind: type = type(value)
    member = _dict_member(kind)
    return {} if member is None else member.__get__(value)


@functools.lru_cache(maxsize=1024)
def _dict_member(cls: type) -> GetSetDescriptorType | MemberDescriptorType | None:
    members = (vars(kind).get("__dict__") for kind in cls.__mro__)
    return next((m for m in members if isinstance(m, _MEMBERS)), None)
