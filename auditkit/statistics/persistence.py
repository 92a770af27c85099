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
from auditkit.statistics.moments import RELATIVE_ZERO

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
        None where the interval would be unbounded (see :func:`ruled_out_ratios`), or for n < 2.
    """
    n = len(numerator)
    if n < 2:
        return None
    a, b, c, y = _fieller_terms(numerator, denominator, level)
    if a <= TOUCHES_ZERO * y * y:
        return None
    # Not negative in exact arithmetic: x / y solves the inequality.
    root = math.sqrt(max(b * b - a * c, 0.0))
    return Ratio(float(numerator.mean()) / y, Interval((b - root) / a, (b + root) / a, level))


def ruled_out_ratios(
    numerator: Values, denominator: Values, level: float = 0.95
) -> Interval | None:
    """The ratios that Fieller's set leaves out, where it is unbounded.

    An unbounded set is all ratios but those of one open interval, or all of them; where the
    denominator's own t interval ends exactly at 0, that interval has one end only.

    Args:
        numerator: ``(n,)``.
        denominator: ``(n,)``, of the same seeds, n >= 2.
        level: Coverage.

    Returns:
        What is left out; None where nothing is.
    """
    a, b, c, y = _fieller_terms(numerator, denominator, level)
    if a >= -TOUCHES_ZERO * y * y:
        if b == 0:
            return None
        edge = c / (2 * b)
        return Interval(None, edge, level) if b > 0 else Interval(edge, None, level)
    inside = b * b - a * c
    if inside <= 0:
        return None
    root = math.sqrt(inside)
    return Interval((b + root) / a, (b - root) / a, level)


def _fieller_terms(
    numerator: Values, denominator: Values, level: float
) -> tuple[float, float, float, float]:
    """Of the set of ratios a r^2 - 2 b r + c <= 0 the three factors; and the denominator's mean."""
    n = len(numerator)
    x, y = float(numerator.mean()), float(denominator.mean())
    covariance = np.cov(numerator, denominator) / n  # (2, 2), of the means
    t2 = float(special.stdtrit(n - 1, (1 + level) / 2)) ** 2
    a = y * y - t2 * float(covariance[1, 1])
    b = x * y - t2 * float(covariance[0, 1])
    c = x * x - t2 * float(covariance[0, 0])
    return a, b, c, y


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
        return _not_established(undefined, ruled_out_ratios(numerator, denominator, level))
    if late.exactly_zero:
        return replace(undefined, ratio=0.0, reason="the effect at T is exactly 0 (bit-identical)")
    left_over = numerator - ratio.value * denominator
    if np.ptp(left_over) <= RELATIVE_ZERO * np.abs(numerator).max():
        reason = "every seed gives the same ratio: a standard deviation of 0 gives no interval"
        return replace(undefined, ratio=ratio.value, reason=reason)
    return replace(undefined, ratio=ratio.value, interval=ratio.interval)


def _not_established(undefined: Persistence, ruled_out: Interval | None) -> Persistence:
    """What is said of an unbounded set."""
    reason = "undefined: the effect at t0+W is not established"
    if ruled_out is None:
        return replace(undefined, reason=f"{reason}; every ratio is possible")
    if ruled_out.low is None:
        which = f"below {ruled_out.high:.3g}"
    elif ruled_out.high is None:
        which = f"above {ruled_out.low:.3g}"
    else:
        which = f"between {ruled_out.low:.3g} and {ruled_out.high:.3g}"
    reason = f"{reason}; only ratios {which} are ruled out"
    return replace(undefined, reason=reason, ruled_out=ruled_out)
