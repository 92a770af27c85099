"""What runs lie below a folder, and how far each is."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from in_process_loops import Loop
from studies import Run
from synthetic_recordings import Recording, write_recording

from auditkit.cli import main
from auditkit.diagnose.run_list import ListedRun, find_runs
from auditkit.files import locks
from auditkit.signing.keys import PrivateKey


@pytest.fixture
def folder(tmp_path: Path, key: PrivateKey) -> Path:
    write_recording(tmp_path / "runs" / "exp1", key)
    return tmp_path / "runs"


def states(folder: Path) -> dict[str, str]:
    return {run.folder: run.state for run in find_runs(folder)}


def test_a_finished_recording_is_listed_with_what_its_report_says(
    folder: Path, key: PrivateKey
) -> None:
    assert "broken" not in CliRunner().invoke(main, ["list", str(folder)]).stdout
    path = Recording(folder / "exp1", key).path
    told = {"verdict": "verified", "manifest_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    expected = ListedRun(
        *("exp1", "recording", "finished", 5),
        *("2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z", None),
    )
    assert find_runs(folder) == [expected]
    for report, verdict in (
        (json.dumps(told), "verified"),
        (json.dumps({**told, "manifest_sha256": "0"}), None),  # of another manifest
        (json.dumps({**told, "verdict": "verified by many"}), None),
        ("{", None),
        ("[]", None),
    ):
        (folder / "exp1" / "report.json").write_text(report)
        assert find_runs(folder)[0].verdict == verdict


def test_a_verdict_is_marked_as_what_nobody_signed(folder: Path, key: PrivateKey) -> None:
    path = Recording(folder / "exp1", key).path
    told = {"verdict": "verified", "manifest_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert "unsigned" not in CliRunner().invoke(main, ["list", str(folder)]).stdout
    (folder / "exp1" / "report.json").write_text(json.dumps(told))
    wide, narrow = (
        CliRunner().invoke(main, ["list", str(folder)], env={"COLUMNS": columns}).stdout
        for columns in ("160", "60")
    )
    assert "verified (unsigned report)" in wide
    for shown in (wide, narrow):  # in a cell, and below the table
        assert shown.count("(unsigned") == 2
        assert "which anybody can have written" in " ".join(shown.split())


def test_a_study_and_what_is_broken_are_listed(folder: Path, small: Run) -> None:
    (study,) = find_runs(small.folder)
    assert (study.folder, study.kind, study.state, study.steps) == (".", "study", "finished", 14)
    (folder / "broken").mkdir()
    (folder / "broken" / "manifest.json").write_text("{")
    assert states(folder) == {"broken": "broken", "exp1": "finished"}
    shown = CliRunner().invoke(main, ["list", str(folder)]).stdout
    assert "broken: a manifest or journal that cannot be read, or a checkpoint that is" in shown
    (folder / "study").mkdir()
    (folder / "study" / "run.json.partial").write_text("{")
    assert states(folder)["study"] == "broken"
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe" / "recording.json.partial")
    assert states(folder)["pipe"] == "broken"
    assert states(folder)["exp1"] == "finished"


def test_an_unfinished_recording_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    backend = "auditkit.recorder.recording.RecordingBackend"
    monkeypatch.setattr(f"{backend}._finish", lambda *_: None)  # killed
    for every, state, steps in ((5, "resumable", 11), (0, "unfinished", 0)):
        loop = Loop(tmp_path / state, epochs=1, checkpoint_every=every)
        loop()
        (run,) = find_runs(loop.out)
        assert (run.kind, run.state, run.steps) == ("recording", state, steps)
        assert run.started is not None
        with locks.lock(loop.out / "recording.lock.partial"):
            assert find_runs(loop.out)[0].state == "running"
    text = CliRunner().invoke(main, ["list", str(tmp_path)]).stdout
    assert "auditkit close DIR" in text
    checkpoint = next((tmp_path / "resumable").glob("checkpoint-*.partial"))
    named = checkpoint.rename(checkpoint.with_suffix(""))  # killed while it was published
    assert states(tmp_path)["resumable"] == "resumable"
    named.unlink()
    assert states(tmp_path)["resumable"] == "broken"


def test_the_command_prints_a_table_or_json(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["list", str(folder)])
    assert (done.exit_code, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert "exp1 recording finished 5 2026-01-01 00:10:00 -" in text
    assert "auditkit close" not in text
    told = json.loads(CliRunner().invoke(main, ["list", str(folder), "--json"]).stdout)
    assert [run["folder"] for run in told["runs"]] == ["exp1"]
    (tmp_path / "empty").mkdir()
    assert "no runs in" in CliRunner().invoke(main, ["list", str(tmp_path / "empty")]).stdout
    assert CliRunner().invoke(main, ["list", str(tmp_path / "nowhere")]).exit_code == 2


def test_the_command_closes_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    backend = "auditkit.recorder.recording.RecordingBackend"
    with monkeypatch.context() as patch:
        patch.setattr(f"{backend}._finish", lambda *_: None)
        loop = Loop(tmp_path / "run", epochs=1)
        loop()
    done = CliRunner().invoke(main, ["close", str(loop.out)])
    assert done.exit_code == 0
    assert "closed: 11 steps; the process was killed" in done.stdout
    assert f"next: auditkit verify {loop.out}/manifest.json" in "".join(done.stdout.split("\n"))
    done = CliRunner().invoke(main, ["close", str(loop.out)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert states(loop.out) == {".": "finished"}
    shown = " ".join(CliRunner().invoke(main, ["show", str(loop.out)]).stdout.split())
    assert "closed by auditkit close the process was killed" in shown
