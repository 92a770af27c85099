"""Groups that are asked for at every step say what they hold now, whatever they held before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from auditkit.observe.state.groups import GroupsState, parameter_names

Groups = list[dict[str, Any]]


def swap_groups(groups: Groups) -> None:
    groups[0], groups[1] = groups[1], groups[0]


def swap_parameters(groups: Groups) -> None:
    groups[0]["params"].reverse()


def grow(groups: Groups) -> None:
    groups[1]["params"].append(groups[0]["params"].pop())


CHANGES: dict[str, Callable[[Groups], object]] = {
    "a number": lambda groups: groups[0].update(lr=0.2),
    "its sign alone": lambda groups: groups[0].update(weight_decay=-0.0),
    "its type alone": lambda groups: groups[0].update(weight_decay=0),
    "a tuple": lambda groups: groups[0].update(betas=(0.8, 0.999)),
    "an item of a list": lambda groups: groups[0]["schedule"].append(3),
    "a name": lambda groups: groups[0].update(extra=groups[0].pop("schedule")),
    "the order of groups": swap_groups,
    "the order of parameters": swap_parameters,
    "whose a parameter is": grow,
}


@pytest.mark.parametrize("lists", [True, False], ids=["with a list", "without"])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_change_is_seen_and_nothing_else_is(change: str, lists: bool) -> None:
    if not lists and change in ("an item of a list", "a name"):
        pytest.skip("there is no list")
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    groups: Groups = [{"params": list(layer.parameters()), "weight_decay": 0.0} for layer in model]
    optimizer = torch.optim.Adam(groups, lr=0.1)
    if lists:
        optimizer.param_groups[0]["schedule"] = [1, 2]
    state = GroupsState(optimizer)

    def read() -> Any:
        return state.groups(parameter_names(optimizer, dict(model.named_parameters())))

    def fresh() -> Any:
        names = parameter_names(optimizer, dict(model.named_parameters()))
        return GroupsState(optimizer).groups(names)

    before = read()
    assert read() is before
    CHANGES[change](optimizer.param_groups)
    assert read() == fresh() != before
    assert read() is read()


def test_a_parameter_that_is_called_something_else_is_seen() -> None:
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    state = GroupsState(optimizer)
    first = state.groups({id(layer.weight): "weight", id(layer.bias): "bias"})
    assert state.groups({id(layer.weight): "inner.weight", id(layer.bias): "inner.bias"}) != first
