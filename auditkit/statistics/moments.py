"""Spread and skewness of a few numbers, some of which may be equal but for rounding."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

#: Spread below which values count as equal, relative to the largest of them: differences of
#: means carry rounding errors of about 1e-16, and a t statistic made of those is noise.
RELATIVE_ZERO = 1e-12


def standard_deviation(values: Values) -> float | None:
    """Standard deviation (n - 1) of values ``(n,)``; 0 where they are equal but for rounding.

    None for fewer than two values.
    """
    if len(values) < 2:
        return None
    if np.ptp(values) <= RELATIVE_ZERO * np.abs(values).max():
        return 0.0
    return float(np.std(values, ddof=1))


def skewness(values: Values) -> float | None:
    """Adjusted Fisher-Pearson skewness G1 of values ``(n,)``; None for n < 3 or no spread."""
    if len(values) < 3 or not standard_deviation(values):
        return None
    n, standardised = len(values), (values - values.mean()) / np.std(values)
    return math.sqrt(n * (n - 1)) / (n - 2) * float(np.mean(standardised**3))
