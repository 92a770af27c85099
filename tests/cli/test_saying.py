"""What is said on standard error: a line each in a pipe, folded between words in a terminal."""

from __future__ import annotations

import os
import sys

import pytest
from click.testing import CliRunner

from auditkit.cli import main
from auditkit.cli.saying import say

PATH = "/a/path-that-is-longer-than/the/terminal/and-has-no-space"
LINE = f"cannot read {PATH!r}: there is no-such file or directory; auditkit list . shows the runs"


def say_in_terminal(line: str, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Say a line where standard error is a terminal of so many columns."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, 24)))
    say(line)


@pytest.mark.parametrize("columns", [44, 60, 80])
def test_in_a_terminal_lines_are_folded_between_words(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say_in_terminal(LINE, monkeypatch, columns)
    text = capsys.readouterr().err
    lines = text.splitlines()
    assert len(lines) > 1
    assert all(len(line) <= columns or PATH in line for line in lines)
    assert " ".join(text.split()) == f"auditkit: {LINE}"
    assert [line[:2] for line in lines[1:]] == ["  "] * (len(lines) - 1)


def test_a_line_that_fits_stays_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say_in_terminal("interrupted", monkeypatch, 80)
    assert capsys.readouterr().err == "auditkit: interrupted\n"


def test_in_a_pipe_an_error_is_one_line_whatever_columns_says() -> None:
    done = CliRunner().invoke(main, ["show", f"{PATH}/x" * 3], env={"COLUMNS": "50"})
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stderr) > 150


def test_columns_is_taken_at_its_word_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    say_in_terminal(LINE, monkeypatch, 200)
    assert len(capsys.readouterr().err.splitlines()) > 2
