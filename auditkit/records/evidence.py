"""Evidence: what the steps of one branch leave behind, a row a step.

Row t holds the state before step t and what step t consumed. A trace of steps a..b has
b-a+2 rows: the last one, numbered b+1, holds the state at the end and zeros for what was
consumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from auditkit.records.digest import ABSENT, EVIDENCE_BYTES

#: Columns of what a step consumed; every other column is a component of the training state.
CONSUMED = ("order", "batch")

#: Column of what the loader delivered, where the step consumed something else.
DELIVERED = "batch/delivered"

#: Rows of a long trace that are looked at together, and are in memory at a time.
ROWS_AT_ONCE = 2**16


def is_consumed(name: str) -> bool:
    """Whether a column says what a step consumed, from the training loader or another one."""
    return name.partition("/")[0] in CONSUMED


@dataclass(frozen=True)
class Difference:
    """The first place at which two traces differ.

    Attributes:
        step: Step (batch number, from 1) of the row.
        components: Columns that differ in that row: what was consumed first, then the state,
            each alphabetical; ``loss`` last.
    """

    step: int
    components: tuple[str, ...]


class Column(Protocol):
    """A column of a trace: bytes, or what reads them from a file when they are asked for."""

    def __len__(self) -> int:
        """Length in bytes."""

    def __getitem__(self, part: slice, /) -> bytes:
        """A part of it."""


@dataclass(frozen=True)
class Trace:
    """Evidence of steps ``first_step`` .. ``first_step + n_rows - 2``.

    Attributes:
        first_step: Step of the first row, from 1.
        loss_bits: ``n_rows`` little-endian uint64: the bits of each step's float64 loss, 0 in
            the last row.
        columns: Per component, ``n_rows`` digests of 16 bytes
            (``xxh3-128/tensor-v1``). A column that is absent means zeros throughout; a long one
            may stay in its file.
    """

    first_step: int
    loss_bits: Column
    columns: Mapping[str, Column]

    @property
    def n_rows(self) -> int:
        """Rows, one more than there are steps."""
        return len(self.loss_bits) // 8

    @property
    def last_step(self) -> int:
        """The last step that was taken."""
        return self.first_step + self.n_rows - 2

    def cell(self, step: int, component: str) -> bytes:
        """Digest of ``component`` in the row of ``step``; zeros where there is no such column."""
        column = self.columns.get(component)
        if column is None:
            return ABSENT
        row = step - self.first_step
        return bytes(column[row * EVIDENCE_BYTES : (row + 1) * EVIDENCE_BYTES])

    def cells(self, component: str, start: int, stop: int) -> bytes:
        """Digests of ``component`` in the rows of the steps ``start`` .. ``stop - 1``."""
        column = self.columns.get(component)
        if column is None:
            return bytes(max(stop - start, 0) * EVIDENCE_BYTES)
        return _rows(column, start - self.first_step, stop - self.first_step, EVIDENCE_BYTES)

    def losses(self, start: int, stop: int) -> bytes:
        """The losses of the steps ``start`` .. ``stop - 1``, eight bytes each."""
        return _rows(self.loss_bits, start - self.first_step, stop - self.first_step, 8)

    def loss(self, step: int) -> bytes:
        """The eight bytes of the loss of ``step``."""
        row = step - self.first_step
        return bytes(self.loss_bits[row * 8 : (row + 1) * 8])

    def until(self, last_step: int) -> Trace:
        """The rows up to this step; the one after it keeps the state and nothing consumed."""
        rows = last_step + 2 - self.first_step
        columns = {
            name: bytes(column[: rows * EVIDENCE_BYTES]) for name, column in self.columns.items()
        }
        for name in filter(is_consumed, columns):
            columns[name] = columns[name][:-EVIDENCE_BYTES] + ABSENT
        losses = bytes(self.loss_bits[: (rows - 1) * 8]) + bytes(8)
        return Trace(self.first_step, losses, columns)

    def since(self, first_step: int) -> Trace:
        """The rows from this step on."""
        begin = first_step - self.first_step
        columns = {
            name: bytes(column[begin * EVIDENCE_BYTES :]) for name, column in self.columns.items()
        }
        return Trace(first_step, self.loss_bits[begin * 8 :], columns)

    @classmethod
    def joined(cls, parts: Sequence[Trace]) -> Trace:
        """The trace of parts in a row, each of which begins with the last row of the one before."""
        *heads, last = parts
        names = {name for part in parts for name in part.columns}

        def column(part: Trace, name: str) -> bytes:
            return part.columns.get(name, bytes(part.n_rows * EVIDENCE_BYTES))[:]

        columns = {
            name: b"".join(
                [*(column(part, name)[:-EVIDENCE_BYTES] for part in heads), column(last, name)]
            )
            for name in names
        }
        losses = [*(part.loss_bits[:-8] for part in heads), last.loss_bits[:]]
        return cls(parts[0].first_step, b"".join(losses), columns)

    def row_difference(self, step: int, other: Trace, other_step: int | None = None) -> list[str]:
        """Names of the columns in which one row differs from a row of another trace."""
        there = step if other_step is None else other_step
        names = sorted(
            set(self.columns) | set(other.columns), key=lambda name: (not is_consumed(name), name)
        )
        found = [name for name in names if self.cell(step, name) != other.cell(there, name)]
        if self.loss(step) != other.loss(there):
            found.append("loss")
        return found

    def first_unequal(self, other: Trace, component: str, start: int, stop: int) -> int | None:
        """First step in ``start`` .. ``stop - 1`` whose cell of one column is not the same.

        Args:
            other: A trace that has these steps, too.
            component: The column.
            start: First step to look at.
            stop: Step to stop before.
        """
        for begin, end in blocks(start, stop):
            here, there = (trace.cells(component, begin, end) for trace in (self, other))
            if here != there:
                return begin + first_unequal_cell(here, there, end - begin, EVIDENCE_BYTES)
        return None

    def first_other_loss(self, other: Trace, start: int, stop: int) -> int | None:
        """As :meth:`first_unequal`, of the losses."""
        for begin, end in blocks(start, stop):
            here, there = (trace.losses(begin, end) for trace in (self, other))
            if here != there:
                return begin + first_unequal_cell(here, there, end - begin, 8)
        return None

    def first_difference(self, other: Trace) -> Difference | None:
        """The first row in which two traces differ, or None where they are equal.

        Traces of different length differ at the first row that only one of them has, in the
        component ``steps``.
        """
        if self.first_step != other.first_step:
            return Difference(min(self.first_step, other.first_step), ("steps",))
        rows = min(self.n_rows, other.n_rows)
        step = _first_unequal_row(self, other, rows)
        if step is not None:
            return Difference(step, tuple(self.row_difference(step, other)))
        if self.n_rows != other.n_rows:
            return Difference(self.first_step + rows, ("steps",))
        return None


def blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Steps ``start`` .. ``stop - 1`` in parts: where each begins, and ends before."""
    for begin in range(start, stop, ROWS_AT_ONCE):
        yield begin, min(begin + ROWS_AT_ONCE, stop)


def _rows(column: Column, begin: int, end: int, width: int) -> bytes:
    return bytes(column[max(begin, 0) * width : max(end, 0) * width])


def _first_unequal_row(left: Trace, right: Trace, rows: int) -> int | None:
    start, stop = left.first_step, left.first_step + rows
    found = left.first_other_loss(right, start, stop)
    for name in {*left.columns, *right.columns}:  # of which only what is earlier counts
        step = left.first_unequal(right, name, start, stop if found is None else found)
        found = found if step is None else step
    return found


def first_unequal_cell(here: bytes, there: bytes, rows: int, width: int) -> int:
    """Which cell is the first that differs, of columns that do."""
    low, high = 0, rows  # it lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        if here[low * width : middle * width] != there[low * width : middle * width]:
            high = middle
        else:
            low = middle
    return low
