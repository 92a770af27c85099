"""What kinds of values a program is made of; another is refused by its name, and at once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auditkit.errors import ProgramError
from auditkit.formats.quote import class_of
from auditkit.observe.state.given_objects import wrong_object
from auditkit.program.data_source import DATA_FROM
from auditkit.records.plan_values import shown

_BY_NAME = ("data_changes", "probes", "measures")
#: Most batches of a step, as many as a study has steps.
_MOST_BATCHES = 10**9

#: What is trained and by what: its class, and what to do with several.
_TRAINED: Mapping[str, tuple[type, str]] = {
    "model": (nn.Module, "several are one: nn.ModuleDict({...}) (auditkit explain several models)"),
    "optimizer": (
        torch.optim.Optimizer,
        "give the one that treatments act on, the others in extras={'name': ...}, and take all "
        "steps in a step= of your own (auditkit explain several optimizers)",
    ),
}

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
    _check_trained(program)
    wrong = wrong_object(
        scheduler=program.scheduler,
        scaler=program.scaler,
        averaged=program.averaged,
        extras=program.extras,
    )
    if wrong is not None:
        what = f"Program.{wrong.name} has the wrong type"
        raise ProgramError(what, expected=wrong.expected, found=wrong.found)
    for name in _BY_NAME:
        if not isinstance(getattr(program, name), Mapping):
            raise _wrong(name, "a dict, with the names as keys", getattr(program, name))
    for name in _FUNCTIONS:
        value = getattr(program, name)
        # With a step of its own the loss is at most called for BatchNorm's statistics.
        is_called = value is not None and not (name == "loss" and program.step is not None)
        if is_called or not (value is None or callable(value)):
            _check_function(name, value, _FUNCTIONS[name])
    for name, choices in _CHOICES.items():
        value = getattr(program, name)
        if not isinstance(value, str) or value not in choices:
            raise ProgramError(f"{name} is {' or '.join(map(repr, choices))}, not {shown(value)}")
    for name, change in program.data_changes.items():
        if not isinstance(name, str) or not name or not callable(change):
            raise ProgramError(
                f"Program.data_changes[{shown(name)}] has the wrong type",
                expected="a function change(batch, step, generator), by a text",
                found=class_of(change),
            )
        _check_function(f"data_changes[{shown(name)}]", change, _FUNCTIONS["augment"])
    _check_said(program.data_version, program.difficulty)
    _check_numbers(program.accumulate, program.clip_grad_norm)
    _check_used(program)


def _check_trained(program: Any) -> None:
    for name, (kind, several) in _TRAINED.items():
        if not isinstance(value := getattr(program, name), kind):
            is_several = isinstance(value, (list, tuple, Mapping))
            expected = f"{kind.__module__}.{kind.__name__}"
            raise _wrong(name, expected, value, several if is_several else None)


def as_loss(value: object, name: str) -> float | None:
    """The loss that a step gave; None where it gave none.

    Args:
        value: What it gave.
        name: The function of the program that gave it.

    Raises:
        ProgramError: When it is no number.
    """
    if value is None:
        return None
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.detach().item())
    if isinstance(value, np.ndarray) and value.size == 1:
        return float(value.item())
    if isinstance(value, Real):
        return float(value)
    raise _no_loss(name, value)


def require_loss(value: object) -> None:
    """Require of ``Program.loss`` what can be trained on.

    Raises:
        ProgramError: When it gave something else.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise _no_loss("loss", value)


def _no_loss(name: str, value: object) -> ProgramError:
    is_large = isinstance(value, Tensor)
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    return ProgramError(
        f"Program.{name} gives something else than a loss",
        expected="a tensor of one number" if name == "loss" else "a number, a tensor of one, None",
        found=f"{class_of(value)}{shape}",
        hint="give the mean of it" if is_large else None,
    )


def _check_said(version: object, difficulty: object) -> None:
    if not isinstance(version, str | None) or not _is_unicode(version or ""):
        raise ProgramError(f"Program.data_version is a text, not {shown(version)}")
    is_listed = hasattr(difficulty, "__getitem__") and not isinstance(difficulty, (str, bytes))
    if difficulty is not None and not callable(difficulty) and not is_listed:
        raise _wrong(
            "difficulty", "a function of a sample's index, or numbers by index", difficulty
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which no manifest holds
        return False
    return True


def _check_numbers(accumulate: object, clip: object) -> None:
    is_whole = isinstance(accumulate, Integral) and not isinstance(accumulate, bool)
    if not is_whole or not 1 <= accumulate <= _MOST_BATCHES:  # type: ignore[operator]
        raise ProgramError(
            f"accumulate must be a whole number of 1 to {_MOST_BATCHES}, not {shown(accumulate)}"
        )
    if clip is None:
        return
    is_number = isinstance(clip, Real) and not isinstance(clip, bool)
    if not is_number or math.isnan(float(clip)) or float(clip) < 0:  # type: ignore[arg-type]
        raise ProgramError(f"clip_grad_norm must be a number of at least 0, not {shown(clip)}")


def _check_used(program: Any) -> None:
    """Refuse what auditkit's own step would do, where it is not taken."""
    given = {
        "accumulate": program.accumulate > 1,
        "clip_grad_norm": program.clip_grad_norm is not None,
    }
    for name, is_given in given.items():
        if program.step is not None and is_given:
            raise ProgramError(
                f"Program.{name} would do nothing: it is of the step that auditkit takes, and "
                "there is a step= of the program's own",
                found=f"{name}={getattr(program, name)}",
                hint=f"leave {name}= out, and do it in the step (auditkit explain step=)",
            )


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
        # Its own: a decorator that gives further arguments to what it wraps takes fewer.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # of C: it says nothing of its arguments
        return ""
    try:
        signature.bind(*range(n))
    except TypeError:
        return f"{getattr(function, '__name__', type(function).__name__)}{signature}"
    return ""


def _place(function: Any) -> str | None:
    """Where a function is defined, if that can be told."""
    code = getattr(function, "__code__", None)
    return None if code is None else f"{Path(code.co_filename).name}:{code.co_firstlineno}"


def _wrong(name: str, expected: str, found: object, hint: str | None = None) -> ProgramError:
    what = f"Program.{name} has the wrong type"
    return ProgramError(what, expected=expected, found=class_of(found), hint=hint)
