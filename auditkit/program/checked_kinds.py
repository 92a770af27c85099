"""What kinds of values a program is made of; another is refused by its name, and at once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from torch import nn

from auditkit.errors import ProgramError
from auditkit.formats.quote import brief, class_of
from auditkit.program.data_source import DATA_FROM

_BY_NAME = ("averaged", "extras", "data_changes", "probes", "measures")

#: What each function is called with.
_FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    "loss": ("model", "batch"),
    "step": ("program", "batch", "t"),
    "on_epoch_end": ("program", "epoch"),
    "recalibrate": ("model", "batch"),
    "augment": ("batch", "step", "generator"),
}
_CHOICES: Mapping[str, tuple[str, str]] = {
    "scheduler_interval": ("step", "epoch"),
    "data_from": DATA_FROM,
}


def check_kinds(program: Any) -> None:
    """Refuse values of a kind that they cannot be of.

    Raises:
        ProgramError: Naming the field.
    """
    for name in _BY_NAME:
        # A ModuleDict holds modules by name and calls itself no mapping.
        if not isinstance(getattr(program, name), (Mapping, nn.ModuleDict)):
            raise _wrong(name, "a dict, with the names as keys", getattr(program, name))
    for name in _FUNCTIONS:
        value = getattr(program, name)
        # With a step of its own the loss is at most called for BatchNorm's statistics.
        is_called = value is not None and not (name == "loss" and program.step is not None)
        if is_called or not (value is None or callable(value)):
            _check_function(name, value, _FUNCTIONS[name])
    for name, change in program.data_changes.items():
        _check_function(f"data_changes[{brief(name)}]", change, _FUNCTIONS["augment"])
    for name, choices in _CHOICES.items():
        value = getattr(program, name)
        if not isinstance(value, str) or value not in choices:
            raise ProgramError(f"{name} is {' or '.join(map(repr, choices))}, not {brief(value)}")
    _check_numbers(program.accumulate, program.clip_grad_norm)


def _check_numbers(accumulate: object, clip: object) -> None:
    if isinstance(accumulate, bool) or not isinstance(accumulate, Integral) or accumulate < 1:
        raise ProgramError(
            f"accumulate must be a whole number of at least 1, not {brief(accumulate)}"
        )
    if clip is None:
        return
    is_number = isinstance(clip, Real) and not isinstance(clip, bool)
    if not is_number or math.isnan(float(clip)) or float(clip) < 0:  # type: ignore[arg-type]
        raise ProgramError(f"clip_grad_norm must be a number of at least 0, not {brief(clip)}")


def _check_function(name: str, function: Any, arguments: tuple[str, ...]) -> None:
    if not callable(function):
        raise _wrong(name, "a function", function)
    if taken := _not_taking(function, len(arguments)):
        raise ProgramError(
            f"Program.{name} is a function of other arguments",
            expected=f"{name.partition('[')[0]}({', '.join(arguments)})",
            found=taken,
            where=_place(function),
        )


def _not_taking(function: Any, n: int) -> str:
    """A function as it is written where it cannot be called with so many arguments; or nothing."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of C: it says nothing of its arguments
        return ""
    try:
        signature.bind(*range(n))
    except TypeError:
        return f"{getattr(function, '__name__', type(function).__name__)}{signature}"
    return ""


def _place(function: Any) -> str | None:
    """Where a function is defined, if that can be told."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else f"{Path(code.co_filename).name}:{code.co_firstlineno}"


def _wrong(name: str, expected: str, found: object) -> ProgramError:
    return ProgramError(
        f"Program.{name} has the wrong type", expected=expected, found=class_of(found)
    )
