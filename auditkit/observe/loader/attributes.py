"""Plain attributes of what a loader draws from, and which of them changed since it was taken over.

A sampler's weights, a batch sampler's size, a data set's list of labelled samples, the size of a
crop: whatever a loop sets while it trains decides what comes next, and is in no ``state_dict``.
They are compared with what they were, by content; what changed is kept with the data position
and put back with it. What did not change takes no room there.

What is too large to be kept has its changes noticed, by address, version and samples of its
content. Which objects are looked at is said in :mod:`auditkit.observe.loader.owners`.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from auditkit.errors import AuditError, RestoreMismatch, UnsupportedLoader
from auditkit.observe.loader.owners import CONTAINERS, SCALARS, owners_of, owners_of_libraries
from auditkit.observe.values.codec import flatten, unflatten
from auditkit.observe.values.digests import digest_leaves
from auditkit.records.digest import EVIDENCE_RECIPE

#: Items and bytes of an attribute that is kept.
_MAX_ITEMS, _MAX_BYTES = 20_000, 2**20
#: Of a sampler, whose attributes are what it is for.
_MAX_SAMPLER = 2**22, 2**26

_SAMPLERS = ("sampler", "batch_sampler")
#: A value of an attribute by its path, and whether the object is still the one that it was.
Changes = dict[str, tuple[bool, Any]]


class _TooLargeError(Exception):
    """More than is kept."""


@dataclass(frozen=True)
class _Known:
    """An attribute as it was.

    Attributes:
        object: The very object.
        fingerprint: Of its content.
        copy: Its content; None where it is too large.
    """

    object: Any
    fingerprint: object
    copy: tuple[Any] | None


class WatchedAttributes:
    """What a loader draws from, as it was when this was made.

    Args:
        loader: The loader.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        self._known = {
            path: _Known(value, _fingerprint(path, value), _copy(path, value))
            for path, value in _attributes(loader).items()
        }
        self._at_end: dict[str, object] | None = None
        self._settled: list[Any] = []
        self._too_large: str | None = None

    def begin(self) -> dict[str, object]:
        """An iteration begins; fingerprints by path."""
        found = self.fingerprints()
        if self._at_end is not None:  # in between nothing was loaded: the loop did it
            for path, value in self._at_end.items():
                if path in found and found[path] != value and self._copy_of(path) is None:
                    self._too_large = path
        self._at_end = None
        return found

    def end(self) -> None:
        """An iteration has ended."""
        self._at_end = {
            path: _fingerprint(path, value)
            for path, value in _attributes(self._loader).items()
            if type(value) not in (dict, set)  # large ones are caches
            and (path not in self._known or self._known[path].copy is None)
        }

    def settle(self) -> None:
        """A batch was loaded: what the samplers hold now is their own doing."""
        self._settled = self._sampler_values()

    def moved(self) -> Changes:
        """What the loop has set on the samplers since; a microsecond where it is nothing."""
        before, values = self._settled, self._sampler_values()
        if len(values) == len(before) and all(map(operator.is_, values, before)):
            return {}
        found: Changes = {}
        if len(values) == len(before):
            for path, old, new in zip(self._sampler_paths(), before, values, strict=True):
                if old is not new and (copy := _copy(path, new)) is not None:
                    found[path] = (False, copy[0])
        return found

    def _sampler_values(self) -> list[Any]:
        """In the order of :meth:`_sampler_paths`; written out, since every step asks twice."""
        loader = self._loader
        return [
            *getattr(loader.sampler, "__dict__", _NOTHING).values(),
            *getattr(loader.batch_sampler, "__dict__", _NOTHING).values(),
        ]

    def _sampler_paths(self) -> list[str]:
        return [
            f"{name}.{attribute}"
            for name in _SAMPLERS
            for attribute in getattr(getattr(self._loader, name), "__dict__", {})
        ]

    def fingerprints(self) -> dict[str, object]:
        """What tells content from other content, by path."""
        return {path: _fingerprint(path, value) for path, value in self._values().items()}

    def _values(self) -> dict[str, Any]:
        """Attributes now, without those that a library's objects got only while iterated.

        Caches, clocks, names: the library makes them again when it is iterated again.
        """
        found = _attributes(self._loader)
        new = [path for path in found if path not in self._known]
        theirs = owners_of_libraries(self._loader) if new else frozenset()
        for path in new:
            if path.rpartition(".")[0] in theirs:
                del found[path]
        return found

    def changes(self, but: Mapping[str, Any], now: Mapping[str, object] | None = None) -> Changes:
        """What is not as it was at first.

        Args:
            but: Paths that are kept elsewhere.
            now: :meth:`fingerprints` of this moment, where they are known.
        """
        before = {path: known.fingerprint for path, known in self._known.items()}
        return self.changes_since({**before, **dict.fromkeys(but, _ANY)}, now)

    def changes_since(
        self, before: Mapping[str, object], now: Mapping[str, object] | None = None
    ) -> Changes:
        """What differs from these fingerprints and can be kept."""
        found: Changes = {}
        for path, value in self._values().items():
            earlier = before.get(path, _ABSENT)
            if earlier is _ANY or earlier == ((now and now.get(path)) or _fingerprint(path, value)):
                continue
            copy = _copy(path, value)
            if copy is not None:
                known = self._known.get(path)
                found[path] = (known is not None and known.object is value, copy[0])
        return found

    def changed_names(self) -> list[str]:
        """Attributes that are not what they were at first, for people."""
        now = self.fingerprints()
        known = self._known
        return [
            f"loader.{path}"
            for path in now
            if path in known and known[path].fingerprint != now[path]
        ]

    def reset(self, changes: Changes, but: Mapping[str, Any]) -> None:
        """Bring everything to what it was at first, but for these changes.

        Args:
            changes: From :meth:`changes`.
            but: Paths that are kept elsewhere.

        Raises:
            RestoreMismatch: When there is no object to put an attribute on.
        """
        now = _attributes(self._loader)
        undone: Changes = {}
        for path, known in self._known.items():
            if path in changes or path in but or path not in now or known.copy is None:
                continue
            if _fingerprint(path, now[path]) != known.fingerprint:
                undone[path] = (now[path] is known.object, known.copy[0])
                if not undone[path][0] and _fingerprint(path, known.object) == known.fingerprint:
                    undone[path] = (False, known.object)
        self.put({**undone, **changes})

    def put(self, changes: Changes) -> None:
        """Put attributes to these values.

        An object that was made only while the loader was iterated, as a library's cache or
        shuffler is, is made again by iterating; until then there is nothing to put its on.

        Raises:
            RestoreMismatch: When there is no object to put one on that was there at first.
        """
        if not changes:
            return
        owners = dict(owners_of(self._loader))
        for path, (in_place, value) in changes.items():
            owner, _, name = path.rpartition(".")
            known = self._known.get(path)
            refilled = in_place and known is not None and _refill(known.object, value)
            if owner in owners:
                owners[owner][name] = known.object if refilled and known else value
            elif known is not None and not refilled:
                raise RestoreMismatch(f"the loader has no {path!r}", component="loader")

    def _copy_of(self, path: str) -> tuple[Any] | None:
        return _copy(path, _attributes(self._loader)[path])

    def refuse_too_large(self) -> None:
        """Refuse a position that does not hold all that the loop has changed.

        Raises:
            UnsupportedLoader: When something that it changed is too large to be kept.
        """
        if self._too_large is not None:
            raise UnsupportedLoader(
                f"loader.{self._too_large} was changed between two epochs, and is too large to be "
                "kept with every position",
                hint="let the data set or sampler derive it from the epoch in set_epoch(epoch), or "
                "hold the order in a list of indices of at most 1 MB",
            )


_ABSENT, _ANY = object(), object()
_NOTHING: Mapping[str, Any] = {}


def _attributes(loader: DataLoader[Any]) -> dict[str, Any]:
    """Values that are, or may be, plain, by path."""
    found = {
        f"{path}.{name}": value
        for path, namespace in owners_of(loader)
        for name, value in list(namespace.items())
        if isinstance(name, str) and (type(value) in (*SCALARS, *CONTAINERS) or _is_data(value))
    }
    dataset: Any = loader.dataset
    if type(dataset) in CONTAINERS or _is_data(dataset):
        found["dataset"] = dataset
    return found


def _is_data(value: object) -> bool:
    return type(value) in (Tensor, np.ndarray) or isinstance(value, np.generic)


def _fingerprint(path: str, value: Any) -> object:
    """What tells this content from other content; of what is large, nearly always."""
    if type(value) in SCALARS:
        return (type(value), repr(value) if type(value) in (float, complex) else value)
    try:
        _measure(value, [_MAX_ITEMS, _MAX_BYTES])
        return digest_leaves(EVIDENCE_RECIPE, flatten(value, where=path))
    except (_TooLargeError, AuditError):
        return _rough_fingerprint(value)


def _rough_fingerprint(value: Any) -> object:
    if isinstance(value, (Tensor, np.ndarray)):
        return (*_address(value), str(value.dtype), tuple(value.shape), _sampled(value))
    if isinstance(value, (list, tuple, deque)):
        picked = [value[n] for n in range(0, len(value), len(value) // 256 + 1)]
        plain = tuple(item if type(item) in SCALARS else id(item) for item in picked)
        return (type(value), id(value), len(value), plain)
    return (type(value), id(value), len(value))


def _address(value: Tensor | np.ndarray[Any, Any]) -> tuple[int, int]:
    if isinstance(value, np.ndarray):
        return value.ctypes.data, 0
    if value.layout is not torch.strided or value.is_meta or value.is_inference():
        return id(value), 0
    return value.data_ptr(), value._version


def _sampled(value: Any) -> object:
    """A few thousand elements, which an in-place shuffle would hardly leave where they are."""
    if isinstance(value, Tensor) and (not value.is_cpu or value.layout is not torch.strided):
        return None
    flat = value.reshape(-1)
    if isinstance(flat, Tensor):
        picked = flat[:: flat.numel() // 4096 + 1].detach().contiguous()
        return picked.view(torch.uint8).numpy().tobytes()
    return flat[:: flat.size // 4096 + 1].tobytes() if not flat.dtype.hasobject else None


def _copy(path: str, value: Any) -> tuple[Any] | None:
    """A copy in a tuple; None of what is not plain or too large."""
    sampler = path.startswith(_SAMPLERS)
    try:
        _measure(value, list(_MAX_SAMPLER if sampler else (_MAX_ITEMS, _MAX_BYTES)))
        return (unflatten(flatten(value, where=path), where=path),)
    except (_TooLargeError, AuditError):
        return None


def _measure(value: Any, left: list[int]) -> None:
    """Raise where there are more items or bytes than are left."""
    if isinstance(value, (Tensor, np.ndarray)):
        left[1] -= value.nbytes
    elif type(value) in (str, bytes):
        left[1] -= len(value)
    elif type(value) in CONTAINERS:
        left[0] -= len(value)
        if left[0] >= 0:
            for item in [*value, *value.values()] if type(value) is dict else value:
                if type(item) not in (int, float, bool):
                    _measure(item, left)
    if min(left) < 0:
        raise _TooLargeError


def _refill(target: Any, value: Any) -> bool:
    """Give an object that others may hold, too, other content; False where it cannot be done."""
    if type(target) is not type(value):
        return False
    if isinstance(target, Tensor):
        if target.shape != value.shape or target.dtype != value.dtype or target.requires_grad:
            return False
        target.copy_(value)
    elif isinstance(target, np.ndarray):
        if target.shape != value.shape or target.dtype != value.dtype:
            return False
        target[...] = value
    elif isinstance(target, tuple):  # its items are the very ones that it was made of
        return len(target) == len(value) and all(
            _refill(item, new) or _fingerprint("", item) == _fingerprint("", new)
            for item, new in zip(target, value, strict=True)
        )
    elif isinstance(target, (list, deque)):
        target.clear()
        target.extend(value)
    elif isinstance(target, (dict, set)):
        target.clear()
        target.update(value)
    else:
        return False
    return True
