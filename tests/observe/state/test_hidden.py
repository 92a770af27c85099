"""What a program's code keeps by itself is named once it has moved, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from auditkit.observe.state.hidden import HiddenValues

SEEN: dict[str, Any] = {"n": 0, "nan": float("nan"), "large": 10**5000, "shape": [1, 2]}
STEPS = 0


def counts_in_a_global() -> None:
    SEEN["n"] += 1


def counts_in_a_number() -> None:
    global STEPS  # noqa: PLW0603 # which is what is looked for
    STEPS += 1


def counts_in_itself() -> None:
    vars(counts_in_itself)["n"] = vars(counts_in_itself).get("n", 0) + 1


def counts_in_a_default(seen: list[int] = []) -> None:  # noqa: B006
    seen.append(1)


def in_a_closure() -> Callable[[], None]:
    n = 0

    def counted() -> None:
        nonlocal n
        n += 1

    return counted


def rates() -> Iterator[float]:
    rate = 0.1
    while True:
        yield rate
        rate *= 0.9


class Optimizer:
    """Moves where no attribute of the object shows it."""

    calls = 0
    betas = (0.9, 0.99)

    def __init__(self, rates: Any = None) -> None:
        self.rates, self.steps = rates, 0

    def step(self) -> None:
        type(self).calls += 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (counts_in_a_global, f"{__name__}.SEEN"),
        (counts_in_a_number, f"{__name__}.STEPS"),
        (counts_in_itself, "counts_in_itself.n"),
        (counts_in_a_default, "a default of counts_in_a_default"),
        (in_a_closure(), "n of loss"),
    ],
)
def test_what_a_function_keeps_is_named(function: Callable[[], None], said: str) -> None:
    hidden = HiddenValues({"loss": function})
    assert hidden.moved() == ()
    function()
    assert hidden.moved() == (said,)


@pytest.mark.parametrize(
    "held",
    [itertools.count(), itertools.cycle([0.1, 0.05, 0.01]), iter([1.0, 2.0]), rates()],
    ids=["count", "cycle", "list", "generator"],
)
def test_an_iterator_that_an_optimizer_holds_is_named(held: Iterator[float]) -> None:
    hidden = HiddenValues({"optimizer": Optimizer(held)})
    for _ in range(2):
        next(held)
        assert hidden.moved() == ("optimizer.rates",)


def test_what_a_class_keeps_is_named_and_an_attribute_is_a_snapshots_affair() -> None:
    made = Optimizer()
    hidden = HiddenValues({"optimizer": made})
    made.steps = 7
    assert hidden.moved() == ()
    made.step()
    assert hidden.moved() == ("Optimizer.calls",)


class Slotted:
    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0


COUNTED = Slotted()


def counts_in_a_class() -> None:
    Optimizer.calls += 1


def counts_in_a_slot() -> None:
    COUNTED.n += 1


@pytest.mark.parametrize(
    ("function", "said"),
    [(counts_in_a_class, "Optimizer.calls"), (counts_in_a_slot, "loss's global COUNTED.n")],
)
def test_what_a_class_or_an_object_in_a_global_keeps_is_named(
    function: Callable[[], None], said: str
) -> None:
    hidden = HiddenValues({"loss": function})
    function()
    assert hidden.moved() == (said,)


def test_a_slot_of_what_is_held_is_named() -> None:
    made = Optimizer(Slotted())
    hidden = HiddenValues({"optimizer": made})
    made.rates.n += 1
    assert hidden.moved() == ("optimizer.rates.n",)


def test_an_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = HiddenValues({})
    monkeypatch.setenv("SEEN_STEPS", "1")
    assert hidden.moved() == ("os.environ['SEEN_STEPS']",)


def test_a_model_that_nobody_registered_is_named_and_no_other() -> None:
    model, teacher = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    weights = list(model.parameters())
    hidden = HiddenValues(
        {"model": model, "loss": lambda: (model, weights, teacher)}, registered=[model]
    )
    torch.nn.init.ones_(model.weight)
    assert hidden.moved() == ()
    teacher.weight.data[0, 0] += 1  # which no version counts
    assert hidden.moved() == ("teacher of loss",)


def test_a_layer_of_another_class_is_named() -> None:
    model = torch.nn.Sequential(torch.nn.ReLU())
    hidden = HiddenValues({"model": model}, registered=[model])
    model[0] = torch.nn.Tanh()
    assert hidden.moved() == ("the class of model._modules['0']",)


def test_tensors_are_compared_by_what_was_written() -> None:
    bank, other, array = torch.zeros(3), torch.zeros(3), np.zeros((2, 2))
    hidden = HiddenValues({"loss": lambda: (bank + other, array)})
    bank[0] = 1
    assert hidden.moved() == ("bank of loss",)
    array[1, 1] = 1
    assert set(hidden.moved()) == {"bank of loss", "array of loss"}
