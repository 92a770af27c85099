from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from auditkit.statistics.spreads import heterogeneity, prediction_interval


def drawn(n: int, k: int, seed: int, tau: float = 0.0) -> tuple[list[float], list[list[float]]]:
    rng = np.random.default_rng(seed)
    level = rng.normal(size=n)
    treated = level + rng.normal(0.5, tau, n) + rng.normal(size=n)
    return treated.tolist(), (level[:, None] + rng.normal(size=(n, k))).tolist()


@pytest.mark.parametrize(("n", "k", "seed", "tau"), [(3, 2, 0, 3), (8, 4, 1, 2), (20, 4, 2, 0)])
def test_heterogeneity_agrees_with_statsmodels(n: int, k: int, seed: int, tau: float) -> None:
    treated, replicates = drawn(n, k, seed, tau)
    if n == 8:
        replicates[2] = replicates[2][:2]  # two of its placebos diverged
    groups = [np.array(each) for each in replicates]
    effects = np.array(treated) - [each.mean() for each in groups]
    df = sum(len(each) - 1 for each in groups)
    noise = sum(each.var() * len(each) for each in groups) / df
    variances = noise * np.array([1 + 1 / len(each) for each in groups])
    expected: Any = combine_effects(effects, variances, method_re="chi2")
    found = heterogeneity(treated, replicates)
    assert found is not None
    assert found.noise_df == df
    assert found.q == pytest.approx(expected.q, abs=1e-9)
    assert found.tau**2 == pytest.approx(max(expected.tau2, 0), abs=1e-9)
    assert found.i_squared == pytest.approx(max(expected.i2, 0), abs=1e-9)
    assert found.p == pytest.approx(stats.f.sf(expected.q / (n - 1), n - 1, df), abs=1e-9)
    assert found.noise_sd == pytest.approx(np.sqrt(variances.mean()), abs=1e-9)


def test_the_test_of_heterogeneity_has_its_size() -> None:
    """Equal effects: 5 % of 1,000 studies of five seeds are told apart, within three errors."""
    p = [heterogeneity(*drawn(5, 4, seed)) for seed in range(1000)]
    rejected = np.mean([found is not None and (found.p or 1) <= 0.05 for found in p])
    assert abs(rejected - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 1000)


def test_without_noise_all_of_the_spread_is_between_seeds() -> None:
    found = heterogeneity([1.0, 2.0, 4.0], [[0.5, 0.5]] * 3)
    assert found is not None
    assert (found.noise_sd, found.i_squared, found.q, found.p) == (0.0, 1.0, None, None)
    assert found.tau == pytest.approx(np.std([1, 2, 4], ddof=1))
    same = heterogeneity([1.0, 1.0], [[0.5, 0.5]] * 2)
    assert same is not None
    assert (same.tau, same.i_squared) == (0.0, 0.0)


@pytest.mark.parametrize("size", [1e-6, 1e-14, 1e-30])
def test_noise_far_below_the_effects_is_noise(size: float) -> None:
    """As of CKA's distance, which goes with the square of a nudge: no threshold is in between."""
    found = heterogeneity([0.01, 0.02, 0.04], [[size, 3 * size]] * 3)
    assert found is not None
    assert found.noise_sd == pytest.approx(size * np.sqrt(2 * 1.5))
    assert found.i_squared == pytest.approx(1.0)
    assert found.p == pytest.approx(0.0, abs=1e-9)
    equal = heterogeneity([0.01, 0.02, 0.04], [[size, size * (1 + 1e-15)]] * 3)
    assert equal is not None
    assert (equal.noise_sd, equal.p) == (0.0, None)


def test_without_replicates_there_is_no_heterogeneity() -> None:
    assert heterogeneity([1.0, 2.0, 3.0], [[0.5]] * 3) is None
    assert heterogeneity([1.0], [[0.5, 0.4]]) is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_heterogeneity_is_never_nan(treated: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    replicates = (
        rng.normal(size=(len(treated), 3)) * rng.choice([0, 1e-150, 1e-57, 1, 1e3])
    ).tolist()
    found = heterogeneity(treated, replicates)
    assert found is not None
    assert np.isfinite(
        [found.noise_sd, found.tau, found.i_squared, found.q or 0, found.p or 0]
    ).all()


def test_prediction_interval_by_its_definition() -> None:
    values = np.random.default_rng(3).normal(size=7)
    found = prediction_interval(values, 0.9)
    half = stats.t.ppf(0.95, 6) * values.std(ddof=1) * np.sqrt(1 + 1 / 7)
    assert found is not None
    assert found.low == pytest.approx(values.mean() - half, abs=1e-9)
    assert found.high == pytest.approx(values.mean() + half, abs=1e-9)
    assert prediction_interval(np.ones(4), 0.95) is None


def test_the_prediction_interval_holds_the_next_seed_as_often_as_it_says() -> None:
    values = np.random.default_rng(4).normal(size=(2000, 6))
    found = [prediction_interval(row[:5], 0.95) for row in values]
    held = [
        f is not None and f.low is not None and f.high is not None and f.low < row[5] < f.high
        for f, row in zip(found, values, strict=True)
    ]
    assert abs(np.mean(held) - 0.95) < 0.015
