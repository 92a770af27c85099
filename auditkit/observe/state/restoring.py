"""A captured training state, back into live objects: the inverse of reading it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from auditkit.errors import RestoreMismatch
from auditkit.observe.rng.streams import (
    Generator,
    restore_generator,
    streams_from_leaves,
)
from auditkit.observe.state import modules
from auditkit.observe.state.attributes import ATTRIBUTES
from auditkit.observe.state.components import (
    Stateful,
    TrainingObjects,
    optimizer_family,
    scheduler_and_scaler,
    trained_parameters,
)
from auditkit.observe.state.families import OptimizerFamily
from auditkit.observe.state.groups import GROUPS, add_missing_groups
from auditkit.observe.state.named_groups import NamedGroups
from auditkit.observe.state.optimizers import PREFIX
from auditkit.observe.state.state_dicts import load_state, required
from auditkit.observe.values.codec import Leaves

_GLOBAL_STREAMS = ("rng/python", "rng/numpy", "rng/torch", "rng/cuda:")


def restore(objects: TrainingObjects, state: Mapping[str, Leaves]) -> None:
    """Write a captured state into live objects built by the same factory.

    The global streams come last, so that nothing that restoring does is left in them.

    Raises:
        RestoreMismatch: When the snapshot does not fit the objects.
    """
    model, groups = objects.model, NamedGroups(objects.model, objects.groups)
    _refuse_unknown(objects, groups, state)
    state = groups.gathered(state)
    trained = trained_parameters(objects)
    family = optimizer_family(objects)
    family.check(trained, state)
    modules.copy_tensors("params", modules.parameters(model), state.get("params", {}))
    modules.restore_buffers("batchnorm", model, state.get("batchnorm", {}), batchnorm=True)
    modules.restore_buffers("buffers", model, state.get("buffers", {}), batchnorm=False)
    modules.restore_flags(model, required(state, "modules"))
    family.restore(
        trained, {name: leaves for name, leaves in state.items() if _is_of_optimizer(name)}
    )
    for name, stateful in scheduler_and_scaler(objects).items():
        load_state(stateful, required(state, name), name)
    for name, average in objects.averaged.items():
        component = f"averaged/{name}"
        modules.restore_whole_module(average, required(state, component), component)
    for name, extra in objects.extras.items():
        _restore_extra(name, extra, state, trained)
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


def _restore_extra(
    name: str,
    extra: Stateful | Generator,
    state: Mapping[str, Leaves],
    trained: Mapping[str, Tensor],
) -> None:
    component = f"extras/{name}"
    if isinstance(extra, Generator):
        restore_generator(extra, required(state, f"rng/extras/{name}"))
    elif isinstance(extra, nn.Module):
        modules.restore_whole_module(extra, required(state, component), component)
    elif isinstance(extra, torch.optim.Optimizer):
        family = OptimizerFamily(extra, ())
        family.restore_whole(trained, required(state, component))
    else:
        load_state(extra, required(state, component), component)


def _refuse_unknown(
    objects: TrainingObjects, groups: NamedGroups, state: Mapping[str, Leaves]
) -> None:
    known = {"params", "batchnorm", "buffers", "modules", "grad"} | groups.components
    known |= set(scheduler_and_scaler(objects)) | {f"averaged/{name}" for name in objects.averaged}
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
