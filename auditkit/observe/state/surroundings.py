"""What a script holds around its loop: state that changes there and that nobody registered.

A checkpoint holds what was registered. A generator from which the loop itself draws, a scheduler,
a scaler or an averaged model that was forgotten is in none, and no search through the registered
objects leads to it; the frames that iterate the loader do. They are looked at as they stand at
a batch boundary: the names of their functions and modules, and what these reach. A thing is
named only if it changed from one look to a later one: what was used before training, or is never
used, is of no account.
"""

from __future__ import annotations

import random
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from auditkit.formats.quote import public_class_of
from auditkit.observe.loader.samplers import sampler_generators
from auditkit.observe.rng.streams import (
    generator_leaves,
    is_generator,
    is_global_generator,
)
from auditkit.observe.state.components import TrainingObjects
from auditkit.observe.state.frames import (
    OWN_PACKAGE,
    frames_of_loop,
    is_library_frame,
    local_names,
    package_of_frame,
)
from auditkit.observe.state.kept_averages import KeptAverages
from auditkit.observe.state.reach import is_library_class, is_library_module, reachable
from auditkit.observe.values.digests import digest_leaves
from auditkit.records.digest import EVIDENCE_RECIPE

#: How many objects a look sees: the nearest ones.
_MAX_OBJECTS = 5_000

#: How many parameters of a module are compared.
_N_COMPARED = 8

_SCALARS = (bool, int, float, complex, str, type(None))

#: Keyword of ``wrap`` that registers each kind.
_KEYWORDS = {
    "scheduler": "scheduler={1}",
    "scaler": "scaler={1}",
    "averaged": "averaged={{{0!r}: {1}}}",
}


@dataclass(frozen=True)
class Candidate:
    """Something that holds state and is not registered.

    Attributes:
        path: How the script gets at it.
        kind: ``generator``, ``scheduler``, ``scaler``, ``averaged``, or ``tensors`` of an average
            that is no module.
        held: It, or a weak reference to it where it may be large.
        mark: What its state is compared by.
    """

    path: str
    kind: str
    held: Any
    mark: object

    @property
    def is_own(self) -> bool:
        """Whether every change is one of state that is its own."""
        return self.kind != "averaged" or isinstance(self.current(), AveragedModel)

    def current(self) -> Any:
        """The object; None where it is gone."""
        return self.held() if isinstance(self.held, weakref.ref) else self.held

    def has_moved(self) -> bool:
        """Whether it has another state than when it was found."""
        value = self.current()
        return value is not None and _mark(value) != self.mark

    def describe(self, call: str = "wrap") -> str:
        """What it is and how to register it.

        Args:
            call: What takes it: a callback takes what its framework does not hold.
        """
        kind, name = self.kind, self.path.rpartition(" ")[2].rpartition(".")[2]
        if kind == "tensors":
            given = f"extras={{{name.partition('[')[0]!r}: <that object>}}"
            return (
                f"{self.path}, a {type(self.held).__name__} of tensors, is an average of the model "
                "that changes during training, and no checkpoint holds it; keep it in an object "
                "with state_dict and load_state_dict, or in a torch.optim.swa_utils.AveragedModel, "
                f"and register that: {call}(..., {given})"
            )
        keyword = _KEYWORDS.get(kind) if call == "wrap" or kind == "averaged" else None
        given = (keyword or "extras={{{0!r}: {1}}}").format(name, _tail(self.path))
        return (
            f"{self.path} ({public_class_of(self.current())}) changes during training, and no "
            f"checkpoint holds it; register it: {call}(..., {given})"
        )


class Surroundings:
    """Looks around a loop again and again.

    Args:
        objects: What is registered.
        loaders: The loaders that are.
    """

    def __init__(self, objects: TrainingObjects, loaders: Iterable[Any]) -> None:
        self._objects, self._loaders = objects, [*loaders]
        self._found: dict[int, Candidate] = {}
        self._moves: dict[int, list[int]] = {}
        self._averages = KeptAverages(objects.model)

    @property
    def is_waiting(self) -> bool:
        """Whether it wants to look again at the next step."""
        return self._averages.is_waiting

    def look(self, step: int) -> tuple[Candidate, ...]:
        """What has changed since an earlier look; finds what is new.

        Args:
            step: Number of the step that comes next.
        """
        moved = tuple(
            candidate
            for key, candidate in list(self._found.items())
            if candidate.has_moved() and (candidate.is_own or self._is_averaged(key, step))
        )
        was_waiting = self.is_waiting
        moved += tuple(
            Candidate(path, "tensors", value, None) for path, value in self._averages.moved(step)
        )
        if not moved:
            # As it is now: an object may hold others since it took up its state.
            known = _registered(self._objects, self._loaders)
            self._averages.begin(step, known.values())
            self._search(known, averages=not was_waiting)
        return moved

    def _is_averaged(self, key: int, step: int) -> bool:
        """Whether a second model is an average, and not a copy that is kept from time to time."""
        candidate = self._found[key]
        module = candidate.current()
        self._found[key] = replace(candidate, mark=_mark(module))
        steps = self._moves.setdefault(key, [])
        steps.append(step)
        is_copy = _mark(module) == _mark(self._objects.model)
        is_trained = any(parameter.grad is not None for parameter in module.parameters())
        return step - 1 in steps and not is_copy and not is_trained

    def _search(self, known: Mapping[int, object], *, averages: bool) -> None:
        frames = tuple(frames_of_loop())
        # The objects of a framework whose code runs the loop are its own business.
        drivers = {package_of_frame(frame) for frame in frames if is_library_frame(frame)}
        drivers = (drivers | {OWN_PACKAGE}) - {"torch"}
        others: list[DataLoader[Any]] = []
        fresh: dict[int, Candidate] = {}

        def is_closed(value: object) -> bool:
            return isinstance(value, DataLoader) or _package_of(type(value)) in drivers

        roots = _names_of(frame for frame in frames if not is_library_frame(frame))
        roots.update(_attributes(self._objects))
        limit = _MAX_OBJECTS
        for path, value in reachable(roots, known.values(), is_closed=is_closed, limit=limit):
            if issubclass(type(value), DataLoader):
                others.append(value)
            if averages and issubclass(type(value), (dict, list, tuple)):
                self._averages.add(path, value)
            kind = self._kind(value, known)
            if kind is not None and id(value) not in self._found:
                held = weakref.ref(value) if isinstance(value, nn.Module) else value
                fresh[id(value)] = Candidate(path, kind, held, _mark(value))
        for loader in others:  # what a validation loader draws from is its own business, too
            owned = {"dataset": loader.dataset, "sampler": loader.sampler}
            for value in sampler_generators(loader).values():
                fresh.pop(id(value), None)
            for _, value in reachable(owned, (), limit=_MAX_OBJECTS):
                fresh.pop(id(value), None)
        self._found.update(fresh)

    def _kind(self, value: Any, known: Mapping[int, object]) -> str | None:
        kind = type(value)  # a proxy says that it is what it stands for
        if is_generator(value):
            is_global = is_global_generator(value) or issubclass(kind, random.SystemRandom)
            return None if is_global else "generator"
        if issubclass(kind, LRScheduler):
            return "scheduler" if id(value.optimizer) in known else None
        if issubclass(kind, torch.amp.GradScaler):
            return "scaler"
        if issubclass(kind, nn.Module) and _same_shapes(value, self._objects.model):
            return "averaged"
        return None


def _registered(objects: TrainingObjects, loaders: Iterable[Any]) -> dict[int, object]:
    """Everything that registered objects hold, by ``id``."""
    found: list[object] = [objects.optimizer, objects.scheduler, objects.scaler, *loaders]
    modules = [objects.model, *objects.averaged.values()]
    others: list[object] = [objects.scheduler, objects.scaler]
    for extra in objects.extras.values():
        found.append(extra)
        if isinstance(extra, nn.Module):
            modules.append(extra)
        elif not is_generator(extra):
            others.append(extra)
    for module in modules:
        found.extend(module.modules())
    for loader in loaders:
        if isinstance(loader, DataLoader):
            found.extend(sampler_generators(loader).values())
    # What a registered object holds, its state_dict answers for.
    roots = {str(number): item for number, item in enumerate(others)}
    is_part = (LRScheduler, torch.amp.GradScaler)
    for _, value in reachable(roots, ()):
        if is_generator(value) or issubclass(type(value), (*is_part, dict, list, tuple)):
            found.append(value)
    return {id(value): value for value in found if value is not None}


def _attributes(objects: TrainingObjects) -> dict[str, Any]:
    """What hangs on model and optimizer, by path."""
    owners: dict[str, Any] = {"model": objects.model, "optimizer": objects.optimizer}
    for name, layer in objects.model.named_modules():
        if name and not is_library_class(layer.__class__):
            owners[f"model.{name}"] = layer
    return {
        f"{path}.{name}": value
        for path, owner in owners.items()
        for name, value in vars(owner).items()
        if not name.startswith("_") and name != "state"
    }


def _package_of(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _names_of(frames: Iterable[types.FrameType]) -> dict[str, Any]:
    """Values by the names that the frames know them by; locals first."""
    found: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    for frame in frames:
        for name, value in local_names(frame).items():
            found.setdefault(f"{frame.f_code.co_name}'s {name}", value)
        for name, value in list(frame.f_globals.items()):
            if not name.startswith("__"):
                shared.setdefault(name, value)
    members: dict[str, Any] = {}
    for name, value in {**found, **shared}.items():
        members.update(_members(name, value))
    return {**found, **shared, **members}


def _members(path: str, value: Any) -> dict[str, Any]:
    """What the user's own modules and classes hold, which a search does not open."""
    own_module = isinstance(value, types.ModuleType) and not is_library_module(value)
    own_class = isinstance(value, type) and not is_library_class(value)
    if not (own_module or own_class) or _is_auditkit(value):
        return {}
    members = list(vars(value).items())
    return {f"{path}.{name}": item for name, item in members if not name.startswith("__")}


def _is_auditkit(value: Any) -> bool:
    name = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
    return str(name).partition(".")[0] == OWN_PACKAGE


def _same_shapes(module: nn.Module, model: nn.Module) -> bool:
    shapes = [parameter.shape for parameter in module.parameters()]
    return bool(shapes) and shapes == [parameter.shape for parameter in model.parameters()]


def _tail(path: str) -> str:
    """The expression at the end of a path: what the script itself would write."""
    return path.rpartition(" ")[2]


def _mark(value: Any) -> object:
    """What tells two states apart, without a copy of what is large."""
    if is_generator(value):
        return digest_leaves(EVIDENCE_RECIPE, generator_leaves(value))
    if isinstance(value, nn.Module):
        # Of the smallest, some may be frozen.
        chosen = sorted(value.parameters(), key=Tensor.numel)[:_N_COMPARED]
        leaves = {str(number): chosen[number].detach() for number in range(len(chosen))}
        return digest_leaves(EVIDENCE_RECIPE, leaves)
    return dict(_plain(value))


def _plain(value: Any) -> Iterator[tuple[str, object]]:
    for name, item in vars(value).items():
        if isinstance(item, Tensor):
            yield name, (id(item), item._version)
        elif isinstance(item, _SCALARS):
            yield name, (type(item), repr(item))
        elif isinstance(item, (list, tuple)) and all(isinstance(one, _SCALARS) for one in item):
            yield name, repr(item)
