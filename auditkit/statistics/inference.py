"""Intervals and tests that have a formula.

The unit is the seed: every array ``(n,)`` holds one number a seed, float64, in the unit of the
metric. A function returns None where its quantity does not exist (too few values, no spread);
how many pairs a study should have before a number is shown is for ``estimands`` to decide.
Methods that resample are in ``resampling``, corrections for many tests in ``multiplicity``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special  # its stats take a second to load, and are these functions

from auditkit.records.estimate import Interval
from auditkit.statistics.moments import standard_deviation

Values = NDArray[np.float64]


@dataclass(frozen=True)
class TTest:
    """A paired t test.

    Attributes:
        t: Statistic.
        df: Degrees of freedom.
        p: Two-sided p value.
    """

    t: float
    df: int
    p: float


def t_interval(values: Values, level: float = 0.95) -> Interval | None:
    """Student's interval for the mean of paired differences ``(n,)``.

    None for n < 2 and where all values are equal: an interval of width 0 would claim
    certainty that a handful of equal values does not give.
    """
    sd = standard_deviation(values)
    if not sd:
        return None
    half = float(special.stdtrit(len(values) - 1, (1 + level) / 2)) * sd / math.sqrt(len(values))
    mean = float(values.mean())
    return Interval(mean - half, mean + half, level)


def paired_t_test(values: Values) -> TTest | None:
    """Two-sided t test that paired differences ``(n,)`` have mean 0; None as for the interval."""
    sd = standard_deviation(values)
    if not sd:
        return None
    df = len(values) - 1
    t = float(values.mean()) / (sd / math.sqrt(len(values)))
    return TTest(t, df, float(2 * special.stdtr(df, -abs(t))))


def cohens_dz(values: Values) -> float | None:
    """d_z: mean over standard deviation of paired differences ``(n,)``; None without spread."""
    sd = standard_deviation(values)
    return float(values.mean()) / sd if sd else None


def non_inferiority_p(values: Values, margin: float) -> float | None:
    """One-sided p of the t test of non-inferiority, whose null is mean >= margin.

    Args:
        values: ``(n,)``.
        margin: In the unit of ``values``.

    Returns:
        None as for the interval.
    """
    test = paired_t_test(values - margin)
    return float(special.stdtr(test.df, test.t)) if test else None


def log_non_inferiority_p(distances: Sequence[tuple[float, float]], margin: float) -> float | None:
    """One-sided p of the t test that distances are typically below their floor and a margin.

    Distances are skewed to the right, and a t bound of their mean is then too low (true size .13
    to .24 at a nominal .05 for n = 3 .. 10). Logarithms cure that: the null is that the mean of
    log(distance) - log(floor + margin) is at least 0. So it speaks of the typical seed (the
    geometric mean), which is less than the mean where single seeds lie far out.

    Args:
        distances: Of each seed the treatment's distance, and its floor.
        margin: In the unit of the distances, more than 0.

    Returns:
        None as for the interval, and where a distance is 0, which has no logarithm.
    """
    if not distances or any(distance <= 0 for distance, _ in distances):
        return None
    ratios = [math.log(distance) - math.log(floor + margin) for distance, floor in distances]
    return non_inferiority_p(np.array(ratios), 0.0)


def tost_p(values: Values, margin: float) -> float | None:
    """Two one-sided t tests (TOST) that -margin < mean < margin: the larger p.

    Schuirmann 1987. At most alpha exactly when the 1 - 2 alpha t interval lies inside the
    margin. None as for the interval.
    """
    upper = non_inferiority_p(values, margin)
    lower = non_inferiority_p(-values, margin)
    return None if upper is None or lower is None else max(upper, lower)
