"""Values of a study plan, checked for what they are: nothing is converted into something else.

A seed of 1.5 is a mistake and not seed 1; the text "01" is no list of two seeds. Only kinds of
number are made Python's own: numpy's whole numbers and floats, since a manifest holds JSON.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from numbers import Integral, Real

from auditkit.errors import PlanError

#: Most characters of a value that a message shows.
_SHOWN = 60


def shown(value: object) -> str:
    """A value as a message shows it."""
    try:
        whole = repr(value)
    except ValueError:  # a whole number with more digits than Python prints
        whole = "a number of thousands of digits"
    except Exception:  # an object's own repr may raise anything
        whole = f"an object of class {type(value).__qualname__}"
    return whole if len(whole) <= _SHOWN else f"{whole[: _SHOWN - 3]}..."


def spelled_seeds(seeds: Sequence[int]) -> str:
    """Seeds as they are typed, ``0-7, 9``, in their order; ``sorted`` where that says nothing."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse what a plan has no field for.

    Raises:
        PlanError: Naming it, and the field that it may be.
    """
    for name in given:
        alike = difflib.get_close_matches(name, list(known), n=1)
        hint = f"did you mean {alike[0]}?" if alike else None
        raise PlanError(f"a plan has no {shown(name)}", hint=hint)


def whole(name: str, value: object, most: int) -> int:
    """A whole number of at least 1.

    Raises:
        PlanError: When it is something else, naming field and value.
    """
    number = _whole(value)
    if number is None or not 1 <= number <= most:
        raise PlanError(f"{name} must be a whole number of 1 to {most}, not {shown(value)}")
    return number


def integer(name: str, value: object, least: int | None = None) -> int:
    """A whole number, where given not below another.

    Raises:
        PlanError: When it is something else, naming field and value.
    """
    number = _whole(value)
    if number is None or (least is not None and number < least):
        of = "" if least is None else f" of at least {least}"
        raise PlanError(f"{name} must be a whole number{of}, not {shown(value)}")
    return number


def whole_numbers(name: str, values: object, most: int) -> tuple[int, ...]:
    """Whole numbers, from any iterable of them.

    Raises:
        PlanError: When it is something else, naming field and value.
    """
    found = []
    for value in items(name, values, most):
        number = _whole(value)
        if number is None:
            raise PlanError(f"{name} must be whole numbers, not {shown(value)}")
        found.append(number)
    return tuple(found)


def first_and_more(name: str, value: object, most: int) -> tuple[object, tuple[int, ...]]:
    """One number as it is, or the first of several and the others.

    Raises:
        PlanError: When several are none, or are no whole numbers.
    """
    if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, Iterable):
        return value, ()
    numbers = whole_numbers(name, value, most)
    if not numbers:
        raise PlanError(f"{name}: an empty list has no step")
    return numbers[0], numbers[1:]


def text(name: str, value: object) -> str:
    """A text.

    Raises:
        PlanError: When it is something else, naming field and value.
    """
    if not isinstance(value, str):
        raise PlanError(f"{name} must be a text, not {shown(value)}")
    return value


def equals(value: object, text: str) -> bool:
    """Whether a value is that text; an array would compare its elements."""
    return isinstance(value, str) and value == text


def is_one_of(value: object, texts: Iterable[str]) -> bool:
    """Whether a value is one of some texts; an array would compare its elements."""
    return isinstance(value, str) and value in texts


def items(name: str, values: object, most: int) -> list[object]:
    """What an iterable holds; a text, whose items would be characters, is none.

    Raises:
        PlanError: When it is something else or holds more than that, naming field and value.
    """
    is_text = isinstance(values, (str, bytes, bytearray, Mapping))
    if is_text or not isinstance(values, Iterable):
        raise PlanError(f"{name} must be a list or a range, not {shown(values)}")
    try:
        found: list[object] = list(islice(values, most + 1))  # an iterator may never end
    except TypeError as error:  # numpy's array of no dimension
        raise PlanError(f"{name} must be a list or a range, not {shown(values)}") from error
    if len(found) > most:
        raise PlanError(f"{name}: more than {most}, the most that a study has")
    return found


def numbers_by_name(name: str, values: object) -> dict[str, float]:
    """Numbers by name; none for None.

    Raises:
        PlanError: When it is something else, naming field and value.
    """
    found: dict[str, float] = {}
    for key, value in _entries(name, {} if values is None else values):
        number = _whole(value)
        if number is None and not isinstance(value, bool) and isinstance(value, Real):
            found[key] = float(value)
        elif number is not None:
            found[key] = number
        else:
            raise PlanError(f"{name}: {key} must be a number, not {shown(value)}")
    return found


def parameters(name: str, values: object) -> dict[str, str | int]:
    """Texts and whole numbers by name.

    Raises:
        PlanError: When it is something else, naming field and value.
    """
    found: dict[str, str | int] = {}
    for key, value in _entries(name, values):
        number = _whole(value)
        if isinstance(value, str):
            found[key] = value
        elif number is not None:
            found[key] = number
        else:
            raise PlanError(f"{name}: {key} must be a text or a whole number, not {shown(value)}")
    return found


def _entries(name: str, values: object) -> list[tuple[str, object]]:
    if not isinstance(values, Mapping):
        raise PlanError(f"{name}: values by name must be a dict, not {shown(values)}")
    return [(text(f"{name}: a name", key), value) for key, value in values.items()]


def _whole(value: object) -> int | None:
    """A whole number as Python's own; None for all else, True and False included."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return None
    return int(value)
