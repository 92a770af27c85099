"""Stand-ins for a live loader, its sampler and its iterators, which tell what passes through.

The class of a loader, or of its iterator, is swapped for a subclass of it, and back: a
single-inheritance subclass, since DataLoader derives from Generic and a mixin would change
the object's layout. Identity, ``isinstance``, attributes, ``len`` and the user's samplers
stay. A copy or pickle of a swapped object is one of its own class. What has no class to swap (a
generator) or is only drawn from (a sampler) is wrapped.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

_RECORDED = "_auditkit_recorded"
_ITERATION = "_auditkit_iteration"

#: The slot itself: a wrapper may define ``__class__`` as a property that lies.
_CLASS: Any = object.__dict__["__class__"]


def swap(target: Any, recorded_class: type, recorded: Any) -> Callable[[], None]:
    """Swap the class of a loader in place; returns what undoes it."""
    original = type(target)
    target.__dict__[_RECORDED] = recorded
    _CLASS.__set__(target, recorded_class)

    def undo() -> None:
        _CLASS.__set__(target, original)
        target.__dict__.pop(_RECORDED, None)

    return undo


def is_swapped(target: Any) -> bool:
    """Whether a loader is being recorded."""
    return _RECORDED in getattr(target, "__dict__", {})


def recorded_loader_of(target: Any) -> Any:
    """What records a swapped loader; None of any other."""
    return getattr(target, "__dict__", {}).get(_RECORDED)


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
            return self.__dict__[_RECORDED].wrap_sampler(inner)

        members["_index_sampler"] = property(index_sampler)
    return _subclass(original, members, _RECORDED)


def iterator_class(original: Any) -> Any:
    """Subclass of an iterator's class whose every batch passes a boundary."""

    def advance(self: Any) -> Any:
        iteration = self.__dict__[_ITERATION]
        return iteration.next(lambda: original.__next__(self))

    return _subclass(original, {"__next__": advance}, _ITERATION)


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


class IteratorProxy:
    """Stands before an iterator whose class cannot be swapped, a generator."""

    def __init__(self, iterator: Iterator[Any], iteration: Any) -> None:
        self._iterator = iterator
        self._iteration = iteration

    def __iter__(self) -> IteratorProxy:
        return self

    def __next__(self) -> Any:
        return self._iteration.next(lambda: next(self._iterator))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)


class SamplerProxy:
    """What the loader takes for its sampler."""

    def __init__(self, recorded: Any, inner: Any) -> None:
        self._recorded = recorded
        self._inner = inner

    def __len__(self) -> int:
        return len(self._inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __iter__(self) -> Iterator[Any]:
        # Before the sampler draws; and eagerly: a generator here would change how often an
        # eager sampler draws.
        iteration = self._recorded.iteration_for_sampler() if self._recorded.open else None
        inner: Iterator[Any] = iter(self._inner)
        if iteration is None:
            return inner
        if has_state_dict(inner):
            return StatefulSamplerIteratorProxy(iteration, inner)
        return SamplerIteratorProxy(iteration, inner)


class StatefulSamplerProxy(SamplerProxy):
    """The same of a sampler with a state; protocols look for methods on the class."""

    def state_dict(self) -> Any:
        """The sampler's own."""
        return self._inner.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        """The sampler's own."""
        self._inner.load_state_dict(state_dict)


class SamplerIteratorProxy:
    """Notes what a sampler yields."""

    def __init__(self, iteration: Any, inner: Iterator[Any]) -> None:
        self._iteration = iteration
        self._inner = inner

    def __iter__(self) -> SamplerIteratorProxy:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __next__(self) -> Any:
        return self._iteration.dispatch(next(self._inner))


class StatefulSamplerIteratorProxy(SamplerIteratorProxy):
    """The same of an iterator with a state."""

    def state_dict(self) -> Any:
        """The iterator's own."""
        return self._inner.state_dict()  # type: ignore[attr-defined]

    def load_state_dict(self, state_dict: Any) -> None:
        """The iterator's own."""
        self._inner.load_state_dict(state_dict)  # type: ignore[attr-defined]


def has_state_dict(target: object) -> bool:
    """Whether it has a state that can be read and written."""
    return hasattr(target, "state_dict") and hasattr(target, "load_state_dict")
