"""What a user hands to ``Recorder.wrap``: sorted by kind, and its loaders instrumented.

What becomes of the batches of the first loader and of further (auxiliary) ones is decided in
:mod:`auditkit.recorder.loop`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader

from auditkit.errors import RecorderMisuse, UncapturedState
from auditkit.formats.quote import class_of
from auditkit.observe.loader.iterables import TAKEN, as_data_loader, is_loader
from auditkit.observe.loader.recorded_loader import RecordedLoader
from auditkit.observe.machine.distributed import SyncFlags, rank_and_size, refuse_sharded
from auditkit.observe.rng.streams import Generator
from auditkit.observe.state.components import TrainingObjects, as_built
from auditkit.observe.state.given_objects import wrong_object
from auditkit.observe.state.groups import parameter_names
from auditkit.observe.state.named_groups import Patterns
from auditkit.observe.state.restoring import restore
from auditkit.observe.state.uncaptured import HeldGenerators
from auditkit.program.probe import Probe
from auditkit.program.session import TrainingSession
from auditkit.study.stages.describer import describe_loader
from auditkit.study.stages.forker import Fork

#: Names under which further positional objects are recorded.
_MODULE, _OPTIMIZER, _SCHEDULER, _LOADER = "model", "optimizer", "scheduler", "loader"
_PARALLEL = "data-parallel"


@dataclass(frozen=True)
class Wrapped:
    """The objects of a loop.

    Attributes:
        objects: Everything that holds training state.
        loader: What the loop iterates for its steps.
        auxiliary: Further loaders by name; what a step draws from them belongs to the step.
        probe: The examples on which branches are compared, or None.
        loss: ``loss(model, batch)``, for recalibrating BatchNorm, or None.
        groups: Patterns of parameters and buffers that a study has as components of their own; a
            recording has one of each.
    """

    objects: TrainingObjects
    loader: Any
    auxiliary: Mapping[str, Any]
    probe: Any = None
    loss: Any = None
    groups: Patterns = field(default_factory=dict)

    @property
    def in_study(self) -> Wrapped:
        """The same with the groups as components."""
        return replace(self, objects=replace(self.objects, groups=self.groups))

    @property
    def needs_warmup(self) -> bool:
        """Whether a module must have trained once before it gives the bits it gives later.

        In several processes always: a framework may keep its data-parallel module to itself.
        """
        modules = (self.objects.model, *self.objects.extras.values())
        parallel = any(isinstance(module, DistributedDataParallel) for module in modules)
        return parallel or rank_and_size()[1] > 1

    @property
    def generators(self) -> dict[str, Generator]:
        """Registered generators by name."""
        return self.objects.generators


@dataclass(frozen=True)
class InstrumentedLoop:
    """A loop's objects with their loaders' classes swapped.

    Attributes:
        session: What can be read and written.
        loaders: By name; the training loader's is empty.
        generators: Those that no component holds, or why they cannot be watched.
    """

    session: TrainingSession
    loaders: dict[str, RecordedLoader]
    generators: HeldGenerators | UncapturedState

    def uncaptured(self) -> UncapturedState | None:
        """A generator that is used and that no component holds, where there is one."""
        if isinstance(self.generators, UncapturedState):
            return self.generators
        moved = self.generators.moved()
        return None if moved is None else moved.refuse()

    def restore(self, fork: Fork) -> None:
        """Write a snapshot's state, further loaders included."""
        try:
            for name, leaves in fork.auxiliary.items():
                if name in self.loaders:
                    self.loaders[name].seek(leaves)
            restore(self.session.objects, fork.state, fork.sharding)
        finally:
            fork.close()

    def describe_loaders(self) -> dict[str, dict[str, str]]:
        """What the loaders are, by name."""
        return {name: describe_loader(loader.base) for name, loader in self.loaders.items()}

    def close(self) -> None:
        """Give the loaders their classes back."""
        for loader in self.loaders.values():
            loader.close()


def base_loader(loader: Any) -> DataLoader[Any]:
    """The DataLoader that draws the indices: below a wrapper such as Accelerate's, if any.

    Of a loader that is no DataLoader, one that would pass its batches on.
    """
    return as_data_loader(getattr(loader, "base_dataloader", loader))


def check_kinds(
    *, scheduler: Any, scaler: Any, averaged: Any, extras: Any, probe: Any, loss: Any, groups: Any
) -> None:
    """Refuse what ``wrap`` was given under the name of something else.

    Raises:
        RecorderMisuse: Naming it.
    """
    several = scheduler if isinstance(scheduler, (list, tuple)) else [scheduler]
    for each in several:
        wrong = wrong_object(
            scheduler=each,
            scaler=scaler,
            averaged={} if averaged is None else averaged,
            extras={} if extras is None else extras,
        )
        if wrong is not None:
            raise _wrong(wrong.name, wrong.expected, wrong.found)
    if not isinstance(groups, Mapping | str | None):
        raise _wrong("groups", "patterns by name, or 'children'", class_of(groups))
    if probe is not None and not isinstance(probe, Probe):
        raise _wrong("probe", "auditkit.Probe(inputs, labels)", class_of(probe))
    if loss is not None and not callable(loss):
        raise _wrong("loss", "a function loss(model, batch)", class_of(loss))


def _wrong(name: str, expected: str, found: str) -> RecorderMisuse:
    return RecorderMisuse(f"{name} of wrap has the wrong type", expected=expected, found=found)


def sort_objects(
    given: Sequence[Any],
    *,
    scheduler: Any,
    scaler: Any,
    averaged: Mapping[str, nn.Module] | None,
    extras: Mapping[str, Any] | None,
) -> tuple[TrainingObjects, Any, dict[str, Any]]:
    """Sort positional objects by their kind.

    The first module is the model, the first optimizer its optimizer, the first loader the
    training loader; further ones become extras ``model-2``, ``optimizer-2`` and loaders
    ``loader-2``.

    Returns:
        The training objects, the training loader, and further loaders by name.

    Raises:
        RecorderMisuse: When a kind is missing, unknown, given twice, or does not fit.
    """
    kinds: dict[str, list[Any]] = {_MODULE: [], _OPTIMIZER: [], _LOADER: []}
    for position, item in enumerate(given):
        kinds[_kind(item, position)].append(item)
    for name, found in kinds.items():
        if not found:
            raise RecorderMisuse(f"wrap was given no {name}", hint="wrap(model, optimizer, loader)")
        if len({id(item) for item in found}) < len(found):
            raise RecorderMisuse(f"wrap was given the same {name} twice")
    optimizers = [_unwrapped(item) for item in kinds[_OPTIMIZER]]
    if scaler is None:
        scaler = next(map(_scaler, kinds[_OPTIMIZER]))
    schedulers = list(scheduler) if isinstance(scheduler, (list, tuple)) else [scheduler]
    schedulers = [_unwrapped(item) for item in schedulers]
    further = {
        **_further(_MODULE, kinds[_MODULE]),
        **_further(_OPTIMIZER, optimizers),
        **_further(_SCHEDULER, schedulers),
    }
    own = dict(extras or {})
    modules = [*kinds[_MODULE], *(averaged or {}).values(), *own.values()]
    further |= _parallel([item for item in modules if isinstance(item, nn.Module)], optimizers)
    taken = sorted(set(own) & set(further))
    if taken:
        raise RecorderMisuse(f"the name {taken[0]!r} is taken by a further object of wrap")
    objects = TrainingObjects(
        model=kinds[_MODULE][0],
        optimizer=optimizers[0],
        scheduler=schedulers[0] if schedulers else None,
        scaler=scaler,
        averaged=dict(averaged or {}),
        extras={**further, **own},
    )
    _refuse_lazy(objects.model)
    _check_optimizer(objects)
    return objects, kinds[_LOADER][0], _further(_LOADER, kinds[_LOADER])


def instrument(wrapped: Wrapped) -> InstrumentedLoop:
    """Swap the classes of a loop's loaders.

    Raises:
        UnsupportedLoader: When one cannot be recorded; then none is swapped.
    """
    loaders: dict[str, RecordedLoader] = {}
    try:
        for name, loader in {"": wrapped.loader, **wrapped.auxiliary}.items():
            base = base_loader(loader)
            loaders[name] = RecordedLoader(loader, base=base, generators=wrapped.generators)
    except BaseException:
        for recorded in loaders.values():
            recorded.close()
        raise
    generators: HeldGenerators | UncapturedState
    try:
        generators = HeldGenerators(wrapped.objects, loaders[""].base)
    except UncapturedState as error:
        generators = error
    auxiliary = {name: recorded for name, recorded in loaders.items() if name}
    session = TrainingSession(as_built(wrapped.objects), loaders[""], auxiliary)
    return InstrumentedLoop(session, loaders, generators)


def _kind(item: Any, position: int) -> str:
    if isinstance(item, nn.Module):
        return _MODULE
    if isinstance(item, torch.optim.Optimizer):
        return _OPTIMIZER
    if is_loader(getattr(item, "base_dataloader", item)):
        return _LOADER
    raise RecorderMisuse(
        f"argument {position + 1} of wrap is a {class_of(item)}",
        expected=f"a module, an optimizer, or a loader: {TAKEN}",
        hint="give a scheduler, scaler, averaged models and other state by name: scheduler=, "
        "scaler=, averaged={NAME: ...}, extras={NAME: ...}",
    )


def _unwrapped(item: Any) -> Any:
    """The optimizer or scheduler itself, below Accelerate's wrapper."""
    name = {"AcceleratedOptimizer": "optimizer", "AcceleratedScheduler": "scheduler"}
    kind = type(item)
    own = kind.__module__.partition(".")[0] == "accelerate" and kind.__name__ in name
    return getattr(item, name[kind.__name__]) if own else item


def _scaler(optimizer: Any) -> Any:
    """Accelerate's optimizer holds the scaler."""
    return None if _unwrapped(optimizer) is optimizer else optimizer.scaler


def _further(name: str, found: Sequence[Any]) -> dict[str, Any]:
    return {f"{name}-{number}": item for number, item in enumerate(found[1:], start=2)}


def _parallel(modules: Sequence[nn.Module], optimizers: Sequence[Any]) -> dict[str, Any]:
    """What data-parallel modules keep of their own, by name."""
    refuse_sharded(modules, optimizers)
    found = [module for module in modules if isinstance(module, DistributedDataParallel)]
    return {_PARALLEL: SyncFlags(found)} if found else {}


def _refuse_lazy(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise RecorderMisuse(
                f"the model's parameter {name} has no shape yet",
                hint="call the model once on a batch before wrap",
            )


def _check_optimizer(objects: TrainingObjects) -> None:
    modules = [objects.model, *objects.averaged.values(), *objects.extras.values()]
    known = {
        f"{number}.{name}": parameter
        for number, module in enumerate(modules)
        if isinstance(module, nn.Module)
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }
    parameter_names(objects.optimizer, known)
