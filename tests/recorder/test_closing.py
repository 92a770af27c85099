"""Recordings that nobody closed: what a dead process leaves becomes a manifest that verifies."""

from __future__ import annotations

import atexit
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from in_process_loops import Loop, read, record, replay_in_process
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak
from auditkit.cli import main
from auditkit.diagnose.run_list import find_runs
from auditkit.errors import (
    ArtifactMissing,
    FormatError,
    RecordingIncomplete,
    RestoreMismatch,
    StoreError,
)
from auditkit.files import locks
from auditkit.recorder.closing import close_recording
from auditkit.records.report import VerificationReport
from auditkit.signing.trust import machine_trust, signing_key
from auditkit.verification.procedure import VerifyRequest, verify


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


class Stopped(Loop):
    """A loop whose process ends at a step, in one way or another."""

    stops_at = 8
    how: Any = KeyboardInterrupt

    def _train(self) -> None:
        made: list[ak.Recorder] = []
        original = ak.Recorder.log

        def log(recorder: ak.Recorder, *args: Any, **numbers: Any) -> None:
            made[:] = [recorder]
            original(recorder, *args, **numbers, step=recorder.step)
            if recorder.step + 1 == self.stops_at:
                raise self.how

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ak.Recorder, "log", log)
            if self.how is Unclosed:
                patch.setattr(ak.Recorder, "__exit__", lambda *_: None)
            with suppress(KeyboardInterrupt, Unclosed):
                super()._train()
        if self.how is Unclosed:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made[0]._at_exit()
            atexit.unregister(made[0]._at_exit)


class Unclosed(Exception):
    """Stands for the end of a script that closes nothing."""


def checked(folder: Path) -> VerificationReport:
    return verify(folder / "manifest.json", VerifyRequest(trusted=machine_trust()))


def stopped(tmp_path: Path, how: Any, **options: Any) -> Stopped:
    loop = Stopped(tmp_path / "run", epochs=1, **options)
    loop.how = how
    loop()
    return loop


def test_what_an_interrupted_loop_left_is_closed_verifies_and_replays(tmp_path: Path) -> None:
    loop = stopped(tmp_path, KeyboardInterrupt)
    manifest = close_recording(loop.out, signing_key())
    assert (manifest.closed_as, manifest.ranks[0].steps) == ("ended by KeyboardInterrupt", 7)
    report = checked(loop.out)
    assert [f for c in report.checks for f in c.findings] == []
    assert (report.verdict, [c.status for c in report.checks[:5]]) == (
        "integrity-only",
        ["passed"] * 5,
    )
    assert any("closed afterwards" in text for text in report.checks[3].warnings)
    assert not list(loop.out.rglob("*.partial"))
    whole = Loop(loop.out, epochs=1)
    assert replay_in_process(read(loop.out), whole).equal
    found = replay_in_process(read(loop.out), replace(whole, fault="learning rate", at=7))
    assert found.partings[0].step == 8  # the state after the last step is compared, too


def test_a_script_that_never_closed_its_recorder_loses_no_step(tmp_path: Path) -> None:
    loop = stopped(tmp_path, Unclosed, checkpoint_every=0)
    manifest = close_recording(loop.out, signing_key())
    assert manifest.closed_as == "the script ended without closing its Recorder"
    (rank,) = manifest.ranks
    assert (rank.steps, rank.epochs) == (8, 1)
    assert rank.final.keys() >= {"params", "rng/torch"}
    assert checked(loop.out).exit_code == 0
    assert rank.scalars is not None


def test_of_a_killed_process_what_is_on_disk_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auditkit.recorder.recording.RecordingBackend._interrupt", lambda *_: None)
    loop = stopped(tmp_path, KeyboardInterrupt, checkpoint_every=3)
    manifest = close_recording(loop.out, signing_key())
    assert (manifest.closed_as, manifest.ranks[0].steps) == ("the process was killed", 7)
    assert [one.step for one in manifest.ranks[0].checkpoints] == [3, 6]
    assert [f for c in checked(loop.out).checks for f in c.findings] == []
    assert replay_in_process(read(loop.out), Loop(loop.out, epochs=1)).equal


@pytest.mark.parametrize("damage", ["gone", "other bytes", "no format"])
def test_with_a_damaged_checkpoint_nothing_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Such a manifest would fail, and what it is of could not be resumed any more."""
    monkeypatch.setattr("auditkit.recorder.recording.RecordingBackend._interrupt", lambda *_: None)
    loop = stopped(tmp_path, KeyboardInterrupt, checkpoint_every=3)
    path = loop.out / "checkpoint-00000003.safetensors.partial"
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        at = -1 if damage == "no format" else len(data) // 2
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at:][1:])
    kind = ArtifactMissing if damage == "gone" else RestoreMismatch
    with pytest.raises(kind, match=r"checkpoint-00000003.*; put the file back"):
        close_recording(loop.out, signing_key())
    assert not (loop.out / "manifest.json").exists()
    path.write_bytes(data)
    close_recording(loop.out, signing_key())
    assert checked(loop.out).exit_code == 0


@pytest.mark.parametrize("step", [3, 6])
def test_without_a_checkpoint_that_is_lost_the_rest_is_closed_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr("auditkit.recorder.recording.RecordingBackend._interrupt", lambda *_: None)
    loop = stopped(tmp_path, KeyboardInterrupt, checkpoint_every=3)
    (loop.out / f"checkpoint-0000000{step}.safetensors.partial").unlink()
    model = torch.nn.Linear(1, 1)
    others: Any = (torch.optim.SGD(model.parameters()), DataLoader(TensorDataset(torch.zeros(1))))
    with pytest.raises(ArtifactMissing, match="close --allow-lost"):
        ak.Recorder.resume(loop.out, checkpoint_every=3).wrap(model, *others)
    done = CliRunner().invoke(main, ["close", str(loop.out), "--allow-lost"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"lost checkpoints of rank 0: after step {step}\n" in done.stdout
    (rank,) = read(loop.out).manifest.ranks
    assert [one.step for one in rank.lost_checkpoints] == [step]
    assert [one.step for one in rank.checkpoints] == [9 - step]
    report = checked(loop.out)
    assert report.verdict == "integrity-only"
    text = f"no file of the checkpoints after step {step} any more"
    assert text in str(report.checks[3].warnings)
    assert replay_in_process(read(loop.out), Loop(loop.out, epochs=1)).equal


@pytest.mark.parametrize("other", [3, 6])
def test_what_is_lost_excuses_no_checkpoint_that_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: int
) -> None:
    monkeypatch.setattr("auditkit.recorder.recording.RecordingBackend._interrupt", lambda *_: None)
    loop = stopped(tmp_path, KeyboardInterrupt, checkpoint_every=3)
    first, second = sorted(loop.out.glob("checkpoint-*"))
    gone, there = (second, first) if other == 3 else (first, second)
    there.write_bytes(gone.read_bytes())
    gone.unlink()
    with pytest.raises(RestoreMismatch, match=f"checkpoint-0000000{other}"):
        close_recording(loop.out, signing_key(), allow_lost=True)


def test_a_closed_recording_has_the_chains_of_the_whole_one(tmp_path: Path) -> None:
    whole = record(Loop(tmp_path / "whole", epochs=1)).manifest.ranks[0]
    loop = stopped(tmp_path, Unclosed)
    loop.stops_at = 99
    closed = close_recording(loop.out, signing_key()).ranks[0]
    assert closed.steps == 8
    loop = Stopped(tmp_path / "other", epochs=1)
    loop.how, loop.stops_at = Unclosed, 12
    loop()
    closed = close_recording(loop.out, signing_key()).ranks[0]
    assert (closed.order_sha256, closed.consumed_sha256) == (
        whole.order_sha256,
        whole.consumed_sha256,
    )
    assert (closed.final, closed.components) == (whole.final, whole.components)


def test_what_cannot_be_closed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = signing_key()
    with pytest.raises(StoreError, match="no unfinished recording"):
        close_recording(tmp_path, key)
    loop = Loop(tmp_path / "done", epochs=1)
    record(loop)
    with pytest.raises(StoreError, match="the recording is finished"):
        close_recording(loop.out, key)
    monkeypatch.setattr("auditkit.recorder.recording.RecordingBackend._interrupt", lambda *_: None)
    loop = stopped(tmp_path, KeyboardInterrupt, checkpoint_every=0)
    with pytest.raises(RecordingIncomplete, match="too little"):
        close_recording(loop.out, key)
    assert (loop.out / "recording.json.partial").exists()
    with (
        locks.lock(loop.out / "recording.lock.partial"),
        pytest.raises(StoreError, match="another process is writing"),
    ):
        close_recording(loop.out, key)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("damage", [lambda text: text[:-30], lambda text: b""])
def test_a_damaged_journal_is_called_that(tmp_path: Path, damage: Any) -> None:
    loop = stopped(tmp_path, KeyboardInterrupt)
    journal = loop.out / "recording.json.partial"
    journal.write_bytes(damage(journal.read_bytes()))
    with pytest.raises(FormatError, match="the journal of an unfinished recording is damaged; put"):
        close_recording(loop.out, signing_key())
    assert [run.state for run in find_runs(loop.out)] == ["broken"]
