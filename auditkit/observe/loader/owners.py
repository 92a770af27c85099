"""The objects below a loader whose attributes decide what it gives.

Data set, samplers and ``collate_fn``, the objects that these hold, the attributes of their classes,
and numbers in shared memory, by which a loop tells its workers the epoch. Left out are modules,
optimizers, generators and whatever has a ``state_dict``: each is somebody's business.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from auditkit.observe.rng.streams import is_generator

#: How far and how wide is looked.
_MAX_DEPTH, _MAX_OWNERS, _MAX_OBJECTS_IN = 4, 256, 64

SCALARS = (bool, int, float, complex, str, bytes, type(None))
CONTAINERS = (list, tuple, set, frozenset, deque, dict)
_NOT_OPENED = (nn.Module, Tensor, np.ndarray, torch.optim.Optimizer, type)
_FOREIGN = sys.stdlib_module_names | {"auditkit", "numpy", "builtins"}
_ROOTS = ("dataset", "batch_sampler", "sampler", "collate_fn")
#: What torch's own loader sets on itself, beside what its constructor was given.
_OF_TORCH = frozenset(vars(DataLoader(cast("Dataset[Any]", [0]))))

#: Path and attributes of an object.
Owner = tuple[str, MutableMapping[str, Any]]


class _Class(MutableMapping[str, Any]):
    """The attributes of a class, which all of its objects share."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def __getitem__(self, name: str) -> Any:
        return vars(self._kind)[name]

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self._kind, name, value)

    def __delitem__(self, name: str) -> None:
        delattr(self._kind, name)

    def __iter__(self) -> Iterator[str]:
        return (name for name in vars(self._kind) if not name.startswith("_"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Own(MutableMapping[str, Any]):
    """The attributes of a loader that are not those of torch's DataLoader."""

    def __init__(self, loader: object) -> None:
        self._attributes = vars(loader)

    def __getitem__(self, name: str) -> Any:
        return self._attributes[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._attributes[name] = value

    def __delitem__(self, name: str) -> None:
        del self._attributes[name]

    def __iter__(self) -> Iterator[str]:
        names = list(self._attributes)
        return (name for name in names if name not in _OF_TORCH and "auditkit" not in name)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Shared(MutableMapping[str, Any]):
    """A number in shared memory, ``multiprocessing.Value``, as its attribute ``value``."""

    def __init__(self, shared: Any) -> None:
        self._shared = shared

    def __getitem__(self, name: str) -> Any:
        return self._shared.value

    def __setitem__(self, name: str, value: Any) -> None:
        self._shared.value = value

    def __delitem__(self, name: str) -> None:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(("value",))

    def __len__(self) -> int:
        return 1


def owners_of(loader: DataLoader[Any]) -> Iterator[Owner]:
    """Objects that hold attributes, as mappings of these, by path, nearest first."""
    return ((path, attributes) for path, attributes, _ in _owners(loader))


def owners_of_libraries(loader: DataLoader[Any]) -> frozenset[str]:
    """The paths of those whose class is an installed library's, or is such a class."""
    return frozenset(path for path, _, kind in _owners(loader) if _is_installed(kind.__module__))


@functools.cache
def _is_installed(module: str) -> bool:
    parts = Path(getattr(sys.modules.get(module), "__file__", None) or "").parts
    return "site-packages" in parts or "dist-packages" in parts


def _owners(loader: DataLoader[Any]) -> Iterator[tuple[str, MutableMapping[str, Any], type]]:
    """Path, attributes and class."""
    if type(loader).__module__.partition(".")[0] != "torch":  # a class with counters of its own
        yield "self", _Own(loader), type(loader)
    queue = deque((name, getattr(loader, name), 0) for name in _ROOTS)
    seen: set[int] = set()
    while queue and len(seen) < _MAX_OWNERS:
        path, value, depth = queue.popleft()
        if id(value) in seen or (depth and not _is_opened(value)):
            continue
        seen.add(id(value))
        namespace = getattr(value, "__dict__", None)
        if not isinstance(namespace, dict) or isinstance(value, (*_NOT_OPENED, DataLoader)):
            namespace = {}
        stateful = path.endswith("sampler") and hasattr(type(value), "load_state_dict")
        if namespace and not stateful and not isinstance(value, types.FunctionType):
            yield path, namespace, type(value)
            if _has_own_class(value):
                yield f"{path}.__class__", _Class(type(value)), type(value)
        if _is_shared(value):
            yield path, _Shared(value), type(value)
        if depth < _MAX_DEPTH:
            held = _held(value, namespace)
            queue.extend((f"{path}{name}", item, depth + 1) for name, item in held)


def _is_opened(value: object) -> bool:
    kind = type(value)
    return (
        not isinstance(value, (*_NOT_OPENED, types.ModuleType))
        and not is_generator(value)
        and (
            isinstance(value, (types.MethodType, functools.partial))
            or _is_shared(value)
            or isinstance(value, DataLoader)
            or kind.__module__.partition(".")[0] not in _FOREIGN
        )
        and not hasattr(kind, "load_state_dict")
    )


def _held(value: Any, namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The objects that an object holds, by what follows its path."""
    if isinstance(value, DataLoader):  # which a pipeline of another library may hold
        yield from ((f".{name}", getattr(value, name)) for name in _ROOTS)
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, functools.partial):
        yield ".func", value.func
        parts: Any = [*value.args, *value.keywords.values()]
        yield from ((f".args[{n}]", part) for n, part in enumerate(parts))
    for name, item in list(namespace.items()):
        if type(item) in (list, tuple) and len(item) <= _MAX_OBJECTS_IN:
            yield from ((f".{name}[{n}]", part) for n, part in enumerate(item))
        elif type(item) is dict and len(item) <= _MAX_OBJECTS_IN:
            yield from ((f".{name}[{key!r}]", part) for key, part in item.items())
        elif type(item) not in (*SCALARS, *CONTAINERS):
            yield f".{name}", item


def _is_shared(value: object) -> bool:
    kind = type(value)
    return kind.__module__ == "multiprocessing.sharedctypes" and isinstance(
        getattr(kind, "value", None), property
    )


def _has_own_class(value: object) -> bool:
    return type(value).__module__.partition(".")[0] not in {*_FOREIGN, "torch", "torchvision"}
