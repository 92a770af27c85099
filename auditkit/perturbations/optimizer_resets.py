"""Resets of what an optimizer accumulates (the survey's source S1), each under its own name.

"Momentum reset" is not one thing: clearing a slot and setting it to zero differ where
dampening is not 0, and zeroing Adam's second moment without its step count is another
treatment than with it (its bias correction no longer fits). *As newly built* is measured: the
program was just built when its objects were looked at, and what differs from then is reset.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from auditkit.errors import NothingToPerturb
from auditkit.observe.state.attributes import OPTIMIZER
from auditkit.observe.state.components import TrainingObjects, optimizer_family, trained_parameters
from auditkit.observe.state.families import groups_component
from auditkit.observe.values.codec import flatten
from auditkit.perturbations.base import Perturbation
from auditkit.records.declaration import DECLARATIONS, FIRST_MOMENT, SECOND_MOMENTS, STEP_SLOTS
from auditkit.records.plan import ParameterValue

#: Group entries that a scheduler owns, whatever the optimizer's constructor calls them.
_SCHEDULED = frozenset({"params", "lr", "initial_lr"})

#: Adam's second moments; their kin of other optimizers are :data:`SECOND_MOMENTS`.
_ADAM_SECOND = ("exp_avg_sq", "max_exp_avg_sq")


class MomentumReset(Perturbation):
    """SGD's momentum buffers := 0; a buffer that does not exist yet stays absent."""

    declaration = DECLARATIONS["momentum-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Zero ``momentum_buffer`` of every parameter."""
        zero(objects.optimizer, ("momentum_buffer",), chosen_states(objects, parameters))


class AdamReset(Perturbation):
    """Adam's first (m) and second (v) moments := 0, the step count kept or as newly built."""

    declaration = DECLARATIONS["adam-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Zero the moments, and with ``step=reset`` whatever counts steps."""
        optimizer, moments = objects.optimizer, str(parameters["moments"])
        resets_step, states = parameters["step"] == "reset", chosen_states(objects, parameters)
        zero(optimizer, [FIRST_MOMENT] if "m" in moments else [], states)
        zero(optimizer, _ADAM_SECOND[:1] if "v" in moments else [], states)
        known = {FIRST_MOMENT, *_ADAM_SECOND, *STEP_SLOTS}
        if resets_step and moments == "mv" and _slots(optimizer) - known:
            _refuse_part(objects, parameters, _slots(optimizer) - known)
            _clear_slots(objects, known)  # accumulators that no name tells anything of
            reset_counters(objects)
            return
        _set_slots(states, _ADAM_SECOND[1:] if "v" in moments else (), 0)
        if resets_step:
            _reset_steps(objects, parameters)


class SecondMomentReset(Perturbation):
    """Running squares of RMSprop, Adagrad, Adadelta, Adafactor, Adamax; averages of ASGD."""

    declaration = DECLARATIONS["second-moment-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Set them to what they begin with, and with ``step=reset`` whatever counts steps."""
        optimizer, chosen = objects.optimizer, chosen_states(objects, parameters)
        found = _slots(optimizer) & SECOND_MOMENTS
        if not found:
            raise unfit(optimizer, "running squares of RMSprop's kind", "adam-reset:moments=v")
        for group in optimizer.param_groups:
            begins = {"sum": group.get("initial_accumulator_value", 0), "mu": 1, "eta": group["lr"]}
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                is_chosen = any(state is one for one in chosen)
                for slot in found & state.keys() if is_chosen else ():
                    state[slot] = _filled(state[slot], begins.get(slot, 0))
        if parameters["step"] == "reset":
            _reset_steps(objects, parameters)


class OptimizerReset(Perturbation):
    """Everything that the optimizer accumulates, as in a newly built one (the causal break)."""

    declaration = DECLARATIONS["optimizer-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Reset slots, counters in the groups and plain attributes."""
        if restricts(parameters):
            _reset_chosen_slots(objects, parameters)
            return
        had_slots = _reset_slots(objects)
        if not (reset_counters(objects) or had_slots):
            raise NothingToPerturb("the optimizer keeps no state", component="optimizer")


def zero(
    optimizer: torch.optim.Optimizer,
    slots: Iterable[str],
    chosen: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Set slots to zero.

    Args:
        optimizer: The optimizer.
        slots: Their names.
        chosen: The states that are meant; all by default.

    Raises:
        NothingToPerturb: When the optimizer keeps no such slot, or it is zero already.
    """
    for slot in slots:
        of = _states(optimizer) if chosen is None else chosen
        states = [state for state in of if state.get(slot) is not None]
        if not states:
            raise unfit(optimizer, slot)
        if not any(_is_set(state[slot]) for state in states):
            raise NothingToPerturb(f"every {slot} is 0 already", component=f"optimizer/{slot}")
        for state in states:
            state[slot] = _filled(state[slot], 0)


def reset_counters(objects: TrainingObjects) -> bool:
    """Make what an optimizer counts in its groups and attributes what it was when newly built.

    Learning rates and what the constructor was given stay: a scheduler, or the loop, owns them.

    Returns:
        Whether anything was changed.
    """
    built = objects.built
    if built is None:
        return False
    changed = False
    kept = set(_SCHEDULED)
    for path, member in optimizer_family(objects).members.items():
        kept |= _constructor_arguments(type(member))
        component = groups_component(path)
        if component in built.state:
            for group, before in zip(
                member.param_groups, built.hyper_parameters(component), strict=False
            ):
                changed |= _reset_group(group, before, kept)
    return bool(built.attributes.reset(OPTIMIZER, kept)) or changed


def _reset_group(group: dict[str, Any], before: dict[str, Any], kept: set[str]) -> bool:
    names = {*group, *before} - kept
    changed = [name for name in names if not _same(group, before, name)]
    for name in changed:
        if name in before:
            group[name] = before[name]
        else:
            del group[name]
    return bool(changed)


def _same(group: dict[str, Any], before: dict[str, Any], name: str) -> bool:
    if name.startswith("~") or isinstance(group.get(name), type) or callable(group.get(name)):
        return True  # code, which is recorded by its name
    if name not in group or name not in before:
        return False
    here, there = (flatten(values[name], where=name) for values in (group, before))
    return here.keys() == there.keys() and all(
        torch.equal(here[key], there[key])  # type: ignore[arg-type]
        if isinstance(here[key], Tensor)
        else here[key] == there[key]
        for key in here
    )


def _reset_slots(objects: TrainingObjects) -> bool:
    """Every slot as newly built: absent, but for those that a constructor makes."""
    family = optimizer_family(objects)
    had_slots = any(any(member.state.values()) for member in family.members.values())
    if had_slots:
        built = {} if objects.built is None else objects.built.state
        family.restore_slots(trained_parameters(objects), built)
    return had_slots


def _reset_chosen_slots(objects: TrainingObjects, parameters: Mapping[str, ParameterValue]) -> None:
    """The slots of chosen parameters as newly built; those of others, and counters, as they are."""
    chosen = chosen_states(objects, parameters)
    if not any(chosen):
        raise NothingToPerturb("the optimizer keeps no state", component="optimizer")
    members = optimizer_family(objects).members.values()
    kept = [
        (member, parameter, copy.deepcopy(state))
        for member in members
        for parameter, state in member.state.items()
        if not any(state is one for one in chosen)
    ]
    _reset_slots(objects)
    for member, parameter, state in kept:
        member.state[parameter] = state


def _refuse_part(
    objects: TrainingObjects, parameters: Mapping[str, ParameterValue], unknown: set[str]
) -> None:
    if restricts(parameters):
        raise NothingToPerturb(
            f"{type(objects.optimizer).__name__} keeps {', '.join(sorted(unknown))}, of which "
            "adam-reset knows nothing",
            component=f"optimizer/{min(unknown)}",
            hint=f"optimizer-reset:params={parameters['params']} fits",
        )


def _clear_slots(objects: TrainingObjects, known: set[str]) -> None:
    """Every slot as newly built, which for those that are not known is absent.

    Raises:
        NothingToPerturb: When the constructor makes one of these.
    """
    _reset_slots(objects)
    members = optimizer_family(objects).members.values()
    left = set[str]().union(*map(_slots, members)) - known
    if left:
        raise NothingToPerturb(
            f"{type(objects.optimizer).__name__} is built with {', '.join(sorted(left))}, "
            "of which adam-reset knows nothing",
            component=f"optimizer/{min(left)}",
            hint="optimizer-reset fits",
        )


def _reset_steps(objects: TrainingObjects, parameters: Mapping[str, ParameterValue]) -> None:
    """Whatever counts steps: slots, groups or attributes; of some parameters their slots alone.

    Raises:
        NothingToPerturb: When nothing does.
    """
    optimizer = objects.optimizer
    states = chosen_states(objects, parameters)
    steps = [state["step"] for state in states if "step" in state]
    had_slots = any(map(_is_set, steps))
    _set_slots(states, ("step",), 0)
    _set_slots(states, ("mu_product",), 1)
    counted = not restricts(parameters) and reset_counters(objects)
    if not (counted or had_slots):
        raise unfit(optimizer, "step count that could be reset")


def _set_slots(states: Iterable[dict[str, Any]], slots: Iterable[str], value: float) -> None:
    for slot in slots:
        for state in states:
            if state.get(slot) is not None:
                state[slot] = _filled(state[slot], value)


def restricts(parameters: Mapping[str, ParameterValue]) -> bool:
    """Whether ``params=`` chooses some of the parameters."""
    return parameters.get("params", "*") != "*"


def chosen_states(
    objects: TrainingObjects, parameters: Mapping[str, ParameterValue]
) -> list[dict[str, Any]]:
    """What the optimizer keeps of the parameters that ``params=`` chooses; by default of all.

    Raises:
        NothingToPerturb: When no parameter of the optimizer has such a name.
    """
    optimizer = objects.optimizer
    if not restricts(parameters):
        return _states(optimizer)
    pattern = str(parameters["params"])
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    names = {name: p for name, p in trained_parameters(objects).items() if id(p) in held}
    chosen = {id(parameter) for name, parameter in names.items() if fnmatchcase(name, pattern)}
    if not chosen:
        listed = list(names)
        more = f" and {len(listed) - 12} more" if len(listed) > 12 else ""
        raise NothingToPerturb(
            f"the optimizer trains no parameter that {pattern} fits",
            component="optimizer",
            hint=f"it trains {', '.join(listed[:12])}{more}",
        )
    states = optimizer.state.items()
    return [state for p, state in states if id(p) in chosen and isinstance(state, dict)]


def _states(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [state for state in optimizer.state.values() if isinstance(state, dict)]


def _slots(optimizer: torch.optim.Optimizer) -> set[str]:
    return {slot for state in _states(optimizer) for slot in state if isinstance(slot, str)}


def _filled(value: Any, number: Any) -> Any:
    if not isinstance(value, Tensor):
        return type(value)(number)
    if number == 0:
        return torch.zeros_like(value)
    return torch.full_like(value, complex(number, number) if value.is_complex() else float(number))


def _is_set(value: Any) -> bool:
    return bool(value.count_nonzero()) if isinstance(value, Tensor) else bool(value)


def _constructor_arguments(kind: type) -> set[str]:
    """Names of the hyper-parameters of a class of optimizers, and of those that it derives from."""
    found: set[str] = set()
    for base in kind.__mro__:
        if base is torch.optim.Optimizer:
            break
        if "__init__" in vars(base):
            found |= set(inspect.signature(vars(base)["__init__"]).parameters)
    return found


def unfit(
    optimizer: torch.optim.Optimizer, what: str, adam: str = "adam-reset"
) -> NothingToPerturb:
    """What to say where an optimizer keeps nothing of a kind: what fits what it keeps."""
    slots = _slots(optimizer)
    fitting = {
        "momentum-reset": "momentum_buffer" in slots,
        adam: {FIRST_MOMENT, _ADAM_SECOND[0]} <= slots,
        "second-moment-reset": bool(slots & SECOND_MOMENTS),
        "optimizer-reset": True,
    }
    names = " or ".join(name for name, fits in fitting.items() if fits)
    keeps = f"it keeps {', '.join(sorted(slots))}" if slots else "it keeps no slots at t0"
    return NothingToPerturb(
        f"{type(optimizer).__name__} keeps no {what} at t0",
        component=f"optimizer/{what}" if what.isidentifier() else "optimizer",
        hint=f"{keeps}: {names} fits" if slots else keeps,
    )
