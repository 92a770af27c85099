"""A loop whose rows are of the other recipe, with a ring buffer among its extras."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process_loops import read, replay_in_process
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak
from auditkit.diagnose.run_difference import compare_runs
from auditkit.errors import PlanError, RestoreMismatch, UsageError
from auditkit.observe.values import batches
from auditkit.observe.values.pieces import Stream
from auditkit.observe.values.word_sums import WordSummer
from auditkit.recorder.writer import RecordingStopped
from auditkit.records.digest import EVIDENCE_RECIPE, MIX_RECIPE


@dataclass
class Learner:
    """A loop of 12 steps that keeps what it has seen; call it to train."""

    out: Path
    recipe: str = MIX_RECIPE
    rate: float = 0.1
    stop_at: int | None = None
    past_at: int | None = None
    resume: bool = False

    def __call__(self) -> None:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=self.rate, momentum=0.9)
        loader: Any = DataLoader(TensorDataset(torch.randn(48, 3), torch.arange(48) % 2), 4)
        seen = ak.extras.RingBuffer.zeros(400, x=((3,), torch.float32))
        make = ak.Recorder.resume if self.resume else ak.Recorder
        with make(self.out, 0, checkpoint_every=3, evidence_digest=self.recipe) as rec:
            model, optimizer, loader = rec.wrap(model, optimizer, loader, extras={"seen": seen})
            for x, y in loader:
                if rec.step == self.stop_at:
                    raise InterruptedError
                seen.extend(x=x)
                if rec.step == self.past_at:
                    seen["x"][399] = 1.0
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A home and a script of nobody's, and one thread."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_it_is_recorded_verified_and_replayed(tmp_path: Path) -> None:
    loop = Learner(tmp_path / "run")
    loop()
    evidence = read(loop.out)
    assert evidence.manifest.evidence_digest == MIX_RECIPE
    found = replay_in_process(evidence, loop)
    assert found.equal
    assert found.last_step == 12
    report = ak.verify(loop.out / "manifest.json", replay="none")
    assert [check.number for check in report.checks if check.status == "failed"] == []
    assert report.checks[3].summary.count("the state is in evidence by int64-mix/1") == 1
    other = replay_in_process(evidence, Learner(tmp_path / "other", rate=0.2))
    assert not other.equal


def test_one_row_of_another_recipe_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, start = Learner(tmp_path / "run"), WordSummer.start
    monkeypatch.setattr(WordSummer, "start", lambda self, state: start(WordSummer(), _moved(state)))
    loop()
    report = ak.verify(loop.out / "manifest.json", replay="none")
    texts = " ".join(finding.message for check in report.checks for finding in check.findings)
    assert "the trace's row is of another state" in texts


def _moved(state: Any) -> Any:
    weight = state["params"]["weight"] + 1
    return {**state, "params": {**state["params"], "weight": weight.detach()}}


def test_it_is_resumed_with_its_recipe_and_no_other(tmp_path: Path) -> None:
    whole = Learner(tmp_path / "whole")
    whole()
    with pytest.raises(InterruptedError):
        Learner(tmp_path / "run", stop_at=11)()
    with pytest.raises(RestoreMismatch, match=r"evidence_digest was int64-mix/1"):
        Learner(tmp_path / "run", recipe=EVIDENCE_RECIPE, resume=True)()
    Learner(tmp_path / "run", resume=True)()
    assert compare_runs(str(tmp_path / "run"), str(whole.out)).traces == ()


def test_rows_of_two_recipes_are_not_compared(tmp_path: Path) -> None:
    Learner(tmp_path / "one")()
    Learner(tmp_path / "two", recipe=EVIDENCE_RECIPE)()
    with pytest.raises(UsageError, match="digests of two recipes"):
        compare_runs(str(tmp_path / "one"), str(tmp_path / "two"))


def test_a_write_past_the_ring_buffer_stops_the_recording_and_not_the_loop(tmp_path: Path) -> None:
    with pytest.warns(RecordingStopped, match="among rows .* to 399 of x something was written"):
        Learner(tmp_path / "run", past_at=4)()
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_batches_that_are_hashed_beside_the_step_leave_the_same_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [tmp_path / "at-once", tmp_path / "beside"]
    copied: list[int] = []
    copy_to = Stream.copy_to

    def spy(self: Stream, memory: bytearray) -> None:
        copied.append(len(memory))
        copy_to(self, memory)

    monkeypatch.setattr(Stream, "copy_to", spy)
    for out, sizes in zip(runs, (range(0), range(1, 1 << 20)), strict=True):
        monkeypatch.setattr(batches, "_BESIDE", sizes)
        with pytest.raises(InterruptedError):
            Learner(out, stop_at=11)()
        Learner(out, resume=True)()
        assert replay_in_process(read(out), Learner(out)).equal
    assert len(copied) > 24
    at_once, beside = (read(out).manifest.ranks[0] for out in runs)
    assert (at_once.order_sha256, at_once.consumed_sha256) == (
        beside.order_sha256,
        beside.consumed_sha256,
    )
    assert compare_runs(*map(str, runs)).traces == ()


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    for wrong in ("sha256/tensor-v1", "", None, 1):
        with pytest.raises(PlanError, match="unknown evidence_digest"):
            ak.Recorder(tmp_path / "out", evidence_digest=wrong)  # type: ignore[arg-type]
