from __future__ import annotations

import random
import struct
import sys
from typing import Any

import numpy as np
import pytest
import torch

from auditkit.observe.rng import reading
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
