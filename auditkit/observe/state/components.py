"""The complete training state as named components, and back into live objects.

Component names::

    params  batchnorm  buffers  modules  grad
    params/GROUP  buffers/GROUP                 named groups of the model's tensors
    optimizer/SLOT  param_groups  scheduler  scaler
    optimizer/HELD/SLOT  param_groups/HELD      of an optimizer that the optimizer holds
    averaged/NAME  extras/NAME
    attributes/modules  attributes/optimizer    plain attributes that training changed
    rng/python  rng/numpy  rng/torch  rng/cuda:N  rng/extras/NAME

Rules: nothing is copied here (components are live views: digest or clone them before training
goes on); nothing is drawn, and where a user's own ``state_dict`` draws, the global streams are
put back; what no component would hold is an error, see ``auditkit.observe.state.uncaptured``.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.rng.per_sample import PerSample
from auditkit.observe.rng.reading import StreamReader
from auditkit.observe.rng.streams import (
    Generator,
    GlobalStreams,
    capture_streams,
    generator_leaves,
    has_state,
    streams_from_leaves,
)
from auditkit.observe.state import modules
from auditkit.observe.state.attributes import ATTRIBUTES
from auditkit.observe.state.built import AsBuilt, attributes_of, frozen, layers_of, shapes_of
from auditkit.observe.state.extra_objects import restore_extra
from auditkit.observe.state.families import OptimizerFamily
from auditkit.observe.state.groups import GROUPS, add_missing_groups
from auditkit.observe.state.modules import ModuleState
from auditkit.observe.state.named_groups import NamedGroups, Patterns
from auditkit.observe.state.optimizers import PREFIX
from auditkit.observe.state.ring_buffer import RingBuffer
from auditkit.observe.state.sharded import refuse_hidden_gradients, reshard
from auditkit.observe.state.state_dicts import load_state, required, state_of
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.shards import are_possible, local_state, sharding_of, whole_state
from auditkit.records.sharding import Sharding

State = dict[str, Leaves]

_GLOBAL_STREAMS = ("rng/python", "rng/numpy", "rng/torch", "rng/cuda:")
_Built = AsBuilt | None  # a session notes it; nobody gives it


@runtime_checkable
class Stateful(Protocol):
    """Anything with ``state_dict`` and ``load_state_dict``."""

    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class TrainingObjects:
    """The live objects whose state training depends on.

    Attributes:
        model: The model that is trained.
        optimizer: Its optimizer.
        scheduler: Learning-rate scheduler, or None.
        scaler: ``torch.amp.GradScaler``, or None.
        averaged: Averaged copies of the model by name (``torch.optim.swa_utils.AveragedModel``
            or any module).
        extras: Anything else that is stateful, by name: modules, objects with ``state_dict``
            and ``load_state_dict``, or random generators.
        built: What they were when they were built, see :func:`as_built`; None where nobody
            looked.
        groups: Patterns of parameters and buffers that are components of their own, by name, see
            :mod:`auditkit.observe.state.named_groups`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Stateful | None = None
    scaler: Stateful | None = None
    averaged: Mapping[str, nn.Module] = field(default_factory=dict)
    extras: Mapping[str, Stateful | Generator] = field(default_factory=dict)
    built: _Built = field(default=None, compare=False, repr=False)
    groups: Patterns = field(default_factory=dict)

    def __post_init__(self) -> None:
        plain = {
            name: extra.generator if isinstance(extra, PerSample) else extra
            for name, extra in self.extras.items()
        }
        object.__setattr__(self, "extras", plain)
        for name, extra in self.extras.items():
            if isinstance(extra, Generator) and not has_state(extra):
                raise UncapturedState(
                    f"{type(extra).__name__} draws from the operating system: nothing that reads "
                    "it can be replayed",
                    component=f"extras/{name}",
                )
            if not isinstance(extra, (Generator, Stateful)):
                raise UncapturedState(
                    f"{type(extra).__name__} has no state_dict and load_state_dict",
                    component=f"extras/{name}",
                )

    @property
    def generators(self) -> dict[str, Generator]:
        """Registered generators by name."""
        return {name: extra for name, extra in self.extras.items() if isinstance(extra, Generator)}


def optimizer_family(objects: TrainingObjects) -> OptimizerFamily:
    """The program's optimizer and what it holds."""
    return OptimizerFamily(objects.optimizer, _registered(objects))


def optimizer_state(objects: TrainingObjects) -> State:
    """The components of the optimizer and of what it holds."""
    return optimizer_family(objects).state(trained_parameters(objects))


def as_built(objects: TrainingObjects) -> TrainingObjects:
    """The same objects with a note of what they are now, before they are trained."""
    streams = capture_streams()
    averaged = {f"averaged[{name!r}]": average for name, average in objects.averaged.items()}
    named = {f"extras[{name!r}]": extra for name, extra in objects.extras.items()}
    extras = {path: extra for path, extra in named.items() if isinstance(extra, nn.Module)}
    optimizers = {
        path: extra for path, extra in named.items() if isinstance(extra, torch.optim.Optimizer)
    }
    for module in (objects.model, *averaged.values(), *extras.values()):
        ModuleState(module).whole()  # what it cannot hold is said now, not at the first step
    others = [*objects.extras.values(), objects.scheduler, objects.scaler]
    attributes = attributes_of(
        {"model": objects.model, **averaged, **extras},
        {"optimizer": objects.optimizer, **optimizers},
        [other for other in others if other is not None],
    )
    scheduler = {} if objects.scheduler is None else state_of(objects.scheduler, "scheduler")
    if _is_custom(objects.scheduler):
        streams.restore()
    built = AsBuilt(
        attributes,
        frozen(local_state(optimizer_state(objects))),
        shapes_of(objects.model),
        layers_of(objects.model),
        frozen({"": scheduler})[""],
    )
    return replace(objects, built=built)


class StateReader:
    """Reads the training state of the same objects again and again.

    What is the same at every step, the tree of layers and the text of flags and
    hyper-parameters, is kept and checked at every call, see
    :class:`auditkit.observe.state.modules.ModuleState`.

    Args:
        objects: The live objects.
    """

    def __init__(self, objects: TrainingObjects) -> None:
        self._objects = objects
        self._last: tuple[GlobalStreams, dict[str, Leaves]] | None = None
        self._streams = StreamReader()
        self._sources: list[Mapping[str, Tensor]] = []
        self._all_parameters: dict[str, Tensor] = {}
        self._model = ModuleState(objects.model)
        self._groups = NamedGroups(objects.model, objects.groups)
        known = _registered(objects)
        self._optimizer = OptimizerFamily(objects.optimizer, known)
        self._optimizers = {
            name: OptimizerFamily(extra, known)
            for name, extra in objects.extras.items()
            if isinstance(extra, torch.optim.Optimizer)
        }
        self._modules = {
            f"averaged/{name}": ModuleState(average) for name, average in objects.averaged.items()
        } | {
            f"extras/{name}": ModuleState(extra)
            for name, extra in objects.extras.items()
            if isinstance(extra, nn.Module)
        }
        self._custom = any(map(_is_custom, (objects.scheduler, objects.scaler))) or any(
            map(_is_custom, objects.extras.values())
        )

    def streams(self) -> GlobalStreams:
        """The global streams as they stand."""
        return self._streams.read()

    def read(self, streams: GlobalStreams | None = None) -> State:
        """See :func:`capture`."""
        return local_state(self._read(streams))

    def sharding(self) -> Sharding:
        """Where in the whole lies what this process holds of sharded tensors."""
        return sharding_of(self._read(None)) if are_possible() else {}

    def _read(self, streams: GlobalStreams | None) -> State:
        """The state with its sharded tensors as they are."""
        frozen = streams if streams is not None else self.streams()
        objects, model = self._objects, self._model
        parameters, components = model.components()
        refuse_hidden_gradients(objects.model, parameters)
        trained = self._trained(parameters)
        state: State = {
            **self._groups.divided(components),
            "grad": modules.gradients(trained),
            **self._optimizer.state(trained),
        }
        for name, stateful in _scheduler_and_scaler(objects).items():
            state[name] = state_of(stateful, name)
        for name, module in self._modules.items():
            state[name] = module.whole()
        for name, extra in objects.extras.items():
            if name in self._optimizers:
                state[f"extras/{name}"] = self._optimizers[name].whole(trained)
            elif isinstance(extra, Generator):
                state[f"rng/extras/{name}"] = generator_leaves(extra)
            elif not isinstance(extra, nn.Module):
                state[f"extras/{name}"] = state_of(extra, f"extras/{name}")
        state.update(self._stream_leaves(frozen))
        if self._runs_custom_code() and not frozen.same_as(capture_streams()):
            frozen.restore()
        return {name: leaves for name, leaves in state.items() if leaves}

    def _stream_leaves(self, streams: GlobalStreams) -> dict[str, Leaves]:
        """Components of the streams; the same objects as long as a stream does not move."""
        last = self._last
        leaves = streams.leaves() if last is None else streams.leaves_since(*last)
        self._last = (streams, leaves)
        return leaves

    def _trained(self, parameters: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Every parameter by name; the same mapping as long as none is replaced."""
        if not self._modules:
            return parameters
        sources = [parameters, *(module.parameters() for module in self._modules.values())]
        if len(sources) != len(self._sources) or not all(map(operator.is_, sources, self._sources)):
            self._sources = sources
            self._all_parameters = {
                **parameters,
                **{
                    f"{component}.{name}": parameter
                    for component, found in zip(self._modules, sources[1:], strict=True)
                    for name, parameter in found.items()
                },
            }
        return self._all_parameters

    def _runs_custom_code(self) -> bool:
        found = (self._model, *self._modules.values())
        return self._custom or any(module.extra_state for module in found)


def capture(objects: TrainingObjects, streams: GlobalStreams | None = None) -> State:
    """The training state as live views.

    Args:
        objects: The live objects.
        streams: The global streams, where they are already frozen; frozen here otherwise.

    Returns:
        Leaves by component name; components that do not exist (no BatchNorm, no slot yet) are
        absent.

    Raises:
        UncapturedState: When an object holds state of an unknown kind.
    """
    return StateReader(objects).read(streams)


def restore(
    objects: TrainingObjects, state: Mapping[str, Leaves], sharding: Sharding | None = None
) -> None:
    """Write a captured state into live objects built by the same factory; the streams come last.

    Args:
        objects: The live objects.
        state: As this process held it.
        sharding: Which tensors of it are parts of sharded ones.

    Raises:
        RestoreMismatch: When the snapshot does not fit the objects.
    """
    reshard(objects.model)
    model, groups = objects.model, NamedGroups(objects.model, objects.groups)
    _refuse_unknown(objects, groups, state)
    trained = trained_parameters(objects)
    state = whole_state(groups.gathered(state), sharding or {}, trained)
    family = optimizer_family(objects)
    family.check(trained, state)
    modules.copy_tensors("params", modules.parameters(model), state.get("params", {}))
    modules.restore_buffers("batchnorm", model, state.get("batchnorm", {}), batchnorm=True)
    modules.restore_buffers("buffers", model, state.get("buffers", {}), batchnorm=False)
    modules.restore_flags(model, required(state, "modules"))
    family.restore(
        trained, {name: leaves for name, leaves in state.items() if _is_of_optimizer(name)}
    )
    for name, stateful in _scheduler_and_scaler(objects).items():
        load_state(stateful, required(state, name), name)
    for name, average in objects.averaged.items():
        component = f"averaged/{name}"
        modules.restore_whole_module(average, required(state, component), component)
    for name, extra in objects.extras.items():
        restore_extra(name, extra, state, trained)
    modules.restore_gradients(trained, state.get("grad", {}))
    if objects.built is not None:
        objects.built.attributes.restore(state)
    restore_streams(state)


def add_groups(objects: TrainingObjects, state: Mapping[str, Leaves]) -> None:
    """Add to the optimizer the groups that joined while training, where they fit."""
    if GROUPS in state:
        add_missing_groups(objects.optimizer, trained_parameters(objects), state[GROUPS])


def restore_streams(state: Mapping[str, Leaves]) -> None:
    """Put only the global streams back.

    Raises:
        RestoreMismatch: When a stream is missing.
    """
    streams_from_leaves(
        {name: leaves for name, leaves in state.items() if name.startswith(_GLOBAL_STREAMS)}
    ).restore()


def _scheduler_and_scaler(objects: TrainingObjects) -> dict[str, Stateful]:
    found = {"scheduler": objects.scheduler, "scaler": objects.scaler}
    return {name: stateful for name, stateful in found.items() if stateful is not None}


def _is_custom(stateful: object) -> bool:
    """Whether reading its state runs code that is not torch's, and that might draw."""
    if isinstance(stateful, RingBuffer):
        return not stateful.is_whole
    if stateful is None or isinstance(stateful, (Generator, nn.Module, torch.optim.Optimizer)):
        return False
    return not type(stateful).__module__.startswith("torch.")


def _refuse_unknown(
    objects: TrainingObjects, groups: NamedGroups, state: Mapping[str, Leaves]
) -> None:
    known = {"params", "batchnorm", "buffers", "modules", "grad"} | groups.components
    known |= set(_scheduler_and_scaler(objects)) | {f"averaged/{name}" for name in objects.averaged}
    for name, extra in objects.extras.items():
        known.add(f"rng/extras/{name}" if isinstance(extra, Generator) else f"extras/{name}")
    for component in state:
        if component in known or _is_of_optimizer(component):
            continue
        if objects.built is not None and component.startswith(ATTRIBUTES):
            continue
        if not component.startswith(_GLOBAL_STREAMS):
            raise RestoreMismatch(
                "the program has no such component",
                component=component,
                hint=modules.SAME_OBJECTS,
            )


def _is_of_optimizer(component: str) -> bool:
    return component == GROUPS or component.startswith((PREFIX, f"{GROUPS}/"))


def _registered(objects: TrainingObjects) -> set[int]:
    """``id`` of everything that has components of its own."""
    return {
        id(objects.model),
        *map(id, objects.averaged.values()),
        *map(id, objects.extras.values()),
    }


def trained_parameters(objects: TrainingObjects) -> dict[str, Tensor]:
    """Parameters by name: the model's, then those of averages and extras."""
    named = dict(modules.parameters(objects.model))
    others = {f"averaged/{name}": module for name, module in objects.averaged.items()}
    for name, extra in objects.extras.items():
        if isinstance(extra, nn.Module):
            others[f"extras/{name}"] = extra
    for component, module in others.items():
        for name, parameter in modules.parameters(module).items():
            named[f"{component}.{name}"] = parameter
    return named
