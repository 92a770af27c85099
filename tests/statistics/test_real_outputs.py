"""Metrics of real numbers against scikit-learn, and against sums written out."""

from __future__ import annotations

import json

import cattrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from auditkit.errors import FormatError
from auditkit.paper.citations import floor_summary
from auditkit.records.observed import Observed
from auditkit.records.output_kinds import BETTER, KINDS, SIZELESS
from auditkit.records.plan import StudyPlan
from auditkit.statistics import real_outputs as metrics
from auditkit.statistics.estimands import estimate
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes
from auditkit.statistics.real_tables import RealTable, growth_named, scale_of, why_no_r2

Reals = NDArray[np.float64]

numbers = st.floats(-1e3, 1e3, width=32)
pairs = st.tuples(st.integers(1, 6), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(*(arrays(np.float32, shape, elements=numbers),) * 2)
)


def random_table(n: int = 20, d: int = 3, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_registries_are_the_records() -> None:
    assert tuple(metrics.SIGNED_OF_REALS) == KINDS["regression"].signed == tuple(BETTER)


@given(pairs)
def test_errors_are_scikit_learns(pair: tuple[Reals, Reals]) -> None:
    table, targets = (each.astype(np.float64) for each in pair)
    found = metrics.signed_of_reals(table, targets)
    assert found["mse"] == pytest.approx(mean_squared_error(targets, table), rel=1e-9)
    assert found["rmse"] == pytest.approx(mean_squared_error(targets, table) ** 0.5, rel=1e-9)
    assert found["mae"] == pytest.approx(mean_absolute_error(targets, table), rel=1e-9)
    if "r2" in found:
        assert found["r2"] == pytest.approx(r2_score(targets, table), rel=1e-6)
    else:
        assert metrics.has_constant_output(targets)
    assert all(np.isfinite(value) for value in found.values())


def test_r2_is_not_made_up_where_targets_are_constant() -> None:
    table, targets = random_table(), random_table(seed=1)
    assert metrics.r2(targets, targets) == 1.0
    targets[:, 1] = 0.1
    with pytest.raises(FormatError, match="no variance to explain"):
        metrics.r2(table, targets)
    assert "r2" not in metrics.signed_of_reals(table, targets)
    assert why_no_r2([random_table(), targets]) is not None
    assert why_no_r2([random_table(), np.empty((0, 1))]) is None
    assert metrics.has_constant_output(random_table(n=1))


def test_the_scaled_distance_does_not_depend_on_the_outputs_units() -> None:
    controls = [random_table(seed=seed) for seed in range(4)]
    branch = controls[0] + 0.1 * random_table(seed=9)
    units = np.array([1.0, 1024.0, 2.0**-20])
    scale, scaled = (
        metrics.seed_spread(controls),
        metrics.seed_spread([c * units for c in controls]),
    )
    here = metrics.rmsd(controls[0], branch, scale)
    assert metrics.rmsd(controls[0] * units, branch * units, scaled) == pytest.approx(here)
    by_hand = 0.0
    for j in range(3):
        variances = [np.var([c[i, j] for c in controls], ddof=1) for i in range(20)]
        gaps = [float(branch[i, j] - controls[0][i, j]) ** 2 for i in range(20)]
        by_hand += sum(gaps) / 20 / (sum(variances) / 20) / 3
    assert here == pytest.approx(by_hand**0.5, rel=1e-6)


def test_where_there_is_no_unit_it_is_said_why() -> None:
    controls = [RealTable("regression", random_table(seed=seed)) for seed in range(3)]
    targets = [random_table(seed=7)] * 3
    assert "fewer than two" in str(scale_of(controls[:1], targets[:1]))
    assert "differs between seeds" in str(scale_of(controls, [*targets[:2], random_table(seed=8)]))
    shorter = RealTable("regression", random_table(n=5))
    assert "differs between seeds" in str(scale_of([*controls, shorter], [*targets, targets[0]]))
    for table in controls:
        table.values[:, 2] = np.float32(0.1)
    assert "the same in 1 of 3 outputs: a spread of 0" in str(scale_of(controls, targets))


def test_growth_is_told_beside_the_predictions_own_spread() -> None:
    table = random_table()
    for unit in (1.0, 1e-6):
        here = RealTable("regression", table * unit)
        there = RealTable("regression", here.values * 1.01)
        moved = here.growth(here.distances(there, None), None)
        assert moved == pytest.approx(0.01, rel=0.2)
        assert here.size(None)[1] == "the predictions' own SD"


@pytest.mark.parametrize("rounded", [0.0, 1e-7])
def test_without_a_spread_of_their_own_predictions_are_as_large_as_seeds_are_apart(
    rounded: float,
) -> None:
    """Of one example any nudge exceeds a spread of 0, and of equal ones that of rounding."""
    table = RealTable("regression", np.full((4, 1), 10.0) + rounded * np.eye(4)[:, :1])
    scale = np.array([0.5])
    assert table.growth({"rmsd": 0.0}, scale) == 0.0
    assert table.growth({"rmsd": 1e-6}, scale) == pytest.approx(2e-6)
    assert table.growth({"rmsd": 1e-3}, None) == pytest.approx(1e-4)
    assert growth_named([table], scale, "TV") == "an RMSD over the seeds' SD of the predictions of"
    assert growth_named([table], None, "TV") == "an RMSD over the predictions' own size of"
    wide = RealTable("regression", random_table())
    assert growth_named([wide, table], None, "TV") == (
        "an RMSD over the predictions' own SD or the predictions' own size of"
    )
    assert growth_named([None], None, "TV") == "TV"


def test_beside_nothing_at_all_no_nudge_is_large_or_small() -> None:
    nothing = RealTable("regression", np.zeros((4, 2), dtype=np.float32))
    assert nothing.growth({"rmsd": 0.0}, None) == 0.0
    assert nothing.growth({"rmsd": 1e-9}, None) is None
    plan = StudyPlan(6, 3, 14, range(3), ["carry"], placebos=1, primary_metric="rmsd")
    nudged = RealTable("regression", nothing.values + np.float32(1e-9))
    control, placebo = (
        BranchTables(dict.fromkeys(plan.probed, each)) for each in (nothing, nudged)
    )
    observed, targets = Observed(outputs=("regression",)), np.ones((4, 2))
    found = estimate(
        [
            SeedOutcomes(seed, targets, control, (placebo,), {"carry": control}, observed)
            for seed in plan.seeds
        ],
        plan,
    )
    assert (found.floor.developed, found.floor.n_placebos) == (None, 3)
    assert floor_summary(found) == SIZELESS


@pytest.mark.parametrize("shape", [(0, 2), (3, 0), (3,)])
def test_no_table_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FormatError, match="another shape"):
        metrics.as_reals(np.zeros(shape))


def test_what_does_not_fit_is_refused() -> None:
    table = random_table()
    for other in (table[:, :1], table[:5]):
        with pytest.raises(FormatError, match="different shape"):
            metrics.mse(table, other)
        with pytest.raises(FormatError, match="different shape"):
            metrics.rmsd(table, other)
    table[3, 1] = np.nan
    with pytest.raises(FormatError, match="NaN or infinite"):
        metrics.mae(table, random_table())
    with pytest.raises(FormatError, match="beside one of regression"):
        RealTable("regression", table).distances(RealTable("embedding", table), None)


def test_what_is_undefined_at_one_time_has_no_row_there_and_no_persistence() -> None:
    plan = StudyPlan(
        fork_at=10,
        window=5,
        horizon=50,
        seeds=range(3),
        perturbations=["momentum-reset"],
        placebos=1,
        primary_metric="scaled_rmsd",
    )
    targets = random_table(seed=50).astype(np.float64)

    def branch(seed: int) -> BranchTables:
        late = np.ones((20, 3), dtype=np.float32)  # by then every model says the same
        tables = {"t0+W": RealTable("regression", random_table(seed=seed))}
        return BranchTables({**tables, "T": RealTable("regression", late)})

    observed = Observed(outputs=("regression",))
    outcomes = [
        SeedOutcomes(
            seed,
            targets,
            branch(seed),
            (branch(9 + seed),),
            {"momentum-reset": branch(19 + seed)},
            observed,
        )
        for seed in plan.seeds
    ]
    found = estimate(outcomes, plan)
    rows = [(row.metric, row.time) for row in found.distances]
    assert rows == [("rmsd", "t0+W"), ("rmsd", "T"), ("scaled_rmsd", "t0+W")]
    assert "scaled_rmsd is not computed (T): the controls of all seeds" in " ".join(found.notes)
    assert {item.metric for item in found.persistence} == {"mse", "rmse", "mae", "r2", "rmsd"}
    levels = {(level.metric, level.time): level for level in found.levels}
    guess = float(np.square(targets - targets.mean(axis=0)).mean())
    assert levels["mse", "T"].constant_guess == pytest.approx(guess)
    median = float(np.abs(targets - np.median(targets, axis=0)).mean())
    assert levels["mae", "t0+W"].constant_guess == pytest.approx(median)
    assert levels["mse", "T"].at_chance
    json.dumps(cattrs.unstructure(found), allow_nan=False)
