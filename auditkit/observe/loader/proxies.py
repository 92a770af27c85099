"""Swap the class of a live loader or iterator for a subclass of it, and back.

A single-inheritance subclass, since DataLoader derives from Generic and a mixin would change
the object's layout: identity, ``isinstance``, attributes, ``len`` and the user's samplers
stay. A copy or pickle of a swapped object is one of its own class.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader

_RECORDED = "_auditkit_recorded"
_PASSAGE = "_auditkit_passage"

#: The slot itself: a wrapper may define ``__class__`` as a property that lies.
_CLASS: Any = object.__dict__["__class__"]


def swap(holder: Any, recorded_class: type, recorded: Any) -> Callable[[], None]:
    """Swap the class of a loader in place; returns what undoes it."""
    original = type(holder)
    holder.__dict__[_RECORDED] = recorded
    _CLASS.__set__(holder, recorded_class)

    def undo() -> None:
        _CLASS.__set__(holder, original)
        holder.__dict__.pop(_RECORDED, None)

    return undo


def is_swapped(holder: Any) -> bool:
    """Whether a loader is being recorded."""
    return _RECORDED in getattr(holder, "__dict__", {})


def recorder_of(holder: Any) -> Any:
    """What records a swapped loader; None of any other."""
    return getattr(holder, "__dict__", {}).get(_RECORDED)


def loader_class(original: Any) -> Any:
    """Subclass of a loader's class that tells what it iterates."""

    def make_iterator(self: Any) -> Any:
        recorded = self.__dict__[_RECORDED]
        if recorded.loader is not self:  # the loader below one that fetches ahead
            return original.__iter__(self)
        return recorded.iterate(lambda: original.__iter__(self))

    members: dict[str, Any] = {"__iter__": make_iterator}
    if issubclass(original, DataLoader):

        def index_sampler(self: Any) -> Any:
            inner = original._index_sampler.__get__(self)
            return self.__dict__[_RECORDED].indices(inner)

        members["_index_sampler"] = property(index_sampler)
    return _subclass(original, members, _RECORDED)


def iterator_class(original: Any) -> Any:
    """Subclass of an iterator's class whose every batch passes a boundary."""

    def advance(self: Any) -> Any:
        passage = self.__dict__[_PASSAGE]
        return passage.next(lambda: original.__next__(self))

    return _subclass(original, {"__next__": advance}, _PASSAGE)


#: A class is made once: there is a new iterator in every epoch.
_MADE: dict[tuple[Any, str], Any] = {}


def _subclass(original: Any, members: dict[str, Any], attribute: str) -> Any:
    if (original, attribute) in _MADE:
        return _MADE[original, attribute]

    def reduce(self: Any, protocol: int) -> Any:
        maker, arguments, *rest = original.__reduce_ex__(self, protocol)
        arguments = tuple(original if part is type(self) else part for part in arguments)
        if rest and isinstance(rest[0], dict):
            rest[0] = {name: value for name, value in rest[0].items() if name != attribute}
        if maker is copyreg.__newobj__:  # type: ignore[attr-defined] # it insists on the class
            maker = original.__new__
        return maker, arguments, *rest

    made = _MADE[original, attribute] = type(
        original.__name__,
        (original,),
        {
            **members,
            "__reduce_ex__": reduce,
            "__module__": original.__module__,
            "__qualname__": original.__qualname__,
            "__doc__": original.__doc__,
        },
    )
    return made
