"""SIGTERM takes the way of Ctrl-C: whatever a command has put somewhere is tidied."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from cli_shell import CompletedCommand, Shell, content, is_running, timeless, wait_for
from click.testing import CliRunner

from auditkit.cli import main
from auditkit.cli.signals import Terminated, raise_at_signals
from auditkit.files import archives
from auditkit.files.run_parts import notes
from auditkit.processes.fork_server import CAN_FORK


@pytest.fixture
def listening() -> Iterator[None]:
    """Signals as the command line takes them."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    raise_at_signals()
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(
    ("number", "how", "code"),
    [(signal.SIGTERM, "terminated", 143), (signal.SIGINT, "interrupted", 130)],
)
def test_no_signal_leaves_an_archive_that_was_being_unpacked(
    number: int, how: str, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("study/manifest.json", "{}")
    seen: list[Path] = []

    def claim(*_: object, **__: object) -> None:
        seen.extend(scratch.iterdir())
        os.kill(os.getpid(), number)

    monkeypatch.setattr(archives._Target, "_claim", claim)
    done = CliRunner().invoke(main, ["verify", str(tmp_path / "x.zip")], catch_exceptions=False)
    assert (done.exit_code, done.stderr) == (code, f"auditkit: {how}\n")
    assert len(seen) == 1
    assert not list(scratch.iterdir())


@pytest.mark.usefixtures("listening")
def test_a_second_sigterm_does_not_end_the_tidying() -> None:
    with pytest.raises(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(
    ("number", "last", "code"),
    [
        (signal.SIGTERM, "auditkit: terminated", 143),
        (signal.SIGINT, "auditkit: interrupted", 130),
    ],
)
def test_a_signal_where_a_password_is_asked_for_is_no_failed_check(
    number: int, last: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def command() -> None:
        ask = "click.termui.hidden_prompt_func"  # which the runner has just made its own
        monkeypatch.setattr(ask, lambda _: os.kill(os.getpid(), number))
        click.prompt("password", hide_input=True, err=True)

    monkeypatch.setattr("auditkit.cli.group._Group.get_command", lambda *_: command)
    done = CliRunner().invoke(main, ["keygen"], catch_exceptions=False)
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (code, last)


def test_what_was_started_with_signals_ignored_goes_on_ignoring_them() -> None:
    script = (
        "import os, signal\n"
        "numbers = (signal.SIGINT, signal.SIGTERM)\n"
        "for number in numbers: signal.signal(number, signal.SIG_IGN)\n"
        "from auditkit.__main__ import _end_at_signals\n"
        "from auditkit.cli.signals import raise_at_signals\n"
        "_end_at_signals(), raise_at_signals()\n"
        "for number in numbers: os.kill(os.getpid(), number)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# Branches of one seed that are at work at once

#: Two branches that need not wait for each other, and the replica.
AT_ONCE = (
    *("run", "held_study.py:waiting", "--seeds", "0", "--jobs", "2", "--perturb", "order-reverse"),
    *("--fork-at", "2", "--window", "2", "--horizon", "5"),
)


@dataclass(frozen=True)
class Waiting:
    """A study whose branches wait for each other's end.

    Attributes:
        shell: Where it is run.
        room: The branches' processes are files here.
        whole: A run of it that nothing happened to.
    """

    shell: Shell
    room: Path
    whole: Path

    def run(self, out: str, *options: str) -> CompletedCommand:
        """Run it."""
        room = ("--arg", f"room={self.room}")
        return self.shell(*AT_ONCE, *room, "--out", out, *options, fresh=True)

    def go(self) -> None:
        """Let branches wait no longer."""
        (self.room / "go").touch()

    def halt(self) -> None:
        """Let them wait from now on."""
        for file in self.room.iterdir():
            file.unlink()

    def processes(self) -> list[int]:
        """Of the branches that wait."""
        return sorted(int(file.name) for file in self.room.iterdir() if file.name != "go")


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Waiting:
    folder = tmp_path_factory.mktemp("at-once")
    (folder / "room").mkdir()
    study = Waiting(Shell.at(folder / "user"), folder / "room", folder / "user" / "whole")
    study.go()
    done = study.run("whole")
    assert (done.code, done.err) == (0, "")
    return study


def kill_one(waiting: Waiting) -> None:
    """Kill a branch, and let the others end."""
    os.kill(waiting.processes()[0], signal.SIGKILL)
    waiting.go()


def cut_short(
    waiting: Waiting, cut: Callable[[Waiting], None], call: Callable[[], CompletedCommand]
) -> tuple[CompletedCommand, list[int]]:
    """Do something to two branches as soon as both are at work; what was begun ends, too."""
    waiting.halt()
    begun: list[int] = []

    def intervene() -> None:
        wait_for(lambda: len(waiting.processes()) == 2)
        begun.extend(waiting.processes())
        cut(waiting)

    watcher = threading.Thread(target=intervene)
    watcher.start()
    done = call()
    watcher.join()
    wait_for(lambda: not any(map(is_running, begun)), 10)  # a kill takes its moment
    return done, begun


@pytest.mark.usefixtures("listening")
@pytest.mark.skipif(not CAN_FORK, reason="branches are forks on Linux only")
@pytest.mark.parametrize(
    ("cut", "code", "line", "n_kept"),
    [
        (kill_one, 1, "a worker process was killed by SIGKILL", 1),
        (lambda _: os.kill(os.getpid(), signal.SIGTERM), 143, "terminated; ", 0),
        (lambda _: os.kill(os.getpid(), signal.SIGINT), 130, "interrupted; ", 0),
    ],
    ids=["a branch is killed", "SIGTERM", "Ctrl-C"],
)
def test_branches_that_were_at_work_at_once_are_cut_short_and_gone_on_with(
    cut: Callable[[Waiting], None], code: int, line: str, n_kept: int, waiting: Waiting
) -> None:
    name = f"cut-{code}"
    done, begun = cut_short(waiting, cut, lambda: waiting.run(name))
    assert (done.code, line in done.line) == (code, True), done.err
    out = waiting.whole.parent / name
    files = [file for file in out.rglob("*") if file.is_file()]
    assert all(file.suffix == ".partial" for file in files)
    kept = {note: note.stat().st_mtime_ns for note in notes(out)}
    assert len(kept) == 1 + n_kept  # the trunk, and the branches that could end
    waiting.go()
    resumed = waiting.run(name, "--resume")
    assert (resumed.code, resumed.err) == (0, "")
    ran = [pid for pid in waiting.processes() if pid not in begun]
    assert len(ran) == 3 - n_kept
    assert content(out) == content(waiting.whole)
    assert timeless(out / "manifest.json") == timeless(waiting.whole / "manifest.json")


@pytest.mark.usefixtures("listening")
@pytest.mark.skipif(not CAN_FORK, reason="branches are forks on Linux only")
@pytest.mark.parametrize(
    ("cut", "code", "line"),
    [
        pytest.param(
            *(kill_one, 6, "a worker process was killed by SIGKILL"),
            id="a branch is killed",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(lambda _: os.kill(os.getpid(), signal.SIGTERM), 143, "auditkit: terminated"),
            id="SIGTERM",
        ),
    ],
)
def test_a_replay_of_branches_at_once_is_cut_short(
    cut: Callable[[Waiting], None], code: int, line: str, waiting: Waiting
) -> None:
    options = ("--jobs", "2", "--arg", f"room={waiting.room}")
    done, _ = cut_short(
        waiting, cut, lambda: waiting.shell("verify", "whole", *options, fresh=True)
    )
    assert done.code == code, (done.out, done.err)
    assert line in done.out + done.err
