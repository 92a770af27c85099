"""The complete training state as named components, and back into live objects.

Component names::

    params  batchnorm  buffers  modules  grad
    optimizer/SLOT  param_groups  scheduler  scaler
    averaged/NAME  extras/NAME
    rng/python  rng/numpy  rng/torch  rng/cuda:N  rng/extras/NAME

Rules: nothing is copied here (components are live views: digest or clone them before training
goes on); nothing is drawn; what no component would hold is an error, see
``auditkit.observe.uncaptured``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe import modules, optimizers
from auditkit.observe.codec import Leaves, flatten, unflatten
from auditkit.observe.rng import (
    GlobalStreams,
    Generator,
    capture_streams,
    generator_leaves,
    is_generator,
    restore_generator,
    streams_from_leaves,
)

State = dict[str, Leaves]

_GLOBAL_STREAMS = ("rng/python", "rng/numpy", "rng/torch", "rng/cuda:")


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
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Stateful | None = None
    scaler: Stateful | None = None
    averaged: Mapping[str, nn.Module] = field(default_factory=dict)
    extras: Mapping[str, Stateful | Generator] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, extra in self.extras.items():
            if not (is_generator(extra) or isinstance(extra, Stateful)):
                raise UncapturedState(
                    f"{type(extra).__name__} has no state_dict and load_state_dict",
                    component=f"extras/{name}",
                )


def capture(objects: TrainingObjects, streams: GlobalStreams | None = None) -> State:
    """The training state as live views.

    Args:
        objects: The live objects.
        streams: The global streams where they are already frozen; frozen here otherwise.

    Returns:
        Leaves by component name; components that do not exist (no BatchNorm, no slot yet) are
        absent.

    Raises:
        UncapturedState: When an object holds state of an unknown kind.
    """
    frozen = streams if streams is not None else capture_streams()
    model, optimizer = objects.model, objects.optimizer
    names = optimizers.parameter_names(optimizer, model)
    state: State = {
        "params": modules.parameters(model),
        "batchnorm": modules.batchnorm_buffers(model),
        "buffers": modules.other_buffers(model),
        "modules": modules.flags(model),
        "grad": _gradients(model),
        optimizers.GROUPS: optimizers.groups(optimizer, names),
        **optimizers.slots(optimizer, names),
    }
    for name, holder in (("scheduler", objects.scheduler), ("scaler", objects.scaler)):
        if holder is not None:
            state[name] = flatten(holder.state_dict(), where=name)
    for name, average in objects.averaged.items():
        state[f"averaged/{name}"] = modules.whole_module(average)
    for name, extra in objects.extras.items():
        component, leaves = _extra(name, extra)
        state[component] = leaves
    state.update(frozen.leaves())
    return {name: leaves for name, leaves in state.items() if leaves}


def restore(objects: TrainingObjects, state: Mapping[str, Leaves]) -> None:
    """Write a captured state into live objects built by the same factory.

    The global streams come last, so that nothing that restoring does is left in them.

    Raises:
        RestoreMismatch: When the snapshot does not fit the objects.
    """
    model, optimizer = objects.model, objects.optimizer
    names = optimizers.parameter_names(optimizer, model)
    modules.copy_tensors("params", modules.parameters(model), state.get("params", {}))
    modules.restore_buffers("batchnorm", model, state.get("batchnorm", {}), batchnorm=True)
    modules.restore_buffers("buffers", model, state.get("buffers", {}), batchnorm=False)
    modules.restore_flags(model, _required(state, "modules"))
    _restore_gradients(model, state.get("grad", {}))
    held = {name: leaves for name, leaves in state.items() if name.startswith(optimizers.PREFIX)}
    optimizers.restore_slots(optimizer, names, held)
    optimizers.restore_groups(optimizer, names, _required(state, optimizers.GROUPS))
    for name, holder in (("scheduler", objects.scheduler), ("scaler", objects.scaler)):
        if holder is not None:
            _load(holder, _required(state, name), name)
    for name, average in objects.averaged.items():
        component = f"averaged/{name}"
        modules.restore_whole_module(average, _required(state, component), component)
    for name, extra in objects.extras.items():
        _restore_extra(name, extra, state)
    restore_streams(state)


def restore_streams(state: Mapping[str, Leaves]) -> None:
    """Put only the global streams back.

    Raises:
        RestoreMismatch: When a stream is missing.
    """
    streams_from_leaves(
        {name: leaves for name, leaves in state.items() if name.startswith(_GLOBAL_STREAMS)}
    ).restore()


def _extra(name: str, extra: Stateful | Generator) -> tuple[str, Leaves]:
    if isinstance(extra, Generator):
        return f"rng/extras/{name}", generator_leaves(extra)
    if isinstance(extra, nn.Module):
        return f"extras/{name}", modules.whole_module(extra)
    return f"extras/{name}", flatten(extra.state_dict(), where=f"extras/{name}")


def _restore_extra(
    name: str, extra: Stateful | Generator, state: Mapping[str, Leaves]
) -> None:
    if isinstance(extra, Generator):
        restore_generator(extra, _required(state, f"rng/extras/{name}"))
    elif isinstance(extra, nn.Module):
        component = f"extras/{name}"
        modules.restore_whole_module(extra, _required(state, component), component)
    else:
        _load(extra, _required(state, f"extras/{name}"), f"extras/{name}")


def _load(holder: Stateful, leaves: Leaves, component: str) -> None:
    try:
        holder.load_state_dict(unflatten(leaves))
    except Exception as error:  # whatever the user's own object raises is reported as ours
        raise RestoreMismatch(
            f"load_state_dict raised {type(error).__name__}: {error}", component=component
        ) from error


def _required(state: Mapping[str, Leaves], component: str) -> Leaves:
    if component not in state:
        raise RestoreMismatch("the snapshot has no such component", component=component)
    return state[component]


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def _restore_gradients(model: nn.Module, saved: Leaves) -> None:
    known = dict(model.named_parameters())
    for name in saved:
        if name not in known:
            raise RestoreMismatch(f"the model has no parameter {name!r}", component="grad")
    for name, parameter in known.items():
        value = saved.get(name)
        parameter.grad = (
            value.to(parameter.device, copy=True) if isinstance(value, Tensor) else None
        )
