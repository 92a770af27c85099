"""What an object holds by attributes and containers: the places where it may keep its state.

Looked into are objects of the user's and of installed packages, never modules of layers (which
have a component of their own), functions, or what belongs to Python or torch.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auditkit.observe.rng.streams import is_generator

_MAX_DEPTH = 5
_MAX_HOLDERS = 2000
_MAX_ITEMS = 200

_CONTAINERS = (list, tuple, dict, deque)
_CLOSED = (
    *(Tensor, nn.Module, np.ndarray, np.generic, type, types.ModuleType, types.FunctionType),
    *(types.MethodType, types.BuiltinFunctionType, str, bytes, int, float, complex),
)


@dataclass(frozen=True)
class Holder:
    """A place that holds an object with attributes.

    Attributes:
        path: Where it is, for people.
        get: Gives the object that is there now; None where there is none any more.
    """

    path: str
    get: Callable[[], Any]


def holders(
    path: str, root: Any, hidden: Collection[str], known: Collection[int]
) -> Iterator[Holder]:
    """The places below an object, nearest first; the object itself is not among them.

    Args:
        path: Of the object.
        root: The object.
        hidden: Attributes of it that are not followed.
        known: ``id`` of objects that are not looked into: they have a component of their own.
    """
    seen = {id(root), *known}
    queue: deque[tuple[str, Callable[[], Any], Any, int]] = deque()
    _push(queue, path, lambda: root, root, 0, hidden)
    n_found = 0
    while queue and n_found < _MAX_HOLDERS:
        place, get, value, depth = queue.popleft()
        if value is None or isinstance(value, _CLOSED) or id(value) in seen:
            continue
        seen.add(id(value))
        if not isinstance(value, _CONTAINERS):
            if not _may_be_opened(value):
                continue
            n_found += 1
            yield Holder(place, get)
        if depth < _MAX_DEPTH:
            _push(queue, place, get, value, depth + 1, ())


def nested_optimizers(
    optimizer: torch.optim.Optimizer, known: Collection[int]
) -> dict[str, torch.optim.Optimizer]:
    """Optimizers that an optimizer holds (the shape of SAM or Lookahead), by attribute path."""
    hidden = ("state", "param_groups", "defaults")
    found = {}
    for holder in holders("", optimizer, hidden, known):
        value = holder.get()
        if isinstance(value, torch.optim.Optimizer):
            found[holder.path.lstrip(".")] = value
    return found


def _push(
    queue: deque[tuple[str, Callable[[], Any], Any, int]],
    path: str,
    get: Callable[[], Any],
    value: Any,
    depth: int,
    hidden: Collection[str],
) -> None:
    is_container = isinstance(value, _CONTAINERS)
    if is_container:
        pairs = list(value.items() if isinstance(value, dict) else enumerate(value))[:_MAX_ITEMS]
    else:
        pairs = [pair for pair in vars(value).items() if pair[0] not in hidden]
    for key, item in pairs:
        if is_container:
            queue.append((f"{path}[{key!r}]", _item(get, key), item, depth))
        else:
            queue.append((f"{path}.{key}", _attribute(get, key), item, depth))


def _item(get: Callable[[], Any], key: Any) -> Callable[[], Any]:
    def item() -> Any:
        try:
            return get()[key]
        except (LookupError, TypeError):
            return None

    return item


def _attribute(get: Callable[[], Any], name: str) -> Callable[[], Any]:
    return lambda: getattr(get(), "__dict__", {}).get(name)


def _may_be_opened(value: Any) -> bool:
    if not hasattr(value, "__dict__") or is_generator(value):
        return False
    if isinstance(value, (torch.optim.Optimizer, types.SimpleNamespace, argparse.Namespace)):
        return True
    package = type(value).__module__.partition(".")[0]
    return package not in sys.stdlib_module_names and package not in ("torch", "auditkit")
