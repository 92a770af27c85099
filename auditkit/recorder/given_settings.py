"""How a loop is recorded, as somebody gave it: refused here, and not after days of training."""

from __future__ import annotations

import os
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import Any

from auditkit.errors import PlanError, RecorderMisuse
from auditkit.recorder.writer import RecordSettings
from auditkit.records import plan_values
from auditkit.records.digest import EVIDENCE_RECIPES

#: Seconds in a week: what torch can count is not much more.
_LONGEST = 604800.0

#: Most digits of a seed that a manifest holds.
_SEED_DIGITS = 20


def given_settings(
    out: str | os.PathLike[str],
    seed: object,
    checkpoint_every: object,
    keep_checkpoints: object,
    patience: Any,
    *,
    new: bool,
    evidence_digest: str,
) -> RecordSettings:
    """The settings of a Recorder; numbers are Python's own from now on.

    Raises:
        PlanError: On one that means nothing, or that no manifest could hold.
    """
    if not isinstance(evidence_digest, str) or evidence_digest not in EVIDENCE_RECIPES:
        raise PlanError(
            "unknown evidence_digest",
            expected=" or ".join(EVIDENCE_RECIPES),
            found=plan_values.shown(evidence_digest),
        )
    is_number = not isinstance(patience, bool) and isinstance(patience, Real)
    seconds = float(patience) if is_number else 0.0
    if not 0 < seconds <= _LONGEST:
        raise PlanError(
            f"patience is above 0 and at most {_LONGEST:g} seconds, "
            f"not {plan_values.shown(patience)}"
        )
    if not isinstance(new, bool):
        raise PlanError(f"new is True or False, not {plan_values.shown(new)}")
    kept = keep_checkpoints
    return RecordSettings(
        # Absolute from now on: a script may change its working directory.
        out=given_path("out", out),
        seed=None if seed is None else _seed(seed),
        checkpoint_every=plan_values.integer("checkpoint_every", checkpoint_every, least=0),
        keep_checkpoints=None
        if kept is None
        else plan_values.integer("keep_checkpoints", kept, least=1),
        patience=seconds,
        new=new,
        evidence_digest=evidence_digest,
    )


def given_path(name: str, value: object) -> Path:
    """A path, absolute.

    Raises:
        PlanError: When it is none.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    # An unset variable of a shell is no folder, and no system has a name with a null character.
    if not isinstance(text, str) or not text or "\0" in text:
        raise PlanError(f"{name} must be a path, not {plan_values.shown(value)}")
    try:
        return Path(text).absolute()
    except OSError as error:  # the working folder is gone
        raise PlanError(f"{name}: {text!r} is below no folder: {error.strerror}") from error


def iterated(method: str, example: str, value: Any) -> Any:
    """What a loop is to iterate.

    Raises:
        RecorderMisuse: When it cannot be.
    """
    if not isinstance(value, Iterable) and not hasattr(value, "__getitem__"):
        raise RecorderMisuse(
            f"{method} takes what the loop iterates",
            expected=f"rec.{method}({example})",
            found=plan_values.shown(value),
        )
    return value


def _seed(value: object) -> int:
    number = plan_values.integer("seed", value)
    if abs(number) >= 10**_SEED_DIGITS:
        raise PlanError(f"seed has more than {_SEED_DIGITS} digits: {plan_values.shown(value)}")
    return number
