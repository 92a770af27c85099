from __future__ import annotations

import random
import struct
import sys
from typing import Any

import numpy as np
import pytest
import torch

from auditkit.observe.rng import reading
from auditkit.observe.rng.numpy_memory import current_generator
from auditkit.observe.rng.reading import StreamReader
from auditkit.observe.rng.streams import capture_streams, seed_everything


def test_a_reader_gives_what_capturing_gives_whatever_happens() -> None:
    reader = StreamReader()
    halfway = np.random.RandomState(3)
    halfway.randn()
    generator = random.Random(0)
    actions: list[Any] = [
        random.random,
        lambda: random.gauss(0, 1),
        np.random.rand,
        np.random.randn,  # twice: the second takes what the first kept back
        np.random.randn,
        lambda: torch.rand(1),
        lambda: np.random.seed(1),
        lambda: np.random.set_state(halfway.get_state()),
        lambda: seed_everything(3),
        lambda: random.setstate((*random.getstate()[:2], 0.5)),  # no word of the state changes
        lambda: random.setstate((*random.getstate()[:2], None)),
        lambda: None,
    ]
    for _ in range(200):
        generator.choice(actions)()
        found, expected = reader.read(), capture_streams()
        assert found.same_as(expected)
        assert found.leaves() == expected.leaves()


def test_a_stream_that_nobody_draws_from_is_read_as_the_very_same_object() -> None:
    np.random.seed(0)
    reader = StreamReader()
    first = reader.read()
    np.random.rand()
    second = reader.read()
    assert second.python is first.python
    assert second.torch is first.torch
    assert second.numpy is not first.numpy
    known = first.leaves()
    moved = second.leaves_since(first, known)
    assert [name for name in known if moved[name] is not known[name]] == ["rng/numpy"]
    assert reader.read().numpy is second.numpy


class _Counting:
    """``random.getstate`` with a count of its calls."""

    def __init__(self) -> None:
        self._asked = random.getstate
        self.__self__: object = getattr(random.getstate, "__self__", None)
        self.n = 0

    def __call__(self) -> Any:
        self.n += 1
        return self._asked()


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="another layout")
def test_python_is_asked_only_where_somebody_drew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _Counting()
    monkeypatch.setattr(random, "getstate", asked)
    reader = StreamReader()
    states = [reader.read().python for _ in range(4)]
    assert all(state is states[0] for state in states)
    assert asked.n == 1
    random.random()
    assert reader.read().python is reader.read().python == random.getstate()
    assert asked.n == 3


def test_memory_that_is_laid_out_otherwise_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "_PYTHON_MEMORY", struct.Struct("=624Ii"))
    reader = StreamReader()
    first = reader.read().python
    assert reader.read().python is first
    random.random()
    assert reader.read().python == random.getstate() != first


def test_another_generator_behind_random_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = StreamReader()
    reader.read()
    for other in (random.Random(1), random.Random(2), type("Own", (random.Random,), {})(3)):
        monkeypatch.setattr(random, "getstate", other.getstate)
        assert reader.read().python == other.getstate()
        other.random()
        assert reader.read().python == other.getstate()


def test_other_generators_behind_numpy_and_torch_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = StreamReader()
    assert reader.read() is reader.read()
    set_bit_generator: Any = np.random.set_bit_generator  # type: ignore[attr-defined]
    own = current_generator()
    try:
        set_bit_generator(np.random.MT19937(7))
        assert reader.read().same_as(capture_streams())
    finally:
        set_bit_generator(own)
    other = torch.Generator()
    other.manual_seed(5)
    monkeypatch.setattr(torch, "default_generator", other)
    assert torch.equal(reader.read().torch, other.get_state())
    monkeypatch.undo()
    assert reader.read().same_as(capture_streams())


def test_a_normal_number_that_torch_keeps_back_is_seen() -> None:
    reader = StreamReader()
    before = reader.read()
    state = torch.get_rng_state()
    state[5048:5053] = 1
    try:
        torch.set_rng_state(state)
        assert torch.equal(reader.read().torch, torch.get_rng_state())
        assert not torch.equal(reader.read().torch, before.torch)
    finally:
        torch.set_rng_state(before.torch)
    assert reader.read().same_as(before)


def test_a_device_that_comes_into_use_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = StreamReader()
    reader.read()
    states = {0: torch.zeros(16, dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(reading, "cuda_states", lambda: states)
    assert reader.read().cuda == states
    states[0] = torch.ones(16, dtype=torch.uint8)
    assert reader.read().cuda == states
