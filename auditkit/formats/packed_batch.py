"""A batch of an order as bytes: what a loop's sampler yields at every step, without an array.

Numbers come out of a list of Python's and go into digests and chains. An array in between is made
only for those who ask for one.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from auditkit.formats.ordering import Batch
from auditkit.formats.recipes import packed_order_digest


class PackedBatch:
    """A batch of an order.

    Args:
        data: Pairs of (epoch, index), int64, little-endian.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    @classmethod
    def of(cls, pairs: Batch) -> PackedBatch:
        """The same batch."""
        return cls(pairs.astype("<i8", copy=False).tobytes())

    @classmethod
    def of_numbers(cls, indices: Sequence[Any], epoch: int) -> PackedBatch | None:
        """The samples of one epoch; None where there is one that is no whole number of 64 bits."""
        row = [epoch] * (2 * len(indices))
        row[1::2] = indices
        try:
            return cls(_packer(len(row))(*row))
        except (struct.error, TypeError, OverflowError):
            return None

    @property
    def pairs(self) -> Batch:
        """As an array of its own, int64 ``(B, 2)``."""
        return np.frombuffer(self.data, "<i8").astype(np.int64).reshape(-1, 2)

    @property
    def digest(self) -> bytes:
        """Its evidence digest, 16 bytes."""
        return packed_order_digest(self.data)

    @property
    def link(self) -> bytes:
        """What a chain over an order takes: the number of its samples, then they."""
        return (len(self.data) // 16).to_bytes(8, "little") + self.data


@functools.lru_cache(maxsize=64)  # most batches of a run are of one size
def _packer(n_numbers: int) -> Callable[..., bytes]:
    return struct.Struct(f"<{n_numbers}q").pack


#: A batch of an order, one way or the other.
Drawn: TypeAlias = Batch | PackedBatch


def as_pairs(drawn: Drawn) -> Batch:
    """The batch as an array."""
    return drawn.pairs if isinstance(drawn, PackedBatch) else drawn
