"""Attributes that are one object, into which nothing is written unless all of them become it.

Two attributes that a constructor set to the same tensor or list may have parted since: writing one
in place would write the other, and a default that a container keeps.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from auditkit.observe.state.plain_values import write
from auditkit.observe.values.codec import flatten
from auditkit.observe.values.digests import digest_leaves
from auditkit.records.digest import EVIDENCE_RECIPE

#: Containers in containers, and items of each, that are looked into.
_DEPTH, _N_ITEMS = 3, 1000

#: Kinds whose iteration is Python's own and runs nobody's code.
_OPENED = (list, tuple, dict, deque, OrderedDict, defaultdict)

_CHANGEABLE = (Tensor, list, dict, set, deque)

#: Attributes of an object, a name in them, and what becomes of it.
Change = tuple[dict[str, Any], str, Any]

_Place = tuple[int, str]
_Holders = dict[int, list[_Place | None]]


def write_all(owners: Iterable[object], changes: Sequence[Change]) -> None:
    """Set attributes, each in its place unless what does not become the same would change with it.

    Args:
        owners: Every object whose attributes are looked at.
        changes: What is to be set.
    """
    apart = _parted(owners, changes) if changes else frozenset()
    for owner, name, value in changes:
        if id(owner.get(name)) in apart:
            owner[name] = value
        else:
            write(owner, name, value)


def _parted(owners: Iterable[object], changes: Sequence[Change]) -> frozenset[int]:
    """``id`` of what several hold and of which not all become the same."""
    holders: _Holders = {}
    for attributes in {id(one): getattr(one, "__dict__", {}) for one in owners}.values():
        for name, value in attributes.items():
            _visit(value, (id(attributes), name), holders, _DEPTH)
    written = {(id(owner), name): value for owner, name, value in changes}
    return frozenset(
        key
        for key, places in holders.items()
        if len(places) > 1 and not _become_one(places, written)
    )


def _visit(value: Any, place: _Place | None, holders: _Holders, depth: int) -> None:
    if isinstance(value, _CHANGEABLE):
        holders.setdefault(id(value), []).append(place)
    if depth and type(value) in _OPENED:
        items = value.values() if isinstance(value, dict) else value
        for item in itertools.islice(items, _N_ITEMS):
            _visit(item, None, holders, depth - 1)


def _become_one(places: Sequence[_Place | None], written: Mapping[_Place, Any]) -> bool:
    found = [written[place] for place in places if place is not None and place in written]
    digests = {digest_leaves(EVIDENCE_RECIPE, flatten(one, where="attribute")) for one in found}
    return len(found) == len(places) and len(digests) == 1
