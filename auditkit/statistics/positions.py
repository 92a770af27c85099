"""Metrics of tables that are too large to keep, from what was kept of every position.

The numbers are those that :mod:`auditkit.statistics.metrics` gives of the whole table: positions
are its rows, and every metric is the mean of a number a row or made of the rows' confidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import FormatError
from auditkit.formats.outcome_names import REAL, split_column
from auditkit.statistics.metrics import (
    CLIP,
    DISTANCES,
    SIGNED,
    Labels,
    calibration_error,
    squared_calibration_error_of,
)
from auditkit.statistics.real_outputs import Reals
from auditkit.statistics.real_tables import RealTable

Column = NDArray[Any]


@dataclass(frozen=True)
class PositionTable:
    """What was kept of a table of M positions.

    Attributes:
        columns: ``(M,)`` by name, see :mod:`auditkit.formats.outcome_names`.
    """

    columns: Mapping[str, Column]

    def __len__(self) -> int:
        """M."""
        return max(map(len, self.columns.values()), default=0)

    def column(self, name: str) -> NDArray[np.float64]:
        """A column as float64.

        Raises:
            FormatError: When it is missing, or holds what is no number.
        """
        if name not in self.columns:
            raise FormatError(f"a table by position has no column {name!r}")
        found = self.columns[name].astype(np.float64)
        if not np.isfinite(found).all():
            raise FormatError(f"column {name!r} of a table by position is not finite")
        return found


#: What there may be of a probe at one time.
Table = Column | PositionTable | RealTable


def position_tables(tables: Mapping[str, Column]) -> dict[str, Table]:
    """The tables of a branch by name, whole ones of probabilities as they are."""
    found: dict[str, Table] = {}
    columns: dict[str, dict[str, Column]] = {}
    for name, array in tables.items():
        table, column = split_column(name)
        if column in REAL:
            found[table] = RealTable(column, array)
        elif column:
            columns.setdefault(table, {})[column] = array
        else:
            found[table] = array
    return {**found, **{table: PositionTable(parts) for table, parts in columns.items()}}


def _is_right(table: PositionTable, labels: Labels) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = table.column("predicted") == labels
    return found


def _accuracy(table: PositionTable, labels: Labels) -> float:
    return float(np.mean(_is_right(table, labels)))


def _nll(table: PositionTable, labels: Labels) -> float:
    return float(-np.log(np.maximum(table.column("label_probability"), CLIP)).mean())


def _brier(table: PositionTable, labels: Labels) -> float:
    squares, of_label = table.column("sum_of_squares"), table.column("label_probability")
    return float((squares - 2 * of_label + 1).mean())


def _ece(table: PositionTable, labels: Labels) -> float:
    return calibration_error(table.column("confidence"), _is_right(table, labels))


def _squared_calibration_error(table: PositionTable, labels: Labels) -> float:
    return squared_calibration_error_of(table.column("confidence"), _is_right(table, labels))


def _churn(control: PositionTable, branch: PositionTable) -> float:
    return float(np.mean(control.column("predicted") != branch.column("predicted")))


def _mean_of(name: str) -> Callable[[PositionTable, PositionTable], float]:
    return lambda control, branch: float(branch.column(name).mean())


#: As ``metrics.SIGNED``.
SIGNED_BY_POSITION: Mapping[str, Callable[[PositionTable, Labels], float]] = {
    "accuracy": _accuracy,
    "nll": _nll,
    "brier": _brier,
    "ece": _ece,
    "squared_calibration_error": _squared_calibration_error,
}

#: As ``metrics.DISTANCES``, and KL: how far a branch's table is from its control's.
DISTANCES_BY_POSITION: Mapping[str, Callable[[PositionTable, PositionTable], float]] = {
    **{name: _mean_of(name) for name in ("tv", "js", "hellinger", "kl")},
    "churn": _churn,
}


def is_control(table: PositionTable) -> bool:
    """Whether a branch gives its control's table, bit for bit."""
    return not table.column("tv").any()


def signed_metrics(table: Table, labels: NDArray[Any]) -> dict[str, float]:
    """Every signed metric of a table; none without labels or targets.

    Raises:
        FormatError: On a table that holds no probabilities, or labels that are none of it.
    """
    if labels.size == 0:
        return {}
    if isinstance(table, RealTable):
        return table.signed(labels)
    if isinstance(table, PositionTable):
        if len(labels) != len(table):
            raise FormatError("labels are not one a position", expected=len(table))
        return {name: metric(table, labels) for name, metric in SIGNED_BY_POSITION.items()}
    return {name: metric(table, labels) for name, metric in SIGNED.items()}


def distances(control: Table, branch: Table, scale: Reals | None = None) -> dict[str, float]:
    """Every distance of a branch's table from its control's.

    Args:
        control: The control's.
        branch: The branch's.
        scale: Of a regression probe, what ``scaled_rmsd`` is in units of.

    Raises:
        FormatError: When they are no tables of one probe.
    """
    if isinstance(control, RealTable) and isinstance(branch, RealTable):
        return control.distances(branch, scale)
    if isinstance(control, RealTable) or isinstance(branch, RealTable):
        raise FormatError("a table of probabilities stands beside one of something else")
    if isinstance(control, PositionTable) and isinstance(branch, PositionTable):
        if len(control) != len(branch):
            raise FormatError("two tables by position of different length", expected=len(control))
        return {name: DISTANCES_BY_POSITION[name](control, branch) for name in DISTANCES}
    if isinstance(control, PositionTable) or isinstance(branch, PositionTable):
        raise FormatError("a whole table stands beside one by position")
    return {name: metric(control, branch) for name, metric in DISTANCES.items()}


def growth(control: Table, found: Mapping[str, float], scale: Reals | None = None) -> float | None:
    """How far a placebo has grown: its total variation, or what stands for it.

    Args:
        control: The control's table.
        found: The distances of the placebo's from it.
        scale: As for :func:`distances`.

    Returns:
        None where it cannot be said.
    """
    return control.growth(found, scale) if isinstance(control, RealTable) else found["tv"]


def same_bits(control: Table, branch: Table) -> bool:
    """Whether a branch gives its control's table, bit for bit."""
    if isinstance(control, RealTable) and isinstance(branch, RealTable):
        return control.kind == branch.kind and same_bits(control.values, branch.values)
    if isinstance(control, RealTable) or isinstance(branch, RealTable):
        return False
    if isinstance(control, PositionTable) or isinstance(branch, PositionTable):
        return isinstance(branch, PositionTable) and is_control(branch)
    a, b = control, branch
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
