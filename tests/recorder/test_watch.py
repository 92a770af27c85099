"""What a recording says of its loop by itself: never of an honest one, always of these."""

from __future__ import annotations

import itertools
import random
import re
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hasty_loops
import loop_styles
import numpy as np
import pytest
import torch
from hasty_loops import FAULTS, NESTED, PLACES
from honest_loops import LOOPS, Loop, learn, loader_of, parts
from in_process_loops import read
from random_loops import NoRecorder
from torch import nn
from torch.optim import optimizer as optimizer_module
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak
from auditkit.errors import RecordingIncomplete
from auditkit.recorder.recorder import for_callback
from auditkit.recorder.writer import RecordingStopped


def _logged(style: loop_styles.Style) -> Loop:
    return lambda rec: style(rec, loop_styles.Log())


STYLES: dict[str, Loop] = {
    style.__name__: _logged(style)
    for style in (
        *(loop_styles.accumulation, loop_styles.closure, loop_styles.scaled),
        *(loop_styles.evaluated, loop_styles.together, loop_styles.by_hand),
        *(loop_styles.two_loaders, loop_styles.adversarial),
    )
}


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home and a script of nobody's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)


def said(loop: Callable[[Any], Any], out: Path, every: int = 2) -> tuple[list[str], int]:
    """What a recording warns of, and how many checkpoints it leaves."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ak.Recorder(out, checkpoint_every=every) as rec:
            loop(rec)
    assert rec.manifest is not None
    return (
        [str(one.message) for one in caught if issubclass(one.category, RecordingStopped)],
        len(list(out.glob("checkpoint-*"))),
    )


@pytest.mark.parametrize("name", [*LOOPS, *(f"style {name}" for name in STYLES)])
def test_an_honest_loop_is_not_warned_of(tmp_path: Path, name: str) -> None:
    loop: Loop = {**LOOPS, **{f"style {key}": style for key, style in STYLES.items()}}[name]
    lines, n_checkpoints = said(loop, tmp_path / "out")
    refused = "no checkpoint was taken: "  # two iterations at a time have no position
    assert [line for line in lines if not line.startswith(refused)] == []
    assert n_checkpoints or name == "style together"


def test_no_honest_loop_is_missing() -> None:
    assert len(LOOPS) >= 25


class Killed(Exception):
    """Ends a loop between two statements."""


def seeded(loop: hasty_loops.Loop, rec: Any, kill_at: int = 0) -> bytes:
    """Run a loop from the same start; the bits that it ends in."""
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    taken = itertools.count(1)

    def tick() -> None:
        number = next(taken)
        if isinstance(rec, NoRecorder):
            rec.step = number - 1  # the one that is under way is not counted
        if number == kill_at:
            raise Killed

    model: nn.Module = loop(rec, tick)
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


@pytest.mark.filterwarnings("ignore::auditkit.recorder.writer.RecordingStopped")
@pytest.mark.parametrize("name", FAULTS)
def test_a_loop_that_cannot_be_resumed_is_told_so_at_once(tmp_path: Path, name: str) -> None:
    loop, named, _ = FAULTS[name]
    out = tmp_path / "out"
    with pytest.warns(RecordingStopped, match=re.escape(named)):  # noqa: SIM117
        with pytest.raises(Killed), ak.Recorder(out, checkpoint_every=2) as rec:
            seeded(loop, rec, kill_at=13)
    with pytest.raises(RecordingIncomplete, match=re.escape(named)):
        seeded(loop, ak.Recorder.resume(out, checkpoint_every=2))


class Awaited(TensorDataset):
    """Its last samples come only when they are let."""

    def __init__(self, asked: threading.Event, let: threading.Event) -> None:
        super().__init__(torch.zeros(6, 2), torch.zeros(6, 1))
        self._asked, self._let = asked, let

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        if index >= 4:
            self._asked.set()
            assert self._let.wait(60)
        return tuple(tensor[index] for tensor in self.tensors)


def test_steps_while_another_thread_waits_for_a_batch_are_no_steps_after_the_last(
    tmp_path: Path,
) -> None:
    asked, let = threading.Event(), threading.Event()

    def loop(rec: Any) -> None:
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        model, optimizer, loader = rec.wrap(
            model, optimizer, DataLoader(Awaited(asked, let), batch_size=2)
        )
        fetched: list[Any] = []
        thread = threading.Thread(target=lambda: fetched.extend(loader), daemon=True)
        thread.start()
        assert asked.wait(60)
        for _ in range(3):
            learn(model, optimizer, torch.ones(2, 2), torch.zeros(2, 1))
        let.set()
        thread.join()

    lines, _ = said(loop, tmp_path / "out")
    assert [line for line in lines if "another thread" in line] == lines[:1]


@pytest.mark.parametrize("place", PLACES)
def test_unregistered_state_is_found_where_it_is(tmp_path: Path, place: str) -> None:
    loop, named = PLACES[place]
    lines, n_checkpoints = said(lambda rec: seeded(loop, rec), tmp_path / "out", every=1)
    assert len(lines) == 1
    assert lines[0].startswith(f"this recording cannot be resumed: {named} ")
    assert n_checkpoints <= 3  # a schedule changes at the third step


@pytest.mark.filterwarnings("error::auditkit.recorder.writer.RecordingStopped")
@pytest.mark.parametrize("name", [*FAULTS, *NESTED])
def test_what_is_advised_can_be_resumed(tmp_path: Path, name: str) -> None:
    loop = NESTED[name] if name in NESTED else FAULTS[name][2]
    expected = seeded(loop, NoRecorder())
    out = tmp_path / "out"
    with pytest.raises(Killed), ak.Recorder(out, checkpoint_every=2) as rec:
        seeded(loop, rec, kill_at=13)
    with ak.Recorder.resume(out, checkpoint_every=2) as rec:
        assert seeded(loop, rec) == expected


def test_the_end_says_how_many_steps_are_in_no_evidence(tmp_path: Path) -> None:
    lines, n_checkpoints = said(lambda rec: seeded(hasty_loops.cycled, rec), tmp_path / "cycle")
    assert lines[-1].startswith("10 optimizer steps were taken for which no batch was recorded")
    assert n_checkpoints == 2  # those from before it was known
    lines, _ = said(lambda rec: seeded(hasty_loops.renewed, rec), tmp_path / "renewed")
    assert lines[-1].startswith("9 optimizer steps were taken for which no batch was recorded")
    lines, _ = said(lambda rec: seeded(hasty_loops.left_for_another, rec), tmp_path / "left")
    assert [line[:31] for line in lines] == ["20 optimizer steps were taken f"]


def test_a_recorder_for_each_loader_records_all_steps(tmp_path: Path) -> None:
    model, optimizer, _ = parts()
    for number, size in enumerate((12, 16, 20)):
        with warnings.catch_warnings(), ak.Recorder(tmp_path / str(number)) as rec:
            warnings.simplefilter("error", RecordingStopped)
            rec.wrap(model, optimizer, loader := loader_of(size))
            for x, y in loader:
                learn(model, optimizer, x, y)
            assert rec.step == size // 4


def test_parameters_that_no_optimizer_moves_are_spoken_of(tmp_path: Path) -> None:
    out = tmp_path / "out"
    lines, n_checkpoints = said(lambda rec: seeded(hasty_loops.by_arithmetic, rec), out)
    assert [line.partition(":")[0] for line in lines] == [
        "the parameters moved, and no optimizer that wrap was given took a step"
    ]
    assert n_checkpoints == 2  # what moves them need not keep anything


def test_a_checkpoint_waits_until_the_batch_is_trained_on(tmp_path: Path) -> None:
    with ak.Recorder(tmp_path / "out", checkpoint_every=3) as rec:
        LOOPS["group_at_once"](rec)
    assert [c.step for c in read(tmp_path / "out").manifest.ranks[0].checkpoints] == [
        *(4, 6, 10, 12, 16),
    ]


def test_a_requested_checkpoint_is_not_taken_either(tmp_path: Path) -> None:
    def loop(rec: Any) -> None:
        model, optimizer, loader = rec.wrap(*parts())
        rng = np.random.default_rng(1)
        for x, y in loader:
            learn(model, optimizer, x + float(rng.random()), y)
            rec.checkpoint()

    lines, n_checkpoints = said(loop, tmp_path / "out", every=0)
    assert n_checkpoints == 0
    assert ["rng" in line for line in lines] == [True]


def test_nothing_is_hooked_after_the_end(tmp_path: Path) -> None:
    before = len(optimizer_module._global_optimizer_post_hooks)
    with ak.Recorder(tmp_path / "out") as rec:
        LOOPS["plain"](rec)
        assert len(optimizer_module._global_optimizer_post_hooks) == before + 1
    assert len(optimizer_module._global_optimizer_post_hooks) == before


def test_everything_that_was_forgotten_is_named_at_once(tmp_path: Path) -> None:
    def loop(rec: Any) -> None:
        model, optimizer, loader = rec.wrap(*parts())
        schedule, coin = LambdaLR(optimizer, lambda step: 0.9**step), random.Random(1)
        for x, y in loader:
            learn(model, optimizer, x + coin.random(), y)
            schedule.step()

    (line,), _ = said(loop, tmp_path / "out")
    assert "extras={'coin': coin}" in line
    assert "scheduler=schedule" in line


def test_what_a_callback_advises_its_user_can_do(tmp_path: Path) -> None:
    def loop(rec: Any) -> None:
        for_callback(rec)
        model, optimizer, loader = parts()
        average, schedule = AveragedModel(model), LambdaLR(optimizer, lambda step: 0.9**step)
        rec.wrap(model, optimizer, loader)
        for x, y in loader:
            learn(model, optimizer, x, y)
            average.update_parameters(model)
            schedule.step()

    (line,), _ = said(loop, tmp_path / "out")
    assert "RecorderCallback(..., averaged={'average': average})" in line
    assert "RecorderCallback(..., extras={'schedule': schedule})" in line
    assert "wrap(" not in line


def test_a_frozen_number_hides_no_average(tmp_path: Path) -> None:
    def loop(rec: Any) -> nn.Module:
        model, optimizer, loader = parts()
        model.register_parameter("scale", nn.Parameter(torch.ones(1), requires_grad=False))
        average = AveragedModel(model)
        rec.wrap(model, optimizer, loader)
        for x, y in loader:
            learn(model, optimizer, x, y)
            average.update_parameters(model)
        return model

    (line,), _ = said(loop, tmp_path / "out")
    assert "averaged={'average': average}" in line
