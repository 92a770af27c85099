"""What of a script that is running is not as it was recorded."""

from __future__ import annotations

import shlex

import pytest

from auditkit.recorder.running_script import argument_changes


@pytest.mark.parametrize(
    ("there", "here", "expected"),
    [
        ("lr=1 out=a", "lr=1 out=a", ""),
        ("lr=1 out=a", "out=a lr=2 resume=1", "lr=1 -> lr=2, resume=1 added"),
        ("--lr 1 --amp data", "--lr 2 --amp data", "--lr 1 -> --lr 2"),
        ("--lr=1 -v", "--lr=2", "--lr=1 -> --lr=2, -v left out"),
        ("a b", "b a", "their order"),
        ("", "'x= \n\x1b'", "'x= \\n\\x1b' added"),
        ("", " ".join("abcdefghij"), ", ".join(f"{c} added" for c in "abcdefgh") + " and 2 more"),
    ],
)
def test_what_differs_between_two_command_lines_is_named(
    there: str, here: str, expected: str
) -> None:
    assert argument_changes(shlex.split(there), shlex.split(here)) == expected
