"""Commands in a folder that is gone, with names that are no UTF-8, and before a closed pipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_shell import Shell
from click.testing import CliRunner

from auditkit.cli import main
from auditkit.cli.console import console

#: As the system gives the name of a file that is no UTF-8.
ODD = os.fsdecode(b"n\xffu")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    folder = tmp_path / "user"
    folder.mkdir()
    return Shell(folder)


def test_a_working_folder_that_is_gone_is_said_at_once(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os, sys; os.rmdir(os.getcwd()); sys.argv = ['auditkit', 'list', '/']\n"
        "from auditkit.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=gone, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("auditkit: the working folder is gone: No such file or directory")


def test_a_report_before_a_closed_pipe_is_no_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich ends a program with 1 then, which says that a check failed."""

    class ClosedPipe:
        encoding = "utf-8"

        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            """Nothing is kept."""

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    with pytest.raises(BrokenPipeError):
        console().print("a report")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "p.py", "--out", ODD), "the path of --out is no UTF-8"),
        (("run", f"{ODD}.py", "--out", "o"), "the program's path is no UTF-8"),
        (("run", "p.py", "--out", "o", "--arg", f"data={ODD}"), "--arg data is no UTF-8"),
        (("plan", f"{ODD}.py", "--out", "o"), "the program's path is no UTF-8"),
        (("doctor", f"{ODD}.py"), "the program's path is no UTF-8"),
        (("verify", "m", "--arg", f"data={ODD}"), "--arg data is no UTF-8"),
    ],
)
def test_what_no_manifest_can_hold_is_refused_at_once(
    shell: Shell, words: tuple[str, ...], says: str
) -> None:
    for name in ("p.py", f"{ODD}.py"):
        (shell.folder / name).write_text("def make_program(seed): ...\n")
    done = shell(*words)
    assert done.code == 2
    assert says in done.line
    assert not (shell.folder / "o").exists()
    assert not (shell.folder / ODD).exists()


def test_a_word_of_a_command_that_no_manifest_can_hold_is_refused(shell: Shell) -> None:
    study = "run --out o --fork-at 1 --window 1 --horizon 3 --seeds 0 --perturb carry"
    done = shell(*study.split(), "--", "python", "p.py", ODD)
    assert (done.code, "a word of the command is no UTF-8" in done.line) == (2, True)


def test_runs_are_listed_whatever_their_folders_are_called(tmp_path: Path) -> None:
    (tmp_path / ODD).mkdir()
    (tmp_path / ODD / "manifest.json").write_text("{}")
    for folder in (tmp_path, tmp_path / ODD):
        done = CliRunner().invoke(main, ["list", str(folder), "--json"])
        assert done.exit_code == 0, done.output
        (run,) = json.loads(done.stdout)["runs"]
        assert run["state"] == "broken"
    assert json.loads(done.stdout)["folder"].endswith("n\\xffu")
