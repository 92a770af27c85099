"""The slots of an optimizer as components, and back.

``Optimizer.load_state_dict`` is not used: it casts every slot except ``step`` to the dtype of
the parameter (float32 momentum of a bfloat16 parameter loses bits) and matches parameters by
position. Slots are written directly, by parameter name.
"""

from __future__ import annotations

import graphlib
import heapq
import itertools
import re
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.state.glance import Glance
from auditkit.observe.state.modules import SAME_OBJECTS
from auditkit.observe.values.codec import Leaves, flatten, unflatten
from auditkit.observe.values.shards import is_sharded
from auditkit.observe.values.stored import TENSORS, Saved, StoredTensor, copied, loaded
from auditkit.observe.values.tensors import KeptLeaves, has_inner_tensors

PREFIX = "optimizer/"

#: Slot under which stands what the optimizer keeps by a name of its own, not by a parameter.
SHARED = "~shared"

#: Begins a key there that stands for a parameter.
_PARAMETER = "~parameter:"

#: Classes of slots that are the same component as long as they are the same object.
_FIXED = frozenset({Tensor, nn.Parameter, type(None), bool, int, float, str})

_LOOKS_LIKE_INT = re.compile(r"-?\d+", re.ASCII)


def slots(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], prefix: str = PREFIX
) -> dict[str, Leaves]:
    """One component a slot: ``optimizer/momentum_buffer``, ``optimizer/exp_avg`` ...

    What the optimizer keeps under a name, and not under a parameter, is ``optimizer/~shared``.

    Raises:
        UncapturedState: When the state is keyed by something that another process has not.
    """
    values: dict[str, dict[str, Any]] = {}
    shared: dict[Any, Any] = {}
    known: dict[tuple[type, Any], dict[str, Any]] = {}  # a name is made once, and not at each step
    for key, state in optimizer.state.items():
        name = names.get(id(key))
        if name is None:
            _refuse_address(key, names)
            shared[key] = _by_name(state, names)
            continue
        for slot, value in state.items():
            by_name = known.get((slot.__class__, slot))
            if by_name is None:
                by_name = known[slot.__class__, slot] = values[f"{prefix}{_slot_name(slot)}"] = {}
            by_name[name] = value
    found = {slot: _slot_leaves(slot, by_name) for slot, by_name in values.items()}
    if shared:
        found[f"{prefix}{SHARED}"] = flatten(shared, where="optimizer state")
    return found


class SlotsState:
    """:func:`slots`, asked for at every step; the same answer as long as nothing is replaced.

    Args:
        optimizer: The optimizer.
        prefix: Of the components.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, prefix: str = PREFIX) -> None:
        self._optimizer, self._prefix = optimizer, prefix
        self._names: object = None
        #: The optimizer's state and what it held, where all of it stays what it is.
        self._seen: tuple[object, Glance] | None = None
        self._slots: dict[str, Leaves] = {}

    @property
    def is_fixed(self) -> bool:
        """Whether what was given last is the same as long as the same objects are held."""
        return self._seen is not None

    def slots(self, names: Mapping[int, str]) -> dict[str, Leaves]:
        """See :func:`slots`.

        Raises:
            UncapturedState: When the state is keyed by something that another process has not.
        """
        state = self._optimizer.state
        seen = self._seen
        if seen is not None and names is self._names and state is seen[0] and seen[1].holds():
            return self._slots
        found = slots(self._optimizer, names, self._prefix)
        self._seen, held = None, list(state.values())
        if all(type(one) is dict for one in held) and all(
            type(value) in _FIXED for one in held for value in one.values()
        ):
            found = {slot: KeptLeaves(leaves) for slot, leaves in found.items()}
            self._seen, self._names, self._slots = (state, Glance([state, *held])), names, found
        return found


def restore_slots(
    optimizer: torch.optim.Optimizer,
    names: Mapping[int, str],
    saved: Mapping[str, Saved],
    prefix: str = PREFIX,
) -> None:
    """Replace all slots by those of a snapshot.

    Args:
        optimizer: The live optimizer.
        names: From :func:`parameter_names`.
        saved: Components whose names start with ``prefix``.
        prefix: Of the components.

    Raises:
        RestoreMismatch: When a slot belongs to a parameter that the optimizer has not.
    """
    owners = {
        names[id(parameter)]: (parameter, group)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    by_slot: dict[str, Any] = {
        component.removeprefix(prefix): unflatten(loaded(leaves)) if "" in leaves else leaves
        for component, leaves in saved.items()
    }
    shared = by_slot.pop(SHARED, {})
    for slot, by_name in by_slot.items():
        unknown = next((name for name in by_name if name not in owners), None)
        if unknown is not None:
            raise RestoreMismatch(
                f"the optimizer has no parameter {unknown!r}",
                component=f"{prefix}{slot}",
                hint=SAME_OBJECTS,
            )
    optimizer.state.clear()
    copies = _Copies()
    ordered = [
        list(by_slot[component.removeprefix(prefix)])
        for component, leaves in saved.items()
        if "" in leaves and component != f"{prefix}{SHARED}"
    ]
    for name in _state_order(list(owners), ordered):
        parameter, group = owners[name]
        for slot, by_name in by_slot.items():
            if name in by_name:
                value = copies.slot(slot, by_name[name], parameter, group)
                optimizer.state[parameter][_slot_key(slot)] = value
    home = next((parameter.device for parameter, _ in owners.values()), torch.device("cpu"))
    for key, value in shared.items():
        optimizer.state[key] = _by_parameter(copies.to(value, home), owners)


def _slot_leaves(slot: str, by_name: Mapping[str, Any]) -> Leaves:
    if all(
        type(value) is Tensor
        or (isinstance(value, Tensor) and (is_sharded(value) or not has_inner_tensors(value)))
        for value in by_name.values()
    ):
        return dict(by_name)
    return flatten(dict(by_name), where=slot)


def _by_name(value: Any, names: Mapping[int, str]) -> Any:
    """A dict whose keys are parameters, as one whose keys are their names."""
    if type(value) is not dict:
        return value
    return {
        _PARAMETER + names[id(key)]
        if id(key) in names
        else f"~{key}"
        if isinstance(key, str) and key.startswith("~")
        else key: item
        for key, item in value.items()
    }


def _by_parameter(value: Any, owners: Mapping[str, tuple[Tensor, Any]]) -> Any:
    """Inverse of :func:`_by_name`."""
    if type(value) is not dict:
        return value
    found: dict[Any, Any] = {}
    for key, item in value.items():
        if isinstance(key, str) and key.startswith(_PARAMETER):
            name = key.removeprefix(_PARAMETER)
            if name not in owners:
                raise RestoreMismatch(
                    f"the optimizer has no parameter {name!r}", component=f"{PREFIX}{SHARED}"
                )
            found[owners[name][0]] = item
        else:
            found[key.removeprefix("~") if isinstance(key, str) else key] = item
    return found


def _refuse_address(key: object, names: Mapping[int, str]) -> None:
    """Refuse a key of the state that means nothing in another process."""
    text = f"optimizer state is keyed by a {type(key).__name__} that is no parameter of it"
    if isinstance(key, int) and key in names:
        text = f"optimizer state is keyed by the address of the parameter {names[key]}"
    elif isinstance(key, (str, int)):
        return
    raise UncapturedState(
        text, component="optimizer", hint="let the optimizer key its state by its parameters"
    )


def _slot_name(slot: object) -> str:
    """The name of a slot in a component; text that looks like a number is marked."""
    if type(slot) is int:
        return str(slot)
    if type(slot) is not str:
        raise UncapturedState(
            f"a slot of the optimizer is named by a {type(slot).__name__}",
            component="optimizer",
            hint="let it name its slots by text",
        )
    escaped = slot.replace("~", "~0").replace("/", "~1")
    return f"~s{escaped}" if _LOOKS_LIKE_INT.fullmatch(slot) else escaped


def _slot_key(name: str) -> str | int:
    if _LOOKS_LIKE_INT.fullmatch(name):
        return int(name)
    return name.removeprefix("~s").replace("~1", "/").replace("~0", "~")


def _state_order(parameters: list[str], orders: list[list[str]]) -> list[str]:
    """Names in the order in which the optimizer's state had them.

    A slot of numbers keeps the order of its dict, which enters its digest, so that the restored
    state must have it, too. A slot of tensors is by name and says nothing of an order.

    Args:
        parameters: All names, in the order of the groups: the order where nothing says another.
        orders: Of the slots that keep one.

    Raises:
        RestoreMismatch: When two of them contradict each other, as no state's do.
    """
    rank = {name: number for number, name in enumerate(parameters)}
    sorter = graphlib.TopologicalSorter[str](dict.fromkeys(parameters, ()))
    for order in orders:
        for before, after in itertools.pairwise(order):
            sorter.add(after, before)
    try:
        sorter.prepare()
    except graphlib.CycleError:
        raise RestoreMismatch("slots in orders that contradict", component="optimizer") from None
    ready: list[int] = []
    found = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, rank[name])
        found.append(parameters[heapq.heappop(ready)])
        sorter.done(found[-1])
    return found


class _Copies:
    """Copies of a snapshot's tensors on their devices; what was one tensor is one again."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, torch.device], Tensor] = {}

    def slot(self, slot: str, value: Any, parameter: Tensor, group: Mapping[str, Any]) -> Any:
        """A restored slot where the optimizer keeps it; values and dtypes stay."""
        # As in torch.optim.Optimizer.load_state_dict: step counters stay on the host unless the
        # kernel reads them on the device.
        on_host = slot == "step" and not (group.get("capturable") or group.get("fused"))
        return self.to(value, torch.device("cpu") if on_host else parameter.device)

    def to(self, value: Any, device: torch.device) -> Any:
        """A copy of a tree."""
        if isinstance(value, TENSORS):
            key = (id(value), device)
            if not isinstance(value, StoredTensor) and has_inner_tensors(
                value
            ):  # decoded into memory of its own
                return value if value.device == device else value.to(device)
            if key not in self._made:
                self._made[key] = copied(value, device)
            return self._made[key]
        if type(value) in (list, tuple):  # LBFGS keeps its history in lists
            return type(value)(self.to(item, device) for item in value)
        if type(value) is deque:
            return deque((self.to(item, device) for item in value), value.maxlen)
        if type(value) in (dict, OrderedDict):
            return type(value)((key, self.to(item, device)) for key, item in value.items())
        return value
