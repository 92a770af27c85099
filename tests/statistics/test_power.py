from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower

from auditkit.errors import PlanError
from auditkit.statistics import power, relabeling_power
from auditkit.statistics.power import (
    equivalence_power,
    seeds_for_equivalence,
    seeds_for_sign_flip,
    seeds_for_t_test,
    smallest_effect,
    t_test_power,
    upper_limit,
)
from auditkit.statistics.relabeling_power import permutation_power


@pytest.mark.parametrize("n", [2, 3, 5, 8, 20, 34, 100, 1000])
@pytest.mark.parametrize("d_z", [0.05, 0.2, 0.5, 0.8, 1.0, 2.0])
def test_power_is_that_of_an_independent_library(d_z: float, n: int) -> None:
    expected = TTestPower().power(d_z, n, 0.05, alternative="two-sided")
    if math.isnan(expected):  # where it is nearly 1
        expected = 1.0
    assert t_test_power(d_z, n) == pytest.approx(expected, abs=1e-7)


@given(st.floats(0.05, 10), st.integers(2, 1000), st.sampled_from([0.001, 0.05, 0.1]))
@settings(max_examples=200, deadline=None)
def test_power_is_a_probability_that_grows(d_z: float, n: int, alpha: float) -> None:
    power = t_test_power(d_z, n, alpha)
    assert alpha - 1e-9 <= power <= 1
    assert t_test_power(d_z, n + 1, alpha) >= power - 1e-9
    assert t_test_power(d_z + 0.1, n, alpha) >= power - 1e-9
    assert t_test_power(-d_z, n, alpha) == pytest.approx(power, abs=1e-12)


def test_without_an_effect_power_is_the_size() -> None:
    for n in (2, 3, 10, 200):
        assert t_test_power(0.0, n) == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize(("d_z", "n"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_of_the_textbooks(d_z: float, n: int) -> None:
    assert seeds_for_t_test(d_z) == n
    assert t_test_power(d_z, n) >= 0.8 > t_test_power(d_z, n - 1)
    assert smallest_effect(n) <= d_z < smallest_effect(n - 1)


@pytest.mark.parametrize(("n", "d_z"), [(3, 3.26), (5, 1.68), (8, 1.16), (20, 0.66)])
def test_the_smallest_effect_of_few_seeds(n: int, d_z: float) -> None:
    assert smallest_effect(n) == pytest.approx(d_z, abs=0.005)
    assert t_test_power(smallest_effect(n), n) == pytest.approx(0.8, abs=1e-9)


def test_no_effect_and_no_room_need_no_number_of_seeds() -> None:
    assert seeds_for_t_test(0.0) is None
    assert seeds_for_t_test(1e-4) is None
    assert seeds_for_equivalence(1.0, true_z=1.0) is None


def test_power_of_equivalence_is_what_a_simulation_finds() -> None:
    random = np.random.default_rng(0)
    for margin, n, true in ((1.0, 12, 0.0), (1.5, 8, 0.5), (0.3, 6, 0.0)):
        x = random.normal(true, 1.0, size=(40_000, n))
        half = stats.t.ppf(0.95, n - 1) * x.std(axis=1, ddof=1) / math.sqrt(n)
        inside = (np.abs(x.mean(axis=1)) < margin - half).mean()
        assert equivalence_power(margin, n, true) == pytest.approx(inside, abs=0.01)
    n_seeds = seeds_for_equivalence(1.0)
    assert n_seeds is not None
    assert equivalence_power(1.0, n_seeds) >= 0.8 > equivalence_power(1.0, n_seeds - 1)


@pytest.mark.parametrize(("m", "n"), [(1, 6), (5, 8), (10, 9), (20, 10), (40, 11), (100, 12)])
def test_seeds_from_which_signs_can_tell(m: int, n: int) -> None:
    assert seeds_for_sign_flip(m) == n
    assert 2.0 ** (1 - n) * m <= 0.05 < 2.0 ** (2 - n) * m


@pytest.mark.parametrize(("n", "factor"), [(3, 2.117), (5, 1.558), (8, 1.353), (10, 1.293)])
def test_the_upper_limit_of_a_pilots_spread(n: int, factor: float) -> None:
    assert upper_limit(1.0, n) == pytest.approx(factor, abs=5e-4)
    random = np.random.default_rng(n)
    sds = random.normal(size=(20_000, n)).std(axis=1, ddof=1)
    covered = np.mean([upper_limit(float(sd), n) >= 1 for sd in sds[:4000]])
    assert covered == pytest.approx(0.8, abs=0.02)


def test_no_row_of_a_distance_has_fewer_seeds_than_the_permutation_needs() -> None:
    spreads = (power.Spread("a", "T", (0.0, 0.001, 0.002)),)
    aim = power.Aim("tv", 1.0, n_tests=8, placebos=1)
    report = power.needs_of(aim, spreads, None, (0, 1, 2))
    assert report.rows[0].seeds == report.fewest == 8
    signed = power.needs_of(power.Aim("nll", 1.0, n_tests=8), spreads, None, (0, 1, 2))
    assert signed.rows[0].seeds is not None
    assert signed.rows[0].seeds < signed.fewest


def test_the_curve_is_of_a_row_with_an_answer_and_goes_on_to_it() -> None:
    wide = power.Spread("wide", "T", (0.0, 1000.0, 2000.0))
    narrow = power.Spread("narrow", "T", (0.0, 10.0, 20.0))
    report = power.needs_of(power.Aim("nll", 1.0), (narrow, wide), None, (0, 1, 2))
    first, second = report.rows
    assert (first.perturbation, first.seeds) == ("wide", None)
    assert second.seeds is not None
    assert second.seeds > power.CURVE[-1]
    assert report.of_curve == second
    assert report.curve[-1].seeds == second.seeds
    assert report.curve[-1].power >= report.power > report.curve[-2].power
    hopeless = power.needs_of(power.Aim("nll", 1.0), (wide,), None, (0, 1, 2))
    assert [point.seeds for point in hopeless.curve] == list(power.CURVE)
    assert hopeless.of_curve == hopeless.rows[0]


def test_the_curve_has_the_power_of_the_test_that_gives_the_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relabeling_power, "STUDIES", 60)
    labelled = tuple((0.03 + 0.004 * (n % 3), 0.01, 0.01 + 0.002 * n) for n in range(5))
    excess = tuple(row[0] - (row[1] + row[2]) / 2 for row in labelled)
    spread = power.Spread("a", "T", excess, labelled)
    report = power.needs_of(power.Aim("tv", 0.008, placebos=2), (spread,), None, range(5))
    (row,) = report.rows
    points = {point.seeds: point for point in report.curve}
    assert row.seeds_simulated is not None
    assert points[row.seeds_simulated].power_simulated == row.power_simulated
    expected = permutation_power(labelled, 0.008, row.upper_sd or 0.0, 12, 0.05)
    assert points[12].power_simulated == expected
    assert points[12].power_simulated != points[12].power
    bare = power.needs_of(
        *(power.Aim("tv", 0.008, placebos=2), (replace(spread, labelled=()),), None, range(5))
    )
    assert {point.power_simulated for point in bare.curve} == {None}
    signed = power.needs_of(power.Aim("nll", 0.0005), (replace(spread, labelled=()),), None, ())
    last = signed.curve[-1]
    assert last.seeds > relabeling_power.MOST_SEEDS
    assert last.power_simulated is None
    assert signed.curve[3].power_simulated is not None


def test_a_pilot_that_tells_nothing_is_refused_with_the_reason() -> None:
    aim = power.Aim("tv", 0.1)
    for spreads, words in (
        ((), "every effect of the pilot is exactly 0"),
        ((power.Spread("a", "T", ()),), "no pair of the pilot is left"),
        ((power.Spread("a", "T", (0.1,)),), "have no spread .expected two seeds at least"),
        ((power.Spread("a", "T", (0.1, 0.1)),), "have no spread .expected two seeds at least"),
    ):
        with pytest.raises(PlanError, match=words):
            power.needs_of(aim, spreads, None, ())
