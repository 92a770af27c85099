"""What of a script that is running is not as it was recorded."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from auditkit.errors import UncapturedState
from auditkit.observe.machine.code import user_code
from auditkit.recorder.running_script import argument_changes, command_now


@pytest.mark.parametrize(
    ("there", "here", "expected"),
    [
        ("lr=1 out=a", "lr=1 out=a", ""),
        ("lr=1 out=a", "out=a lr=2 resume=1", "lr=1 -> lr=2, resume=1 added"),
        ("--lr 1 --amp data", "--lr 2 --amp data", "--lr 1 -> --lr 2"),
        ("--lr=1 -v", "--lr=2", "--lr=1 -> --lr=2, -v left out"),
        ("a b", "b a", "their order"),
        ("out 37", "out 0", "37 -> 0"),
        ("out 37 x", "other 0", "out -> other, 37 -> 0, x left out"),
        ("", "'x= \n\x1b'", "'x= \\n\\x1b' added"),
        ("", " ".join("abcdefghij"), ", ".join(f"{c} added" for c in "abcdefgh") + " and 2 more"),
    ],
)
def test_what_differs_between_two_command_lines_is_named(
    there: str, here: str, expected: str
) -> None:
    assert argument_changes(shlex.split(there), shlex.split(here)) == expected


def test_an_argument_that_is_no_utf8_is_recorded_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", os.fsdecode(b"data/\xff"), "\ud800", "é"])
    assert command_now() == ("data/\\xff", "\\ud800", "é")


def test_a_script_whose_name_no_manifest_holds_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / os.fsdecode(b"train\xff.py")
    script.write_text("")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    with pytest.raises(UncapturedState, match=r"the source train\\xff.py .* no UTF-8; rename it"):
        user_code(main=True)
