"""What a program gives as arguments, checked for what it is: nothing is converted or guessed.

``strict="false"`` is a mistake and not true, and a command that is one text is no list of words.
Only numpy's numbers become Python's own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from auditkit.errors import UsageError
from auditkit.records.plan_values import shown

P = ParamSpec("P")
T = TypeVar("T")


def refused(name: str, expected: str, value: object) -> UsageError:
    """The error for a value of another kind."""
    return UsageError(f"{name} is {expected}, not {shown(value)}")


def optional(
    check: Callable[Concatenate[str, Any, P], T],
    name: str,
    value: Any,
    *more: P.args,
    **by_name: P.kwargs,
) -> T | None:
    """None as it is, and anything else as a check of this module gives it."""
    return None if value is None else check(name, value, *more, **by_name)


def path(name: str, value: object) -> Path:
    """A path.

    Raises:
        UsageError: When it is none, or an empty one.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text:
        raise refused(name, "a path", value)
    return Path(text)


def paths(name: str, value: object) -> list[Path]:
    """Paths, given alone or in a sequence.

    Raises:
        UsageError: When one is none.
    """
    alone = isinstance(value, (str, bytes, os.PathLike))
    return [path(name, one) for one in ([value] if alone else _items(name, "a path", value))]


def text(name: str, value: object) -> str:
    """A text.

    Raises:
        UsageError: When it is none.
    """
    if not isinstance(value, str):
        raise refused(name, "a text", value)
    return value


def texts(name: str, value: object) -> list[str]:
    """Texts, given alone or in a sequence.

    Raises:
        UsageError: When one is none.
    """
    alone = isinstance(value, (str, bytes))
    return [text(name, one) for one in ([value] if alone else _items(name, "a text", value))]


def words(name: str, value: object) -> tuple[str, ...]:
    """The words of a command.

    Raises:
        UsageError: When it is one text, which would have to be taken apart, or no texts.
    """
    expected = "a list of words, as shlex.split gives it"
    if isinstance(value, (str, bytes)):
        raise refused(name, expected, value)
    return tuple(text(name, one) for one in _items(name, expected, value))


def texts_by_name(name: str, value: object) -> dict[str, str]:
    """Texts by name; none for None.

    Raises:
        UsageError: When it is something else, naming the entry.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise refused(name, "a dict of texts by name", value)
    return {
        text(f"a name in {name}", key): text(f"{name}[{shown(key)}]", one)
        for key, one in value.items()
    }


def flag(name: str, value: object) -> bool:
    """True or False.

    Raises:
        UsageError: When it is anything else, such as a text that says so.
    """
    if not isinstance(value, bool):
        raise refused(name, "True or False", value)
    return value


def whole(name: str, value: object, least: int) -> int:
    """A whole number that is not below another.

    Raises:
        UsageError: When it is something else.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < least:  # type: ignore[operator]
        raise refused(name, f"a whole number of at least {least}", value)
    return int(value)  # type: ignore[call-overload,no-any-return]


def number(name: str, value: Any, expected: str, fits: Callable[[float], bool]) -> float:
    """A number.

    Args:
        name: The argument.
        value: What was given for it.
        expected: What it is, for the message.
        fits: Whether it can be that one.

    Raises:
        UsageError: When it cannot, or is no number at all.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise refused(name, expected, value)
    try:
        found = float(value)
    except OverflowError:  # a whole number that is too large
        found = math.inf
    if not fits(found):
        raise refused(name, expected, value)
    return found


def positive(name: str, value: object, expected: str = "a number above 0") -> float:
    """A finite number above 0.

    Raises:
        UsageError: When it is something else.
    """
    return number(name, value, expected, lambda found: 0 < found < math.inf)


def _items(name: str, expected: str, value: object) -> list[object]:
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise refused(name, expected, value)
    try:
        return list(value)
    except TypeError as error:  # an array of no dimension
        raise refused(name, expected, value) from error
