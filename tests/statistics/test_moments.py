from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from auditkit.statistics import moments


@pytest.mark.parametrize(
    "values", [np.array([]), np.array([0.4]), np.zeros(5), 0.1 + np.array([0, 1e-17, -1e-17])]
)
def test_without_spread_there_is_no_skewness(values: NDArray[np.float64]) -> None:
    assert not moments.standard_deviation(values)
    assert moments.skewness(values) is None


def test_both_agree_with_scipy() -> None:
    values = np.exp(np.random.default_rng(0).normal(size=9))
    assert moments.skewness(values) == pytest.approx(stats.skew(values, bias=False))
    assert moments.standard_deviation(values) == pytest.approx(stats.tstd(values))
