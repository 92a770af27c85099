"""The groups of an optimizer: the names of its parameters, and its hyper-parameters, both ways."""

from __future__ import annotations

import enum
import types
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.state.glance import Glance, are_same
from auditkit.observe.values.codec import Leaves, flatten, unflatten
from auditkit.observe.values.tensors import KeptLeaves

GROUPS = "param_groups"

#: What to do where groups joined after the optimizer was made.
GROWN = (
    "a loop of its own must have the same groups before its first batch: where rec.step is past "
    "the step at which a group joins, add it before the loop, and let the loop go by rec.step"
)

# Their text tells any two of them apart (but for the payload of a NaN).
_SCALARS = frozenset({type(None), bool, int, float, str})

#: What is the same in every process by its name, and part of the code: recorded by that.
_CONSTANTS = (type, types.FunctionType, types.BuiltinFunctionType, enum.Enum)
_CONSTANT_NAMES = "~constants"


class GroupsState:
    """An optimizer's parameters by name and its hyper-parameters, asked for at every step.

    As long as they are the very same objects, so are the answers.

    Args:
        optimizer: The optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._known: object = None
        self._members: list[Tensor] = []
        self._lengths: list[int] = []
        self._names: dict[int, str] = {}
        self._key: object = None
        self._groups = KeptLeaves()
        #: The groups and what they held, where none of that can change.
        self._seen: tuple[list[dict[str, Any]], Glance] | None = None
        self._named: object = None

    @property
    def is_fixed(self) -> bool:
        """Whether what was given last is the same as long as the same objects are held."""
        return self._seen is not None

    def names(self, known: Mapping[str, Tensor]) -> dict[int, str]:
        """See :func:`parameter_names`."""
        lists = [group["params"] for group in self._optimizer.param_groups]
        members, lengths = [*chain.from_iterable(lists)], list(map(len, lists))
        is_same = known is self._known and lengths == self._lengths
        if not is_same or not are_same(members, self._members):
            self._names = parameter_names(self._optimizer, known)
            self._known, self._members, self._lengths = known, members, lengths
        return self._names

    def groups(self, names: Mapping[int, str]) -> Leaves:
        """Hyper-parameters of every group, parameters replaced by their names.

        Args:
            names: From :meth:`names`, just now.
        """
        groups = self._optimizer.param_groups
        if self._seen is not None and names is self._named and len(groups) == len(self._seen[0]):
            before, held = self._seen
            if are_same(groups, before) and held.holds():
                return self._groups
        found = self._read(names)
        # The list of parameters is known by the names.
        others = [value for group in groups for name, value in group.items() if name != "params"]
        self._named = names
        self._seen = ([*groups], Glance(groups)) if all(map(_is_fixed, others)) else None
        return found

    def _read(self, names: Mapping[int, str]) -> KeptLeaves:
        tree = [_described(group, names) for group in self._optimizer.param_groups]
        key = None
        if all(_is_plain(value) for group in tree for value in group.values()):
            # The text, not the values: 0.0 == -0.0 and 1 == True, which are other bits.
            key = repr(tree)
            if key == self._key:
                return self._groups
        self._groups, self._key = KeptLeaves(flatten(tree, where=GROUPS)), key
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
            hint="register the module that holds it: extras={NAME: module}; one that no module "
            "holds goes into a torch.nn.ParameterList",
        ) from None


def restore_groups(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], leaves: Leaves
) -> None:
    """Put the hyper-parameters of every group back.

    Raises:
        RestoreMismatch: When the groups hold other parameters or stand in another order.
    """
    saved = check_groups(optimizer, names, leaves)
    for number, (group, values) in enumerate(zip(optimizer.param_groups, saved, strict=True)):
        if [names[id(parameter)] for parameter in group["params"]] != values["params"]:
            raise RestoreMismatch(
                f"parameter group {number} holds other parameters, or in another order",
                component=GROUPS,
                hint=GROWN,
            )
        constants = values.pop(_CONSTANT_NAMES, {})
        _check_constants(group, constants)
        # Of the defaults those that are here: one that wraps another may share its groups.
        here = set(optimizer.defaults) & set(group)
        missing = sorted(here - set(values) - set(constants))
        if missing:
            raise RestoreMismatch(
                f"the snapshot is of another optimizer: it has no {missing[0]!r}",
                component=GROUPS,
                found=type(optimizer).__name__,
            )
        # In their order, too: load_state_dict makes another one, and the order is in the digest.
        kept = {key: group[key] for key in group if key in constants}
        ordered = {key: group["params"] if key == "params" else values[key] for key in values}
        group.clear()
        group.update({**ordered, **kept})


def saved_groups(leaves: Leaves) -> list[dict[str, Any]]:
    """Groups as they were captured: parameters by name.

    Raises:
        RestoreMismatch: When they are none.
    """
    saved = unflatten(leaves, where=GROUPS)
    if not isinstance(saved, list) or not all(
        isinstance(group, dict) and isinstance(group.get("params"), list) for group in saved
    ):
        raise RestoreMismatch("the snapshot has no parameter groups", component=GROUPS)
    return saved


def check_groups(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], leaves: Leaves
) -> list[dict[str, Any]]:
    """Require an optimizer to have as many groups as a snapshot.

    Returns:
        The snapshot's.

    Raises:
        RestoreMismatch: When it has not, naming what one of them holds.
    """
    saved, live = saved_groups(leaves), optimizer.param_groups
    if len(saved) != len(live):
        further = saved[len(live) :] or live[len(saved) :]
        members = [name if isinstance(name, str) else names[id(name)] for name in _members(further)]
        raise RestoreMismatch(
            f"the optimizer had {_count(saved)} where the state was taken, and has {_count(live)} "
            f"here; one holds {', '.join(members[:3])}",
            component=GROUPS,
            hint=GROWN,
        )
    return saved


def add_missing_groups(
    optimizer: torch.optim.Optimizer, known: Mapping[str, Tensor], leaves: Leaves
) -> None:
    """Add the groups that joined while training, where a program is driven and not a loop.

    Args:
        optimizer: As the factory built it.
        known: The program's parameters by name.
        leaves: The groups of the snapshot.
    """
    for values in saved_groups(leaves)[len(optimizer.param_groups) :]:
        if not all(name in known for name in values["params"]):
            return  # said where the state is restored
        others = {key: item for key, item in values.items() if key != _CONSTANT_NAMES}
        members = [known[name] for name in values["params"]]
        optimizer.add_param_group({**others, "params": members})


def _members(groups: list[dict[str, Any]]) -> list[Any]:
    return [member for group in groups for member in group["params"]]


def _count(groups: list[dict[str, Any]]) -> str:
    return f"{len(groups)} parameter group{'' if len(groups) == 1 else 's'}"


def _described(group: dict[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    found = {**group, "params": [names[id(parameter)] for parameter in group["params"]]}
    constants = {
        key: _constant_name(value)
        for key, value in group.items()
        if type(value) not in _SCALARS and isinstance(value, _CONSTANTS)
    }
    if constants:
        found = {key: value for key, value in found.items() if key not in constants}
        found[_CONSTANT_NAMES] = constants
    return found


def _constant_name(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__module__}.{type(value).__qualname__}.{value.name}"
    return f"{value.__module__}.{value.__qualname__}"


def _check_constants(group: Mapping[str, Any], constants: Mapping[str, str]) -> None:
    for key, name in constants.items():
        live = group.get(key)
        if not isinstance(live, _CONSTANTS) or _constant_name(live) != name:
            raise RestoreMismatch(
                f"the optimizer's {key} is another",
                component=GROUPS,
                expected=name,
                found=_constant_name(live) if isinstance(live, _CONSTANTS) else repr(live),
            )


def _is_fixed(value: object) -> bool:
    """Whether the same object always has the same value."""
    if type(value) is tuple:
        return all(type(item) in _SCALARS for item in value)
    return type(value) in _SCALARS


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return type(value) in (list, tuple) and all(type(item) in _SCALARS for item in value)
    if type(value) is dict:
        return all(type(item) in _SCALARS for pair in value.items() for item in pair)
    return type(value) in _SCALARS
