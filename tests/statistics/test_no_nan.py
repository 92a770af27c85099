"""No NaN and no infinity, whatever the effect and however many the seeds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_outcomes import KEYS, NAME, diverged, outcome_of, plan_of, study_of

from auditkit.errors import FormatError
from auditkit.formats import canonical
from auditkit.records.estimate import INCONCLUSIVE, SignedEstimate
from auditkit.statistics import inference, moments, power, resampling
from auditkit.statistics.estimands import estimate
from auditkit.statistics.generalised import two_way_interval
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes
from auditkit.statistics.persistence import persistences
from auditkit.statistics.spreads import heterogeneity, prediction_interval

effects = st.floats(0.05, 10)
seeds = st.integers(2, 1000)


def finite(*values: Any) -> bool:
    """Whether every number in some results is one."""
    flat: list[float] = []
    for value in values:
        parts = vars(value).values() if hasattr(value, "__dict__") else (value,)
        flat += [part for part in parts if isinstance(part, (int, float))]
    return all(math.isfinite(number) for number in flat)


@settings(deadline=None, max_examples=60)
@given(effects, seeds)
def test_power_is_a_probability(d_z: float, n: int) -> None:
    for found in (power.t_test_power(d_z, n), power.equivalence_power(d_z, n)):
        assert 0 <= found <= 1
    needed = power.seeds_for_t_test(d_z)
    assert needed is not None
    assert power.t_test_power(d_z, needed) >= 0.8
    assert needed == 2 or power.t_test_power(d_z, needed - 1) < 0.8


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_the_smallest_effect_is_a_number(n: int) -> None:
    assert finite(power.smallest_effect(n), power.upper_limit(1.0, n))


@settings(deadline=None, max_examples=40)
@given(effects, seeds, st.integers(0, 99))
def test_what_is_estimated_is_finite_or_not_there(d_z: float, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = d_z + rng.normal(size=n)
    noise = rng.normal(size=(n, 3))
    row = SignedEstimate(
        *(NAME, "nll", "as-is", "T", "primary"), tuple(range(n)), tuple(values.tolist()), n, 0
    )
    early = replace(row, time="t0+W", per_seed=tuple((noise[:, 0] + 0.1).tolist()))
    (lasting,) = persistences([early, row], 0.95)
    found = (
        inference.t_interval(values),
        inference.paired_t_test(values),
        inference.cohens_dz(values),
        moments.skewness(values),
        inference.tost_p(values, 0.1),
        inference.log_non_inferiority_p([(abs(v) + 0.1, 0.1) for v in values.tolist()], 1.0),
        prediction_interval(values, 0.95),
        heterogeneity(values.tolist(), noise.tolist()),
        resampling.sign_flip_test(values, draws=99),
        resampling.studentised_bootstrap_interval(values[:30], resamples=99),
        two_way_interval(values[:, None] + noise),
        lasting,
        lasting.interval,
        lasting.ruled_out,
    )
    assert finite(*found)


def with_tables(outcome: SeedOutcomes, table: Any) -> SeedOutcomes:
    return replace(outcome, treatments={NAME: BranchTables(dict.fromkeys(KEYS, table))})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.nan, "probabilities that are NaN or infinite"),
        (np.inf, "probabilities that are NaN or infinite"),
        (0.9, "rows do not sum to 1"),
        (-0.5, "a probability is negative"),
    ],
)
def test_what_is_no_probability_is_refused(value: float, says: str) -> None:
    first, *others = study_of(3)
    table = first.control.tables["T"].copy()
    table[0, 0] = value
    with pytest.raises(FormatError, match=says):
        estimate([with_tables(first, table), *others], plan_of(3))


def test_a_table_of_one_class_is_refused() -> None:
    outcomes = [
        with_tables(replace(o, control=BranchTables(dict.fromkeys(KEYS, one))), one)
        for o in study_of(3)
        for one in (np.ones((48, 1), np.float32),)
    ]
    with pytest.raises(FormatError, match="not a table of probabilities"):
        estimate(outcomes, plan_of(3))


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_seeds_give_values_only(n: int) -> None:
    result = estimate(study_of(n), plan_of(n), generalise_probe=True)
    assert (result.spreads, result.generalised, result.profiles) == ((), (), ())
    for row in result.rows:
        assert row.interval is None
        assert row.studentised is None
        assert row.test_p is None
        assert row.below_p is None
        assert row.verdict == INCONCLUSIVE
        assert "values only: fewer than 3 pairs" in row.notes
    assert all(kept.ratio is None for kept in result.persistence)
    assert b"NaN" not in canonical.encode(result)


def test_a_constant_effect_has_no_spread_and_says_so() -> None:
    outcomes = [replace(outcome_of(0), seed=seed) for seed in range(5)]
    result = estimate(outcomes, plan_of(5), generalise_probe=True)
    assert (result.spreads, result.generalised) == ((), ())
    for row in result.rows:
        assert row.interval is None
        assert any("standard deviation of exactly 0" in note for note in row.notes)
    assert all(part.interval is None for part in result.profiles)
    assert b"NaN" not in canonical.encode(result)


def test_where_all_branches_diverged_nothing_is_left_and_that_is_said() -> None:
    gone = [replace(o, treatments={NAME: diverged()}) for o in study_of(4)]
    result = estimate(gone, plan_of(4), generalise_probe=True)
    assert {row.n for row in result.rows} == {0}
    assert {row.n_left_out for row in result.rows} == {4}
    assert (result.spreads, result.generalised, result.profiles) == ((), (), ())
    assert result.diverged[NAME] == 4
    every = [replace(o, control=diverged(), placebos=(diverged(),) * 3) for o in gone]
    nothing = estimate(every, plan_of(4), generalise_probe=True)
    assert "seeds left out because their control diverged: 4" in nothing.notes
    assert "no two-way interval: fewer than 3 seeds" in nothing.notes
    assert b"NaN" not in canonical.encode(nothing)
