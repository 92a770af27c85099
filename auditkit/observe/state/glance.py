"""Whether some dicts hold the very same objects, asked of all of them at once.

What training state consists of is asked for at every step and nearly never changes. Each condition
here is one loop inside the interpreter over everything that is held.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

_values: Any = operator.methodcaller("values")


class Glance:
    """What some dicts hold, by name and identity.

    Args:
        held: The dicts; they are looked at as they are now.

    Attributes:
        sized: The dicts.
        sizes: How much is in each.
    """

    def __init__(self, held: Iterable[Mapping[Any, Any]]) -> None:
        self.sized = list(held)
        self._filled = [one for one in self.sized if one]
        self.sizes = list(map(len, self.sized))
        self._objects = [*self.objects()]

    def objects(self) -> Iterator[object]:
        """What is held now, names included, where there is as much in each as there was."""
        return chain(
            chain.from_iterable(self._filled),
            chain.from_iterable(map(_values, self._filled)),
        )

    def holds(self) -> bool:
        """Whether the dicts hold the very same objects, under the same names, in the same order."""
        return list(map(len, self.sized)) == self.sizes and are_same(self.objects(), self._objects)


class Fields:
    """Some entries of some dicts, by identity.

    Args:
        held: The dicts, as they are now.
        names: Of the entries, of each dict.
    """

    def __init__(self, held: Iterable[Mapping[str, Any]], names: Iterable[Sequence[str]]) -> None:
        # Twice the last one: a single name would be given by itself, and not in a tuple.
        pairs = [(one, (*own, own[-1])) for one, own in zip(held, names, strict=True) if own]
        self._named = [one for one, _ in pairs]
        self._getters = [operator.itemgetter(*own) for _, own in pairs]

    def objects(self) -> Iterator[object]:
        """The entries as they are now; on its way KeyError where there is one no more."""
        return chain.from_iterable(map(operator.call, self._getters, self._named))


def are_same(objects: Iterable[object], others: Iterable[object]) -> bool:
    """Whether as many objects are the very same ones, one by one."""
    return all(map(operator.is_, objects, others))
