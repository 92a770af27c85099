"""Options of ``auditkit verify`` that contradict each other, or would do nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_shell import Shell
from studies import Run

from auditkit.signing.keys import fingerprint, generate_key, public_line

_NO_VARIABLE = (
    "is no variable of this environment, or empty; "
    "give the name alone; the value is the one that it has here"
)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell.at(tmp_path_factory.mktemp("options") / "user")


@pytest.fixture
def trusting(shell: Shell, small: Run) -> tuple[str, ...]:
    return ("--key", str(shell.write("author.pub", public_line(small.key) + "\n")), "--allow-code")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--budget", "90"), "--budget '90' is not like 90s, 30m or 6h"),
        (("--budget", "-1h"), "--budget '-1h' is not like 90s, 30m or 6h"),
        (("--budget", "infs"), "--budget 'infs' is not like 90s, 30m or 6h"),
        (("--tolerance", "nan"), "--tolerance 'nan' is not a number"),
        (("--tolerance", "-1"), "--tolerance is a total variation, 0 to 1, not -1.0"),
        (("--tolerance", "\u0660.\u0665"), r"--tolerance '\u0660.\u0665' is not a number"),
        (("--budget", "\u0669\u0660s"), r"--budget '\u0669\u0660s' is not like 90s, 30m or 6h"),
        (("--budget", "1_0s"), "--budget '1_0s' is not like 90s, 30m or 6h"),
        (
            ("--replay", "\u0663"),
            r"--replay '\u0663' is not all, none or a whole number of at least 1",
        ),
        (("--replay-seed", "\uff13"), r"--replay-seed '\uff13' is not a whole number"),
        (("--jobs", "1_0"), "--jobs '1_0' is not a whole number"),
        (("--jobs", "9" * 5000), f"--jobs '{'9' * 59}... is not a whole number"),
        (("--threshold", "0"), "--threshold must be at least 1, not 0"),
        (
            ("--replay", "none", "--budget", "1m", "--replay-seed", "3"),
            "--budget, --replay-seed would do nothing: --replay none replays nothing",
        ),
        (
            ("--replay", "none", "--arg", "path=here"),
            "--arg would do nothing: --replay none replays nothing",
        ),
        (
            ("--replay", "none", "--env", "HERE"),
            "--env would do nothing: --replay none replays nothing",
        ),
        (
            ("--env", "HERE", "--", "python", "train.py"),
            "--env would do nothing: your own command runs in your environment",
        ),
        (("--env", "ABSENT"), f"--env 'ABSENT' {_NO_VARIABLE}"),
        (("--env", "EMPTY"), f"--env 'EMPTY' {_NO_VARIABLE}"),
        (("--env", "HERE=3"), f"--env 'HERE=3' {_NO_VARIABLE}"),
        (("--env", ""), "--env is empty; give it a value, or leave it out"),
        (("--env", "HERE", "--env", "HERE"), "--env 'HERE' is given twice"),
        (("--env", "BYTES"), "--env 'BYTES': its value is too long, or no UTF-8 text"),
        (("--env", "LONG"), "--env 'LONG': its value is too long, or no UTF-8 text"),
        (("--env", "PYTHONPATH"), "--env 'PYTHONPATH': that is for auditkit to set in a replay"),
        (
            ("--env", "OMP_NUM_THREADS"),
            "--env 'OMP_NUM_THREADS': that is for auditkit to set in a replay",
        ),
        (
            ("--replay", "none", "--", "python", "train.py"),
            "a command after -- would do nothing: --replay none replays nothing",
        ),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(
    shell: Shell,
    small: Run,
    trusting: tuple[str, ...],
    options: tuple[str, ...],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    for name, value in (("HERE", "3"), ("EMPTY", ""), ("BYTES", "\udcff"), ("LONG", "x" * 65537)):
        monkeypatch.setenv(name, value)
    done = shell("verify", str(small.path), *trusting, *options)
    assert (done.code, done.line, done.out) == (2, line, "")


@pytest.mark.parametrize("command", [("verify",), ("reproduce", "--out", "again")])
def test_an_argument_that_the_factory_does_not_take_is_wrong_use(
    shell: Shell, small: Run, trusting: tuple[str, ...], command: tuple[str, ...]
) -> None:
    done = shell(command[0], str(small.path), *command[1:], *trusting, "--arg", "optimzer=x")
    said = "the factory make_program takes no argument 'optimzer' (expected optimizer, "
    assert (done.code, said in done.line, done.out) == (2, True, "")


def test_an_argument_of_a_checklist_that_replays_nothing_is_wrong_use(
    shell: Shell, small: Run, trusting: tuple[str, ...]
) -> None:
    done = shell("checklist", str(small.path), *trusting, "--arg", "path=here")
    assert (done.code, done.out) == (2, "")
    assert done.line == "--arg would do nothing: --replay none replays nothing"


def test_a_checklist_takes_a_variable_where_it_replays(
    shell: Shell, small: Run, trusting: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "3")
    done = shell("checklist", str(small.path), *trusting, "--env", "HERE")
    assert (done.code, done.out) == (2, "")
    assert done.line == "--env would do nothing: --replay none replays nothing"


def test_a_reproduction_has_the_whole_environment_and_takes_no_variable(
    shell: Shell, small: Run, trusting: tuple[str, ...]
) -> None:
    done = shell("reproduce", str(small.path), "--out", "again", *trusting, "--env", "PATH")
    assert (done.code, "No such option '--env'" in done.err, done.out) == (2, True, "")


def test_a_budget_is_kept_to_and_told(shell: Shell, small: Run, trusting: tuple[str, ...]) -> None:
    done = shell("verify", str(small.folder), *trusting, "--budget", "0.001s")
    assert done.code == 0, done.out
    assert "1 of 6 branches with their trunks, in" in done.out
    everything = shell("verify", str(small.folder), *trusting, "--budget", "6h")
    assert "Verdict: verified (exit 0)" in everything.out


def test_other_commands_take_a_folder_too(shell: Shell, small: Run) -> None:
    assert shell("show", str(small.folder)).code == 0
    bundle = str(shell.folder / "bundle.json")
    assert shell("export", str(small.folder), "--format", "sigstore", "--out", bundle).code == 0
    assert Path(bundle).is_file()


@pytest.mark.parametrize("kind", ["another key", "a FIFO", "no file"])
def test_what_lies_beside_a_manifest_denies_no_report(shell: Shell, forged: Run, kind: str) -> None:
    beside = forged.folder / "signer.pub"
    beside.unlink(missing_ok=True)
    if kind == "another key":
        beside.write_text(public_line(generate_key()) + "\n")
    elif kind == "a FIFO":
        os.mkfifo(beside)
    wanted = fingerprint(forged.key)
    done = shell("verify", str(forged.path), "--replay", "none", "--fingerprint", wanted)
    assert done.code == 3
    assert "warning: --fingerprint: " in done.err
    assert "Verdict: failed (exit 3)" in done.out
