"""What is said of tensors of which each process of a loop holds a part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Shard:
    """Where a process's part of a tensor lies in the whole: rows, one after the other.

    Attributes:
        shape: Of the whole tensor.
        first: The first row, along the first dimension, that this process holds.
    """

    shape: tuple[int, ...]
    first: int


#: By component and entry; what is not named is held in whole by every process.
Sharding: TypeAlias = dict[str, dict[str, Shard]]


@dataclass(frozen=True)
class ShardedState:
    """Digests of a state that the processes hold together, whatever their number.

    Attributes:
        step: Steps that had been taken.
        digests: ``sha256/chunks-v1`` of every component of which a process holds only a part.
    """

    step: int
    digests: dict[str, str]
