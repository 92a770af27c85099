"""What kinds of values a program is made of; another is refused by its name, and at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from torch import nn

from auditkit.errors import ProgramError
from auditkit.formats.quote import brief, class_of
from auditkit.program.data_source import DATA_FROM

_BY_NAME = ("averaged", "extras", "data_changes", "probes", "measures")
_FUNCTIONS = ("loss", "step", "on_epoch_end", "recalibrate", "augment")
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
        if value is not None and not callable(value):
            raise _wrong(name, "a function", value)
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


def _wrong(name: str, expected: str, found: object) -> ProgramError:
    return ProgramError(
        f"Program.{name} has the wrong type", expected=expected, found=class_of(found)
    )
