"""The arguments of a factory: which it takes, which it needs, and which say where data lie.

They are looked at without calling the factory; what is said here is for people to type.
"""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from auditkit.errors import (
    AuditError,
    DataMissing,
    ProgramError,
    ProgramFailed,
    UnknownArgument,
)
from auditkit.files.given_paths import missing
from auditkit.formats.redaction import expand_home
from auditkit.records.opened import OWN, OpenedFiles, some_names

Parameters = Mapping[str, inspect.Parameter]

_ANY_KEYWORD = inspect.Parameter.VAR_KEYWORD
_ANY = (_ANY_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
_REQUIRED = inspect.Parameter.empty

#: Where ``os.environ[NAME]`` ends.
_LOOK_UP = type(os.environ).__getitem__.__code__


def unknown_argument(factory: str, name: str, taken: Sequence[str]) -> UnknownArgument:
    """The error for an argument that a factory does not take.

    Args:
        factory: The factory's name.
        name: The argument's.
        taken: The arguments that it does take, the seed left out.
    """
    return UnknownArgument(
        f"the factory {factory} takes no argument {name!r}",
        expected=", ".join(taken) or "none but the seed",
        found=name,
    )


def check_arguments(factory: str, parameters: Parameters, arguments: Mapping[str, str]) -> None:
    """Check that a factory can be called with some arguments.

    Args:
        factory: Its name.
        parameters: What it takes; the first is the seed.
        arguments: What it would be given, the seed left out.

    Raises:
        UnknownArgument: When it takes no such argument.
        ProgramError: When it needs one that is not given.
    """
    seed_name, *others = parameters or [""]
    taken = [name for name in others if parameters[name].kind not in _ANY]
    takes_any_keyword = any(p.kind is _ANY_KEYWORD for p in parameters.values())
    for name in arguments:
        if name == seed_name or (name not in taken and not takes_any_keyword):
            raise unknown_argument(factory, name, taken)
    needed = [name for name in taken if parameters[name].default is _REQUIRED]
    lacking = [name for name in needed if name not in arguments]
    if lacking:
        names = ", ".join(map(repr, lacking))
        raise ProgramError(
            f"the factory {factory} needs the argument{'s' if len(lacking) > 1 else ''} {names}",
            hint=f"give {' '.join(f'--arg {name}=VALUE' for name in lacking)}",
        )


def lacking_options(
    parameters: Parameters, arguments: Mapping[str, str], error: BaseException | None
) -> tuple[str, ...]:
    """What was not given where a program has looked for data or a variable in vain.

    Args:
        parameters: What the factory takes; the first is the seed.
        arguments: What it was given.
        error: What the program raised.

    Returns:
        Options as they are typed; none where that is not what went wrong.
    """
    _, *others = parameters or [""]
    given: dict[str, object] = {name: parameters[name].default for name in others} | dict(arguments)
    names = missing(given)
    if not names and isinstance(error, FileNotFoundError):
        names = _leading_to(str(error.filename or ""), given) or _named_in(str(error), given)
    if names:
        return tuple(f"--arg {name}=PATH" for name in names)
    variable = _variable(error)
    return () if variable is None else (f"--env {variable}",)


def where_data_lie(options: Sequence[str]) -> str | None:
    """What to do about such options, as a hint; None where no data are lacking."""
    paths = [option for option in options if option.startswith("--arg ")]
    return f"where data lie elsewhere here, give {' '.join(paths)}" if paths else None


def kind_of_failure(
    options: Sequence[str], arguments: Mapping[str, str], error: Exception
) -> tuple[type[AuditError], str | None]:
    """What it is that a factory has raised, and what to do about it.

    Args:
        options: Options that are lacking.
        arguments: What the factory was given.
        error: What it raised.
    """
    hint = where_data_lie(options)
    if hint is not None and isinstance(error, FileNotFoundError):
        return DataMissing, hint
    if hint is None and arguments and isinstance(error, TypeError | ValueError):
        hint = "what --arg gives is text: annotate the argument, as in lr: float, or convert it"
    return ProgramFailed, hint


def _variable(error: BaseException | None) -> str | None:
    """The environment variable that ``os.environ[NAME]`` has not found."""
    trace = error.__traceback__ if isinstance(error, KeyError) else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    is_environ = trace is not None and trace.tb_frame.f_code is _LOOK_UP
    return str(error.args[0]) if error is not None and is_environ else None


def own_files_note(
    parameters: Parameters, folder: Path, opened: OpenedFiles | None
) -> Iterator[str]:
    """What to type where a program opens files of its own folder, which no argument names.

    Args:
        parameters: What the factory takes; the first is the seed.
        folder: The program's folder.
        opened: What it opened while it was built.
    """
    names = () if opened is None else opened.own
    if not names:
        return
    options, rest = [], {*names}
    for name, parameter in list(parameters.items())[1:]:
        place = _place_in(folder, parameter.default)
        below = {other for other in rest if place and Path(other).is_relative_to(place)}
        if below:
            options.append(f"--arg {name}={shlex.quote(str(parameter.default))}")
            rest -= below
    how = [f"give {' '.join(options)}"] if options else []
    if rest:
        what = f"the path of {some_names(sorted(rest))}" if options else "their path"
        how.append(f"let the factory take {what} as an argument, and give it (--arg data=PATH)")
    yield (
        f"the program opened files of its own folder that no argument names: {some_names(names)}; "
        "a replay is given the code alone, and finds them only where whoever verifies has them in "
        f"the working folder: {' and '.join(how)}, so that they are found and compared by it"
    )


def _place_in(folder: Path, default: object) -> Path | None:
    """Where the default of an argument leads, by the name of what lies in the program's folder."""
    if isinstance(default, (str, Path)) and str(default) and "\0" not in str(default):
        with suppress(OSError, ValueError):
            path = Path(expand_home(str(default))).resolve()
            return Path(OWN) / path.relative_to(folder.resolve())
    return None


def _leading_to(path: str, arguments: Mapping[str, object]) -> list[str]:
    """Names of the arguments that a path begins with."""
    return [name for name, text in _paths(arguments) if Path(path).is_relative_to(text)]


def _named_in(message: str, arguments: Mapping[str, object]) -> list[str]:
    """Names of the arguments whose folder a message begins with, or names among its words."""
    return [
        name
        for name, text in _paths(arguments)
        if message.startswith(f"{text} ") or (os.sep in text and text in message.split())
    ]


def _paths(arguments: Mapping[str, object]) -> list[tuple[str, str]]:
    """Names and texts of the arguments that could be paths."""
    return [
        (name, expand_home(str(value)))
        for name, value in arguments.items()
        if isinstance(value, (str, Path)) and str(value)
    ]
