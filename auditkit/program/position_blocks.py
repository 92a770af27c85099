"""Numbers a position, by the second recipe: fewer passes over the scores than the first.

The probabilities are those of the first recipe (:mod:`auditkit.program.position_scores`), bit for
bit, and so is what is picked from them; sums over the classes agree but for rounding. With s = p+q,
g = p-q, d = g/s, L = ln(1+d) - ln(1-d) and A = ln(1+d) + ln(1-d) the distances at a position are

- total variation: sum |g| / 2
- Jensen-Shannon: sum (s A + g L) / 4 ln 2
- Hellinger: the root of sum s (1 - e^(A/2)) / 2, for e^(A/2) is sqrt(1-d^2)
- Kullback-Leibler: sum (s L + g L) / 2, and p ln(q/CLIP) of the classes whose q is below CLIP

so that two tables a rounding apart are no rounding noise apart. A block of classes at a time stays
in a processor's cache. Products are summed by numpy's ``vecdot``, so few at once that no library
splits them over threads. On an accelerator it is the first recipe.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auditkit.formats.outcome_names import DISTANCE_COLUMNS
from auditkit.program import position_scores
from auditkit.program.position_scores import Columns, Positions
from auditkit.statistics.metrics import CLIP

Narrow = NDArray[np.float32]
Reals = NDArray[np.float64]

#: Products that are summed at once, and classes that are looked at together. Both are part of the
#: recipe: other numbers give other bits.
_SUMMED = 2**13
_BLOCK = 4 * _SUMMED

#: Below this A is of a class that is a thousand times as likely on one side.
_FAR = -6.0

#: The largest float32 below CLIP, to which CLIP is rounded.
_CLIP = np.float32(CLIP)

#: Stands for the logarithm of 0 beside the mean of both sides; of no float32 it is that small.
_NONE = -200.0

#: Sums a position that the distances are made of; see :meth:`_Work.add`.
_SUMS = 6

#: Blocks of memory, a little apart: at equal places in a page they would share a cache's lines.
_BUFFERS, _APART = 5, 72


def own_columns(scores: Tensor, positions: Positions) -> Columns:
    """What one branch gives at every position; its scores are ``(rows, T, C)``."""
    if scores.device.type != "cpu" or len(positions.where) == 0:
        return position_scores.own_columns(scores, positions)
    work, own = _Work(scores, positions, 1), _Own(positions)
    for rows in work.parts():
        narrow = work.table(0, scores, rows)
        own.take(rows, narrow)
        work.add_squares(own.squares[rows], narrow)
    return own.columns()


def compared_columns(
    control: Tensor, branch: Tensor, positions: Positions
) -> tuple[Columns, Columns]:
    """What a branch gives at every position, and how far it is from its control there.

    Args:
        control: The control's scores ``(rows, T, C)``.
        branch: The branch's.
        positions: Where to look.

    Returns:
        The control's own columns; the branch's, and its distances.
    """
    if branch.device.type != "cpu" or len(positions.where) == 0:
        return position_scores.compared_columns(control, branch, positions)
    if torch.equal(control, branch):
        own = own_columns(branch, positions)
        zero = torch.zeros(len(positions.where), dtype=torch.float64)
        return own, {**own, **dict.fromkeys(DISTANCE_COLUMNS, zero)}
    work = _Work(branch, positions, 2)
    here, there = _Own(positions), _Own(positions)
    sums = np.zeros((_SUMS, len(positions.where)))
    with np.errstate(all="ignore"):  # what is not finite is seen where it is judged
        for rows in work.parts():
            p, q = work.table(0, control, rows), work.table(1, branch, rows)
            here.take(rows, p)
            there.take(rows, q)
            if np.array_equal(p[:, 0], q[:, 0]) and np.array_equal(p, q):
                work.add_squares(here.squares[rows], p)
                there.squares[rows] = here.squares[rows]
                continue
            work.add(sums[:, rows], here.squares[rows], there.squares[rows], p, q)
            if q.min() <= _CLIP:
                sums[5, rows] = _clipped(p, q)
        return here.columns(), {**there.columns(), **_distances(sums)}


class _Own:
    """Columns of one branch, as they are filled.

    Args:
        positions: Where they are of.
    """

    def __init__(self, positions: Positions) -> None:
        n = len(positions.where)
        self._labels = positions.labels.numpy()
        self._predicted = np.empty(n, dtype=np.int32)
        self._confidence = np.empty(n, dtype=np.float32)
        self._of_label = np.empty(len(self._labels), dtype=np.float32)
        self.squares = np.zeros(n)

    def take(self, rows: slice, narrow: Narrow) -> None:
        """Pick what is picked of some rows' probabilities."""
        every, predicted = np.arange(len(narrow)), narrow.argmax(axis=1)
        self._predicted[rows] = predicted
        self._confidence[rows] = narrow[every, predicted]
        if len(self._labels):
            self._of_label[rows] = narrow[every, self._labels[rows]]

    def columns(self) -> Columns:
        """All of them."""
        found: dict[str, NDArray[Any]] = {
            "predicted": self._predicted,
            "confidence": self._confidence,
            "sum_of_squares": self.squares,
            "label_probability": self._of_label,
        }
        return {name: torch.from_numpy(column) for name, column in found.items() if len(column)}


class _Work:
    """Memory for a few positions, used again for the next, and what is computed in it.

    Args:
        scores: Of one side ``(rows, T, C)``.
        positions: Where to look.
        n_sides: How many sides are looked at together.
    """

    def __init__(self, scores: Tensor, positions: Positions, n_sides: int) -> None:
        n_classes = scores.shape[2]
        self._where = positions.where
        self._probabilities = positions.probabilities
        self._at_once = max(1, _BLOCK // n_classes)
        shape = (self._at_once, n_classes)
        self._wide = torch.empty(shape, dtype=torch.float64)
        self._narrow = torch.empty((n_sides, *shape), dtype=torch.float32)
        memory = torch.empty((_BUFFERS, _BLOCK + _APART), dtype=torch.float64)
        self._buffers = list(memory.numpy()[:, :_BLOCK])

    def parts(self) -> list[slice]:
        """A few positions at a time."""
        starts = range(0, len(self._where), self._at_once)
        return [slice(start, start + self._at_once) for start in starts]

    def table(self, side: int, scores: Tensor, rows: slice) -> Narrow:
        """Probabilities ``(P, C)`` of one side, until the next ones are asked for."""
        where = self._where[rows]
        given, n = _rows_at(scores, where), len(where)
        narrow = self._narrow[side, :n]
        if not self._probabilities:
            given = torch.softmax(given, 1, dtype=torch.float64, out=self._wide[:n])
        found: Narrow = narrow.copy_(given).numpy()
        return found

    def _views(self, narrow: Narrow) -> list[Reals]:
        """Buffers of a block's shape."""
        return [buffer[: narrow.size].reshape(narrow.shape) for buffer in self._buffers]

    def add_squares(self, squares: Reals, narrow: Narrow) -> None:
        """Add the sum of each row's squares."""
        for part in _blocks(narrow):
            wide = self._views(narrow[part])[0]
            np.copyto(wide, narrow[part])
            squares += _dot(wide, wide)

    def add(self, sums: Reals, here: Reals, there: Reals, control: Narrow, branch: Narrow) -> None:
        """Add what is summed of some rows.

        Args:
            sums: ``(6, P)``: of ``|g|``, ``s A``, ``g L``, ``s L`` and ``s (e^(A/2) - 1)``; the
                last is not of all classes.
            here: The control's sums of squares.
            there: The branch's.
            control: The control's probabilities.
            branch: The branch's.
        """
        for part in _blocks(control):
            p, q, s, up, both = self._views(control[part])
            np.copyto(p, control[part])
            np.copyto(q, branch[part])
            here += _dot(p, p)
            there += _dot(q, q)
            np.add(p, q, out=s)
            g = np.subtract(p, q, out=p)
            d = np.divide(g, s, out=q)
            np.log1p(d, out=up)
            down = np.log1p(np.negative(d, out=d), out=d)
            np.add(up, down, out=both)
            log = np.subtract(up, down, out=up)
            if not both.min() >= _FAR:  # also where it is not a number
                _take_apart(both, log, control[part], branch[part])
            sums[1] += _dot(s, both)
            sums[2] += _dot(g, log)
            sums[3] += _dot(s, log)
            np.multiply(both, 0.5, out=both)
            sums[4] += _dot(s, np.expm1(both, out=both))
            sums[0] += np.absolute(g, out=g).sum(axis=1)


def _rows_at(scores: Tensor, where: Tensor) -> Tensor:
    """The scores ``(P, C)`` at some positions; no copy of one, and of none that follow another."""
    (row, first), (last_row, last) = where[0].tolist(), where[-1].tolist()
    if row == last_row and last - first == len(where) - 1:  # they ascend
        return scores[row, first : last + 1]
    return scores[where[:, 0], where[:, 1]]


def _blocks(narrow: Narrow) -> list[Any]:
    return [np.s_[:, start : start + _BLOCK] for start in range(0, narrow.shape[1], _BLOCK)]


def _dot(a: Reals, b: Reals) -> Reals:
    """The sum of products of each row."""
    found: Reals = np.vecdot(a[:, :_SUMMED], b[:, :_SUMMED])
    for start in range(_SUMMED, a.shape[1], _SUMMED):
        few = np.s_[:, start : start + _SUMMED]
        found += np.vecdot(a[few], b[few])
    return found


def _take_apart(both: Reals, log: Reals, control: Narrow, branch: Narrow) -> None:
    """A and L of classes with a d near 1 or -1, where 1-d or 1+d is little but rounding, or none.

    Of a class that one side does not give, a logarithm of 0 has no weight, but must be a number.
    """
    at = np.nonzero(~(both >= _FAR))
    p, q = control[at].astype(np.float64), branch[at].astype(np.float64)
    half = (p + q) / 2
    up, down = (np.maximum(np.log(each / half), _NONE) for each in (p, q))
    both[at], log[at] = (np.where(half == 0, 0, each) for each in (up + down, up - down))


def _clipped(p: Narrow, q: Narrow) -> Reals:
    """What is added to each row's Kullback-Leibler divergence for the q below CLIP."""
    row, column = np.nonzero((q <= _CLIP) & (p > 0))
    few, of_control = q[row, column].astype(np.float64), p[row, column].astype(np.float64)
    logs = np.where(few > 0, np.log(few), np.log(of_control / 2) + _NONE) - math.log(CLIP)
    found: Reals = np.bincount(row, weights=of_control * logs, minlength=len(q)).astype(np.float64)
    return found


def _distances(sums: Reals) -> Columns:
    """The distances that sums of whole rows make."""
    gaps, both, log_of_gap, log_of_sum, roots, clipped = sums
    found = [
        gaps / 2,
        np.maximum(both + log_of_gap, 0) / (4 * math.log(2)),
        np.sqrt(np.maximum(0 - roots, 0) / 2),
        np.maximum((log_of_sum + log_of_gap) / 2 + clipped, 0),
    ]
    return dict(zip(DISTANCE_COLUMNS, map(torch.from_numpy, found), strict=True))
