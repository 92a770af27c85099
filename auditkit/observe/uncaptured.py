"""Find state that no snapshot would hold, and name it, instead of leaving a silent gap.

Two searches, each over what the program's objects reach: random generators that nobody
registered (at the start), and plain python attributes that changed between the start and the
fork (a queue's pointer kept as an ``int`` on a module is in no ``state_dict``).
"""

from __future__ import annotations

import functools
import random
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from auditkit.errors import UncapturedState
from auditkit.observe.rng import is_generator
from auditkit.observe.samplers import sampler_generators
from auditkit.observe.state import TrainingObjects

#: How far a search follows attributes, containers and closures, and how many objects it sees.
_MAX_DEPTH = 6
_MAX_OBJECTS = 20_000
_MAX_CONTAINER = 200

_LEAVES = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, Tensor)


def refuse_unregistered_generators(
    objects: TrainingObjects, loader: DataLoader[Any], functions: Mapping[str, Any]
) -> None:
    """Refuse generators that the program holds and that no component records.

    Args:
        objects: The training objects; their extras are the registered ones.
        loader: The loader; generators of its samplers are kept with the data position.
        functions: The program's callables by name (loss, step ...), whose closures are searched.

    Raises:
        UncapturedState: Naming the first one found and how to register it.
    """
    known = {id(extra) for extra in objects.extras.values()}
    known |= {id(generator) for generator in sampler_generators(loader).values()}
    roots: dict[str, Any] = {
        "model": objects.model,
        "loader.dataset": loader.dataset,
        "loader.collate_fn": loader.collate_fn,
        **functions,
    }
    for path, generator in _walk(roots):
        if id(generator) in known or _is_global(generator):
            continue
        raise UncapturedState(
            f"{path} is a {type(generator).__module__}.{type(generator).__qualname__} "
            "whose state no snapshot would hold",
            component="rng",
            hint=_advice(path, loader),
        )


def plain_attributes(objects: TrainingObjects) -> dict[str, object]:
    """Numbers, strings and flags kept as plain attributes, which no ``state_dict`` holds.

    Args:
        objects: The training objects; the model's modules, the averages and the optimizer are
            looked at.

    Returns:
        Values by path. Compare a later call with :func:`refuse_changed_attributes`.
    """
    found: dict[str, object] = {}
    roots = {"model": objects.model, **{f"averaged[{k!r}]": v for k, v in objects.averaged.items()}}
    for root, module in roots.items():
        for name, layer in module.named_modules():
            path = f"{root}.{name}" if name else root
            if type(layer).get_extra_state is nn.Module.get_extra_state:
                found.update(_plain(path, vars(layer), hidden={"training"}))
    found.update(_plain("optimizer", vars(objects.optimizer), hidden=set()))
    return found


def refuse_changed_attributes(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Refuse a program whose plain attributes changed while it trained.

    Raises:
        UncapturedState: Naming the first attribute that changed.
    """
    for path in sorted(set(before) | set(after)):
        old, new = before.get(path), after.get(path)
        if type(old) is type(new) and (old == new or old != old):
            continue
        raise UncapturedState(
            f"{path} changed from {old!r} to {new!r} during training and is in no state_dict",
            component="modules",
            hint="make it a buffer, return it from get_extra_state/set_extra_state, or keep it "
            "in an extra",
        )


def _plain(path: str, attributes: Mapping[str, object], hidden: set[str]) -> dict[str, object]:
    return {
        f"{path}.{name}": value
        for name, value in attributes.items()
        # Underscored names are torch's own bookkeeping (hooks, step counts of the profiler).
        if isinstance(value, (bool, int, float, str))
        and name not in hidden
        and not name.startswith("_")
    }


def _walk(roots: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    queue: list[tuple[str, Any, int]] = [(path, root, 0) for path, root in roots.items()]
    while queue and len(seen) < _MAX_OBJECTS:
        path, value, depth = queue.pop(0)
        if id(value) in seen or isinstance(value, _LEAVES):
            continue
        seen.add(id(value))
        if is_generator(value):
            yield path, value
        elif depth < _MAX_DEPTH:
            queue.extend((name, child, depth + 1) for name, child in _children(path, value))


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, np.ndarray):
        return
    if isinstance(value, (list, tuple)):
        yield from ((f"{path}[{i}]", item) for i, item in enumerate(value[:_MAX_CONTAINER]))
    elif isinstance(value, dict):
        items = list(value.items())[:_MAX_CONTAINER]
        yield from ((f"{path}[{key!r}]", item) for key, item in items)
    elif isinstance(value, functools.partial):
        yield f"{path}.func", value.func
        yield from ((f"{path}.args[{i}]", item) for i, item in enumerate(value.args))
        yield from ((f"{path}.{key}", item) for key, item in value.keywords.items())
    elif isinstance(value, types.MethodType):
        yield f"{path}.__self__", value.__self__
    elif isinstance(value, types.FunctionType):
        yield from _closure(path, value)
    else:
        yield from ((f"{path}.{name}", item) for name, item in _attributes(value).items())


def _closure(path: str, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{path}'s {name}", cell.cell_contents
        except ValueError:  # a cell that was never filled
            continue
    for name in function.__code__.co_names:
        # Of the globals only generators themselves: following them would search the world.
        if is_generator(function.__globals__.get(name)):
            yield f"{path}'s global {name}", function.__globals__[name]


def _attributes(value: Any) -> dict[str, Any]:
    attributes = getattr(value, "__dict__", None)
    return dict(attributes) if isinstance(attributes, dict) else {}


def _is_global(generator: object) -> bool:
    # The instances behind torch's, numpy's and random's module-level functions, which
    # capture_streams records.
    known = (torch.default_generator, np.random.random.__self__, random.random.__self__)
    return any(generator is one for one in known)


def _advice(path: str, loader: DataLoader[Any]) -> str:
    if path.startswith("loader.") and loader.num_workers:
        return (
            "worker processes draw from copies that cannot be read; draw from random, "
            "numpy.random or torch, which are seeded for every sample"
        )
    return f"register it: extras={{{path.rpartition('.')[2]!r}: <that generator>}}"
