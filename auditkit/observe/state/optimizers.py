"""The state of an optimizer as components, and back.

``Optimizer.load_state_dict`` is not used: it casts every slot except ``step`` to the dtype of
the parameter (float32 momentum of a bfloat16 parameter loses bits) and matches parameters by
position. Slots are written directly, by parameter name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.state.modules import SAME_OBJECTS
from auditkit.observe.values.codec import Leaves, flatten, unflatten

GROUPS = "param_groups"
PREFIX = "optimizer/"

# Their text tells any two of them apart (but for the payload of a NaN).
_SCALARS = frozenset({type(None), bool, int, float, str})


class OptimizerState:
    """An optimizer's hyper-parameters as a component, asked for at every step.

    Args:
        optimizer: The optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._key: object = None
        self._groups: Leaves = {}

    def groups(self, names: Mapping[int, str]) -> Leaves:
        """Hyper-parameters of every group, parameters replaced by their names."""
        tree = [
            {**group, "params": [names[id(parameter)] for parameter in group["params"]]}
            for group in self._optimizer.param_groups
        ]
        key = None
        if all(_is_plain(value) for group in tree for value in group.values()):
            # The text, not the values: 0.0 == -0.0 and 1 == True, which are other bits.
            key = repr(tree)
            if key == self._key:
                return self._groups
        self._groups, self._key = flatten(tree, where=GROUPS), key
        return self._groups


def parameter_names(
    optimizer: torch.optim.Optimizer, known: Mapping[str, Tensor]
) -> dict[int, str]:
    """Name of every parameter that the optimizer holds, by ``id``.

    Args:
        optimizer: The optimizer.
        known: The program's parameters by name; the first name of a tied one counts.

    Raises:
        UncapturedState: When it holds a parameter that is none of them.
    """
    first: dict[int, str] = {}
    for name, tensor in known.items():
        first.setdefault(id(tensor), name)
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    try:
        return {key: first[key] for key in ids}
    except KeyError:
        raise UncapturedState(
            "the optimizer trains a parameter that neither the model nor an extra holds",
            component="optimizer",
            hint="register the module that holds it: extras={NAME: module}",
        ) from None


def slots(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Leaves]:
    """One component a slot: ``optimizer/momentum_buffer``, ``optimizer/exp_avg`` ...

    Raises:
        UncapturedState: When the state is keyed by something else than a parameter.
    """
    values: dict[str, dict[str, Any]] = {}
    for key, state in optimizer.state.items():
        if id(key) not in names:
            raise UncapturedState(
                f"optimizer state is keyed by a {type(key).__name__}, not by a parameter of it",
                component="optimizer",
            )
        for slot, value in state.items():
            values.setdefault(f"{PREFIX}{slot}", {})[names[id(key)]] = value
    return {slot: _slot_leaves(slot, by_name) for slot, by_name in values.items()}


def whole_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> Leaves:
    """An optimizer as one component: groups and slots (for extras)."""
    groups = OptimizerState(optimizer).groups(names)
    by_slot = slots(optimizer, names)
    return {
        f"{component}#{entry}": value
        for component, leaves in ((GROUPS, groups), *by_slot.items())
        for entry, value in leaves.items()
    }


def restore_whole_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], leaves: Leaves
) -> None:
    """Inverse of :func:`whole_optimizer`.

    Raises:
        RestoreMismatch: When it is the state of another optimizer.
    """
    parts: dict[str, dict[str, Tensor | bytes]] = {}
    for name, value in leaves.items():
        component, _, entry = name.partition("#")
        parts.setdefault(component, {})[entry] = value
    groups = parts.pop(GROUPS, {})
    restore_slots(optimizer, names, parts)
    restore_groups(optimizer, names, groups)


def restore_slots(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], saved: Mapping[str, Leaves]
) -> None:
    """Replace all slots by those of a snapshot.

    Args:
        optimizer: The live optimizer.
        names: From :func:`parameter_names`.
        saved: Components whose names start with ``optimizer/``.

    Raises:
        RestoreMismatch: When a slot belongs to a parameter that the optimizer has not.
    """
    owners = {
        names[id(parameter)]: (parameter, group)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    optimizer.state.clear()
    for component, leaves in saved.items():
        slot = component.removeprefix(PREFIX)
        by_name: Any = unflatten(leaves) if "" in leaves else leaves
        for name, value in by_name.items():
            if name not in owners:
                raise RestoreMismatch(
                    f"the optimizer has no parameter {name!r}",
                    component=component,
                    hint=SAME_OBJECTS,
                )
            parameter, group = owners[name]
            optimizer.state[parameter][slot] = _slot_on_device(slot, value, parameter, group)


def restore_groups(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], leaves: Leaves
) -> None:
    """Put the hyper-parameters of every group back.

    Raises:
        RestoreMismatch: When the groups hold other parameters or stand in another order.
    """
    saved = unflatten(leaves, where=GROUPS)
    if not isinstance(saved, list) or len(saved) != len(optimizer.param_groups):
        raise RestoreMismatch("the optimizer has another number of groups", component=GROUPS)
    for group, values in zip(optimizer.param_groups, saved, strict=True):
        missing = sorted(set(optimizer.defaults) - set(values))
        if missing:
            raise RestoreMismatch(
                f"the snapshot is of another optimizer: it has no {missing[0]!r}",
                component=GROUPS,
                found=type(optimizer).__name__,
            )
        members = [names[id(parameter)] for parameter in group["params"]]
        if members != values["params"]:
            raise RestoreMismatch(
                "a group holds other parameters, or in another order", component=GROUPS
            )
        for key in set(group) - set(values):
            del group[key]
        group.update({key: value for key, value in values.items() if key != "params"})


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return type(value) in (list, tuple) and all(type(item) in _SCALARS for item in value)
    return type(value) in _SCALARS


def _slot_leaves(slot: str, by_name: Mapping[str, Any]) -> Leaves:
    if all(isinstance(value, Tensor) for value in by_name.values()):
        return dict(by_name)
    return flatten(dict(by_name), where=slot)


def _slot_on_device(slot: str, value: Any, parameter: Tensor, group: Mapping[str, Any]) -> Any:
    """A restored slot where the optimizer keeps it; values and dtypes stay."""
    # As in torch.optim.Optimizer.load_state_dict: step counters stay on the host unless the
    # kernel reads them on the device.
    on_host = slot == "step" and not (group.get("capturable") or group.get("fused"))
    return _copy_to(value, torch.device("cpu") if on_host else parameter.device)


def _copy_to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, copy=True)
    if type(value) in (list, tuple):  # LBFGS keeps its history in lists
        return type(value)(_copy_to(item, device) for item in value)
    if type(value) is dict:
        return {key: _copy_to(item, device) for key, item in value.items()}
    return value
