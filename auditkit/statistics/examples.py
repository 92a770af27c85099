"""Metrics example by example, where :mod:`auditkit.statistics.metrics` gives their mean.

Of a table by position an example is a position. Of predictions there are errors; their distance
is the root of a mean and no mean itself. Tables have been checked when these are asked for:
whoever computes the mean does that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.statistics.metrics import CLIP
from auditkit.statistics.positions import PositionTable
from auditkit.statistics.real_tables import RealTable

Values = NDArray[np.float64]
Table = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


def signed_examples(table: Any, labels: NDArray[Any]) -> dict[str, Values]:
    """Signed metrics of every example of a table; those that are no mean are not there."""
    if isinstance(table, RealTable):
        errors = np.asarray(table.values, dtype=np.float64) - labels
        return {"mse": np.square(errors).mean(axis=1), "mae": np.abs(errors).mean(axis=1)}
    if isinstance(table, PositionTable):
        of_label = table.column("label_probability")
        return {
            "accuracy": (table.column("predicted") == labels).astype(np.float64),
            "nll": -np.log(np.maximum(of_label, CLIP)),
            "brier": table.column("sum_of_squares") - 2 * of_label + 1,
        }
    wide = np.asarray(table, dtype=np.float64)
    of_label = wide[np.arange(len(labels)), labels]
    return {
        "accuracy": (wide.argmax(axis=1) == labels).astype(np.float64),
        "nll": -np.log(np.maximum(of_label, CLIP)),
        "brier": np.square(wide).sum(axis=1) - 2 * of_label + 1,
    }


def distance_examples(control: Any, branch: Any) -> dict[str, Values]:
    """Distances of every example of two tables; those that are no mean are not there."""
    if isinstance(control, RealTable):
        return {}
    if isinstance(control, PositionTable):
        predicted = (table.column("predicted") for table in (control, branch))
        churn = np.not_equal(*predicted).astype(np.float64)
        return {name: branch.column(name) for name in ("tv", "js", "hellinger")} | {"churn": churn}
    a, b = np.asarray(control, dtype=np.float64), np.asarray(branch, dtype=np.float64)
    total = a + b
    d = np.divide(a - b, total, out=np.zeros_like(total), where=total > 0)
    logs = [np.log1p(x, out=np.zeros_like(x), where=x > -1) for x in (d, -d)]
    js = 0.25 * total * ((1 + d) * logs[0] + (1 - d) * logs[1])
    return {
        "tv": tv_examples(a, b),
        "js": np.maximum(js.sum(axis=1), 0) / np.log(2),
        "hellinger": np.sqrt(np.square(np.sqrt(a) - np.sqrt(b)).sum(axis=1) / 2),
        "churn": (a.argmax(axis=1) != b.argmax(axis=1)).astype(np.float64),
    }


def tv_examples(control: Table, branch: Table) -> Values:
    """Total variation of every row of two tables ``(N, C)``."""
    gap = np.asarray(control, dtype=np.float64) - np.asarray(branch, dtype=np.float64)
    found: Values = 0.5 * np.abs(gap).sum(axis=1)
    return found


def squared_gaps(control: RealTable, branch: RealTable) -> Values:
    """Mean square difference of two predictions of every example."""
    gap = np.asarray(control.values, dtype=np.float64) - branch.values
    return np.asarray(np.square(gap).mean(axis=1))


def margins(table: Table) -> Values:
    """By what the most likely class of every row is ahead of the second one."""
    top = np.partition(np.asarray(table, dtype=np.float64), -2, axis=1)[:, -2:]
    found: Values = top[:, 1] - top[:, 0]
    return found
