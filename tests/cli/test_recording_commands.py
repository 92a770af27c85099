"""``auditkit show``, ``verify`` and ``checklist`` of a recording."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_shell import CompletedCommand, statement_bytes
from click.testing import CliRunner
from synthetic_recordings import DRIFT, REVIEWER, Loop, Recording, write_recording, write_replay

from auditkit.cli import main
from auditkit.signing.keys import PrivateKey, fingerprint, public_line


@pytest.fixture
def recording(tmp_path: Path, key: PrivateKey) -> Recording:
    (tmp_path / "keys").write_text(f"{public_line(key)}\n{public_line(REVIEWER)}\n")
    return write_recording(tmp_path / "run", key, Loop(ranks=2, loader="validation"))


def call(command: str, recording: Recording, *options: str) -> CompletedCommand:
    """Call a command; the recording's key and the reviewer's are trusted."""
    trust = () if command == "show" else ("--key", str(recording.folder.parent / "keys"))
    arguments = [command, str(recording.path), *trust, *options]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    return CompletedCommand(done.exit_code, done.stdout, done.stderr)


def words(text: str) -> str:
    """A text without its layout."""
    return " ".join(text.split())


def test_show_prints_what_was_recorded(recording: Recording) -> None:
    done = call("show", recording)
    text = words(done.out)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Not verified; `auditkit verify` does that.\n")
    for told in (
        "5 steps of 2 processes",
        "backend gloo",
        "seed, by the user 0",
        "command train.py --epochs 1",
        "training loader batch size 2",
        "loader validation batch size 2",
        "rng/numpy, rng/python, rng/torch",
        "optimizer/momentum_buffer",
        "0 5 1 2 -",
        "1 5 1 2 -",
    ):
        assert told in text


def test_show_gives_the_signed_statement_byte_for_byte(recording: Recording) -> None:
    arguments = ["show", str(recording.path), "--json"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.stdout_bytes == statement_bytes(recording.path)


def test_verify_claims_no_pairing_and_no_estimands(recording: Recording) -> None:
    done = call("verify", recording)
    text = words(done.out)
    assert done.code == 0
    assert "Verdict: integrity-only (exit 0)" in text
    assert "Shown: integrity (these bytes are what that key signed); that the recorded" in text
    assert "share their state" not in text
    assert "Estimands" not in text
    write_replay(recording)
    done = call("verify", recording)
    text = words(done.out)
    assert "Verdict: verified (exit 0)" in text
    assert "replay-consistency" in text
    assert "share their state" not in text
    told = json.loads(call("verify", recording, "--json", "-").out)
    assert (told["verdict"], told["estimates"]) == ("verified", None)
    write_replay(recording, findings=(DRIFT,))
    done = call("verify", recording)
    assert done.code == 1
    assert "check 8 replay: rank 0, step 3: state drift: params is another" in words(done.out)


def test_verify_names_whatever_the_verifier_set(recording: Recording) -> None:
    options = ("--arg", "extra=somewhere", "--strict", "--threshold", "1", "--jobs", "3")
    text = words(call("verify", recording, *options).out)
    assert "Set by the verifier: --jobs 3, --arg extra=somewhere (not in the record)" in text
    assert f"--strict, --key {fingerprint(recording.key)}" in text
    told = json.loads(call("verify", recording, *options, "--json", "-").out)["settings"]
    assert told["arguments"] == [{"name": "extra", "value": "somewhere", "recorded": None}]
    assert (told["jobs"], told["strict"], told["replay"]) == (3, True, "all")
    assert told["keys"] == [fingerprint(recording.key), fingerprint(REVIEWER)]


def test_verify_lists_every_replay_contradictions_first(recording: Recording) -> None:
    late = "replay-0123456789abcdef-20260103T000000000000Z.json"
    write_replay(recording)
    write_replay(recording, name=late, findings=(DRIFT,), last_step=3)
    text = words(call("verify", recording).out)
    assert "Replays beside the recording: 2, of which 2 count" in text
    assert text.index(f"{late}: SHA256:") < text.index("replay.json: SHA256:")


def test_a_recording_fills_the_lists_about_papers(recording: Recording) -> None:
    done = call("checklist", recording)
    assert done.code == 0, done.err
    assert "## NeurIPS Paper Checklist" in done.out
    assert "arXiv 2601.21624" not in done.out
    assert (
        f"One run: {recording.recorded.ranks[0].steps} steps"
        in call("checklist", recording, "--for", "all").out
    )
    done = call("checklist", recording, "--for", "survey", "--for", "aaai")
    assert (done.code, done.out) == (2, "")
    assert "a recording has no branches, estimands or noise floor" in done.line
    done = call("checklist", recording, "--report", "report.json")
    assert (done.code, "--report is for a study" in done.line) == (2, True)


def test_the_checklist_of_a_recording_that_does_not_verify_says_so(recording: Recording) -> None:
    name = recording.recorded.files[0].name
    (recording.folder / name).write_bytes(b"")
    done = call("checklist", recording, "--format", "latex")
    assert done.code == 1
    assert "THIS MANIFEST DOES NOT VERIFY: check 3" in done.out.splitlines()[0]
    assert "Evidence:" not in done.out
