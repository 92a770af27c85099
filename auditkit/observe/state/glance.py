"""Whether some dicts hold the very same objects, asked of all of them at once.

What training state consists of is asked for at every step and nearly never changes. Each condition
here is one loop inside the interpreter over everything that is held.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

_values: Any = operator.methodcaller("values")


class Glance:
    """What some dicts hold, by name and identity.

    Args:
        held: The dicts; they are looked at as they are now.
        lists: Lists that hold something, too.
    """

    def __init__(
        self, held: Iterable[Mapping[Any, Any]], lists: Iterable[Collection[object]] = ()
    ) -> None:
        self._held, self._lists = list(held), list(lists)
        self._lengths = list(map(len, self._lists))
        self._items = [*chain.from_iterable(self._lists)]
        self._sizes = list(map(len, self._held))
        self._filled = [one for one in self._held if one]
        self._names = [*chain.from_iterable(self._filled)]
        self._objects = [*chain.from_iterable(map(_values, self._filled))]

    def holds(self) -> bool:
        """Whether the dicts hold the very same objects, under the same names, in the same order."""
        return (
            list(map(len, self._held)) == self._sizes
            and list(map(len, self._lists)) == self._lengths
            and are_same(chain.from_iterable(self._lists), self._items)
            and are_same(chain.from_iterable(self._filled), self._names)
            and are_same(chain.from_iterable(map(_values, self._filled)), self._objects)
        )


class Fields:
    """Some entries of some dicts, by identity, and how many entries each dict has.

    Args:
        held: The dicts, as they are now.
        names: Of the entries, of each dict.
    """

    def __init__(self, held: Iterable[Mapping[str, Any]], names: Iterable[Sequence[str]]) -> None:
        self._held = list(held)
        self._sizes = list(map(len, self._held))
        # Twice the last one: a single name would be given by itself, and not in a tuple.
        pairs = [(one, (*own, own[-1])) for one, own in zip(self._held, names, strict=True) if own]
        self._named = [one for one, _ in pairs]
        self._getters = [operator.itemgetter(*own) for _, own in pairs]
        self._objects = self._read()

    def hold(self) -> bool:
        """Whether they are the very same objects, and nothing was added or removed."""
        try:
            return list(map(len, self._held)) == self._sizes and are_same(
                self._read(), self._objects
            )
        except KeyError:
            return False

    def _read(self) -> list[object]:
        return [*chain.from_iterable(map(operator.call, self._getters, self._named))]


def are_same(objects: Iterable[object], others: Iterable[object]) -> bool:
    """Whether as many objects are the very same ones, one by one."""
    return all(map(operator.is_, objects, others))
