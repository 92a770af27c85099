"""The state of an optimizer as components, and back.

``Optimizer.load_state_dict`` is not used: it casts every slot except ``step`` to the dtype of
the parameter (float32 momentum of a bfloat16 parameter loses bits) and matches parameters by
position. Slots are written directly, by parameter name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.codec import Leaves, flatten, unflatten

GROUPS = "param_groups"
PREFIX = "optimizer/"


def parameter_names(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[int, str]:
    """Name of every parameter that the optimizer holds, by ``id``.

    Parameters that the model does not have are named by group and position.
    """
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        id(parameter): known.get(id(parameter), f"group{i}.{j}")
        for i, group in enumerate(optimizer.param_groups)
        for j, parameter in enumerate(group["params"])
    }


def slots(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Leaves]:
    """One component a slot: ``optimizer/momentum_buffer``, ``optimizer/exp_avg`` ...

    Raises:
        UncapturedState: When the state is keyed by something else than a parameter.
    """
    values: dict[str, dict[str, Any]] = {}
    for key, state in optimizer.state.items():
        if not isinstance(key, Tensor) or id(key) not in names:
            raise UncapturedState(
                f"optimizer state is keyed by {key if isinstance(key, str) else type(key)!r}, "
                "not by one of its parameters",
                component="optimizer",
            )
        for slot, value in state.items():
            values.setdefault(f"{PREFIX}{slot}", {})[names[id(key)]] = value
    return {slot: _slot_leaves(slot, by_name) for slot, by_name in values.items()}


def groups(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> Leaves:
    """Hyper-parameters of every group, parameters replaced by their names."""
    tree = [
        {**group, "params": [names[id(parameter)] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]
    return flatten(tree, where=GROUPS)


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
        by_name = unflatten(leaves) if "" in leaves else leaves
        for name, value in by_name.items():
            if name not in owners:
                raise RestoreMismatch(
                    f"the optimizer has no parameter {name!r}", component=component
                )
            parameter, group = owners[name]
            optimizer.state[parameter][slot] = _placed(slot, value, parameter, group)


def restore_groups(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], leaves: Leaves
) -> None:
    """Put the hyper-parameters of every group back.

    Raises:
        RestoreMismatch: When the groups hold other parameters or stand in another order.
    """
    saved = unflatten(leaves)
    if not isinstance(saved, list) or len(saved) != len(optimizer.param_groups):
        raise RestoreMismatch("the optimizer has another number of groups", component=GROUPS)
    for group, values in zip(optimizer.param_groups, saved, strict=True):
        members = [names[id(parameter)] for parameter in group["params"]]
        if members != values["params"]:
            raise RestoreMismatch(
                "a group holds other parameters, or in another order", component=GROUPS
            )
        for key in set(group) - set(values):
            del group[key]
        group.update({key: value for key, value in values.items() if key != "params"})


def _slot_leaves(slot: str, by_name: Mapping[str, Any]) -> Leaves:
    if all(isinstance(value, Tensor) for value in by_name.values()):
        return dict(by_name)
    return flatten(dict(by_name), where=slot)


def _placed(slot: str, value: Any, parameter: Tensor, group: Mapping[str, Any]) -> Any:
    """Move a restored slot to where the optimizer keeps it; values and dtypes stay."""
    if not isinstance(value, Tensor):
        return value
    # As in torch.optim.Optimizer.load_state_dict: step counters stay on the host unless the
    # kernel reads them on the device.
    if slot == "step" and not (group.get("capturable") or group.get("fused")):
        return value.clone()
    return value.to(parameter.device, copy=True)
