"""Option values shared by commands."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from auditkit.api.needed import load_extra
from auditkit.cli.help import Command
from auditkit.errors import UsageError
from auditkit.formats.quote import brief
from auditkit.formats.redaction import redact_path

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

#: Digits as they are typed; those of other scripts look like others, and mean what nobody sees.
_WHOLE = re.compile("-?[0-9]{1,40}")
_NUMBER = re.compile(
    r"-?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})(e-?[0-9]{1,3})?", re.IGNORECASE
)


def whole_number(text: str) -> int | None:
    """The whole number that a text is; None where it is none."""
    return int(text) if _WHOLE.fullmatch(text) else None


def decimal_number(text: str) -> float | None:
    """The finite number that a text is; None where it is none."""
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def _perturbations() -> Iterable[str]:
    from auditkit.records.declaration import DECLARATIONS  # noqa: PLC0415 # for completion only

    return sorted(DECLARATIONS)


def _topics() -> Iterable[str]:
    from auditkit.manual.pages import topics  # noqa: PLC0415 # for completion only

    return sorted(topics().values())


#: Names that a shell completes, by the parameter that takes them.
_NAMED: Mapping[str | None, Callable[[], Iterable[str]]] = {
    "perturb": _perturbations,
    "topic": _topics,
}


class _Text(click.ParamType[Any]):
    """Anything but nothing: an unset variable of a shell is no file and no key."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            raise UsageError(f"{_typed(param)} is empty", hint="give it a value, or leave it out")
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """What a shell offers: names where there are some, else files."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 # for completion only

        if param.name in _NAMED:
            names = _NAMED[param.name]()
            return [CompletionItem(name) for name in names if name.startswith(incomplete)]
        if isinstance(param, click.Argument) or param.metavar in {"FILE", "DIR"}:
            kind = "dir" if param.metavar == "DIR" else "file"
            return [CompletionItem(incomplete, type=kind)]
        return []


class _Whole(click.ParamType[Any]):
    """A whole number in the digits 0 to 9."""

    name = "n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = whole_number(value) if isinstance(value, str) else value
        if number is None:
            raise UsageError(f"{_typed(param)} {brief(value)} is not a whole number")
        return number


class _Number(click.ParamType[Any]):
    """A number in the digits 0 to 9."""

    name = "x"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        number = decimal_number(value)
        if number is None:
            raise UsageError(f"{_typed(param)} {brief(value)} is not a number")
        return number


#: The types of every option and argument of the command line.
TEXT, WHOLE, NUMBER = _Text(), _Whole(), _Number()


def _typed(param: click.Parameter | None) -> str:
    """An option as it is typed, or an argument as the usage line names it."""
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return param.human_readable_name if param is not None else "a value"


def _keep_wide(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta[WIDE] = value


#: For every command that prints a table.
wide_option = click.option(
    "--wide",
    is_flag=True,
    expose_value=False,
    callback=_keep_wide,
    help="Print every column, however wide the terminal is.",
)

#: Where it is left in ``ctx.meta``.
WIDE = "auditkit.wide"


def parse_arguments(items: Iterable[str]) -> dict[str, str]:
    """Read ``--arg key=value`` options.

    A value below the home folder is kept as ``~/...``, so that no manifest holds a user's name;
    ``~`` is expanded when the factory is called.

    Raises:
        UsageError: On an item without ``=``, or a key that is given twice.
    """
    arguments: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--arg {item!r} is not name=value")
        if key in arguments:
            raise UsageError(f"--arg {key} is given twice")
        require_utf8(f"--arg {key}", value, "rename what it names")
        arguments[key] = redact_path(value)
    return arguments


def require_utf8(what: str, text: str, hint: str) -> None:
    """Require a text to be UTF-8: manifests and jobs hold nothing else.

    Args:
        what: What it is, for the message.
        text: The text.
        hint: What to do.

    Raises:
        UsageError: When it is not, as the name of a file may be.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is no UTF-8: {brief(text)}", hint=hint) from None


def parse_seeds(text: str, option: str = "--seeds") -> tuple[int, ...]:
    """Read ``0-7`` or ``1,3,5-9``.

    Args:
        text: What was given.
        option: To which option.

    Raises:
        UsageError: When it is neither.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        start, end = whole_number(first), whole_number(last if dash else first)
        if start is None or end is None:
            raise UsageError(
                f"{option} takes whole numbers, such as 5, 0-7 or 1,3,5, not {brief(text)}"
            )
        if end < start or end - start > 1_000_000:
            raise UsageError(f"{option}: {brief(part)} is no range")
        seeds.extend(range(start, end + 1))
    return tuple(seeds)


def default_jobs(threads: int, n_seeds: int) -> int:
    """As many seeds at a time as there are cores for, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min((cores or 1) // threads, n_seeds))


def split_target(program: str) -> tuple[str, str]:
    """Split ``path/FILE.py[:NAME]`` or ``package.module:NAME`` into a target and its folder.

    Raises:
        UsageError: When it is neither.
    """
    place, _, name = program.partition(":")
    name = name or "make_program"
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise UsageError(f"no such program file: {place}")
        folder = str(path.resolve().parent)
        require_utf8("the program's path", f"{folder}/{path.name}", "rename or copy it")
        return f"{path.name}:{name}", folder
    if not place or not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(
            f"{program!r} is no program", hint="give FILE.py, FILE.py:NAME or package.module:NAME"
        )
    require_utf8("the working folder's path", str(Path.cwd()), "rename it")
    return f"{place}:{name}", str(Path.cwd())


#: Where a command leaves a line on what it kept of work that was interrupted, in ``ctx.meta``.
KEPT = "auditkit.kept"

#: Where :class:`CommandWithTail` leaves what follows ``--``, and the whole line as it was typed.
TAIL = "auditkit.command"
TYPED = "auditkit.typed"


class CommandWithTail(Command):
    """A command whose line may end in ``-- COMMAND ...``, somebody else's command.

    What follows the first ``--`` is no argument of ours: it is left, as a tuple, under
    :data:`TAIL` in ``ctx.meta``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split the line before anything is parsed."""
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[TAIL], ctx.meta[TYPED] = tuple(args[at + 1 :]), tuple(args)
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show it in the usage line."""
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND ...]"]


def crates() -> Any:
    """:mod:`auditkit.paper.crate`.

    Raises:
        UsageError: When its package is not installed.
    """
    return load_extra("auditkit.paper.crate", "crate")
