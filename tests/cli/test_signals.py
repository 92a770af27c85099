"""SIGTERM takes the way of Ctrl-C: whatever a command has put somewhere is tidied."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from auditkit.cli import main
from auditkit.cli.signals import Terminated, raise_at_signals
from auditkit.files import archives


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
