"""``auditkit doctor``: what it prints and returns."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cli_shell import CompletedCommand
from click.testing import CliRunner
from in_process_loops import InProcessCommands, Loop, Script
from studies import PROGRAMS, InProcessWorkers
from torch import nn

from auditkit.cli import main

Call = Callable[..., CompletedCommand]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls the command line; a function stands for the user's command."""
    monkeypatch.setattr("auditkit.diagnose.doctor.Workers", InProcessWorkers)

    def call(*arguments: str, script: Script | None = None) -> CompletedCommand:
        with pytest.MonkeyPatch.context() as patch:
            if script is not None:
                patch.setattr("auditkit.cli.doctor.Commands", lambda: InProcessCommands(script))
            done = CliRunner().invoke(main, ["doctor", *arguments], catch_exceptions=False)
        return CompletedCommand(done.exit_code, done.stdout, done.stderr)

    return call


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path / "run")


def test_a_repeatable_loop_and_a_repeatable_program(loop: Loop, call: Call) -> None:
    done = call("--steps", "6", "--repeat", "3", "--", "python", "train.py", script=loop)
    assert done == CompletedCommand(
        0,
        "Repeatable: 6 steps are equal bit for bit; no nondeterminism seen in 3 runs.\n"
        "A resume is exact: from a checkpoint after step 3, 3 rows were given again.\n",
        "",
    )
    done = call("--steps", "6", str(PROGRAMS / "tiny_study.py"))
    assert (done.code, done.out.split(";")[0]) == (
        0,
        "Repeatable: 6 steps are equal bit for bit",
    )


def test_a_loop_that_ends_before_the_steps_that_are_compared_is_resumed_to_its_end(
    loop: Loop, call: Call
) -> None:
    done = call("--steps", "100", "--", "python", "train.py", script=loop)
    assert (done.code, done.err) == (0, "")
    assert (
        "A resume is exact: from a checkpoint after step 12, 12 rows were given again" in done.out
    )


def test_a_resume_that_is_not_exact_is_told_with_what_to_register(loop: Loop, call: Call) -> None:
    class Counting(Loop):
        def _model(self) -> nn.Module:
            model, counter = super()._model(), itertools.count(1)
            model[0].register_forward_hook(lambda _, __, output: output / next(counter))  # type: ignore[index]
            return model

    script = Counting(loop.out)
    done = call("--steps", "8", "--", "x", script=script)
    assert (done.code, done.err) == (1, "")
    text = " ".join(done.out.split())
    assert text.startswith("Repeatable: 8 steps are equal bit for bit")
    told = "A resume is not exact: from a checkpoint after step 4, step 5 made another batchnorm"
    assert told in text
    assert "What to register: likely the step used what no checkpoint holds" in text
    assert "extras={NAME: object}. `auditkit explain WORD` explains: state drift" in text
    done = call("--steps", "8", "--json", "-", "--", "x", script=script)
    told = json.loads(done.out)
    assert (told["exit_code"], told["repeatable"], told["resume"]["step"]) == (1, True, 4)


def test_what_parts_and_what_to_do_are_told(loop: Loop, call: Call) -> None:
    done = call("--steps", "6", "--", "x", script=replace(loop, fault="seed"))
    assert (done.code, done.err) == (1, "")
    told = "Not repeatable: it begins with another rng/torch, before step 1 (RNG drift"
    assert done.out.startswith(told)
    text = " ".join(done.out.split())
    assert "What to do: rng/torch begins elsewhere in every run: call torch.manual_seed" in text
    done = call("--steps", "6", "--json", "-", "--", "x", script=replace(loop, fault="sampler"))
    told = json.loads(done.out)
    assert (told["exit_code"], told["repeatable"]) == (1, False)
    assert told["parting"]["kind"] == "order drift"
    assert told["experiments"][0]["change"] == "PYTHONHASHSEED=0"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "either a PROGRAM, or a command"),
        (("train.py", "--", "x"), "either a PROGRAM, or a command"),
        (("--steps", "2", "--", "x"), "--steps is at least 3"),
        (("--repeat", "1", "--", "x"), "--repeat at least 2"),
        (("--arg", "a=b", "--", "x"), "takes no --arg"),
        (("no-such-file.py",), "no such program file"),
        (("--", "/no/such/command"), "cannot start '/no/such/command'"),
    ],
)
def test_wrong_use_is_told(arguments: tuple[str, ...], says: str, call: Call) -> None:
    done = call(*arguments)
    assert (done.code, done.out) == (2, "")
    assert says in done.line


def test_what_cannot_be_run_decides_nothing(call: Call) -> None:
    done = call("--", "/bin/sh", "-c", "echo not today >&2; exit 1")
    assert (done.code, done.out) == (6, "")
    assert "was given a loop; it wrote: 'not today'; the script needs" in done.line
