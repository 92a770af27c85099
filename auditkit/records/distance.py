"""How far a replay is from the record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Distance:
    """One component of a snapshot, or one probe table, that is not the recorded one.

    Attributes:
        where: Seed and branch; ``seed 0, fork`` for the snapshot at t0.
        kind: ``state`` for a component of the training state, ``probe`` for a probe table.
        name: The component, or the table: ``t0``, ``t0+W``, ``T``, each perhaps with
            ``/recalibrated``.
        largest_absolute: Largest difference of two elements; None where none is finite, or
            where one side has no such numbers.
        largest_relative: Largest difference relative to the larger of the two values, 0 to 2;
            None in the same cases.
        total_variation: Of a probe table, the mean over its examples, 0 to 1; None for a
            component, and where a table has values that are not finite or another shape.
    """

    where: str
    kind: Literal["state", "probe"]
    name: str
    largest_absolute: float | None
    largest_relative: float | None
    total_variation: float | None = None
