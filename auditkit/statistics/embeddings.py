"""How far apart two tables of embeddings are, whatever their axes are called.

A table is ``(N, D)``, one row an example. Both distances lie within 0 and 1 and are those of the
same tables turned (an orthogonal map of the D axes) or made larger or smaller as a whole: a model
that was turned says the same of how examples lie to each other. Linear CKA does not see a shift
either, the relative representation does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import FormatError
from auditkit.records import metric_ranges
from auditkit.statistics.real_outputs import Reals, as_reals

FEWEST_EXAMPLES = metric_ranges.FEWEST_EXAMPLES

#: Most examples that others are described by.
MOST_ANCHORS = 512

#: Rows of a table of all pairs that are in memory at once.
_ROWS = 1024


def _pair(control: NDArray[Any], branch: NDArray[Any]) -> tuple[Reals, Reals]:
    if control.shape != branch.shape:
        raise FormatError(
            "two tables of different shape", expected=control.shape, found=branch.shape
        )
    here, there = as_reals(control), as_reals(branch)
    if len(here) < FEWEST_EXAMPLES:
        raise FormatError(
            "too few examples to compare embeddings on",
            expected=f"at least {FEWEST_EXAMPLES}",
            found=len(here),
        )
    return here, there


def cka_distance(control: NDArray[Any], branch: NDArray[Any]) -> float:
    """1 less linear CKA (Kornblith and others 2019, arXiv 1905.00414): 0 to 1.

    With centred tables X and Y and K = X X', L = Y Y', each of Frobenius norm 1, it is half of the
    squared norm of K - L. In this form it keeps its digits where two tables are almost the same.
    A table whose rows are all one point has no K: it is at distance 1 from any other, and at 0 from
    one that is a point, too.

    Raises:
        FormatError: On other shapes, what is not finite, or fewer than three examples.
    """
    here, there = _pair(control, branch)
    if np.array_equal(here, there):  # whatever order this platform's products sum in
        return 0.0
    x, y = _normalised(here), _normalised(there)
    if x is None or y is None:
        return 0.0 if x is None and y is None else 1.0
    n_rows, width = x.shape
    gap, total = x - y, x + y  # K - L = (gap total' + total gap') / 2
    if width <= n_rows:
        crossed = gap.T @ total
        squared = float(((gap.T @ gap) * (total.T @ total)).sum() + (crossed * crossed.T).sum()) / 2
    else:
        squared = 0.0
        for start in range(0, n_rows, _ROWS):
            rows = slice(start, start + _ROWS)
            part = (gap[rows] @ total.T + total[rows] @ gap.T) / 2
            squared += float(np.square(part).sum())
    return min(max(squared / 2, 0.0), 1.0)


def _normalised(table: Reals) -> Reals | None:
    """A table, centred, whose Gram matrix has Frobenius norm 1; None where it is one point."""
    if is_collapsed(table):
        return None
    centred = table - table.mean(axis=0)
    centred /= np.abs(centred).max()  # squares of squares would leave the range of float64
    small = centred.T @ centred if centred.shape[1] <= len(centred) else centred @ centred.T
    return np.asarray(centred / np.sqrt(np.linalg.norm(small)))


def is_collapsed(table: NDArray[Any]) -> bool:
    """Whether all examples have one embedding."""
    return bool((table == table[:1]).all())


def relative_distance(control: NDArray[Any], branch: NDArray[Any]) -> float:
    """Distance of two relative representations (Moschella and others 2023, arXiv 2209.15430).

    Every example is described by its cosine similarities to the anchors, examples themselves: all
    of them, or 512 that are spread evenly over a longer probe. The distance is half of the mean
    absolute difference of two such tables, 0 to 1. To an embedding of length 0 every cosine is 0.

    Raises:
        FormatError: On other shapes, what is not finite, or fewer than three examples.
    """
    return min(float(relative_examples(control, branch).mean()), 1.0)


def relative_examples(control: NDArray[Any], branch: NDArray[Any]) -> Reals:
    """What :func:`relative_distance` is the mean of, a number an example; raises as that."""
    tables = _pair(control, branch)
    if np.array_equal(*tables):
        return np.zeros(len(control))
    here, there = map(_directions, tables)
    count = min(len(here), MOST_ANCHORS)
    anchors = np.arange(count) * len(here) // count
    found = np.empty(len(here))
    for start in range(0, len(here), _ROWS):
        rows = slice(start, start + _ROWS)
        gaps = here[rows] @ here[anchors].T - there[rows] @ there[anchors].T
        found[rows] = np.abs(gaps).sum(axis=1) / (2 * count)
    return found


def likeness(table: NDArray[Any]) -> Reals:
    """Mean cosine similarity of each example to all others; of one of length 0 it is 0.

    Raises:
        FormatError: On what is not finite, or fewer than three examples.
    """
    directions = _directions(_pair(table, table)[0])
    others = directions.sum(axis=0) - directions
    return np.asarray((directions * others).sum(axis=1) / (len(directions) - 1))


def _directions(table: Reals) -> Reals:
    largest = np.abs(table).max(axis=1, keepdims=True)
    scaled = np.divide(table, largest, out=np.zeros_like(table), where=largest > 0)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.asarray(np.divide(scaled, lengths, out=np.zeros_like(scaled), where=lengths > 0))


#: Distances of embeddings by name.
DISTANCES_OF_EMBEDDINGS: Mapping[str, Callable[[NDArray[Any], NDArray[Any]], float]] = (
    MappingProxyType({"cka_distance": cka_distance, "relative_distance": relative_distance})
)
