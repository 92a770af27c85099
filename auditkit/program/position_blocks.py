"""Numbers a position, by the second recipe: fewer passes over the scores than the first.

The probabilities are those of the first recipe (:mod:`auditkit.program.position_scores`), bit for
bit, and so is what is picked from them; sums over the classes agree but for rounding. With s = p+q,
g = p-q, d = g/s, L = ln(1+d) - ln(1-d) and A = ln(1+d) + ln(1-d) the distances at a position are

- total variation: sum |g| / 2
- Jensen-Shannon: sum (s A + g L) / 4 ln 2
- Hellinger: the root of sum s (1 - e^(A/2)) / 2, for e^(A/2) is sqrt(1-d^2)
- Kullback-Leibler: sum (s L + g L) / 2, and p ln(q/CLIP) of the classes whose q is below CLIP

so that two tables a rounding apart are no rounding noise apart. Where a probability on either side
is not a number, no distance of that position is one, and those of all others are as without it. A
block of classes at a time stays in a processor's cache. Products are summed by numpy's ``vecdot``,
so few at once that no library splits them over threads. On an accelerator it is the first recipe.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

#: Products that are summed at once, and classes whose sums are added up before others are, or
#: positions that are looked at together. Both are part of the recipe: other numbers, other bits.
_SUMMED = 2**13
_BLOCK = 4 * _SUMMED

#: Classes that are looked at together, some blocks of them: for fewer, calls take much of the time.
_ELEMENTS = 2 * _BLOCK

#: Below this A is of a class that is a thousand times as likely on one side.
_FAR = -6.0

#: The largest float32 below CLIP, to which CLIP is rounded.
_CLIP = np.float32(CLIP)

#: Stands for the logarithm of 0 beside the mean of both sides; of no float32 it is that small.
_NONE = -200.0

#: Sums of products a position; see :meth:`_Work.compare`.
_DOTS = 6

#: Where in :attr:`_Block.arrays` is what: p and q; s; g, in p's place; A and L.
_SIDES, _SUM, _BOTH, _LOG = slice(0, 2), 2, 3, 4
_SUM_AND_GAP, _BOTH_AND_LOG = slice(2, None, -2), slice(3, 5)

#: Blocks of memory, a little apart: at equal places in a page they would share a cache's lines.
_BUFFERS, _APART = 5, 72


def own_columns(scores: Tensor, positions: Positions) -> Columns:
    """What one branch gives at every position; its scores are ``(rows, T, C)``."""
    if scores.device.type != "cpu" or len(positions.where) == 0:
        return position_scores.own_columns(scores, positions)
    work, own = _Work([scores], positions), _Own(positions)
    dots = work.dots(1)
    for rows in work.parts():
        narrow = work.table(0, rows)
        own.take(rows, narrow)
        work.square(dots[0, rows], narrow)
    (squares,) = _summed(dots)
    return own.columns(squares)


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
    work = _Work([control, branch], positions)
    here, there = _Own(positions), _Own(positions)
    dots, gaps, clipped = work.dots(_DOTS), *np.zeros((2, len(positions.where)))
    with np.errstate(all="ignore"):  # what is not finite is seen where it is judged
        for rows in work.parts():
            p, q = work.table(0, rows), work.table(1, rows)
            here.take(rows, p)
            there.take(rows, q)
            if p[0, 0] == q[0, 0] and np.array_equal(p, q):
                work.square(dots[0, rows], p)
                dots[1, rows] = dots[0, rows]
                continue
            work.compare(dots[:, rows], gaps[rows], p, q)
            if not q.min() > _CLIP:  # also where another row is not a number
                clipped[rows] = _clipped(p, q)
        of_control, of_branch, *sums = _summed(dots)
        distances = _distances(gaps, sums, clipped)
    return here.columns(of_control), {**there.columns(of_branch), **distances}


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

    def take(self, rows: slice, narrow: Narrow) -> None:
        """Pick what is picked of some rows' probabilities."""
        every, predicted = _counted(len(narrow)), narrow.argmax(axis=1)
        self._predicted[rows] = predicted
        self._confidence[rows] = narrow[every, predicted]
        if len(self._labels):
            self._of_label[rows] = narrow[every, self._labels[rows]]

    def columns(self, squares: Reals) -> Columns:
        """All of them, with the sums of squares."""
        found: dict[str, NDArray[Any]] = {
            "predicted": self._predicted,
            "confidence": self._confidence,
            "sum_of_squares": squares,
            "label_probability": self._of_label,
        }
        return {name: torch.from_numpy(column) for name, column in found.items() if len(column)}


@dataclass(frozen=True)
class _Block:
    """Classes that are looked at together, of a number of positions, and memory for them.

    Attributes:
        classes: Which they are, of a table ``(P, C)``.
        arrays: The memory: ``(P, W)`` each.
        pieces: All of it in pieces whose products are summed at once, ``(arrays, P, n, classes)``,
            each with where its n sums are among those of all classes.
    """

    classes: tuple[slice, slice]
    arrays: list[Reals]
    pieces: list[tuple[Reals, slice]]

    def dot(self, left: int | slice, right: int | slice, out: Reals) -> None:
        """Sums of products of arrays, piece by piece, into ``(…, P, pieces)``."""
        for memory, at in self.pieces:
            np.vecdot(memory[left], memory[right], out=out[..., at])


class _Work:
    """Memory for a few positions, used again for the next, and what is computed in it.

    Args:
        sides: The scores of every side that is looked at ``(rows, T, C)``.
        positions: Where to look.
    """

    def __init__(self, sides: list[Tensor], positions: Positions) -> None:
        self._n_classes = sides[0].shape[2]
        self._sides = sides
        self._rows = [scores.unbind(0) for scores in sides]
        self._where = positions.where.tolist()
        self._probabilities = positions.probabilities
        self._at_once = max(1, _BLOCK // self._n_classes)
        shape = (self._at_once, self._n_classes)
        self._wide = torch.empty(shape, dtype=torch.float64)
        self._tables = list(torch.empty((len(sides), *shape), dtype=torch.float32))
        self._narrow: list[Narrow] = [table.numpy() for table in self._tables]
        self._memory = torch.empty((_BUFFERS, _ELEMENTS + _APART), dtype=torch.float64).numpy()
        self._blocks: dict[int, list[_Block]] = {}

    def parts(self) -> Iterator[slice]:
        """A few positions at a time."""
        return _slices(len(self._where), self._at_once)

    def dots(self, n: int) -> Reals:
        """Room for n sums of products of every position, in pieces: ``(n, P, pieces)``."""
        return np.zeros((n, len(self._where), -(-self._n_classes // _SUMMED)))

    def table(self, side: int, rows: slice) -> Narrow:
        """Probabilities ``(P, C)`` of one side, until the next ones are asked for."""
        given, n = self._given(side, self._where[rows]), rows.stop - rows.start
        table, narrow, wide = self._tables[side], self._narrow[side], self._wide
        if n < self._at_once:
            table, narrow, wide = table[:n], narrow[:n], wide[:n]
        if not self._probabilities:
            given = torch.softmax(given, 1, dtype=torch.float64, out=wide)
        table.copy_(given)
        return narrow

    def _given(self, side: int, where: list[list[int]]) -> Tensor:
        """Scores ``(P, C)``; no copy of one, and of none that follow another."""
        (row, first), (last_row, last) = where[0], where[-1]
        if row == last_row and last - first == len(where) - 1:  # they ascend
            return self._rows[side][row].narrow(0, first, len(where))
        return self._sides[side][torch.tensor(where).unbind(1)]

    def _blocks_of(self, n: int) -> list[_Block]:
        """The blocks of n positions."""
        if n not in self._blocks:
            classes = _slices(self._n_classes, _ELEMENTS)
            self._blocks[n] = [_block(n, chosen, self._memory) for chosen in classes]
        return self._blocks[n]

    def square(self, squares: Reals, narrow: Narrow) -> None:
        """The sums of each row's squares, ``(P, pieces)``."""
        for block in self._blocks_of(len(narrow)):
            np.copyto(block.arrays[0], narrow[block.classes])
            block.dot(0, 0, squares)

    def compare(self, dots: Reals, gaps: Reals, control: Narrow, branch: Narrow) -> None:
        """What is summed of some rows.

        Args:
            dots: ``(6, P, pieces)``: for the sums of squares of the control and of the branch, of
                ``s A``, ``g L``, ``s L`` and ``s (e^(A/2) - 1)``.
            gaps: ``(P,)``: what the sum of ``|g|`` is added to.
            control: The control's probabilities.
            branch: The branch's.
        """
        for block in self._blocks_of(len(control)):
            p, q, s, both, up = block.arrays
            np.copyto(p, control[block.classes])
            np.copyto(q, branch[block.classes])
            block.dot(_SIDES, _SIDES, dots[:2])
            np.add(p, q, out=s)
            g = np.subtract(p, q, out=p)
            d = np.divide(g, s, out=q)
            np.log1p(d, out=up)
            down = np.log1p(np.negative(d, out=d), out=d)
            np.add(up, down, out=both)
            log = np.subtract(up, down, out=up)
            if not np.minimum.reduce(both, axis=None) >= _FAR:  # also where it is not a number
                _take_apart(both, log, control[block.classes], branch[block.classes])
            block.dot(_SUM_AND_GAP, _BOTH_AND_LOG, dots[2:4])
            block.dot(_SUM, _LOG, dots[4])
            np.multiply(both, 0.5, out=both)
            np.expm1(both, out=both)
            block.dot(_SUM, _BOTH, dots[5])
            np.absolute(g, out=g)
            for few in range(0, g.shape[1], _BLOCK):
                gaps += np.add.reduce(g[:, few : few + _BLOCK], axis=1)


def _block(n: int, classes: slice, memory: Reals) -> _Block:
    """Some classes of n positions."""
    width, first = classes.stop - classes.start, classes.start // _SUMMED
    arrays = memory[:, : n * width].reshape(len(memory), n, width)
    whole = width // _SUMMED
    cuts = [(slice(0, whole), _SUMMED), (slice(whole, whole + 1), width % _SUMMED)]
    pieces = []
    for at, size in cuts:
        n_pieces = at.stop - at.start
        if n_pieces * size:
            start = at.start * _SUMMED
            few = arrays[..., start : start + n_pieces * size]
            there = slice(first + at.start, first + at.stop)
            pieces.append((few.reshape(*few.shape[:2], n_pieces, size), there))
    return _Block(np.s_[:, classes], list(arrays), pieces)


@functools.cache
def _counted(n: int) -> NDArray[np.int64]:
    return np.arange(n)


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _summed(dots: Reals) -> Reals:
    """The sums of all classes from those of pieces: of a block's pieces, then of blocks."""
    found = np.zeros(dots.shape[:2])
    for block in _slices(dots.shape[2], _BLOCK // _SUMMED):
        first, *others = np.moveaxis(dots[..., block], 2, 0)
        of_block = first.copy()
        for other in others:
            of_block += other
        found += of_block
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


def _distances(gaps: Reals, sums: Sequence[Reals], clipped: Reals) -> Columns:
    """The distances that sums of whole rows make."""
    both, log_of_gap, log_of_sum, roots = sums
    found = [
        gaps / 2,
        np.maximum(both + log_of_gap, 0) / (4 * math.log(2)),
        np.sqrt(np.maximum(0 - roots, 0) / 2),
        np.maximum((log_of_sum + log_of_gap) / 2 + clipped, 0),
    ]
    return dict(zip(DISTANCE_COLUMNS, map(torch.from_numpy, found), strict=True))
