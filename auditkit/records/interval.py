"""Confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval.

    Attributes:
        low: Lower end, in the unit of the estimate; None where it is unbounded.
        high: Upper end, likewise.
        level: Coverage aimed at, e.g. 0.95.
    """

    low: float | None
    high: float | None
    level: float

    def moved(self, by: float) -> Interval:
        """The same interval about another estimate."""
        low, high = (None if end is None else end + by for end in (self.low, self.high))
        return Interval(low, high, self.level)
