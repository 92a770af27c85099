"""The numbers of a recorded loop: those that it logs, and those of its optimizer's groups."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from auditkit.errors import RecorderMisuse
from auditkit.files.recording_folder import RecordingFolder
from auditkit.formats.group_values import is_groups
from auditkit.formats.quote import brief
from auditkit.formats.scalar_file import Scalars, merged, series_of

_LOG = logging.getLogger("auditkit")

_LONGEST_NAME = 200

#: Names of numbers that one line has at most.
_MOST_TOLD = 3

#: Names that were found good, so that they are looked at once and not at every step.
_KNOWN_NAMES: set[str] = set()
_MOST_KNOWN = 1000


def as_number(name: object, value: Any) -> float:
    """A number that somebody logs.

    Raises:
        RecorderMisuse: When it is none, or its name cannot be one.
    """
    if type(name) is not str or name not in _KNOWN_NAMES:
        _require_name(name)
    if type(value) is float:
        return value
    if isinstance(value, Tensor) and value.numel() != 1:
        raise RecorderMisuse(
            f"the {name} has {value.numel()} elements", expected="a scalar", hint="log its mean"
        )
    try:
        return float(value.item() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecorderMisuse(f"the {name} is no number: {brief(repr(value))}") from error


def _require_name(name: object) -> None:
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        raise RecorderMisuse(f"{brief(repr(name))} is no name for a number")
    if is_groups(name):
        raise RecorderMisuse(f"{name!r} is the Recorder's own name", hint="give it another")
    if len(_KNOWN_NAMES) < _MOST_KNOWN:
        _KNOWN_NAMES.add(name)


class ScalarLog:
    """Keeps numbers by step and name, and puts them on disk with the rows.

    Args:
        folder: Where.
        start: Steps before those of this process; what the folder has of later ones is dropped.
    """

    def __init__(self, folder: RecordingFolder, start: int) -> None:
        self._folder = folder
        self._start: int | None = start
        self._new: dict[str, dict[int, float]] = {}

    def note(self, step: int, numbers: Mapping[str, float]) -> None:
        """Keep numbers of a step; a later one of the same step and name takes the place."""
        for name, value in numbers.items():
            pairs = self._new.get(name)
            if pairs is None:
                pairs = self._new[name] = {}
            pairs[step] = value

    def flush(self) -> None:
        """Put on disk what is new."""
        found = {name: series_of(sorted(pairs.items())) for name, pairs in self._new.items()}
        start, self._start, self._new = self._start, None, {}
        if start:
            there = self._folder.log.read_scalars()
            _tell_others(there, found)
            kept = {name: one.until(start) for name, one in there.items()}
            before = {name: one for name, one in kept.items() if len(one.steps)}
            self._folder.log.replace_scalars(merged([before, found]))
        elif found:
            self._folder.log.append_scalars(found)

    def finish(self) -> str | None:
        """Write the file that stays; returns its name, or None where nothing was kept."""
        self.flush()
        found = self._folder.log.read_scalars()
        return self._folder.write_scalars(found) if found else None


def _tell_others(there: Scalars, here: Scalars) -> None:
    """Log which numbers a resume logs otherwise than the killed run did at the same steps.

    No row has them, so that no proof sees them. The loss has a row, and what is said of it.
    """
    found = []
    for name in sorted((there.keys() & here.keys()) - {"loss"}):
        steps, old, new = np.intersect1d(
            there[name].steps, here[name].steps, assume_unique=True, return_indices=True
        )
        before, now = there[name].values[old], here[name].values[new]
        others = np.flatnonzero(~((before == now) | (np.isnan(before) & np.isnan(now))))
        if len(others):
            at = others[0]
            found.append(f"{name} is {now[at]:.6g}, not {before[at]:.6g}, at step {steps[at]}")
    if found:
        more = f" and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
        _LOG.warning(
            "auditkit: this resume logs other numbers than the killed run did at the same steps: "
            "%s%s; what the loop keeps for them (a metric, a mean) is in no checkpoint: register "
            "it with extras=; a clock is no matter",
            "; ".join(found[:_MOST_TOLD]),
            more,
        )
