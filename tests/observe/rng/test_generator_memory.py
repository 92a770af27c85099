from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from auditkit.observe.rng import torch_memory
from auditkit.observe.rng.numpy_memory import NumpyWriter
from auditkit.observe.rng.reading import StreamReader
from auditkit.observe.rng.streams import capture_streams, numpy_state
from auditkit.observe.rng.torch_memory import generator_memory


def test_whatever_happens_to_a_generator_is_seen_in_its_memory() -> None:
    generator = torch.Generator().manual_seed(1)
    memory = generator_memory(generator)
    assert memory is not None
    seen = memory.read()
    for draw, keeps in (
        (lambda: torch.rand(1, generator=generator), False),
        (lambda: torch.randn(1, generator=generator), True),
        (lambda: torch.randn(1, generator=generator), False),
        (lambda: torch.randint(5, (1,), generator=generator), False),
        (lambda: generator.manual_seed(2), False),
    ):
        draw()
        assert memory.read() != seen
        seen = memory.read()
        assert (not seen) == keeps
    state = generator.get_state()
    torch.rand(3, generator=generator)
    generator.set_state(state)
    assert memory.read() == seen


def test_two_states_with_equal_words_are_told_apart() -> None:
    generator = torch.Generator().manual_seed(1)
    torch.randn(2000, generator=generator)
    memory = generator_memory(generator)
    assert memory is not None
    before, state = memory.read(), generator.get_state()
    torch.rand(1, generator=generator)  # moves the position alone
    assert memory.read() != before
    generator.set_state(state)
    torch.randn(1, generator=generator)
    assert memory.read() == b""


@pytest.mark.parametrize("place", ["_FIRST", "_WORDS"])
def test_a_generator_that_is_laid_out_otherwise_is_asked(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_memory, place, 512 if place == "_FIRST" else slice(0, 624 * 8))
    torch_memory._place.cache_clear()
    try:
        assert generator_memory(torch.default_generator) is None
        reader = StreamReader()
        for _ in range(3):
            torch.rand(1)
            assert reader.read().same_as(capture_streams())
            assert reader.read().torch is reader.read().torch
    finally:
        torch_memory._place.cache_clear()


def test_a_written_state_is_the_one_that_was_read() -> None:
    writer = NumpyWriter()
    halfway = np.random.RandomState(3)
    halfway.randn()
    states: list[Any] = []
    for seed in range(3):
        np.random.seed(seed)
        np.random.rand(seed)
        states.append(numpy_state())
    np.random.set_state(halfway.get_state())
    states.append(numpy_state())
    for state in [*states, *states[::-1], *states]:
        np.random.randn(3)  # leaves half of a pair behind
        writer.write(state)
        found = numpy_state()
        assert found[2:] == state[2:]
        assert np.array_equal(found[1], state[1])
        drawn = np.random.randn(2).tolist()
        np.random.set_state(state)
        assert drawn == np.random.randn(2).tolist()


def test_another_generator_behind_numpy_is_written_to() -> None:
    writer = NumpyWriter()
    before = np.random.get_bit_generator()  # type: ignore[attr-defined]
    try:
        for seed in range(3):
            np.random.set_bit_generator(np.random.MT19937(seed))  # type: ignore[attr-defined]
            state = numpy_state()
            np.random.rand(5)
            writer.write(state)
            assert np.array_equal(numpy_state()[1], state[1])
    finally:
        np.random.set_bit_generator(before)  # type: ignore[attr-defined]
