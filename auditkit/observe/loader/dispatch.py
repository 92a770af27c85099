"""What a recorded loader takes for its sampler, and for its sampler's iterator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Indices:
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
        passage = self._recorded.passage() if self._recorded.open else None
        inner: Iterator[Any] = iter(self._inner)
        if passage is None:
            return inner
        if has_state_dict(inner):
            return StatefulIndexIterator(passage, inner)
        return IndexIterator(passage, inner)


class StatefulIndices(Indices):
    """The same of a sampler with a state; protocols look for methods on the class."""

    def state_dict(self) -> Any:
        """The sampler's own."""
        return self._inner.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        """The sampler's own."""
        self._inner.load_state_dict(state_dict)


class IndexIterator:
    """Notes what a sampler yields."""

    def __init__(self, passage: Any, inner: Iterator[Any]) -> None:
        self._passage = passage
        self._inner = inner

    def __iter__(self) -> IndexIterator:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __next__(self) -> Any:
        return self._passage.issue(next(self._inner))


class StatefulIndexIterator(IndexIterator):
    """The same of an iterator with a state."""

    def state_dict(self) -> Any:
        """The iterator's own."""
        return self._inner.state_dict()  # type: ignore[attr-defined]

    def load_state_dict(self, state_dict: Any) -> None:
        """The iterator's own."""
        self._inner.load_state_dict(state_dict)  # type: ignore[attr-defined]


def has_state_dict(holder: object) -> bool:
    """Whether it has a state that can be read and written."""
    return hasattr(holder, "state_dict") and hasattr(holder, "load_state_dict")
