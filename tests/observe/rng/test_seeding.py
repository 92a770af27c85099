from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from auditkit.formats.seeds import derive_seed
from auditkit.observe.rng import numpy_memory, seeding, streams
from auditkit.observe.rng.numpy_memory import NumpyWriter
from auditkit.observe.rng.per_sample import PerSampleDataset, SampleStreams
from auditkit.observe.rng.seeding import SampleSeeder
from auditkit.observe.rng.streams import GlobalStreams, capture_streams

SEEDS = st.integers(0, 2**64 - 1)
BIT_GENERATOR: Any = np.random.get_bit_generator  # type: ignore[attr-defined]
SET_BIT_GENERATOR: Any = np.random.set_bit_generator  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _streams_put_back() -> Iterator[None]:
    generator, before = BIT_GENERATOR(), capture_streams()
    yield
    SET_BIT_GENERATOR(generator)
    before.restore()


def seed_by_definition(seed: int) -> None:
    """What a recorded study's samples were seeded by from the first version on."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


def leave_halves_behind() -> None:
    """Every stream keeps the second of a pair of normal numbers for the next draw."""
    random.gauss(0, 1)
    np.random.randn()
    torch.randn(1)
    torch.randn(1, dtype=torch.float64)


def after(seed: Callable[[int], None], number: int) -> GlobalStreams:
    leave_halves_behind()
    seed(number)
    return capture_streams()


def draw() -> list[float]:
    return [
        random.gauss(0, 1),
        random.random(),
        float(np.random.randn()),
        float(np.random.rand()),
        float(torch.rand(())),
        float(torch.randn(())),
    ]


@settings(deadline=None, max_examples=100)
@given(SEEDS)
@example(0)
@example(2**32)
@example(2**64 - 1)
def test_streams_are_seeded_as_their_libraries_seed_them(seed: int) -> None:
    expected = after(seed_by_definition, seed)
    found = after(streams.seed_sample, seed)
    assert found.same_as(expected)
    drawn = draw()
    seed_by_definition(seed)
    assert drawn == draw()


def test_from_the_second_time_on_numpys_words_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [after(seed_by_definition, seed) for seed in (1, 2)]
    seeder = SampleSeeder(NumpyWriter())
    assert after(seeder.seed, 1).same_as(expected[0])
    for place, name in ((np.random, "seed"), (seeding, "_SEED_NUMPY")):
        monkeypatch.setattr(place, name, None)
    assert after(seeder.seed, 2).same_as(expected[1])


def test_where_libraries_are_otherwise_they_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for condition in ("_is_python_as_expected", "_are_words_alike"):
        monkeypatch.setattr(seeding, condition, lambda: False)
    monkeypatch.setattr(seeding, "_seed_words", None)
    seeder = SampleSeeder(NumpyWriter())
    monkeypatch.setattr(NumpyWriter, "begin", None)
    for seed in (3, 2**40 + 3, 2**63):
        expected = after(seed_by_definition, seed)
        assert after(seeder.seed, seed).same_as(expected)


def test_whoever_has_laid_his_own_function_over_a_library_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeded: list[object] = []
    seeder = SampleSeeder(NumpyWriter())
    seeder.seed(8)

    def seed_python(owner: random.Random, seed: int) -> None:
        seeded.append((owner, seed))

    monkeypatch.setattr(np.random, "seed", seeded.append)
    own = random.Random()
    for python in (seeded.append, MethodType(seed_python, own)):
        monkeypatch.setattr(random, "seed", python)
        seeder.seed(9)
    assert seeded == [9, 9, (own, 9), 9]


def test_another_generator_behind_numpy_is_seeded() -> None:
    seeder = SampleSeeder(NumpyWriter())
    seeder.seed(1)
    before = BIT_GENERATOR()
    for generator in (np.random.MT19937(5), np.random.MT19937(6), before):
        SET_BIT_GENERATOR(generator)
        for seed in (7, 8, 9):
            expected = after(seed_by_definition, seed)
            assert after(seeder.seed, seed).same_as(expected)
    untouched = before.state
    SET_BIT_GENERATOR(np.random.PCG64(5))
    seeder.seed(10)
    assert np.random.rand() == np.random.Generator(np.random.PCG64(10)).random()
    np.testing.assert_equal(before.state, untouched)


def test_another_generator_behind_torch_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    seeder = SampleSeeder(NumpyWriter())
    seeder.seed(1)
    expected = after(seed_by_definition, 2)
    own = torch.Generator()
    monkeypatch.setattr(torch, "default_generator", own)
    leave_halves_behind()
    for _ in range(2):
        seeder.seed(2)
        found = capture_streams()
        assert found.python == expected.python
        assert np.array_equal(found.numpy[1], expected.numpy[1])
        assert torch.equal(own.get_state(), expected.torch)
        random.random(), np.random.rand(), torch.rand(1, generator=own)


def test_where_another_thread_draws_from_torch_numpy_has_its_own_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, drawn = torch.Generator(), [0]

    class Shared:
        def manual_seed(self, seed: int) -> None:
            own.manual_seed(seed)
            torch.rand(drawn[0], generator=own)  # before anybody can have looked

        def __getattr__(self, name: str) -> Any:
            return getattr(own, name)

    monkeypatch.setattr(torch, "default_generator", Shared())
    seeder = SampleSeeder(NumpyWriter())
    seeder.seed(1)
    for drawn[0] in (0, 1, 623, 624, 625):
        seeder.seed(5)
        expected: Any = np.random.RandomState(5).get_state()
        found: Any = np.random.get_state()
        assert np.array_equal(found[1], expected[1])
        assert found[2:] == expected[2:]


def test_nothing_is_written_while_another_thread_draws_from_numpy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeder = SampleSeeder(NumpyWriter())
    seeder.seed(1)
    # which waits for the lock, too, but the other may begin to draw right after it
    monkeypatch.setattr(numpy_memory, "_set_generator", lambda _: None)
    lock, before = BIT_GENERATOR().lock, BIT_GENERATOR().state["state"]["key"].tolist()
    thread = threading.Thread(target=seeder.seed, args=(2,))
    with lock:
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
    thread.join()
    assert BIT_GENERATOR().state["state"]["key"].tolist() != before


class Drawing(Dataset[Any]):
    """Every sample draws as many numbers from as many streams as its index says."""

    def __init__(self) -> None:
        self.own = np.random.default_rng(0)

    def __getitem__(self, index: int) -> list[float]:
        found = draw()[index % 7 :] if index % 3 else []
        return [*found, float(self.own.random())] if index % 2 else found


KEYS = st.tuples(st.integers(0, 2**60), st.integers(0, 2**60))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**40), st.lists(KEYS, max_size=6))
def test_what_samples_draw_is_what_they_always_drew(seed: int, keys: list[tuple[int, int]]) -> None:
    data = Drawing()
    streams_of_samples = SampleStreams(seed, {"own": data.own})
    found = PerSampleDataset(data, streams_of_samples).__getitems__(keys)
    expected = []
    for epoch, index in keys:
        number = derive_seed(seed, "sample", epoch, index)
        seed_by_definition(number)
        own = np.random.PCG64(derive_seed(number, "generator", "own"))
        data.own.bit_generator.state = own.state
        expected.append(data[index])
    assert found == expected
