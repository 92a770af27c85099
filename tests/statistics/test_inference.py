from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from auditkit.statistics import inference

Values = NDArray[np.float64]


def draw(n: int, seed: int = 0, shift: float = 0.3) -> Values:
    return np.random.default_rng(seed).normal(shift, 1, n)


@pytest.mark.parametrize("n", [2, 3, 8, 20])
def test_t_test_and_interval_agree_with_scipy(n: int) -> None:
    treated, control = draw(n, 1), draw(n, 2)
    expected = stats.ttest_rel(treated, control)
    test = inference.paired_t_test(treated - control)
    interval = inference.t_interval(treated - control, 0.9)
    assert test is not None
    assert interval is not None
    assert (test.t, test.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert test.df == n - 1
    reference = expected.confidence_interval(0.9)
    assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high))
    d_z = inference.cohens_dz(treated - control)
    assert d_z == pytest.approx(test.t / np.sqrt(n))


@pytest.mark.parametrize(
    "values", [np.array([]), np.array([0.4]), np.zeros(5), 0.1 + np.array([0, 1e-17, -1e-17])]
)
def test_without_spread_there_is_nothing_to_test(values: Values) -> None:
    assert inference.paired_t_test(values) is None
    assert inference.t_interval(values) is None
    assert inference.cohens_dz(values) is None
    assert inference.tost_p(values, 1.0) is None


@pytest.mark.parametrize("margin", [0.2, 1.0, 3.0])
def test_tost_agrees_with_statsmodels(margin: float) -> None:
    treated, control = draw(9, 3, 0.0), draw(9, 4, 0.0)
    expected, _, _ = ttost_paired(treated, control, -margin, margin)
    assert inference.tost_p(treated - control, margin) == pytest.approx(expected)


def test_tost_is_the_interval_inside_the_margin() -> None:
    for seed in range(40):
        values = draw(8, seed, 0.2)
        interval = inference.t_interval(values, 0.90)
        p = inference.tost_p(values, 0.9)
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        assert p is not None
        assert (p <= 0.05) == (interval.low >= -0.9 and interval.high <= 0.9)


def test_upper_bound_is_the_one_sided_t_test() -> None:
    values = draw(12)
    expected = stats.ttest_1samp(values, 0.8, alternative="less").pvalue
    assert inference.non_inferiority_p(values, 0.8) == pytest.approx(expected)


def test_equivalence_of_logarithms_agrees_with_scipy() -> None:
    distances, floors = np.exp(draw(6, 3)), np.exp(draw(6, 4))
    expected = stats.ttest_1samp(np.log(distances / (floors + 0.5)), 0, alternative="less")
    pairs = list(zip(distances.tolist(), floors.tolist(), strict=True))
    assert inference.log_non_inferiority_p(pairs, 0.5) == pytest.approx(expected.pvalue, abs=1e-9)


def test_a_distance_of_0_has_no_logarithm() -> None:
    assert inference.log_non_inferiority_p([(0.1, 0.1), (0.0, 0.1), (0.2, 0.1)], 0.5) is None
    assert inference.log_non_inferiority_p([], 0.5) is None
    assert inference.log_non_inferiority_p([(0.1, 0.0), (0.2, 0.0), (0.3, 0.0)], 0.5) is not None
