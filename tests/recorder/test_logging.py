"""Numbers that a loop logs: where they are kept, how they survive a kill, who reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process_loops import read
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak
from auditkit.errors import PlanError, RecorderMisuse
from auditkit.formats.scalar_file import Series, scalars_from_tensors


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def train(recorder: ak.Recorder, on_step: Callable[[int], None], epochs: int = 2) -> None:
    """Four steps an epoch; the learning rate is halved in each."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    loader = DataLoader(TensorDataset(torch.randn(8, 3)), batch_size=2, shuffle=True)
    recorder.wrap(model, optimizer, loader, scheduler=schedule)
    for _ in recorder.epochs(range(epochs)):
        for (x,) in loader:
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            on_step(recorder.step + 1)
        schedule.step()
        recorder.log({"val/accuracy": recorder.step / 10})


def logged(folder: Path) -> dict[str, Series]:
    evidence = read(folder)
    name = evidence.manifest.ranks[0].scalars
    assert name is not None
    return scalars_from_tensors(evidence.tensors(name)[0], what=name)


def pairs(series: Series) -> list[tuple[int, float]]:
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def test_any_scalar_is_kept_by_step(tmp_path: Path) -> None:
    with ak.Recorder(tmp_path / "run") as recorder:
        train(recorder, lambda t: recorder.log(loss=torch.tensor(float(t)), acc=t / 8))
    found = logged(tmp_path / "run")
    assert pairs(found["acc"]) == [(t, t / 8) for t in range(1, 9)]
    assert pairs(found["loss"]) == [(t, float(t)) for t in range(1, 9)]
    assert pairs(found["val/accuracy"]) == [(4, 0.4), (8, 0.8)]
    assert pairs(found["param_groups[0].lr"]) == [(1, 0.5), (5, 0.25), (9, 0.125)]
    trace = read(tmp_path / "run").trace("trace/000000.safetensors")
    assert any(trace.loss(3))  # the loss is part of the evidence still


def test_a_loop_that_logs_nothing_keeps_its_groups_only(tmp_path: Path) -> None:
    with ak.Recorder(tmp_path / "run") as recorder:
        train(recorder, lambda _: None, epochs=1)
    assert {name.partition("[")[0] for name in logged(tmp_path / "run")} == {
        "param_groups",
        "val/accuracy",
    }


class Killed(Exception):
    """Stands for a kill."""


def test_numbers_survive_a_kill_and_those_after_the_checkpoint_are_logged_once(
    tmp_path: Path,
) -> None:
    def die_at(recorder: ak.Recorder, last: int) -> Callable[[int], None]:
        def step(t: int) -> None:
            recorder.log(acc=float(t))
            if t == last:
                raise Killed

        return step

    out = tmp_path / "run"
    recorder = ak.Recorder(out, checkpoint_every=2)
    with pytest.raises(Killed), recorder:
        train(recorder, die_at(recorder, 7))
    assert (out / "scalars.partial").exists()
    recorder = ak.Recorder.resume(out, checkpoint_every=2)
    with recorder:
        train(recorder, die_at(recorder, 99))
    found = logged(out)
    assert pairs(found["acc"]) == [(t, float(t)) for t in range(1, 9)]
    assert pairs(found["param_groups[0].lr"]) == [(1, 0.5), (5, 0.25), (9, 0.125)]
    assert not (out / "scalars.partial").exists()


@pytest.mark.parametrize(
    "numbers",
    [
        {"acc": torch.ones(2)},
        {"acc": "high"},
        {"acc": None},
        {"": 1.0},
        {"a\n": 1.0},
        {"x" * 201: 1.0},
        {3: 1.0},
        {"param_groups[0].lr": 1.0},
    ],
)
def test_what_is_no_number_or_no_name_is_refused(tmp_path: Path, numbers: Any) -> None:
    with ak.Recorder(tmp_path / "run") as recorder:
        train(recorder, lambda _: None, epochs=1)
        with pytest.raises(RecorderMisuse):
            recorder.log(numbers)


# Numbered folders


def test_every_new_recording_gets_a_number_of_its_own(tmp_path: Path) -> None:
    base, names = tmp_path / "runs" / "exp1", []
    for _ in range(2):
        with ak.Recorder(base, new=True) as recorder:
            train(recorder, lambda _: None, epochs=1)
        assert recorder.manifest == recorder.out / "manifest.json"
        names.append(recorder.out.name)
    assert names == ["exp1-0001", "exp1-0002"]
    (base.parent / "exp1-0007").mkdir()
    with ak.Recorder(base, new=True) as recorder:
        train(recorder, lambda _: None, epochs=1)
    assert recorder.out.name == "exp1-0008"


def test_a_folder_without_a_number_counts_as_the_first(tmp_path: Path) -> None:
    with ak.Recorder(tmp_path / "exp1") as recorder:
        train(recorder, lambda _: None, epochs=1)
    with ak.Recorder(tmp_path / "exp1", new=True) as recorder:
        assert recorder.out.name == "exp1"  # wrap makes the new one
        train(recorder, lambda _: None, epochs=1)
    assert recorder.out.name == "exp1-0002"


def test_a_new_folder_is_nothing_to_resume_from(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="nothing to resume from"):
        ak.Recorder.resume(tmp_path / "exp1", new=True)


def test_success_is_told_in_one_line_with_what_comes_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ak.Recorder("run 1") as recorder:
        train(recorder, lambda _: None, epochs=1)
    (line,) = [record.getMessage() for record in caplog.records if "next" in record.message]
    assert line == "auditkit: recorded 4 steps; next: auditkit verify 'run 1/manifest.json'"
