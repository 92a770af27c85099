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

from auditkit.errors import UncapturedState
from auditkit.observe.rng.per_sample import PerSample
from auditkit.observe.rng.reading import StreamReader
from auditkit.observe.rng.streams import (
    Generator,
    GlobalStreams,
    capture_streams,
    generator_leaves,
    has_state,
)
from auditkit.observe.state import modules
from auditkit.observe.state.built import AsBuilt, attributes_of, frozen, layers_of, shapes_of
from auditkit.observe.state.families import OptimizerFamily
from auditkit.observe.state.modules import ModuleState
from auditkit.observe.state.named_groups import NamedGroups, Patterns
from auditkit.observe.state.ring_buffer import RingBuffer
from auditkit.observe.state.sharded import refuse_hidden_gradients
from auditkit.observe.state.standing import Standing
from auditkit.observe.state.state_dicts import state_of
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.shards import are_possible, is_any_sharded, local_state, sharding_of
from auditkit.records.sharding import Sharding

State = dict[str, Leaves]

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
        families = (self._optimizer, *self._optimizers.values())
        self._standing = Standing([o for family in families for o in family.members.values()])
        self._stands = False
        self._template: State = {}
        #: All but gradients and what is asked for its state, as of certain leaves of the streams.
        self._base: tuple[Mapping[str, Leaves], State] = ({}, {})
        self._parameters: Mapping[str, Tensor] = {}
        self._changed: State | None = None
        self._runs_custom = False
        #: What is asked for its state each time, by component.
        self._stateful: dict[str, Any] = {
            **scheduler_and_scaler(objects),
            **{
                f"extras/{name}": extra
                for name, extra in objects.extras.items()
                if _is_asked(extra)
            },
        }
        self._generators = {f"rng/extras/{n}": one for n, one in objects.generators.items()}
        self._asked = frozenset({"grad", *self._stateful, *self._generators})
        self._custom = any(map(_is_custom, (objects.scheduler, objects.scaler))) or any(
            map(_is_custom, objects.extras.values())
        )

    def streams(self) -> GlobalStreams:
        """The global streams as they stand."""
        return self._streams.read()

    def read(self, streams: GlobalStreams | None = None) -> State:
        """See :func:`capture`."""
        state = self._read(streams)
        # Where all stands, there was nothing sharded among it.
        return local_state(state, self._asked if self._stands else None)

    def sharding(self) -> Sharding:
        """Where in the whole lies what this process holds of sharded tensors."""
        return sharding_of(self._read(None)) if are_possible() else {}

    def _read(self, streams: GlobalStreams | None) -> State:
        """The state with its sharded tensors as they are."""
        frozen = streams if streams is not None else self.streams()
        self._stands = self._standing.holds()
        if not self._stands:
            self._look()
        elif not self._standing.numbers_hold:
            self._look_at_numbers()
        state = self._begun(frozen)
        state["grad"] = modules.gradients(self._parameters)
        for name, stateful in self._stateful.items():
            state[name] = state_of(stateful, name)
        for name, generator in self._generators.items():
            state[name] = generator_leaves(generator)
        if self._runs_custom and not frozen.same_as(capture_streams()):
            frozen.restore()
        if all(state.values()):
            return state
        return {name: leaves for name, leaves in state.items() if leaves}

    def _begun(self, streams: GlobalStreams) -> State:
        """All components, those still empty or outdated that are asked for at each call."""
        leaves = self._stream_leaves(streams)
        before, base = self._base
        if self._stands and before.keys() == leaves.keys():
            if before is not leaves:
                self._base = leaves, {**base, **leaves}
        else:
            whole = {**self._template, **leaves}
            self._base = leaves, {n: one for n, one in whole.items() if one or n in self._asked}
        return dict(self._base[1])

    def attributes(self) -> State:
        """Plain attributes that training changed, as components; asked after :meth:`read`."""
        if self._objects.built is None:
            return {}
        attributes = self._objects.built.attributes
        if not self._stands or self._changed is None:
            changed = attributes.changed()
            is_settled = attributes.are_told() and self._standing.owns(attributes.owners or ())
            self._changed = changed if is_settled else None
            return changed
        return self._changed

    def _look(self) -> None:
        """Look at models and optimizers part by part, and note what there is."""
        self._changed = None
        parameters, components = self._model.components()
        refuse_hidden_gradients(self._objects.model, parameters)
        trained = self._parameters = self._trained(parameters)
        families = [self._optimizer, *self._optimizers.values()]
        self._template = {
            **self._groups.divided(components),
            "grad": {},
            **self._optimizer.state(trained),
            **{name: {} for name in self._stateful if not name.startswith("extras/")},
            **{name: module.whole() for name, module in self._modules.items()},
        }
        for name, extra in self._objects.extras.items():
            prefix = "rng/extras" if isinstance(extra, Generator) else "extras"
            self._template.setdefault(f"{prefix}/{name}", {})
        for name, family in self._optimizers.items():
            self._template[f"extras/{name}"] = family.whole(trained)
        found = (self._model, *self._modules.values())
        has_extra_state = any(module.extra_state for module in found)
        self._runs_custom = self._custom or has_extra_state
        is_told = all(family.is_fixed for family in families) and not has_extra_state
        # What fully_shard keeps of gradients is found at no parameter: it is looked for each time.
        if is_told and not is_any_sharded(self._template):
            layers = [layer for module in found for layer in module.layers]
            self._standing.note(layers, trained.values())
        else:
            self._standing.forget()

    def _look_at_numbers(self) -> None:
        """Look at the parameter groups, where all else stands."""
        trained, families = self._parameters, [self._optimizer, *self._optimizers.values()]
        found = self._optimizer.groups(trained)
        for name, family in self._optimizers.items():
            found[f"extras/{name}"] = family.whole(trained)
        self._template.update(found)
        self._base = {}, {}
        if all(family.is_fixed for family in families):
            self._standing.note_numbers()
        else:
            self._stands = False
            self._standing.forget()

    def _stream_leaves(self, streams: GlobalStreams) -> dict[str, Leaves]:
        """Components of the streams; the same objects as long as a stream does not move."""
        last = self._last
        if last is not None and streams is last[0]:
            return last[1]
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


def scheduler_and_scaler(objects: TrainingObjects) -> dict[str, Stateful]:
    """Those that there are, by component."""
    found = {"scheduler": objects.scheduler, "scaler": objects.scaler}
    return {name: stateful for name, stateful in found.items() if stateful is not None}


def _is_asked(extra: object) -> bool:
    """Whether an extra is neither a module, nor an optimizer, nor a generator."""
    return not isinstance(extra, (Generator, nn.Module, torch.optim.Optimizer))


def _is_custom(stateful: object) -> bool:
    """Whether reading its state runs code that is not torch's, and that might draw."""
    if isinstance(stateful, RingBuffer):
        return not stateful.is_whole
    if stateful is None or not _is_asked(stateful):
        return False
    return not type(stateful).__module__.startswith("torch.")


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
