"""Whether anybody wrote to some dicts, asked of all of them at once.

A dict to which nobody wrote holds the very same objects, under the same names, in the same order,
and none of them has to be looked at. torch tells a version of any dict, which is another one after
each write, for what it has compiled. Where that is not seen to be so, nothing is asked.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

_version: Any = getattr(
    getattr(getattr(torch._C, "_dynamo", None), "guards", None), "dict_version", None
)

#: Classes whose every write, the order's included, is one to the dict.
_KINDS = (dict, defaultdict)

#: Checks in a row that found a write that changed nothing, after which nothing is asked any more.
_PATIENCE = 3


class DictVersions:
    """The versions of some dicts.

    Args:
        dicts: The dicts; it is now that nothing was written to them.
    """

    def __init__(self, dicts: Iterable[Mapping[Any, Any]]) -> None:
        self._dicts = list(dicts)
        self._in_vain = 0
        self._is_asked = all(type(one) in _KINDS for one in self._dicts) and _is_known_good()
        self._seen = self._now()

    def hold(self) -> bool:
        """Whether nobody wrote to any; False may also be said where nobody has looked."""
        if not self._is_asked or self._now() != self._seen:
            return False
        self._in_vain = 0
        return True

    def renew(self, *, in_vain: bool = True) -> None:
        """It is from now on that nothing was written.

        Args:
            in_vain: Whether what was written changed nothing.
        """
        self._in_vain += in_vain
        self._is_asked = self._is_asked and self._in_vain < _PATIENCE
        self._seen = self._now()

    def _now(self) -> list[int]:
        return list(map(_version, self._dicts)) if self._is_asked else []


class _Owner:
    """An object whose attributes are written to."""

    value: object = None


def _set_attribute(owner: _Owner, value: object) -> None:
    owner.value = value


#: Kinds of writes; each changes what a dict with ``value`` and ``other`` holds, or its order.
_WRITES: tuple[Callable[[dict[str, object]], object], ...] = (
    lambda held: held.__setitem__("value", object()),
    lambda held: held.update(value=object()),
    lambda held: held.update({"more": object()}),
    lambda held: held.pop("more"),
    lambda held: held.setdefault("further", object()),
    lambda held: held.popitem(),
    lambda held: held.__ior__({"value": object()}),
    lambda held: held.__setitem__("value", held.pop("value")),
    lambda held: held.__delitem__("other"),
    lambda held: held.__init__(value=object()),  # type: ignore[misc]
    lambda held: held.clear(),
)


@functools.cache
def _is_known_good() -> bool:
    """Whether every kind of write gives a dict another version, and reading it the same."""
    try:
        owner = _Owner()
        some: tuple[dict[str, Any], ...] = ({}, defaultdict(list), vars(owner))
        for held in some:
            _fill(held)
            is_seen = [_is_another(held, functools.partial(write, held)) for write in _WRITES]
            if not all(is_seen) or not _is_another(held, functools.partial(_fill, held)):
                return False
        # The interpreter writes attributes in ways of its own once it has done so often.
        written = [
            _is_another(vars(owner), functools.partial(_set_attribute, owner, object()))
            for _ in range(100)
        ]
        by_name = _is_another(vars(owner), functools.partial(setattr, owner, "value", object()))
        return (
            all(written) and by_name and _is_another(vars(owner), lambda: delattr(owner, "value"))
        )
    except Exception:  # of a torch that tells it otherwise, or nothing
        return False


def _fill(held: dict[str, object]) -> None:
    held["value"] = held["other"] = object()


def _is_another(held: dict[str, Any], write: Callable[[], object]) -> bool:
    before = _version(held)
    list(held.items())
    is_kept = _version(held) == before
    write()
    return bool(is_kept and _version(held) != before)
