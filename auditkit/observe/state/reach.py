"""What a program's objects reach: attributes, containers, closures, and the globals they name.

The search is bounded in depth, in objects and in items of a container. It looks into the
user's own code only: what is installed or belongs to Python is not opened.
"""

from __future__ import annotations

import argparse
import functools
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from auditkit.observe.values.own_attributes import own_dict, own_slots

#: How far a search follows attributes, containers and closures, and how many objects it sees.
_MAX_DEPTH = 8
_MAX_OBJECTS = 50_000
_MAX_CONTAINER = 200

#: Asked by type before ``isinstance`` is: most values are one of these.
_PLAIN_TYPES = frozenset((str, bytes, int, float, complex, bool, type(None), type))
_LEAVES = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, Tensor)
_PLAIN_KEYS = (str, bytes, int, float, complex, bool, type(None))
_CONTAINERS = (list, tuple, set, frozenset, deque, dict)
_NAMESPACES = (types.SimpleNamespace, argparse.Namespace)

#: Loggers, threads, locks and paths lead everywhere and hold nothing of the program's.
_NOT_OPENED = sys.stdlib_module_names

Found = tuple[str, Any]


def reachable(
    roots: Mapping[str, Any],
    known: Iterable[object],
    *,
    is_closed: Callable[[object], bool] = lambda _: False,
    limit: int = _MAX_OBJECTS,
) -> Iterator[Found]:
    """Every object that the roots reach, nearest first, with the path to it.

    Args:
        roots: Where to start, by path.
        known: Objects that are neither given nor looked into.
        is_closed: Of which objects to see nothing but themselves.
        limit: How many objects to look at.
    """
    seen = {id(value) for value in known}
    queue: deque[tuple[str, Any, int]] = deque((path, root, 0) for path, root in roots.items())
    n_seen = 0
    while queue and n_seen < limit:
        path, value, depth = queue.popleft()
        if id(value) in seen or _is_leaf(value):
            continue
        seen.add(id(value))
        n_seen += 1
        yield path, value
        if depth < _MAX_DEPTH and not is_closed(value):
            queue.extend((name, child, depth + 1) for name, child in _children(path, value, seen))


def _is_leaf(value: object) -> bool:
    return type(value) in _PLAIN_TYPES or issubclass(type(value), _LEAVES)


@functools.cache
def is_library_class(kind: type) -> bool:
    """Whether a class is installed or Python's own, and not the user's."""
    return is_library_module(sys.modules.get(kind.__module__))


def _children(path: str, value: Any, seen: set[int]) -> Iterator[Found]:
    kind = type(value)  # a proxy calls itself what it stands for, which may be gone
    if issubclass(kind, np.ndarray):
        return
    if issubclass(kind, _CONTAINERS):
        yield from _items(path, value)
    elif issubclass(kind, functools.partial):
        yield f"{path}.func", value.func
        yield from ((f"{path}.args[{i}]", item) for i, item in enumerate(value.args))
        yield from ((f"{path}.{key}", item) for key, item in value.keywords.items())
    elif issubclass(kind, types.MethodType):
        yield f"{path}.__self__", value.__self__
        yield f"{path}.__func__", value.__func__
    elif issubclass(kind, types.BuiltinMethodType):
        yield f"{path}.__self__", value.__self__
    elif issubclass(kind, types.FunctionType):
        yield from _function(path, value, seen)
    elif issubclass(kind, functools._lru_cache_wrapper):
        yield path, value.__wrapped__
    elif kind.__module__.partition(".")[0] not in _NOT_OPENED or issubclass(kind, _NAMESPACES):
        yield from ((f"{path}.{name}", item) for name, item in _attributes(value).items())
        yield from _class(path, kind)


def _items(path: str, value: Any) -> Iterator[Found]:
    # What is there, and not what a class of the user's own makes of it when it is asked.
    kind: Any = next(one for one in _CONTAINERS if isinstance(value, one))
    pairs = dict.items(value) if kind is dict else enumerate(kind.__iter__(value))
    for n, (key, item) in enumerate(pairs):
        if n >= _MAX_CONTAINER:
            return
        if not _is_leaf(item):
            yield f"{path}[{_key_name(key, n)}]", item


def _key_name(key: object, place: int) -> str:
    """A key for a path: itself where it is plain.

    Another's own text may take long, as a tensor's does, and change with what it holds.
    """
    is_plain = isinstance(key, _PLAIN_KEYS) or (
        isinstance(key, tuple) and all(isinstance(item, _PLAIN_KEYS) for item in key)
    )
    return repr(key) if is_plain else f"<{type(key).__name__} {place}>"


def _attributes(value: Any) -> dict[str, Any]:
    found = {**dict(own_slots(value)), **own_dict(value)}
    return {name: item for name, item in found.items() if not _is_leaf(item)}


def _class(path: str, kind: type) -> Iterator[Found]:
    """Class attributes and the globals that methods name, of the user's own classes."""
    for base in kind.__mro__:
        if is_library_class(base):
            continue
        for name, member in vars(base).items():
            if isinstance(member, (staticmethod, classmethod)):
                yield f"{path}.{name}", member.__func__
            elif isinstance(member, property):
                yield f"{path}.{name}", member.fget
            elif not name.startswith("__") or isinstance(member, types.FunctionType):
                yield f"{path}.{name}", member


def _function(path: str, function: types.FunctionType, seen: set[int]) -> Iterator[Found]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{path}'s {name}", cell.cell_contents
        except ValueError:  # a cell that was never filled
            continue
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield f"{path}'s default", default
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield path, wrapped
    if not is_library_module(sys.modules.get(function.__module__ or "")):
        yield from _globals(path, function, seen)


def _globals(path: str, function: types.FunctionType, seen: set[int]) -> Iterator[Found]:
    names, there = _names(function.__code__), function.__globals__
    for name in names:
        value = there.get(name)
        if value is None or id(value) in seen:
            continue  # an attribute's name, mostly, or what a function before this one names
        if issubclass(type(value), types.ModuleType) and not is_library_module(value):
            for inner in names:
                item = vars(value).get(inner)
                if _worth_following(item):
                    yield f"{path}'s global {name}.{inner}", item
        elif _worth_following(value):
            yield f"{path}'s global {name}", value


def _worth_following(value: object) -> bool:
    if type(value) is types.FunctionType:
        return not is_library_module(sys.modules.get(value.__module__ or ""))
    # Instances of installed classes too, but only to be seen: a global generator is one.
    return not _is_leaf(value) and not issubclass(type(value), np.ndarray)


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[str, ...]:
    nested = (const for const in code.co_consts if isinstance(const, types.CodeType))
    names = (*code.co_names, *(name for inner in nested for name in _names(inner)))
    return tuple(dict.fromkeys(names))


def is_library_module(module: types.ModuleType | None) -> bool:
    """Whether a module is installed or Python's own, and not the user's."""
    if module is None:
        return False  # a program that was taken out of sys.modules, or made in memory
    file = vars(module).get("__file__")
    if not isinstance(file, str):
        return module.__name__ != "__main__"
    return _is_library_file(file)


@functools.lru_cache(maxsize=4096)
def _is_library_file(file: str) -> bool:
    return "site-packages" in file or "dist-packages" in file or file.startswith(_OWN_LIBRARY)


_OWN_LIBRARY = tuple(
    f"{folder}/"
    for folder in (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["platstdlib"])
)
