from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from auditkit.formats.structure import to_dict
from auditkit.records.estimate import SignedEstimate
from auditkit.statistics import inference
from auditkit.statistics.persistence import (
    fieller_interval,
    persistences,
    ruled_out_ratios,
)

Values = NDArray[np.float64]
ROW = SignedEstimate(
    *("momentum-reset", "nll", "as-is", "T", "primary"),
    seeds=tuple(range(5)),
    per_seed=(0.0,) * 5,
    n=5,
    n_left_out=0,
)


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


def test_an_unbounded_set_leaves_out_what_the_t_test_rejects() -> None:
    """Against brute force: every ratio of a grid is tested by itself."""
    grid = np.concatenate([-np.geomspace(1e-3, 1e3, 300), [0.0], np.geomspace(1e-3, 1e3, 300)])
    kinds = set()
    for seed in range(60):
        y, x = draw(5, seed, 0.5), draw(5, seed + 100, 1.5)
        if fieller_interval(x, y) is not None:
            continue
        found = ruled_out_ratios(x, y)
        rejected = stats.ttest_1samp(x - grid[:, None] * y, 0, axis=1).pvalue < 0.05
        kinds.add(found is None)
        if found is None:
            assert not rejected.any()
            continue
        assert found.low is not None
        assert found.high is not None
        assert rejected.tolist() == ((found.low < grid) & (grid < found.high)).tolist()
        for end in (found.low, found.high):
            assert stats.ttest_1samp(x - end * y, 0).pvalue == pytest.approx(0.05, abs=1e-9)
    assert kinds == {True, False}


def test_a_denominator_whose_interval_ends_at_0_leaves_out_one_side() -> None:
    signs = np.array([1.0, -1.0, 0.0])
    t = float(stats.t.ppf(0.975, 2))
    y = signs + t / np.sqrt(3)  # its t interval begins at 0
    x = np.array([0.01, -0.01, 0.02]) + 1
    assert fieller_interval(x, y) is None
    found = ruled_out_ratios(x, y)
    assert found is not None
    assert found.low is None
    assert found.high is not None
    assert stats.ttest_1samp(x - found.high * y, 0).pvalue == pytest.approx(0.05, abs=1e-9)
    mirrored = ruled_out_ratios(x, -y)
    assert mirrored is not None
    assert mirrored.low == pytest.approx(-found.high)
    assert mirrored.high is None
    assert ruled_out_ratios(np.zeros(4), np.zeros(4)) is None


def test_persistence_says_which_ratios_are_left() -> None:
    early = replace(ROW, time="t0+W", per_seed=(0.5, -0.4, 0.3, -0.2, 0.9))
    late = replace(ROW, per_seed=(5.0, 5.1, 4.9, 5.2, 5.0))
    (row,) = persistences([early, late], 0.95)
    assert row.ratio is None
    assert row.ruled_out is not None
    assert row.reason is not None
    low, high = row.ruled_out.low, row.ruled_out.high
    assert row.reason.endswith(f"; only ratios between {low:.3g} and {high:.3g} are ruled out")
    (row,) = persistences([replace(early, time="T"), early], 0.95)
    assert row.ruled_out is None
    assert (row.reason or "").endswith("; every ratio is possible")
    assert "ruled_out" not in to_dict(row)
