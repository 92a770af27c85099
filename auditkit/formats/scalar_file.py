"""Numbers that a loop logs, by name: the file of a process's scalars, both ways.

Of each name it holds two tensors of one length: ``NAME/step`` int64, and ``NAME/value`` float64.
Steps ascend. A number belongs to the step that was under way, or was the last one, when it was
logged; 0 is before the first. Numbers of an optimizer's groups (``param_groups[0].lr``) stand at
the first step before which they were so, and only where they changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import FormatError
from auditkit.formats.group_values import is_groups
from auditkit.formats.run_files import Tensors, array_of
from auditkit.records.tensor import RawTensor

_STEP, _VALUE = "/step", "/value"


@dataclass(frozen=True)
class Series:
    """The numbers of one name.

    Attributes:
        steps: int64, ascending.
        values: float64, as many.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def until(self, last: int) -> Series:
        """Those of the steps up to this one."""
        kept = self.steps <= last
        return Series(self.steps[kept], self.values[kept])

    def at(self, step: int) -> float | None:
        """The latest number up to a step; None before the first."""
        position = int(np.searchsorted(self.steps, step, side="right"))
        return float(self.values[position - 1]) if position else None

    def changes(self) -> Series:
        """Without the numbers that are those before them."""
        bits = self.values.view(np.int64)
        kept = np.ones(len(bits), dtype=np.bool_)
        kept[1:] = bits[1:] != bits[:-1]
        return Series(self.steps[kept], self.values[kept])


Scalars = Mapping[str, Series]


def series_of(pairs: Iterable[tuple[int, float]]) -> Series:
    """A series of steps and numbers."""
    steps, values = zip(*pairs, strict=True)
    return Series(np.array(steps, np.int64), np.array(values, np.float64))


def merged(parts: Iterable[Scalars]) -> dict[str, Series]:
    """Parts in a row as one; of a step that stands in two, the later part counts."""
    found: dict[str, list[Series]] = {}
    for part in parts:
        for name, series in part.items():
            found.setdefault(name, []).append(series)
    return {name: _joined(name, pieces) for name, pieces in found.items()}


def _joined(name: str, pieces: list[Series]) -> Series:
    kept: list[Series] = []
    end: int | None = None
    for piece in reversed(pieces):
        kept.append(piece if end is None else piece.until(end - 1))
        end = int(piece.steps[0])
    kept.reverse()
    whole = Series(
        np.concatenate([piece.steps for piece in kept]),
        np.concatenate([piece.values for piece in kept]),
    )
    return whole.changes() if is_groups(name) else whole


def groups_at(scalars: Scalars, step: int) -> dict[str, float]:
    """The numbers of an optimizer's groups before a step."""
    found = {name: one.at(step) for name, one in scalars.items() if is_groups(name)}
    return {name: value for name, value in found.items() if value is not None}


def scalars_to_tensors(scalars: Scalars) -> dict[str, RawTensor]:
    """Scalars as tensors."""
    tensors = {}
    for name, series in scalars.items():
        shape = (len(series.steps),)
        steps, values = series.steps.astype("<i8"), series.values.astype("<f8")
        tensors[f"{name}{_STEP}"] = RawTensor("int64", shape, steps.tobytes())
        tensors[f"{name}{_VALUE}"] = RawTensor("float64", shape, values.tobytes())
    return tensors


def scalars_from_tensors(tensors: Tensors, *, what: str) -> dict[str, Series]:
    """Inverse of :func:`scalars_to_tensors`.

    Raises:
        FormatError: When it holds something else, or steps that do not ascend from 0 on.
    """
    names = [key.removesuffix(_STEP) for key in tensors if key.endswith(_STEP)]
    if {f"{name}{end}" for name in names for end in (_STEP, _VALUE)} != set(tensors):
        raise FormatError("scalars need a step and a value of every name", where=what)
    found = {}
    for name in names:
        steps = array_of(tensors, f"{name}{_STEP}", "int64", what=what)
        values = array_of(tensors, f"{name}{_VALUE}", "float64", what=what)
        if steps.ndim != 1 or steps.shape != values.shape or not len(steps):
            raise FormatError(
                f"{name!a} has {steps.shape} steps, {values.shape} values", where=what
            )
        if steps[0] < 0 or np.any(steps[1:] <= steps[:-1]):
            raise FormatError(f"the steps of {name!a} do not ascend", where=what)
        found[name] = Series(steps.astype(np.int64), values.astype(np.float64))
    return found
