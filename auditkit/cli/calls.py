"""``auditkit.command``: what the command line does, in a program's own process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from auditkit.cli.group import main
from auditkit.errors import UsageError
from auditkit.formats.quote import brief

_SPLIT = 'tail=["python", "train.py"], or shlex.split(...)'


def command(name: str, *arguments: str | os.PathLike[str], **options: Any) -> int:
    """Run a command of the command line, with its options as keywords.

    ``auditkit.command("report", "runs/mine", out="report.html", replay="all")`` is ``auditkit
    report runs/mine --out report.html --replay all``. It prints and writes what that does.

    Args:
        name: The command; of one that has some of its own (``timestamp``), these come first among
            the arguments.
        arguments: What stands on its command line without an option.
        options: Options by their long names, ``_`` for ``-`` (``for_`` where Python has the word):
            True for one without a value, a sequence for one that is repeated, a mapping for
            ``NAME=VALUE``; None and False are left out. ``tail`` is what stands after ``--``.

    Returns:
        The exit code.

    Raises:
        UsageError: When there is no such command or option.
        AuditError: Where the command line ends in one line on stderr.
    """
    with click.Context(main) as context:
        found = main.get_command(context, name)
    if found is None:
        raise UsageError(f"there is no command {brief(name)}", hint="auditkit --help lists them")
    tail = options.pop("tail", ())
    if isinstance(tail, str):
        raise UsageError(f"tail is a list of words, and not {brief(tail)}", hint=_SPLIT)
    typed = [*_typed(found, name, options), *(os.fspath(each) for each in arguments)]
    if tail:
        typed += ["--", *tail]
    try:
        with found.make_context(name, typed) as context:
            found.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        raise UsageError(error.format_message()) from error
    return 0


def _typed(found: click.Command, name: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Options as they are typed."""
    known = {text for parameter in found.params for text in parameter.opts}
    for option, value in options.items():
        text = f"--{option.rstrip('_').replace('_', '-')}"
        if text not in known and not isinstance(found, click.Group):
            raise UsageError(f"auditkit {name} has no option {brief(text)}")
        for each in _values(value):
            yield text if each is True else f"{text}={each}"


def _values(value: Any) -> list[Any]:
    """What is given one option each."""
    if value is None or value is False:
        return []
    if isinstance(value, Mapping):
        return [f"{name}={each}" for name, each in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [os.fspath(each) if isinstance(each, os.PathLike) else each for each in value]
    return [value]
