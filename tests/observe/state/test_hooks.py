"""What the user's hooks keep is named by what they hang on and their function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from auditkit.observe.state.hidden import HiddenValues
from auditkit.observe.state.hooks import hooks_by_name


class Counting:
    def __init__(self) -> None:
        self.n = 0

    def __call__(self, *_: Any) -> None:
        self.n += 1

    def count(self, *_: Any) -> None:
        self.n += 1


class Net(nn.Module):
    """A layer whose hook is a method of its own: an attribute that a snapshot holds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.n = nn.Linear(2, 2), 0
        self.register_forward_hook(self.count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.inner(x)
        return y

    def count(self, *_: Any) -> None:
        self.n += 1


def closure() -> Callable[..., None]:
    n = 0

    def count(*_: Any) -> None:
        nonlocal n
        n += 1

    return count


Register = Callable[[Any, torch.optim.Optimizer, Any], object]

OF_WEIGHT: Register = lambda net, _, hook: net.inner.weight.register_hook(hook)  # noqa: E731
AFTER: Register = lambda net, _, hook: net.inner.bias.register_post_accumulate_grad_hook(hook)  # noqa: E731
OF_LAYER: Register = lambda net, _, hook: net.inner.register_forward_hook(hook)  # noqa: E731
OF_OPTIMIZER: Register = lambda _, optimizer, hook: optimizer.register_step_pre_hook(hook)  # noqa: E731


@pytest.mark.parametrize(
    ("register", "hook", "said"),
    [
        (OF_WEIGHT, Counting, "model.inner.weight's hook Counting.n"),
        (OF_WEIGHT, lambda: Counting().count, "model.inner.weight's hook Counting.count.n"),
        (OF_WEIGHT, closure, "n of model.inner.weight's hook count"),
        (AFTER, lambda: Counting().count, "model.inner.bias's hook Counting.count.n"),
        (OF_LAYER, closure, "n of model.inner's hook count"),
        (OF_OPTIMIZER, Counting, "optimizer's hook Counting.n"),
        (
            OF_WEIGHT,
            lambda: functools.partial(closure(), 1),
            "n of model.inner.weight's hook count.func",
        ),
    ],
)
def test_what_a_hook_keeps_is_named(register: Register, hook: Callable[[], Any], said: str) -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    register(net, optimizer, hook())
    roots = {"model": net, **hooks_by_name({"model": net}, optimizer)}
    hidden = HiddenValues(roots)
    assert hidden.moved() == ()
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert hidden.moved() == (said,)


def test_hooks_of_libraries_and_of_nothing_are_none() -> None:
    net: Any = nn.Linear(2, 2)
    net.weight.register_hook(torch.relu)
    net.register_forward_hook(functools.partial(nn.functional.relu))
    assert hooks_by_name({"model": net}, torch.optim.SGD(net.parameters())) == {}
