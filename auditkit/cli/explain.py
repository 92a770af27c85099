"""``auditkit explain``: a page or a section of the manual, by topic."""

from __future__ import annotations

import shutil
import sys

import click

from auditkit.cli.help import Command
from auditkit.cli.options import TEXT
from auditkit.errors import UsageError
from auditkit.formats.quote import brief
from auditkit.manual.pages import ORDER, Page, explain, nearest, read_page

#: Columns at most: longer lines are hard to read.
_WIDEST = 100

_KINDS = (
    "TOPIC is a page, a check (8, or replay), an exit code (exit-3), a perturbation (adam-reset), "
    "an error (NotTrusted), or a word of a table or message (rho)."
)


@click.command("explain", cls=Command)
@click.argument("topic", nargs=-1, type=TEXT)
def explain_command(topic: tuple[str, ...]) -> None:
    """Explain TOPIC: a page of the manual, a check, exit code, perturbation, error or word.

    Without TOPIC: what there is.
    """
    wanted = " ".join(topic)
    _show(_answer(wanted) if wanted.strip() else _contents())


def _answer(topic: str) -> str:
    found = explain(topic)
    if not found:
        alike = nearest(topic)
        hint = f"nearest: {', '.join(alike)}" if alike else "`auditkit explain` lists the pages"
        raise UsageError(f"the manual has no topic {brief(topic)}", hint=hint)
    return "\n".join(
        item.text
        if isinstance(item, Page)
        else f"{item.text}\nFrom the page {item.page}: `auditkit explain {item.page}`\n"
        for item in found
    )


def _contents() -> str:
    pages = [read_page(name) for name in ORDER]
    rows = [f"| {page.name} | {page.answers} |" for page in pages]
    lines = ["# Manual", "", _KINDS, "", "| page | what it answers |", "| --- | --- |", *rows]
    for page in pages:
        first = [section.topics[0] for section in page.sections if section.topics]
        if first:
            lines += ["", f"Topics of {page.name}: {', '.join(first)}"]
    return "\n".join(lines) + "\n"


def _show(text: str) -> None:
    """Rendered, through a pager, for a terminal; as it is for a pipe."""
    if not _at_terminal():
        click.echo(text, nl=False)
        return
    from auditkit.cli.markdown import render  # noqa: PLC0415 # lazy for start-up time

    click.echo_via_pager(render(text, min(shutil.get_terminal_size().columns, _WIDEST)))


def _at_terminal() -> bool:
    return sys.stdout.isatty()
