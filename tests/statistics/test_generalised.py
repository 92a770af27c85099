from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.formula.api import ols
from synthetic_outcomes import NAME, diverged, outcome_of, plan_of, study_of

from auditkit.records.further_estimates import Generalised
from auditkit.records.observed import Observed
from auditkit.statistics import metrics
from auditkit.statistics.estimands import estimate
from auditkit.statistics.examples import distance_examples, margins, signed_examples
from auditkit.statistics.generalised import generalised, two_way_interval
from auditkit.statistics.inference import t_interval
from auditkit.statistics.outcomes import SeedOutcomes


def crossed(seed: int, n_seeds: int, n_examples: int, sds: tuple[float, float, float]) -> object:
    rng = np.random.default_rng(seed)
    return (
        sds[0] * rng.normal(size=(n_seeds, 1))
        + sds[1] * rng.normal(size=(1, n_examples))
        + sds[2] * rng.normal(size=(n_seeds, n_examples))
    )


@pytest.mark.parametrize("sds", [(0.3, 1.0, 0.5), (1.0, 0.2, 0.1)])
def test_two_way_interval_agrees_with_statsmodels(sds: tuple[float, float, float]) -> None:
    table = np.asarray(crossed(1, 4, 15, sds))
    long = pandas.DataFrame(
        {
            "y": table.ravel(),
            "seed": np.repeat(np.arange(4), 15),
            "example": np.tile(np.arange(15), 4),
        }
    )
    anova = sm.stats.anova_lm(ols("y ~ C(seed) + C(example)", long).fit())
    squares, df = anova["sum_sq"] / anova["df"], anova["df"]
    total = squares["C(seed)"] + squares["C(example)"] - squares["Residual"]
    expected_df = total**2 / (squares**2 / df).sum()
    found = two_way_interval(table)
    assert found is not None
    bare = stats.t.ppf(0.975, 3) * np.sqrt(squares["C(seed)"] / table.size)
    wide = stats.t.ppf(0.975, max(expected_df, 3)) * np.sqrt(total / table.size)
    half = max(bare, wide)  # more degrees of freedom make nobody surer of other examples
    assert found.df == pytest.approx(3 if bare > wide else max(expected_df, 3), abs=1e-9)
    assert (bare > wide) == (sds == (1.0, 0.2, 0.1))
    assert found.mean == pytest.approx(table.mean(), abs=1e-9)
    assert found.interval.low == pytest.approx(table.mean() - half, abs=1e-9)
    assert found.interval.high == pytest.approx(table.mean() + half, abs=1e-9)


def test_examples_that_do_not_differ_leave_the_t_interval_of_the_seeds() -> None:
    """MS of examples below that of the residual: no negative variance, and no narrower interval."""
    seeds = np.array([0.1, 0.5, 0.9, 0.2])
    checkers = np.where(np.add.outer(np.arange(4), np.arange(6)) % 2, 1.0, -1.0)
    found, bare = two_way_interval(seeds[:, None] + checkers), t_interval(seeds)
    assert found is not None
    assert bare is not None
    assert found.df == 3
    assert (found.interval.low, found.interval.high) == pytest.approx((bare.low, bare.high))


def test_where_there_is_nothing_to_generalise_from() -> None:
    assert two_way_interval(np.ones((1, 5))) is None
    assert two_way_interval(np.ones((5, 1))) is None
    assert two_way_interval(np.ones((4, 5))) is None


def test_the_two_way_interval_covers_new_examples_and_that_of_the_seeds_does_not() -> None:
    held, bare = 0, 0
    for seed in range(400):
        table = np.asarray(crossed(seed, 5, 60, (0.01, 0.2, 0.1)))
        wide, narrow = two_way_interval(table), t_interval(table.mean(axis=1))
        assert wide is not None
        assert narrow is not None
        held += (wide.interval.low or 0) < 0 < (wide.interval.high or 0)
        bare += (narrow.low or 0) < 0 < (narrow.high or 0)
    assert held / 400 > 0.92
    assert bare / 400 < 0.75


def test_examples_are_what_the_metrics_are_the_mean_of() -> None:
    outcome = outcome_of(0)
    control, branch = outcome.control.tables["T"], outcome.treatments[NAME].tables["T"]
    for name, each in signed_examples(branch, outcome.labels).items():
        expected = metrics.SIGNED[name](branch, outcome.labels)
        assert each.mean() == pytest.approx(expected, abs=1e-9)
    found = distance_examples(control, branch)
    assert set(found) == set(metrics.DISTANCES)
    for name, each in found.items():
        assert each.mean() == pytest.approx(metrics.DISTANCES[name](control, branch), abs=1e-9)
    edge = np.array([[1.0, 0.0], [0.25, 0.75]])
    assert distance_examples(edge, edge[::-1])["js"][0] == pytest.approx(
        metrics.js(edge[:1], edge[1:])
    )
    assert margins(edge).tolist() == [1.0, 0.5]


def one(rows: tuple[Generalised, ...], metric: str, time: str = "T") -> Generalised:
    (row,) = [row for row in rows if (row.metric, row.time) == (metric, time)]
    return row


def test_effects_are_those_of_the_rows_and_intervals_wider() -> None:
    plan = plan_of(5)
    result = estimate(study_of(5), plan, generalise_probe=True)
    assert {row.metric for row in result.generalised} == {
        *("accuracy", "nll", "brier", "tv", "js", "hellinger", "churn")
    }
    for row in result.rows:
        if row.metric in ("ece", "squared_calibration_error"):
            continue
        wide = one(result.generalised, row.metric, row.time)
        assert wide.effect == pytest.approx(np.mean(row.effect_per_seed), abs=1e-9)
        assert (wide.n_seeds, wide.n_examples) == (5, 48)
    assert estimate(study_of(5), plan).generalised == ()


def test_what_diverged_is_left_out_and_no_floor_gives_no_distance() -> None:
    outcomes = study_of(5)
    outcomes[0] = replace(outcomes[0], control=diverged())
    outcomes[1] = replace(outcomes[1], treatments={NAME: diverged()})
    rows, why = generalised(outcomes, plan_of(5), 0.95)
    assert one(rows, "nll").n_seeds == 3
    assert why == ()
    bare = [replace(outcome, placebos=(diverged(),) * 3) for outcome in study_of(3)]
    rows, _ = generalised(bare, plan_of(3), 0.95)
    assert {row.metric for row in rows} == {"accuracy", "nll", "brier"}


def test_equal_bits_have_no_estimate() -> None:
    same = [replace(outcome, treatments={NAME: outcome.control}) for outcome in study_of(4)]
    assert generalised(same, plan_of(4), 0.95) == ((), ())


def other_probe(outcome: SeedOutcomes) -> SeedOutcomes:
    return replace(outcome, labels=outcome.labels[::-1].copy())


def embedded(outcome: SeedOutcomes) -> SeedOutcomes:
    return replace(outcome, observed=Observed(outputs=("embedding",)))


def test_it_says_why_there_is_none() -> None:
    first, *others = study_of(4)
    for outcomes, why in (
        ([first, *others[:1]], "no two-way interval: fewer than 3 seeds"),
        ([other_probe(first), *others], "no two-way interval: the probe differs between seeds"),
        (
            [embedded(outcome) for outcome in (first, *others)],
            "no two-way interval: of embeddings it is not computed",
        ),
    ):
        assert generalised(outcomes, plan_of(4), 0.95) == ((), (why,))
    result = estimate([other_probe(first), *others], plan_of(4), generalise_probe=True)
    assert "no two-way interval: the probe differs between seeds" in result.notes
