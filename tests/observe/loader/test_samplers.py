from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_programs import FixedBatchSampler, Numbers
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from auditkit.errors import RestoreMismatch
from auditkit.observe.loader.samplers import (
    capture_samplers,
    draws_once,
    named_samplers,
    restore_samplers,
    sampler_generators,
)
from auditkit.observe.values.codec import flatten, unflatten


class Inner(Sampler[int]):
    """Holds something of everything."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)
        self.number = 1
        self.order = [1, 2, 3]
        self.groups: dict[Any, Any] = {"a": [1], (1, 2): {3}, "q": deque([1], maxlen=2)}
        self.array = np.zeros(2)
        self.tensor = torch.zeros(2)
        self.data: Any = Numbers()
        self.objects = [object()]

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)


class Outer(Sampler[int]):
    """Wraps another sampler under a name of its own."""

    def __init__(self) -> None:
        self.wrapped = Inner()
        self.rng = random.Random(1)

    def __iter__(self) -> Iterator[int]:
        return iter(self.wrapped)


def made() -> tuple[DataLoader[Any], Outer]:
    outer = Outer()
    loader: DataLoader[Any] = DataLoader(Numbers(), batch_size=2, sampler=outer)
    return loader, outer


def test_samplers_inside_samplers_are_found() -> None:
    loader, outer = made()
    paths = dict(named_samplers(loader))
    assert paths["sampler"] is outer
    assert paths["sampler.wrapped"] is outer.wrapped
    assert set(sampler_generators(loader)) == {
        "sampler.rng",
        "sampler.wrapped.rng",
    }


def test_state_is_copied_and_comes_back() -> None:
    loader, outer = made()
    inner = outer.wrapped
    state = capture_samplers(loader)
    expected = inner.rng.random(), outer.rng.random()
    inner.number = 5
    inner.order.reverse()
    inner.groups["a"].append(9)
    inner.groups["q"].append(9)
    inner.array[0] = 9
    inner.tensor[0] = 9
    kept = inner.data, inner.objects
    restore_samplers(loader, unflatten(flatten(state, where="samplers")))
    assert (inner.rng.random(), outer.rng.random()) == expected
    assert (inner.number, inner.order) == (1, [1, 2, 3])
    assert inner.groups == {"a": [1], (1, 2): {3}, "q": deque([1])}
    assert inner.array.tolist() == inner.tensor.tolist() == [0, 0]
    assert (inner.data, inner.objects) == kept


def test_a_data_set_that_is_a_list_is_no_state() -> None:
    data: Any = [1, 2, 3]
    loader: DataLoader[Any] = DataLoader(data, batch_size=2, sampler=Holding(data))
    assert capture_samplers(loader) == {}


class Holding(Sampler[int]):
    def __init__(self, data: Any) -> None:
        self.data_source = data

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))


def test_generators_of_the_loader_are_found() -> None:
    generator = torch.Generator()
    loader: DataLoader[Any] = DataLoader(Numbers(), shuffle=True, generator=generator)
    found = sampler_generators(loader)
    assert set(found) == {"generator", "sampler.generator"}
    assert all(one is generator for one in found.values())


def test_another_loader_is_refused() -> None:
    state = capture_samplers(made()[0])
    with pytest.raises(RestoreMismatch, match="the loader has no"):
        restore_samplers(DataLoader(Numbers(), batch_size=None), state)


@pytest.mark.parametrize(
    ("sampler", "once"),
    [
        (RandomSampler([1]), True),
        (SequentialSampler([1]), True),
        (WeightedRandomSampler([1.0], 1), True),
        (BatchSampler(RandomSampler([1]), 1, False), True),
        (DistributedSampler(Numbers(), 1, 0), True),
        (BatchSampler(Inner(), 1, False), False),
        (Inner(), False),
        (FixedBatchSampler([[1]]), False),
        (type("Own", (RandomSampler,), {})([1]), False),
    ],
)
def test_only_known_samplers_draw_once(sampler: Any, once: bool) -> None:
    assert draws_once(sampler) is once
