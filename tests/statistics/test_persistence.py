from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from auditkit.statistics import inference
from auditkit.statistics.persistence import fieller_interval

Values = NDArray[np.float64]


def draw(n: int, seed: int = 0, shift: float = 0.3) -> Values:
    return np.random.default_rng(seed).normal(shift, 1, n)


def test_fieller_holds_the_ratios_that_the_t_test_does_not_reject() -> None:
    y = draw(10, 6, 4.0)
    x = 0.5 * y + 0.3 * draw(10, 7, 0.0)
    ratio = fieller_interval(x, y)
    assert ratio is not None
    assert ratio.value == pytest.approx(x.mean() / y.mean())
    for end in (ratio.interval.low, ratio.interval.high):
        assert end is not None
        assert stats.ttest_1samp(x - end * y, 0).pvalue == pytest.approx(0.05)


def test_fieller_is_undefined_exactly_where_the_denominator_may_be_0() -> None:
    for seed in range(60):
        y, x = draw(6, seed, 0.9), draw(6, seed + 100, 0.5)
        assert (fieller_interval(x, y) is None) == (stats.ttest_1samp(y, 0).pvalue >= 0.05)
    assert fieller_interval(np.zeros(4), np.zeros(4)) is None
    assert fieller_interval(np.ones(1), np.ones(1)) is None


def test_fieller_of_a_constant_denominator() -> None:
    x = draw(5)
    ratio, interval = fieller_interval(x, np.full(5, 2.0)), inference.t_interval(x)
    assert ratio is not None
    assert interval is not None
    assert interval.low is not None
    assert ratio.interval.low == pytest.approx(interval.low / 2)
