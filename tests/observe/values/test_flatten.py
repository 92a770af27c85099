from __future__ import annotations

from collections import Counter, defaultdict, namedtuple
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auditkit.errors import UncapturedState
from auditkit.observe.values.flatten import flatten


class Level(IntEnum):
    LOW = 1


Pair = namedtuple("Pair", "a b")


class Dict(dict[str, int]):
    pass


class Tensorish(Tensor):
    pass


def cycle() -> list[Any]:
    inner: list[Any] = []
    outer = [inner]
    inner.append(outer)
    return outer


def deep() -> list[Any]:
    tree: list[Any] = []
    for _ in range(5000):
        tree = [tree]
    return tree


def counter_with_attribute() -> Counter[str]:
    counter: Counter[str] = Counter()
    counter.extra = 1  # type: ignore[attr-defined]
    return counter


@pytest.mark.parametrize(
    "bad",
    [
        lambda: 1,
        object(),
        int,
        Level.LOW,
        Pair(1, 2),
        Dict(),
        range(3),
        torch.eye(2).to_sparse(),
        torch.empty(2, device="meta"),
        Tensorish(),
        torch.ones(1, requires_grad=True) * 2,
        nn.Linear(1, 1),
        torch.Generator(),
        np.random.default_rng(),
        np.array([object()]),
        np.zeros(1, [("a", "i4")]),
        np.zeros(1, np.longdouble),
        np.longdouble(1),
        np.ma.masked_array([1]),
        defaultdict(lambda: 1),
        counter_with_attribute(),
        cycle(),
        deep(),
        {torch.ones(1): 1},
        {(torch.ones(1),): 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_kept_is_refused_by_its_path(bad: object) -> None:
    with pytest.raises(UncapturedState) as caught:
        flatten({"outer": [None, bad]}, where="extras/mine")
    assert str(caught.value.where).startswith("extras/mine")
    if not isinstance(bad, list):
        assert str(caught.value.where).startswith("extras/mine/outer/1")


def test_a_graph_is_refused_with_a_hint() -> None:
    with pytest.raises(UncapturedState, match="detach"):
        flatten({"ema": torch.ones(1, requires_grad=True) * 2}, where="x")


def test_a_sparse_gradient_has_a_remedy_and_other_tensors_have_none_of_it() -> None:
    with pytest.raises(UncapturedState, match="sparse_coo") as error:
        flatten(torch.eye(2).to_sparse(), where="grad")
    assert "zero_grad()" in str(error.value.hint)
    with pytest.raises(UncapturedState) as error:
        flatten(torch.empty(2, device="meta"), where="grad")
    assert error.value.hint is None
