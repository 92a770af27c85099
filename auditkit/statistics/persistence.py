"""Persistence: how much of an effect at t0+W is left at T."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from auditkit.records.estimate import (
    MIN_PAIRS,
    DistanceEstimate,
    Interval,
    Persistence,
    SignedEstimate,
)
from auditkit.statistics.inference import RELATIVE_ZERO

Values = NDArray[np.float64]
Row = TypeVar("Row", SignedEstimate, DistanceEstimate)

#: What is left of the squared denominator when its own interval just touches 0, relative.
TOUCHES_ZERO = 1e-12


@dataclass(frozen=True)
class Ratio:
    """A ratio of two means.

    Attributes:
        value: The ratio.
        interval: Fieller interval.
    """

    value: float
    interval: Interval


def fieller_interval(numerator: Values, denominator: Values, level: float = 0.95) -> Ratio | None:
    """Ratio of two paired means with Fieller's interval (Fieller 1954).

    The ratio of two means is undefined where the lower one could be 0, and the interval says when;
    the percentile bootstrap, which never says so, covers 76 % at n = 3.

    The interval holds every ratio r for which the t test of numerator - r denominator does
    not reject. It is bounded exactly when the denominator's own t interval excludes 0.

    Args:
        numerator: ``(n,)``.
        denominator: ``(n,)``, of the same seeds.
        level: Coverage.

    Returns:
        None where the interval would be unbounded, or for n < 2.
    """
    n = len(numerator)
    if n < 2:
        return None
    x, y = float(numerator.mean()), float(denominator.mean())
    covariance = np.cov(numerator, denominator) / n  # (2, 2), of the means
    t2 = float(special.stdtrit(n - 1, (1 + level) / 2)) ** 2
    # The set of ratios is a r^2 - 2 b r + c <= 0.
    a = y * y - t2 * float(covariance[1, 1])
    b = x * y - t2 * float(covariance[0, 1])
    c = x * x - t2 * float(covariance[0, 0])
    if a <= TOUCHES_ZERO * y * y:
        return None
    # Not negative in exact arithmetic: x / y solves the inequality.
    root = math.sqrt(max(b * b - a * c, 0.0))
    return Ratio(x / y, Interval((b - root) / a, (b + root) / a, level))


def persistences(rows: Sequence[Row], level: float) -> list[Persistence]:
    """How much of each effect at t0+W is left at T: for rows that differ in their time only."""
    late = {(row.perturbation, row.metric, row.variant): row for row in rows if row.time == "T"}
    return [
        _persistence(row, late[row.perturbation, row.metric, row.variant], level)
        for row in rows
        if row.time == "t0+W" and (row.perturbation, row.metric, row.variant) in late
    ]


def _persistence(early: Row, late: Row, level: float) -> Persistence:
    undefined = Persistence(early.perturbation, early.metric, early.variant, None, None)
    if early.exactly_zero:
        return replace(undefined, reason="undefined: the effect at t0+W is exactly 0")
    numerator, denominator = np.array(late.effect_per_seed), np.array(early.effect_per_seed)
    if len(denominator) < MIN_PAIRS:
        reason = f"undefined: fewer than {MIN_PAIRS} pairs with an effect at t0+W"
        return replace(undefined, reason=reason)
    ratio = fieller_interval(numerator, denominator, level)
    if ratio is None:
        return replace(undefined, reason="undefined: the effect at t0+W is not established")
    if late.exactly_zero:
        return replace(undefined, ratio=0.0, reason="the effect at T is exactly 0 (bit-identical)")
    left_over = numerator - ratio.value * denominator
    if np.ptp(left_over) <= RELATIVE_ZERO * np.abs(numerator).max():
        reason = "every seed gives the same ratio: a standard deviation of 0 gives no interval"
        return replace(undefined, ratio=ratio.value, reason=reason)
    return replace(undefined, ratio=ratio.value, interval=ratio.interval)
