from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_programs import digests, frozen
from torch import nn

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.state.optimizers import (
    OptimizerState,
    parameter_names,
    restore_groups,
    restore_slots,
    restore_whole_optimizer,
    slots,
    whole_optimizer,
)


def made(n_steps: int = 2, **options: Any) -> tuple[nn.Linear, torch.optim.Optimizer]:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})
    for _ in range(n_steps):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    return model, optimizer


def names_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[int, str]:
    return parameter_names(optimizer, dict(model.named_parameters()))


def test_slots_are_components_by_parameter() -> None:
    model, optimizer = made()
    found = slots(optimizer, names_of(model, optimizer))
    assert set(found) == {"optimizer/momentum_buffer"}
    assert set(found["optimizer/momentum_buffer"]) == {"weight", "bias"}


def test_slots_of_frozen_parameters_are_absent() -> None:
    model, optimizer = made(0)
    model.bias.requires_grad_(False)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    found = slots(optimizer, names_of(model, optimizer))
    assert set(found["optimizer/momentum_buffer"]) == {"weight"}


def test_state_that_is_keyed_by_something_else_is_refused() -> None:
    model, optimizer = made()
    state: dict[Any, Any] = optimizer.state
    state["shared"] = {"x": 1}
    with pytest.raises(UncapturedState, match="keyed by a str"):
        slots(optimizer, names_of(model, optimizer))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (0.0, -0.0),
        (1, 1.0),
        (1, True),
        ((0.9, 0.99), (0.9, 0.999)),
        ((0.9, 1), (0.9, 1.0)),
        ([0.9], (0.9,)),
        (None, 0),
        ("1", 1),
        (0.1, np.float64(0.1)),
        (torch.tensor(1.0), torch.tensor(2.0)),
        ({"a": 1}, {"a": 2}),
    ],
)
def test_hyper_parameters_that_differ_have_other_digests(old: object, new: object) -> None:
    model, optimizer = made()
    names, state = names_of(model, optimizer), OptimizerState(optimizer)
    found = []
    for value in (old, new, old):
        optimizer.param_groups[0]["x"] = value
        found.append(digests({"groups": state.groups(names)}))
    assert found[0] != found[1]
    assert found[0] == found[2]


def test_a_tensor_that_is_changed_in_place_is_seen() -> None:
    model, optimizer = made(lr=torch.tensor(0.1))
    names, state = names_of(model, optimizer), OptimizerState(optimizer)
    before = digests({"groups": state.groups(names)})
    optimizer.param_groups[0]["lr"].fill_(0.2)
    assert digests({"groups": state.groups(names)}) != before


def test_groups_come_back_whole() -> None:
    model, optimizer = made()
    names = names_of(model, optimizer)
    saved = frozen({"g": OptimizerState(optimizer).groups(names)})["g"]
    optimizer.param_groups[0].update(lr=5, added=1)
    del optimizer.param_groups[0]["nesterov"]
    restore_groups(optimizer, names, saved)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.param_groups[0]["nesterov"] is False
    assert "added" not in optimizer.param_groups[0]


def test_a_slot_of_an_unknown_parameter_is_refused() -> None:
    model, optimizer = made()
    with pytest.raises(RestoreMismatch, match="no parameter 'other'"):
        restore_slots(
            optimizer,
            names_of(model, optimizer),
            {"optimizer/momentum_buffer": {"other": torch.ones(1)}},
        )


def test_a_whole_optimizer_comes_back() -> None:
    model, optimizer = made()
    names = names_of(model, optimizer)
    saved = frozen({"o": whole_optimizer(optimizer, names)})["o"]
    expected = digests({"o": saved})
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 3
    assert digests({"o": whole_optimizer(optimizer, names)}) != expected
    restore_whole_optimizer(optimizer, names, saved)
    assert digests({"o": whole_optimizer(optimizer, names)}) == expected


def test_tied_parameters_go_by_their_first_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    known = dict(model.named_parameters(remove_duplicate=False))
    optimizer = torch.optim.SGD(model.parameters())
    assert sorted(parameter_names(optimizer, known).values()) == ["0.bias", "0.weight", "1.bias"]
