"""A captured training state, back into live objects: the inverse of reading it."""

from __future__ import annotations

from collections.abc import Mapping

from auditkit.errors import RestoreMismatch
from auditkit.observe.rng.streams import Generator, streams_from_leaves
from auditkit.observe.state import modules
from auditkit.observe.state.attributes import ATTRIBUTES
from auditkit.observe.state.components import (
    TrainingObjects,
    optimizer_family,
    scheduler_and_scaler,
    trained_parameters,
)
from auditkit.observe.state.extra_objects import restore_extra
from auditkit.observe.state.groups import GROUPS, add_missing_groups
from auditkit.observe.state.named_groups import NamedGroups
from auditkit.observe.state.optimizers import PREFIX
from auditkit.observe.state.sharded import reshard
from auditkit.observe.state.state_dicts import load_state, required
from auditkit.observe.values.shards import whole_state
from auditkit.observe.values.stored import Saved, judge_written, loaded
from auditkit.records.sharding import Sharding

_GLOBAL_STREAMS = ("rng/python", "rng/numpy", "rng/torch", "rng/cuda:")


def restore(
    objects: TrainingObjects, state: Mapping[str, Saved], sharding: Sharding | None = None
) -> None:
    """Write a captured state into live objects built by the same factory.

    The global streams come last, so that nothing that restoring does is left in them. What a
    snapshot's components are checked for is known of those in its file only when they are written:
    where this raises, the objects may hold a part of it, and must not be trained any more.

    Args:
        objects: The live objects.
        state: As this process held it.
        sharding: Which tensors of it are parts of sharded ones.

    Raises:
        RestoreMismatch: When the snapshot does not fit the objects.
        AuditError: What the check of a component raises, or its file.
    """
    saved = state
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
    judge_written(saved)  # before anybody else's code can change it
    modules.restore_flags(model, loaded(required(state, "modules")))
    family.restore(
        trained, {name: leaves for name, leaves in state.items() if _is_of_optimizer(name)}
    )
    judge_written(saved)
    for name, stateful in scheduler_and_scaler(objects).items():
        load_state(stateful, required(state, name), name)
    for name, average in objects.averaged.items():
        component = f"averaged/{name}"
        modules.restore_whole_module(average, required(state, component), component)
        judge_written(saved)
    for name, extra in objects.extras.items():
        restore_extra(name, extra, state, trained)
        judge_written(saved)
    modules.restore_gradients(trained, state.get("grad", {}))
    if objects.built is not None:
        objects.built.attributes.restore(
            {name: loaded(part) for name, part in state.items() if name.startswith(ATTRIBUTES)}
        )
    restore_streams(state)
    judge_written(saved, rest=True)


def add_groups(objects: TrainingObjects, state: Mapping[str, Saved]) -> None:
    """Add to the optimizer the groups that joined while training, where they fit."""
    if GROUPS in state:
        add_missing_groups(objects.optimizer, trained_parameters(objects), loaded(state[GROUPS]))


def restore_streams(state: Mapping[str, Saved]) -> None:
    """Put only the global streams back.

    Raises:
        RestoreMismatch: When a stream is missing.
    """
    streams_from_leaves(
        {name: loaded(part) for name, part in state.items() if name.startswith(_GLOBAL_STREAMS)}
    ).restore()


def _refuse_unknown(
    objects: TrainingObjects, groups: NamedGroups, state: Mapping[str, Saved]
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
