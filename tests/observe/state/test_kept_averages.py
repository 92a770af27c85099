"""Averages in dicts and lists: seen where they follow the model, and nothing else is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from auditkit.observe.state.kept_averages import KeptAverages


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in model.named_parameters()}


def seen(
    model: nn.Module, value: Any, change: Callable[[], object], registered: tuple[Any, ...] = ()
) -> bool:
    """Whether it counts as an average where the model moves, and this happens, in one step."""
    averages = KeptAverages(model)
    averages.begin(1, [model, *registered])
    averages.add("value", value)
    with torch.no_grad():
        for one in model.parameters():
            one.add_(0.01)
        change()
    found = averages.moved(2)
    assert not averages.is_waiting
    return found == [("value", value)]


def follow(value: dict[str, Tensor] | list[Tensor], model: nn.Module) -> None:
    tensors = value.values() if isinstance(value, dict) else value
    for mine, its in zip(tensors, model.parameters(), strict=True):
        mine.lerp_(its.detach(), 0.5)


@pytest.mark.parametrize("form", [dict, list, tuple])
def test_an_average_is_seen(form: type) -> None:
    model = nn.Linear(3, 2)
    kept = copied(model)
    value = kept if form is dict else form(kept.values())
    assert seen(model, value, lambda: follow(list(kept.values()), model))


def test_an_average_with_buffers_or_under_other_names_is_seen() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = {name: one.clone() for name, one in model.state_dict().items()}
    part = {name: state[name] for name, _ in model.named_parameters()}
    assert seen(model, state, lambda: follow(part, model))
    other = {f"module.{name}": one for name, one in copied(model).items()}
    assert seen(model, other, lambda: follow(other, model))


def test_what_does_not_move_is_none() -> None:
    model = nn.Linear(3, 2)
    assert not seen(model, copied(model), lambda: None)


def test_what_the_model_was_or_is_is_none() -> None:
    model = nn.Linear(3, 2)
    before, value = copied(model), {name: one + 0.1 for name, one in copied(model).items()}
    assert not seen(model, value, lambda: value.update(before))
    value = {name: one + 0.1 for name, one in copied(model).items()}
    assert not seen(model, value, lambda: value.update(copied(model)))


def rounded(value: list[Tensor], model: nn.Module) -> None:
    for mine, its in zip(value, model.parameters(), strict=True):
        mine.copy_(its)


def perturbed(value: list[Tensor], model: nn.Module) -> None:
    for mine, its in zip(value, model.parameters(), strict=True):
        mine.copy_(its + 0.02 * torch.randn_like(its))


def descended(value: list[Tensor], model: nn.Module) -> None:
    for mine, its in zip(value, model.parameters(), strict=True):
        mine.copy_(its - 0.05 * torch.ones_like(its))


@pytest.mark.parametrize("write", [rounded, perturbed, descended])
def test_what_every_step_writes_anew_from_the_parameters_is_none(
    write: Callable[[list[Tensor], nn.Module], None],
) -> None:
    model = nn.Linear(3, 2)
    kind = torch.bfloat16 if write is rounded else torch.float32
    value = [one.detach().to(kind, copy=True) for one in model.parameters()]
    write(value, model)
    assert not seen(model, value, lambda: write(value, model))


@pytest.mark.parametrize("part", [1e-4, 0.1, 0.5])
def test_any_part_of_the_way_is_an_average(part: float) -> None:
    model = nn.Linear(3, 2)
    value = list(copied(model).values())

    def follow_twice() -> None:
        for _ in range(2 if part < 0.5 else 1):
            for mine, its in zip(value, model.parameters(), strict=True):
                mine.lerp_(its.detach(), part)

    assert seen(model, value, follow_twice)


def test_what_lies_elsewhere_or_is_trained_is_none() -> None:
    model = nn.Linear(3, 2)
    gradients = {name: torch.zeros_like(one) for name, one in model.named_parameters()}
    assert not seen(model, gradients, lambda: [one.add_(9) for one in gradients.values()])
    trained = [nn.Parameter(one.clone()) for one in copied(model).values()]
    assert not seen(model, trained, lambda: follow(trained, model))  # type: ignore[arg-type]


def test_what_a_registered_object_holds_is_none() -> None:
    model, average = nn.Linear(3, 2), nn.Linear(3, 2)
    average.load_state_dict(model.state_dict())
    tensors = list(average.requires_grad_(False).parameters())
    assert seen(model, tensors, lambda: follow(tensors, model))  # type: ignore[arg-type]
    average.load_state_dict(model.state_dict())
    assert not seen(model, tensors, lambda: follow(tensors, model), (average,))  # type: ignore[arg-type]

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    slots = {name: one * 1.01 for name, one in copied(model).items()}
    for name, one in model.named_parameters():
        optimizer.state[one]["z"] = slots[name]
    assert not seen(model, slots, lambda: follow(slots, model), (optimizer,))
    kept = [copied(model)]
    optimizer.slow = kept  # type: ignore[attr-defined]
    assert not seen(model, kept[0], lambda: follow(kept[0], model), (optimizer,))


def test_two_steps_that_do_not_follow_each_other_tell_nothing() -> None:
    model = nn.Linear(3, 2)
    value, averages = copied(model), KeptAverages(model)
    averages.begin(1, [model])
    averages.add("value", value)
    assert averages.is_waiting
    follow(value, nn.Linear(3, 2))
    assert averages.moved(3) == []


class Talkative(dict[str, Any]):
    """A mapping that is asked for nothing."""

    def keys(self) -> Any:
        raise AssertionError

    values = items = __len__ = keys


def test_nothing_is_asked_of_a_mapping_and_what_has_no_shape_yet_is_none() -> None:
    model = nn.Linear(3, 2)
    kept = copied(model)
    assert seen(model, Talkative(kept), lambda: follow(kept, model))
    assert not seen(model, [nn.LazyLinear(2).weight] * 2, lambda: None)
