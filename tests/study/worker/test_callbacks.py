"""What is digested of every module during one step."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from auditkit.evidence.comparison import first_differing_module
from auditkit.observe.loader.driver import Delivery
from auditkit.records.plan import StudyPlan
from auditkit.study.worker.callbacks import BranchCallback, ModuleCallback

BATCH = torch.linspace(-1, 1, 8).reshape(2, 4)


def nothing(values: Tensor) -> Tensor:
    return values


class Block(nn.Module):
    """Two layers, with something in between that is no module's."""

    def __init__(
        self, between: Callable[[Tensor], Tensor] = nothing, *, inplace: bool = True
    ) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace)
        self.between = between

    def forward(self, values: Tensor, *, scale: Tensor | None = None) -> Tensor:
        hidden = self.relu(self.between(self.first(values)))
        return hidden if scale is None else hidden * scale  # type: ignore[no-any-return]


def watched(model: nn.Module) -> tuple[tuple[str, str], ...]:
    """Digests of one step."""
    callback = ModuleCallback(model, 1, lambda _: None)
    callback.on_batch(1, Delivery(BATCH, None, 0), {"x": BATCH})
    model(BATCH).sum().backward()
    callback.on_step_end(1, None)
    return tuple(callback.entries)


def build(between: Callable[[Tensor], Tensor] = nothing, *, inplace: bool = True) -> nn.Sequential:
    torch.manual_seed(1)
    block = Block(between, inplace=inplace)
    return nn.Sequential(OrderedDict(block=block, last=nn.Linear(4, 2)))


def test_an_outer_module_begins_before_its_inner_ones_and_ends_after_them() -> None:
    names = [name for name, _ in watched(build()) if not name.startswith("gradient")]
    assert names == [
        "<batch>",
        "<model> (Sequential) input",
        "block (Block) input",
        "block.first (Linear) input",
        "block.first (Linear) output",
        "block.relu (ReLU) input",
        "block.relu (ReLU) output",
        "block (Block) output",
        "last (Linear) input",
        "last (Linear) output",
        "<model> (Sequential) output",
    ]


def test_an_input_is_digested_before_it_is_overwritten() -> None:
    assert watched(build()) == watched(build(inplace=False))


def test_what_is_done_between_two_modules_shows_in_the_input_of_the_second() -> None:
    left, right = watched(build()), watched(build(lambda values: values + 1))
    assert first_differing_module(left, right) == "block.relu (ReLU) input"


def test_an_argument_that_is_given_by_name_is_an_input() -> None:
    class Outer(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.block = Block()
            self.scale = scale

        def forward(self, values: Tensor) -> Tensor:
            return self.block(values, scale=torch.tensor(self.scale))  # type: ignore[no-any-return]

    assert first_differing_module(watched(Outer(1.0)), watched(Outer(2.0))) == "block (Block) input"


def test_nothing_is_watched_any_more_after_the_step() -> None:
    model = build()
    callback = ModuleCallback(model, 1, lambda _: None)
    callback.on_batch(1, Delivery(BATCH, None, 0), {"x": BATCH})
    callback.on_step_end(1, None)
    model(BATCH).sum().backward()
    assert [name for name, _ in callback.entries] == ["<batch>"]


def test_compiled_modules_are_left_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and still met
        scripted = torch.jit.script(nn.Linear(4, 2))
    model = nn.Sequential(nn.Linear(4, 4), scripted)
    names = [name for name, _ in watched(model)]
    assert "0 (Linear) output" in names
    assert not any(name.startswith("1 ") for name in names)


def test_a_loss_before_the_fork_is_no_branch_s_divergence() -> None:
    plan = StudyPlan(4, 2, 10, [0], ["momentum-reset"], placebos=1)
    session: Any = SimpleNamespace(program=SimpleNamespace(loader=None, data_from="step"))
    callback = BranchCallback(session, plan, [], None, lambda _: None)
    callback.on_step_end(3, float("inf"))
    assert callback.diverged_at is None
    callback.on_step_end(5, float("nan"))
    callback.on_step_end(7, float("nan"))
    assert callback.diverged_at == 5
