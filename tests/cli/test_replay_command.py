"""``auditkit replay``: what it prints, writes and returns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cli_shell import PATIENCE, CompletedCommand
from click.testing import CliRunner
from in_process_loops import InProcessCommands, Loop, Script, record
from studies import PROGRAMS, Run

from auditkit.cli import main
from auditkit.signing.keys import generate_key, private_key_bytes
from auditkit.signing.trust import ensure_default_key

Call = Callable[..., CompletedCommand]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls the command line with a function for the user's command."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("AUDITKIT_KEY", raising=False)
    ensure_default_key()

    def call(*arguments: str, script: Script | None = None) -> CompletedCommand:
        with pytest.MonkeyPatch.context() as patch:
            if script is not None:
                patch.setattr("auditkit.cli.replay.Commands", lambda: InProcessCommands(script))
            done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        return CompletedCommand(done.exit_code, done.stdout, done.stderr)

    return call


@pytest.fixture
def loop(tmp_path: Path, call: Call) -> Loop:
    """A recorded loop; signed by this machine's key."""
    loop = Loop(tmp_path / "run")
    record(loop)
    return loop


def manifest(loop: Loop) -> str:
    """Its manifest."""
    return str(loop.out / "manifest.json")


@pytest.mark.parametrize("at_end", [False, True])
def test_a_result_replaces_nothing(
    loop: Loop, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at_end: bool
) -> None:
    """What lies where the result would go is left as it is, and no command runs for nothing."""
    ran: list[int] = []
    name = "replay-0123456789abcdef-20260103T000000000000Z.json"
    monkeypatch.setattr("auditkit.cli.replay.replay_result_name", lambda *_: name)

    def place() -> None:
        (loop.out / name).symlink_to(tmp_path / "precious")

    (tmp_path / "precious").write_text("precious")
    if not at_end:
        place()

    def script() -> None:
        ran.append(1)
        loop()
        if at_end:
            place()

    done = call("replay", manifest(loop), "--", "python", "loop.py", script=script)
    assert (done.code, ran) == (2, [1] if at_end else [])
    assert "the replay's result" in done.line
    assert (tmp_path / "precious").read_text() == "precious"
    assert (loop.out / name).is_symlink()


def words(text: str) -> str:
    """A text without its layout."""
    return " ".join(text.split())


@pytest.fixture
def reviewer(tmp_path: Path) -> str:
    """Somebody else's private key."""
    key = tmp_path / "reviewer"
    key.write_bytes(private_key_bytes(generate_key()))
    return str(key)


@pytest.fixture
def both(tmp_path: Path, reviewer: str) -> tuple[str, ...]:
    """Trust in the author's key, which is this machine's, and in the reviewer's."""
    return "--key", str(tmp_path / "config" / "auditkit" / "key.pub"), "--key", reviewer


def results(loop: Loop) -> list[Path]:
    """What replays have left."""
    return sorted(loop.out.glob("replay*.json"))


def test_an_equal_replay_by_somebody_else_is_signed_and_verifies(
    loop: Loop, call: Call, reviewer: str, both: tuple[str, ...]
) -> None:
    assert "8 replay not run" in words(call("verify", manifest(loop)).out)
    options = ("replay", manifest(loop), "--key", reviewer, "--")
    done = call(*options, "python", "train.py", "--lr", "1", script=loop)
    assert (done.code, done.out) == (
        0,
        "Equal: 24 steps of 1 process, every row, order and commitment.\n"
        "`auditkit explain WORD` explains: row, commitment\n",
    )
    (path,) = results(loop)
    assert done.line.startswith(f"wrote {path}, signed by SHA256:")
    verified = call("verify", manifest(loop), *both)
    assert verified.code == 0
    text = "8 replay passed re-executed with the user's command: 24 steps and "
    assert text in words(verified.out)
    assert "Verdict: verified (exit 0)" in words(verified.out)
    assert words(verified.out).count("--key SHA256:") == 2  # as set by the verifier


def test_an_equal_replay_by_the_author_is_his_own_word(loop: Loop, call: Call) -> None:
    done = call("replay", manifest(loop), "--", "python", "train.py", script=loop)
    assert done.code == 0
    assert "this is the author's own word" in done.err
    verified = call("verify", manifest(loop), "--strict", "--key", str(loop.out / "signer.pub"))
    text = words(verified.out)
    assert verified.code == 0
    assert "8 replay not run only the author says he replayed it" in text
    assert "was not replayed by anybody but, in his own word, the author" in text
    assert "Verdict: integrity-only (exit 0)" in text


def test_no_replay_takes_the_place_of_another(
    loop: Loop, call: Call, reviewer: str, both: tuple[str, ...]
) -> None:
    again = ("replay", manifest(loop), "--key", reviewer, "--", "x")
    assert call(*again, script=loop).code == 0
    assert call(*again, script=replace(loop, fault="batchnorm")).code == 1
    assert call("replay", manifest(loop), "--", "x", script=loop).code == 0
    assert len(results(loop)) == 3
    verified = call("verify", manifest(loop), *both, "--json", "-")
    told = json.loads(verified.out)
    assert (verified.code, told["verdict"]) == (1, "failed")
    assert [(item["says"], item["by_author"], item["counts"]) for item in told["replays"]] == [
        ("different", False, True),
        ("equal", False, True),
        ("equal", True, False),
    ]
    assert told["replay"].endswith("; 1 found everything equal")


def test_a_replay_that_differs_fails_check_8_until_it_is_taken_away(
    loop: Loop, call: Call, reviewer: str, both: tuple[str, ...]
) -> None:
    other = replace(loop, fault="batchnorm")
    done = call("replay", manifest(loop), "--", "x", script=other)
    assert done.code == 1
    text = words(done.out)
    assert "rank 0: step 1 made another batchnorm, seen before step 2 (state drift" in text
    assert "after step 5, replay and record are apart by: batchnorm: largest" in text
    verified = call("verify", manifest(loop))
    assert verified.code == 1
    told = "check 8 replay: rank 0: step 1 made another batchnorm, seen before step 2"
    assert told in words(verified.out)
    (path,) = results(loop)
    assert call("replay", manifest(loop), "--key", reviewer, "--", "x", script=loop).code == 0
    assert call("verify", manifest(loop), *both).code == 1
    path.unlink()
    assert "Verdict: verified" in words(call("verify", manifest(loop), *both).out)


@pytest.mark.slow
def test_another_environment_decides_nothing(
    loop: Loop, call: Call, reviewer: str, both: tuple[str, ...]
) -> None:
    other = replace(loop, fault="threads")
    assert call("replay", manifest(loop), "--", "x", script=other).code == 6
    assert call("verify", manifest(loop)).code == 0  # the author's, which says nothing
    done = call("replay", manifest(loop), "--key", reviewer, "--", "x", script=other)
    assert done.code == 6
    assert "an edit cannot be excluded" in words(done.out)
    assert "environment: determinism: torch threads is 1 there, 2 here" in words(done.out)
    assert call("verify", manifest(loop), *both).code == 6


def test_json_holds_everything_and_nothing_is_written_if_so_wished(
    loop: Loop, call: Call, tmp_path: Path
) -> None:
    other = replace(loop, fault="label")
    options = ("replay", manifest(loop), "--no-write", "--json")
    done = call(*options, "-", "--", "x", script=other)
    told = json.loads(done.out)
    assert (done.code, told["exit_code"], told["equal"], done.err) == (1, 1, False, "")
    assert told["partings"][0]["kind"] == "data drift"
    assert told["distance"]["components"]
    assert results(loop) == []
    file = tmp_path / "found.json"
    done = call(*options, str(file), "--", "x", script=loop)
    assert json.loads(file.read_bytes())["equal"] is True
    assert "Equal" in done.out


def test_a_key_that_nobody_trusts_is_nobodys(
    loop: Loop, call: Call, reviewer: str, both: tuple[str, ...]
) -> None:
    assert call("replay", manifest(loop), "--key", reviewer, "--", "x", script=loop).code == 0
    assert "8 replay not run" in words(call("verify", manifest(loop)).out)  # who is that?
    assert "8 replay passed" in words(call("verify", manifest(loop), *both).out)


# What is refused; nothing is run then


def never() -> None:
    raise AssertionError("it was run")


def test_a_command_is_needed(loop: Loop, call: Call) -> None:
    for tail in ((), ("--",)):
        done = call("replay", manifest(loop), *tail, script=never)
        assert (done.code, done.out) == (2, "")
        assert "give the command after --" in done.line


def test_a_command_without_the_dashes_is_told_where_it_belongs(loop: Loop, call: Call) -> None:
    for tail in (("python", "train.py"), ("python", "train.py", "--lr", "0.1")):
        done = call("replay", manifest(loop), *tail, script=never)
        assert (done.code, done.out) == (2, "")
        assert "your command comes after --: auditkit replay MANIFEST -- python" in done.line
    assert "comes after" not in call("replay", manifest(loop), "--wrong", "--", "x").err


def test_a_script_that_ends_well_without_a_recorder_has_not_died(loop: Loop, call: Call) -> None:
    done = call("replay", manifest(loop), "--", "/bin/sh", "-c", "echo epoch 0; echo epoch 1")
    assert done.code == 6
    assert "ended with exit status 0, and no Recorder in it was given a loop" in done.line
    assert "it wrote: 'epoch 0 | epoch 1'; the script needs an auditkit.Recorder" in done.line


def test_only_some_steps_are_compared_if_so_wished(
    loop: Loop, call: Call, reviewer: str, both: tuple[str, ...]
) -> None:
    late = replace(loop, fault="learning rate", at=20)
    options = ("replay", manifest(loop), "--key", reviewer, "--steps")
    done = call(*options, "7", "--", "x", script=late)
    assert (done.code, done.out.splitlines()[0]) == (
        0,
        "Equal: the first 7 of 24 steps of 1 process, every row, and the state after them; the "
        "others were not run.",
    )
    verified = call("verify", manifest(loop), *both)
    assert "only steps 1..7 of 1 process re-executed" in words(verified.out)
    assert call(*options, "20", "--", "x", script=late).code == 1  # step 20 leaves another state
    done = call(*options, "99", "--no-write", "--", "x", script=loop)
    assert done.out.startswith("Equal: 24 steps")
    assert call(*options, "0", "--", "x", script=never).code == 2


def test_another_learning_rate_is_told_as_a_number_and_first(loop: Loop, call: Call) -> None:
    other = replace(loop, fault="learning rate", at=9)
    done = call("replay", manifest(loop), "--no-write", "--", "x", script=other)
    told = "rank 0: lr 0.05 -> 0.04 from step 10 on (param_groups[0]); step 9 made another"
    assert f"{told} param_groups, seen before step 10" in words(done.out)


def test_a_study_is_refused(small: Run, call: Call) -> None:
    done = call("replay", str(small.path), "--", "x", script=never)
    assert done.code == 2
    assert "of a study, not of a recording" in done.line


def test_what_does_not_verify_is_not_replayed(loop: Loop, call: Call) -> None:
    chunk = next(loop.out.glob("trace/*"))
    good = chunk.read_bytes()
    chunk.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    done = call("replay", manifest(loop), "--", "x", script=never)
    assert done.code == 1
    assert "not replayed: check 3 artifacts" in done.err
    chunk.write_bytes(good)
    Path(manifest(loop)).write_text("{}")
    done = call("replay", manifest(loop), "--", "x", script=never)
    assert done.code == 5
    assert results(loop) == []


def test_a_key_that_is_not_trusted_is_not_enough(
    loop: Loop, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = loop.out / "signer.pub"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    done = call("replay", manifest(loop), "--", "x", script=never)
    assert done.code == 3
    assert "check 2 signature" in done.err
    assert "the key's file (verify --key, replay --trust)" in done.err
    trusting = ("replay", manifest(loop), "--trust", str(signer), "--no-write")
    assert call(*trusting, "--", "x", script=loop).code == 0


def test_a_command_that_cannot_be_run_decides_nothing(loop: Loop, call: Call) -> None:
    done = call("replay", manifest(loop), "--", "/bin/sh", "-c", "echo oh no >&2; exit 4")
    assert done.code == 6
    told = "died with exit status 4, and no Recorder in it was given a loop; it wrote: 'oh no'"
    assert told in done.line
    done = call("replay", manifest(loop), "--", "/no/such/command")
    assert done.code == 2
    assert results(loop) == []


def test_output_is_passed_on_only_if_wished(loop: Loop, capfd: pytest.CaptureFixture[str]) -> None:
    command = ("--", "/bin/sh", "-c", "echo hello")
    for options, expected in (((), ""), (("--verbose",), "hello\n")):
        with pytest.raises(SystemExit):
            main(["replay", manifest(loop), *options, *command])
        said = capfd.readouterr()
        assert said.out == ""
        assert said.err.startswith(expected)
        assert said.err.count("\n") == 1 + bool(options)


# Real commands

TRAIN = """
import torch
from torch.utils.data import DataLoader, TensorDataset
import auditkit as ak, numpy, random
random.seed(0), numpy.random.seed(0), torch.manual_seed(0), torch.set_num_threads(1)
loader = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=4, shuffle=True)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with ak.Recorder("run", seed=0, checkpoint_every=4) as recorder:
    model, optimizer, loader = recorder.wrap(model, optimizer, loader)
    for (x,) in loader:
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print("trained")
"""


@pytest.mark.slow
def test_an_edited_script_is_named(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = Path("train.py")
    script.write_text(TRAIN)
    subprocess.run([sys.executable, "train.py"], check=True, timeout=PATIENCE, capture_output=True)
    script.write_text(TRAIN.replace("square()", "abs()"))
    done = call("replay", "run/manifest.json", "--", sys.executable, "train.py")
    text = " ".join(done.out.split())
    assert done.code == 1
    assert "rank 0: step 1 made another grad, seen before step 2 (state drift; also params)" in text
    assert "3 runs agree with each other, so the record is of something else" in text
    assert "train.py is another file than the recorded one" in text
    assert "after step 4, replay and record are apart by:" in text


@pytest.mark.slow
def test_several_processes_are_held_against_their_own_records(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    script = str(PROGRAMS / "ddp_loop.py")
    command = [sys.executable, *launcher, script, "--out", "run", "--every", "4"]
    subprocess.run(command, check=True, timeout=PATIENCE, capture_output=True)
    done = call("replay", "run/manifest.json", "--", *command)
    told = "Equal: 18 steps of 2 processes, every row, order and commitment."
    assert (done.code, done.out.splitlines()[0]) == (0, told)
    assert call("verify", "run/manifest.json").code == 0
    done = call("replay", "run/manifest.json", "--no-write", "--", *command, "--drift", "1:7")
    text = " ".join(done.out.split())
    assert done.code == 1
    # Its weights are moved within step 7, whose loss is the first thing to show it.
    assert "rank 1: step 7 gave another loss (state drift" in text
    assert "after step 8, replay and record are apart by: batchnorm" in text


@pytest.mark.slow
def test_a_sharded_loop_is_replayed_by_as_many_processes(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
    script = (str(PROGRAMS / "ddp_loop.py"), "--out", "run", "--every", "4", "--epochs", "1")
    command = [*script, "--sharded", "fsdp"]
    subprocess.run([*launcher, "2", *command], check=True, timeout=PATIENCE, capture_output=True)
    done = call("replay", "run/manifest.json", "--no-write", "--", *launcher, "2", *command)
    told = "Equal: 6 steps of 2 processes, every row, order and commitment."
    assert (done.code, done.out.splitlines()[0]) == (0, told)
    drifting = (*launcher, "2", *command, "--drift", "1:5")
    done = call("replay", "run/manifest.json", "--no-write", "--", *drifting)
    text = " ".join(done.out.split())
    assert (done.code, "rank 1: step 6" in text or "step 5" in text) == (1, True), text
    done = call("replay", "run/manifest.json", "--", *launcher, "3", *command)
    assert done.code == 6
    assert "another number of processes than were recorded (expected 2, found 3)" in done.err
