"""What a verification that was refused still takes, and the line to type then."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Collection, Iterator, Sequence

import click

from auditkit.formats.quote import printable
from auditkit.records.report import Need, VerificationReport

#: Columns of the text: as many as there are, from here to there.
_LEAST, _MOST = 40, 79


def print_needs(report: VerificationReport, command: str, typed: Sequence[str]) -> None:
    """Print everything that is lacking, and the whole command with all of it.

    Args:
        report: The report.
        command: The command's name.
        typed: What stood behind it.
    """
    if not report.needs:
        return
    import shutil  # noqa: PLC0415 # loads archives' compressors

    width = min(_MOST, max(_LEAST, shutil.get_terminal_size().columns - 1))
    click.echo("\nTo go on, this takes:")
    for need in report.needs:
        click.echo(f"  {printable(need.option)}")
        click.echo(textwrap.indent(textwrap.fill(printable(need.why), width - 6), "      "))
    # One line whatever its length, to be copied as it is.
    click.echo(f"next: {printable(_line(command, typed, report.needs))}")


def _line(command: str, typed: Sequence[str], needs: Sequence[Need]) -> str:
    end = list(typed).index("--") if "--" in typed else len(typed)
    options = [word for need in needs for word in need.option.split(" ", 1)]
    arguments = {word.partition("=")[0] for word in options if word.endswith("=PATH")}
    kept = _without_arguments(typed[:end], arguments)
    return shlex.join(["auditkit", command, *kept, *options, *typed[end:]])


def _without_arguments(typed: Sequence[str], names: Collection[str]) -> Iterator[str]:
    """What was typed but for ``--arg``s of these names: they were given in vain."""
    words = iter(typed)
    for word in words:
        option, equals, value = word.partition("=")
        if option != "--arg":
            yield word
            continue
        value = value if equals else next(words, "")
        if value.partition("=")[0] not in names:
            yield from (option, value)
