from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tiny_programs
import torch
from tiny_programs import digests
from torch.utils.data import DataLoader

import auditkit as ak
from auditkit.errors import ProgramError, UncapturedState, UnsupportedLoader
from auditkit.formats.seeds import derive_seed
from auditkit.observe.loader.driver import LoaderDriver
from auditkit.observe.rng.streams import capture_streams
from auditkit.observe.state.components import capture
from auditkit.program.program import LoadedFactory
from auditkit.program.session import Session, hidden_values, open_session


@pytest.fixture(autouse=True)
def _streams_put_back() -> Iterator[None]:
    streams = capture_streams()
    yield
    streams.restore()


def opened(make: Callable[..., Any] = tiny_programs.make_program, seed: int = 0) -> Session:
    factory = LoadedFactory(make, sys.modules[__name__], "make", tiny_programs.STUDY)
    return open_session(factory, {}, tiny_programs.STUDY, seed)


def test_streams_are_seeded_before_the_factory_runs() -> None:
    drawn = []

    def make(seed: int) -> ak.Program:
        drawn.append((torch.initial_seed(), torch.rand(1).item(), np.random.rand()))
        return tiny_programs.make_program(seed)

    for _ in range(2):
        torch.rand(5)
        opened(make, 4).close()
    assert drawn[0] == drawn[1]
    assert drawn[0][0] == derive_seed(4, "torch")


def test_a_session_says_how_it_was_seeded() -> None:
    session, other = opened(seed=1), opened(seed=2)
    assert session.stream_seeds["rng/numpy"] == derive_seed(1, "numpy")
    assert session.stream_starts.keys() == session.stream_seeds.keys()
    assert all(session.stream_starts[k] != other.stream_starts[k] for k in other.stream_starts)
    again = opened(seed=1)
    assert again.stream_starts == session.stream_starts
    for one in (session, other, again):
        one.close()


def test_its_state_is_the_state() -> None:
    session = opened()
    driver = session.driver
    assert isinstance(driver, LoaderDriver)
    for t in range(1, 9):
        streams = capture_streams()
        delivery = driver.next(streams)
        while delivery is None:
            driver.begin_epoch()
            delivery = driver.next(streams)
        session.program.train_on(delivery.batch, t)
        assert digests(session.state()) == digests(capture(session.objects))
    assert {"params", "batchnorm", "optimizer/momentum_buffer"} <= set(session.state())
    session.close()
    assert type(session.program.loader) is DataLoader


def test_positions_are_those_of_the_loader() -> None:
    session = opened()
    first = digests(session.positions())
    driver = session.driver
    assert isinstance(driver, LoaderDriver)
    driver.begin_epoch()
    driver.next(capture_streams())
    assert digests(session.positions()) != first
    session.close()


def test_uncaptured_generators_are_refused_and_the_loader_left_alone() -> None:
    made: list[ak.Program] = []

    def make(seed: int) -> ak.Program:
        program = tiny_programs.make_program(seed)
        program.loader.dataset.rng = random.SystemRandom()
        made.append(program)
        return program

    with pytest.raises(UncapturedState, match=r"loader\.dataset\.rng"):
        opened(make)
    assert type(made[0].loader) is DataLoader


def test_loaders_that_cannot_be_recorded_are_refused() -> None:
    session = opened()
    with pytest.raises(UnsupportedLoader):
        opened(lambda seed: session.program)
    session.close()


def test_a_sharded_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auditkit.observe.machine.distributed.is_sharded", lambda _: True)
    with pytest.raises(ProgramError, match="is sharded, and a branch of a study is one process"):
        opened()


def test_what_a_hook_of_a_weight_keeps_is_among_the_hidden_values() -> None:
    seen = []

    def make(seed: int) -> ak.Program:
        program = tiny_programs.make_program(seed)
        weight: Any = next(program.model.parameters())
        weight.register_hook(lambda gradient: seen.append(1))
        return program

    session = opened(make)
    hidden = hidden_values(session)
    seen.append(1)
    (path,) = hidden.moved()
    assert re.fullmatch(r"seen of model\..*'s hook <lambda>", path)
    session.close()
