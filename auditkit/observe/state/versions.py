"""Whether dicts were written to, by the version that CPython keeps in each of them (PEP 509).

Every change of a dict gives it a version that no dict had before, so that equal versions are equal
contents. Python code is told of none of this: the version is read in the dict's own memory. Where
that lies, and that every way of writing shows there, is tried on dicts of our own first; where
anything is otherwise, and in versions of Python that keep none, nothing is known.
"""

from __future__ import annotations

import functools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from auditkit.observe.values.tensors import memory_view

#: An OrderedDict, or whatever else derives from dict, may be changed in ways of its own.
_CLASSES = (dict, defaultdict)

#: In CPython from the first to before the last of these.
_SINCE, _UNTIL = (3, 11), (3, 13)

#: Behind the head of every object and the number of entries.
_PLACE, _LENGTH = object.__basicsize__ + 8, 8

#: So often that a piece of code is made quick for the objects that it meets.
_OFTEN = 64


class Versions:
    """The versions of some dicts.

    Args:
        dicts: They are kept.
    """

    def __init__(self, dicts: Iterable[Mapping[Any, Any]]) -> None:
        self._dicts = list(dicts)
        self._memory = [memory_view(id(one) + _PLACE, _LENGTH) for one in self._dicts]
        self._seen = b"".join(self._memory)

    @classmethod
    def of(cls, dicts: Iterable[Mapping[Any, Any]]) -> Versions | None:
        """Those of dicts whose versions are known; None where one's are not."""
        found = list(dicts)
        if not all(type(one) in _CLASSES for one in found) or not are_kept():
            return None
        return cls(found)

    def hold(self) -> bool:
        """Whether none of them was changed since; True is certain, False may also be untrue."""
        return b"".join(self._memory) == self._seen

    def renew(self) -> None:
        """From now on, what is there now."""
        self._seen = b"".join(self._memory)


@functools.cache
def are_kept() -> bool:
    """Whether this Python keeps versions where they are looked for."""
    is_known = sys.implementation.name == "cpython" and _SINCE <= sys.version_info[:2] < _UNTIL
    if not is_known or dict.__basicsize__ < _PLACE + _LENGTH:
        return False
    on_dicts = all(_shows(make, way) for make in _DICTS for way in _WAYS)
    return on_dicts and all(_shows(_Owner, way, of=vars) for way in _WAYS_OF_OWNERS)


class _Owner:
    def __init__(self) -> None:
        self.name: object = None
        self.other: object = None


_DICTS: tuple[Callable[[], dict[Any, Any]], ...] = (
    lambda: {"name": 1, "other": 2},
    lambda: {"name": 1, 3: 4},
    lambda: defaultdict(object, {3: object(), "name": 2}),
)


def _shows(
    make: Callable[[], Any],
    write: Callable[[Any], object],
    of: Callable[[Any], dict[Any, Any]] = lambda owner: owner,
) -> bool:
    """Whether a way of writing shows, and gives a version that no dict had before."""
    known = set()
    for _ in range(_OFTEN):
        owner = make()
        version = Versions([of(owner)])  # from here on an object's attributes lie in a dict
        known.add(version._seen)
        write(owner)
        if version.hold():
            return False
        version.renew()
        if version._seen in known:
            return False
        known.add(version._seen)
    return True


def _set(one: dict[Any, Any]) -> None:
    one["name"] = object()


def _add(one: dict[Any, Any]) -> None:
    one[object()] = 1


def _delete(one: dict[Any, Any]) -> None:
    del one["name"]


def _unite(one: dict[Any, Any]) -> None:
    one |= {"name": object()}


_WAYS: tuple[Callable[[dict[Any, Any]], object], ...] = (
    _set,
    _add,
    lambda one: one.setdefault(object(), 1),
    lambda one: one.pop("name"),
    lambda one: one.popitem(),
    lambda one: one.clear(),
    lambda one: one.update(name=object()),
    _unite,
    _delete,
)


def _set_attribute(owner: _Owner) -> None:
    owner.name = object()


def _delete_attribute(owner: _Owner) -> None:
    del owner.other


_WAYS_OF_OWNERS: tuple[Callable[[_Owner], object], ...] = (
    _set_attribute,
    _delete_attribute,
    lambda owner: setattr(owner, "name", object()),
    lambda owner: object.__setattr__(owner, "other", object()),
    lambda owner: vars(owner).update(name=object()),
)
