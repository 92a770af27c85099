"""Lines for people on standard error: one line each in a file or pipe, folded in a terminal."""

from __future__ import annotations

import os
import sys
import textwrap
from contextlib import suppress

import click

from auditkit.cli.spelling import spelt
from auditkit.formats.quote import printable

#: The narrowest terminal that lines are folded for.
_NARROWEST = 40


def say(line: str) -> None:
    """Write a line to standard error, with who says it before it.

    No word is broken: a path that is longer than the terminal can still be copied.
    """
    text = f"auditkit: {spelt(printable(line))}"
    width = _columns()
    if width is not None:
        # The line has spaces between its words only, of which none may get lost.
        text = textwrap.fill(
            *(text, max(width, _NARROWEST)),
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    click.echo(text, err=sys.stderr is not None)


def _columns() -> int | None:
    """Columns of the terminal that standard error is; None where it is none."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    with suppress(OSError):
        return told_columns() or os.get_terminal_size(sys.stderr.fileno()).columns or None
    return None


def told_columns() -> int | None:
    """Columns as the variable ``COLUMNS`` says; None where it says nothing."""
    said = os.environ.get("COLUMNS", "")
    is_number = said.isascii() and said.isdigit() and int(said[:6]) > 0
    return int(said[:6]) if is_number else None
