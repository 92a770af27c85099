"""An order that stays in its file: of a million steps, few are in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from auditkit.formats.flat_order import FlatOrder
from auditkit.formats.ordering import flat_from_table
from auditkit.records.tensor import PIECE_BYTES, FileTensor

_PAIR_BYTES = 16


@dataclass(frozen=True, eq=False)
class StoredOrder:
    """Steps of an order table ``(steps, longest batch, 2)`` in a file.

    What it holds is read when it is asked for, and kept as long as this object: ask a part of it.

    Attributes:
        table: The table.
        first: Its first row that is meant.
        stop: The row before which they end.
    """

    table: FileTensor
    first: int
    stop: int

    @classmethod
    def whole(cls, table: FileTensor) -> StoredOrder:
        """All steps of a table."""
        return cls(table, 0, table.shape[0])

    def __len__(self) -> int:
        """Steps."""
        return self.stop - self.first

    def part(self, first: int, stop: int | None = None) -> StoredOrder:
        """Steps ``first`` .. ``stop - 1``, counted from 0."""
        begin, end, _ = slice(first, stop).indices(len(self))
        return StoredOrder(self.table, self.first + begin, self.first + max(begin, end))

    def rows(self) -> NDArray[np.int64]:
        """The rows of the table, padded as they are."""
        width = self.table.shape[1]
        n_bytes = width * _PAIR_BYTES
        data = self.table.read(self.table.start + self.first * n_bytes, len(self) * n_bytes)
        return np.frombuffer(data, dtype="<i8").reshape(len(self), width, 2)

    @cached_property
    def loaded(self) -> FlatOrder:
        """The same in memory."""
        return flat_from_table(self.rows())

    @property
    def pairs(self) -> NDArray[np.int64]:
        """As of :class:`FlatOrder`."""
        return self.loaded.pairs

    @property
    def sizes(self) -> NDArray[np.int64]:
        """As of :class:`FlatOrder`."""
        return self.loaded.sizes

    @property
    def ends(self) -> NDArray[np.int64]:
        """As of :class:`FlatOrder`."""
        return self.loaded.ends

    def batches(self) -> list[NDArray[np.int64]]:
        """The batches, as views of what is read."""
        return self.loaded.batches()


def tables(table: FileTensor) -> Iterator[NDArray[np.int64]]:
    """The rows of an order table in parts, which are in memory one after the other."""
    steps = max(PIECE_BYTES // (table.shape[1] * _PAIR_BYTES), 1)
    for start in range(0, table.shape[0], steps):
        yield StoredOrder.whole(table).part(start, start + steps).rows()
