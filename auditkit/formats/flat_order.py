"""An order as two arrays: a study of 10,000 steps has 320,000 samples, and no time for lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import UsageError


class Order(Protocol):
    """What the steps of a branch consumed: in memory, or in a file."""

    @property
    def pairs(self) -> NDArray[np.int64]:
        """int64 ``(samples, 2)`` of (epoch, index), contiguous."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """int64 ``(steps,)``: how many of them each step consumed."""

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where in ``pairs`` the samples of each step end."""

    def __len__(self) -> int:
        """Steps."""

    def part(self, first: int, stop: int | None = None) -> Self:
        """Steps ``first`` .. ``stop - 1``, counted from 0."""

    def batches(self) -> list[NDArray[np.int64]]:
        """The batches."""


@dataclass(frozen=True, eq=False)
class FlatOrder:
    """What the steps of a branch consumed, one after the other.

    Attributes:
        pairs: int64 ``(samples, 2)`` of (epoch, index), contiguous.
        sizes: int64 ``(steps,)``: how many of them each step consumed.
    """

    pairs: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, batches: Sequence[NDArray[np.int64]]) -> FlatOrder:
        """The order of batches.

        Raises:
            UsageError: When one is no table of two columns.
        """
        if any(batch.ndim != 2 or batch.shape[1] != 2 for batch in batches):
            shapes = {batch.shape for batch in batches if batch.shape[1:] != (2,)}
            raise UsageError(
                "an order is a table of (epoch, index)", expected="(B, 2)", found=min(shapes)
            )
        sizes = np.fromiter(map(len, batches), np.int64, len(batches))
        pairs = np.concatenate(batches) if len(batches) else np.empty((0, 2))
        return cls(np.ascontiguousarray(pairs, np.int64), sizes)

    @classmethod
    def of_content(cls, digests: bytes) -> FlatOrder:
        """What stands for the order where samples have no index: a digest of 16 bytes a step."""
        pairs = np.frombuffer(digests, dtype="<i8").reshape(-1, 2)
        return cls(pairs.astype(np.int64, copy=False), np.ones(len(pairs), np.int64))

    def __len__(self) -> int:
        """Steps."""
        return len(self.sizes)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Where in ``pairs`` the samples of each step end."""
        return np.cumsum(self.sizes)

    def part(self, first: int, stop: int | None = None) -> FlatOrder:
        """Steps ``first`` .. ``stop - 1``, counted from 0."""
        sizes = self.sizes[first:stop]
        begin = int(self.ends[first - 1]) if 0 < first <= len(self) else 0
        return FlatOrder(self.pairs[begin : begin + int(sizes.sum())], sizes)

    def batches(self) -> list[NDArray[np.int64]]:
        """The batches, as views."""
        starts = (self.ends - self.sizes).tolist()
        ends = self.ends.tolist()
        return [self.pairs[begin:end] for begin, end in zip(starts, ends, strict=True)]
