"""Assertions that training is repeatable, and is what was recorded; and the fixtures of pytest."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT
from in_process_loops import InProcessCommands, Loop, Script, record
from studies import PROGRAMS, InProcessWorkers, Run

from auditkit.errors import AuditError, Undecided, UsageError
from auditkit.integrations import repeatability
from auditkit.integrations.repeatability import assert_repeatable, assert_same_as

PLUGIN = "auditkit.integrations.pytest_plugin"
TINY = str(PROGRAMS / "tiny_study.py")
COMMAND = ["python", "train.py"]

Runs = Callable[[Script], None]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Lets a function stand for whatever command is run."""

    def set_script(script: Script) -> None:
        monkeypatch.setattr(repeatability, "Commands", lambda: InProcessCommands(script))

    return set_script


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path / "run", epochs=1)


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeatability, "Workers", InProcessWorkers)
    monkeypatch.setattr("auditkit.diagnose.doctor.Workers", InProcessWorkers)


# Repeatable


def test_a_loop_that_is_repeatable_passes(loop: Loop, runs: Runs) -> None:
    runs(loop)
    found = assert_repeatable(COMMAND, steps=4)
    assert (found.repeatable, found.steps, found.runs) == (True, 4, 2)


def test_a_loop_that_is_not_fails_with_what_the_doctor_says(loop: Loop, runs: Runs) -> None:
    runs(replace(loop, fault="sampler"))
    with pytest.raises(AssertionError) as caught:
        assert_repeatable(COMMAND, steps=4)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("Not repeatable: step 1 took other samples, or in another order")
    assert lines[-1].startswith("What to do: the sampler draws from a generator")


def test_a_program_is_named_or_given_as_its_factory() -> None:
    assert assert_repeatable(TINY, steps=4).repeatable
    faulty = str(PROGRAMS / "faulty_study.py")
    with pytest.raises(AuditError, match="fault"):
        assert_repeatable(faulty, steps=4, arguments={"nothing": "of the kind"})


def factory(seed: int) -> None:
    """Stands for a factory at the top of a module."""


def trains() -> None:
    """Stands for a loop at the top of a module."""


def test_a_function_is_found_again_by_a_fresh_process() -> None:
    subject_of = repeatability._subject_of
    program = subject_of(factory, {"lr": "0.1"}).program
    assert program is not None
    module, _, name = program.target.partition(":")
    assert (module.removesuffix(".py").rpartition(".")[2], name) == (
        "test_repeatability",
        "factory",
    )
    assert program.arguments == {"lr": "0.1"}
    command = subject_of(trains, {}).command
    assert command[:2] == (sys.executable, "-c")
    done = subprocess.run(
        [*command[:2], command[2].replace("trains()", "trains")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PYTHONPATH": str(ROOT / "tests"), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(UsageError, match="cannot be found by a fresh process"):
        subject_of(lambda: None, {})


@pytest.mark.parametrize(
    "arguments",
    [(TINY, 2), ([], 5), ("nowhere.py", 5), (COMMAND, 0)],
)
def test_what_means_nothing_is_refused(arguments: tuple[Any, int]) -> None:
    with pytest.raises(UsageError):
        assert_repeatable(arguments[0], steps=arguments[1])


# The same as was recorded


def test_a_loop_that_is_as_recorded_passes(loop: Loop, runs: Runs) -> None:
    record(loop)
    runs(loop)
    assert_same_as(loop.out, COMMAND, steps=4)
    runs(replace(loop, fault="learning rate", at=9))
    assert_same_as(loop.out / "manifest.json", COMMAND, steps=8)


def test_a_loop_that_is_not_fails_with_what_a_replay_says(loop: Loop, runs: Runs) -> None:
    record(loop)
    runs(replace(loop, fault="learning rate", at=3))
    with pytest.raises(AssertionError, match=r"lr 0\.05 -> 0\.04 from step 4 on \(param_groups"):
        assert_same_as(loop.out, COMMAND, steps=5)


@pytest.mark.slow
def test_the_recorded_script_is_found_above_the_manifest_and_no_command_line_is_run(
    loop: Loop, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    record(loop)
    script = Path(__file__).with_name("in_process_loops.py").name
    with pytest.raises(UsageError, match=f"there is no {script}"):
        assert_same_as(loop.out)
    (tmp_path / script).write_text("")
    runs(loop)
    assert_same_as(loop.out, steps=3)
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.1"])
    record(replace(loop, out=tmp_path / "other"))
    with pytest.raises(UsageError, match="never run from a record"):
        assert_same_as(tmp_path / "other")


def test_a_manifest_that_is_not_in_order_is_refused(
    loop: Loop, runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    record(loop)
    runs(loop)
    signer = (loop.out / "signer.pub").read_bytes()
    with pytest.raises(AuditError, match="SHA256:"):
        assert_same_as(loop.out, COMMAND, fingerprint=f"SHA256:{'A' * 43}")
    assert signer == (loop.out / "signer.pub").read_bytes()
    chunk = next(loop.out.glob("trace/*"))
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\0")
    with pytest.raises(UsageError, match="check 3 artifacts"):
        assert_same_as(loop.out, COMMAND)


def test_a_study_is_compared_by_its_trunk(small: Run) -> None:
    assert_same_as(small.path, TINY, steps=4)
    faulty = f"{PROGRAMS / 'tiny_study.py'}:make_program"
    assert_same_as(small.folder, faulty)
    with pytest.raises(UsageError, match="a study is of a program"):
        assert_same_as(small.path, COMMAND)


def test_a_study_of_another_program_fails_and_names_the_file(small: Run, tmp_path: Path) -> None:
    source = (PROGRAMS / "tiny_study.py").read_text()
    other = tmp_path / "programs" / "tiny_study.py"
    other.parent.mkdir()
    other.write_text(source.replace("momentum=0.9", "momentum=0.8"))
    assert other.read_text() != source
    with pytest.raises(AssertionError) as caught:
        assert_same_as(small.path, str(other), steps=3)
    assert "it begins with another param_groups, before step 1" in str(caught.value)
    assert "tiny_study.py is another file than the recorded one" in str(caught.value)


# The fixtures

TESTS = """
import sys

def test_nothing_is_loaded():
    assert not {"torch", "numpy", "auditkit.integrations.repeatability"} & set(sys.modules)

def test_what_cannot_be_run(assert_repeatable, assert_same_as):
    assert assert_same_as.__name__ == "assert_same_as"
    assert_repeatable([sys.executable, "-c", "pass"], steps=3)
"""


def test_pytest_has_both_fixtures_and_pays_nothing_for_them(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    options = ("-p", "no:cacheprovider", "-p", "no:auditkit", "-p", PLUGIN)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, "test_it.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "no Recorder in it was given a loop" in done.stdout


def test_the_package_tells_pytest_of_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"auditkit": PLUGIN}


def test_a_loop_that_never_was_one_is_no_failure_of_training(loop: Loop, runs: Runs) -> None:
    runs(lambda: None)
    with pytest.raises(Undecided):
        assert_repeatable(COMMAND)
