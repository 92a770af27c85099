"""Profiles and two-way intervals of probes that are looked at by position, or give real numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from synthetic_outcomes import KEYS, NAME, diverged, plan_of, study_of

from auditkit.formats import canonical
from auditkit.records.observed import Observed
from auditkit.statistics.estimands import ZERO_WITH_OTHER_BITS, estimate
from auditkit.statistics.examples import distance_examples
from auditkit.statistics.generalised import POSITIONS, RUNS, generalised, two_way_interval
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes
from auditkit.statistics.positions import PositionTable
from auditkit.statistics.profiles import profiles
from auditkit.statistics.real_tables import RealTable
from auditkit.statistics.resampling import within_seed_permutation_test

#: Positions of the synthetic studies, a multiple of RUNS.
N = 80


def by_position(outcome: SeedOutcomes) -> SeedOutcomes:
    """The same seed, of whose tables only the columns were kept."""

    def kept(branch: BranchTables, *, is_control: bool = False) -> BranchTables:
        tables: dict[str, Any] = {}
        for key, table in branch.tables.items():
            wide = np.asarray(table, dtype=np.float64)
            columns: dict[str, NDArray[Any]] = {
                "label_probability": wide[np.arange(len(wide)), outcome.labels],
                "predicted": wide.argmax(axis=1).astype(np.int32),
                "confidence": wide.max(axis=1),
                "sum_of_squares": np.square(wide).sum(axis=1),
            }
            if not is_control:
                apart = distance_examples(outcome.control.tables[key], table)
                columns |= {name: apart[name] for name in ("tv", "js", "hellinger")}
                columns["kl"] = apart["js"]
            tables[key] = PositionTable(columns)
        return BranchTables(tables)

    return replace(
        outcome,
        control=kept(outcome.control, is_control=True),
        placebos=tuple(map(kept, outcome.placebos)),
        treatments={name: kept(branch) for name, branch in outcome.treatments.items()},
    )


def test_of_positions_there_is_what_there_is_of_whole_tables() -> None:
    whole = study_of(4, examples=N)
    kept = [by_position(outcome) for outcome in whole]
    ours, theirs = (profiles(each, plan_of(4), 0.95) for each in (kept, whole))
    assert (ours[1], theirs[1]) == ((), ())
    rows = {(row.time, row.part, row.metric): row for row in theirs[0]}
    assert {row.part for row in ours[0] if "class" not in row.part} == {
        f"confidence {n}/4" for n in range(1, 5)
    }
    for row in ours[0]:
        if row.part.startswith("class"):
            beside = rows[row.time, row.part, row.metric]
            assert row.effect == pytest.approx(beside.effect, abs=1e-9)
            assert row.p == pytest.approx(beside.p, abs=1e-9)
    least = next(r for r in ours[0] if (r.time, r.part) == ("T", "confidence 1/4"))
    right = []
    for outcome in whole:
        mine = np.argsort(outcome.control.tables["t0"].max(axis=1), kind="stable")[: N // 4]
        branches = (outcome.treatments[NAME], outcome.control)
        shares = [
            np.mean(branch.tables["T"][mine].argmax(axis=1) == outcome.labels[mine])
            for branch in branches
        ]
        right.append(shares[0] - shares[1])
    assert least.effect == pytest.approx(np.mean(right), abs=1e-9)


def test_two_way_intervals_of_positions_are_of_runs_of_them() -> None:
    kept = [by_position(outcome) for outcome in study_of(4, examples=N + 7)]
    rows, why = generalised(kept, plan_of(4), 0.95)
    assert why == (f"two-way intervals: {POSITIONS}",)
    assert {row.metric for row in rows} == {
        *("accuracy", "nll", "brier", "tv", "js", "hellinger", "churn")
    }
    (row,) = [row for row in rows if (row.metric, row.time) == ("nll", "T")]
    effects = np.stack(
        [
            -np.log(outcome.treatments[NAME].tables["T"].column("label_probability"))
            + np.log(outcome.control.tables["T"].column("label_probability"))
            for outcome in kept
        ]
    )
    assert row.effect == pytest.approx(effects.mean(), abs=1e-9)
    runs = np.stack([part.mean(axis=1) for part in np.array_split(effects, RUNS, axis=1)], axis=1)
    expected = two_way_interval(runs)
    assert expected is not None
    assert (row.n_examples, row.df) == (RUNS, expected.df)
    assert row.interval.low is not None
    assert row.interval.high is not None
    assert (row.interval.low + row.interval.high) / 2 == pytest.approx(row.effect)
    few = [by_position(outcome) for outcome in study_of(3, examples=2 * RUNS - 1)]
    assert generalised(few, plan_of(3), 0.95) == (
        (),
        (f"no two-way interval: fewer than {2 * RUNS} positions",),
    )


def test_runs_of_positions_cover_where_single_positions_do_not() -> None:
    """Texts of 10 positions that share their chance: a run is two of them."""
    held, bare = 0, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        text = np.repeat(rng.normal(0, 0.2, size=2 * RUNS), 10)
        table = rng.normal(0, 0.01, size=(5, 1)) + text + rng.normal(0, 0.1, size=(5, text.size))
        runs = two_way_interval(table.reshape(5, RUNS, -1).mean(axis=2))
        single = two_way_interval(table)
        assert runs is not None
        assert single is not None
        held += (runs.interval.low or 0) < 0 < (runs.interval.high or 0)
        bare += (single.interval.low or 0) < 0 < (single.interval.high or 0)
    assert held / 300 > 0.92
    assert bare / 300 < 0.75


REAL = Observed(outputs=("regression",))


def predicted(seed: int, outputs: int = 2) -> SeedOutcomes:
    """One seed of a regression probe."""
    rng = np.random.default_rng([3, seed])
    targets = np.random.default_rng(1).normal(size=(24, outputs))
    base = targets + rng.normal(size=targets.shape)

    def branch(noise: float) -> BranchTables:
        return BranchTables(
            {
                key: RealTable(
                    "regression",
                    np.asarray(base + noise * rng.normal(size=base.shape), dtype=np.float32),
                )
                for key in KEYS
            }
        )

    nudged = tuple(branch(0.1) for _ in range(3))
    return SeedOutcomes(seed, targets, branch(0.0), nudged, {NAME: branch(0.5)}, REAL)


def test_parts_of_predictions_by_brute_force() -> None:
    outcomes = [predicted(seed) for seed in range(4)]
    rows, why = profiles(outcomes, plan_of(4), 0.95)
    assert why == ()
    assert {row.part for row in rows} == {f"error {n}/4" for n in range(1, 5)}
    assert {row.metric for row in rows} == {"mse", "rmsd"}
    differences, treated, floors = [], [], []
    for outcome in outcomes:
        values = {key: outcome.control.tables[key].values.astype(float) for key in KEYS}
        errors = np.square(values["t0"] - outcome.labels).mean(axis=1)
        mine = np.argsort(errors, kind="stable")[-6:]
        ours = outcome.treatments[NAME].tables["T"].values.astype(float)[mine]
        there, right = values["T"][mine], outcome.labels[mine]
        differences.append(np.square(ours - right).mean() - np.square(there - right).mean())
        treated.append(np.sqrt(np.square(ours - there).mean()))
        nudged = [placebo.tables["T"].values.astype(float)[mine] for placebo in outcome.placebos]
        floors.append([float(np.sqrt(np.square(each - there).mean())) for each in nudged])
    found = {row.metric: row for row in rows if (row.time, row.part) == ("T", "error 4/4")}
    assert found["mse"].effect == pytest.approx(np.mean(differences), abs=1e-9)
    assert found["mse"].p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=1e-9)
    assert found["rmsd"].effect == pytest.approx(np.mean(treated) - np.mean(floors), abs=1e-9)
    assert found["rmsd"].p == within_seed_permutation_test(treated, floors).p


def test_a_single_output_has_parts_by_target_and_no_targets_no_parts() -> None:
    one = [predicted(seed, outputs=1) for seed in range(3)]
    parts = {row.part for row in profiles(one, plan_of(3), 0.95)[0]}
    assert parts == {f"{what} {n}/4" for what in ("error", "target") for n in range(1, 5)}
    bare = [replace(outcome, labels=np.empty(0)) for outcome in one]
    assert profiles(bare, plan_of(3), 0.95) == ((), ())
    rows, why = generalised(bare, plan_of(3), 0.95)
    assert (rows, why) == ((), ("no two-way interval: of predictions errors alone have one",))


def test_errors_generalise_to_other_examples() -> None:
    outcomes = [predicted(seed) for seed in range(4)]
    outcomes[3] = replace(outcomes[3], treatments={NAME: diverged()})
    result = estimate(outcomes, plan_of(4, primary_metric="rmsd"), generalise_probe=True)
    assert {(row.metric, row.n_seeds, row.n_examples) for row in result.generalised} == {
        ("mse", 3, 24),
        ("mae", 3, 24),
    }
    for row in result.generalised:
        (beside,) = [r for r in result.signed if (r.metric, r.time) == (row.metric, row.time)]
        assert row.effect == pytest.approx(beside.ate, abs=1e-9)
    assert b"NaN" not in canonical.encode(result)


def test_a_zero_of_another_sign_is_a_distance_of_0_and_no_equal_bits() -> None:
    outcomes = []
    for seed in range(4):
        outcome = predicted(seed)
        control = {key: np.array(t.values) for key, t in outcome.control.tables.items()}
        for table in control.values():
            table[0, 0] = 0.0
        turned = {
            key: np.where(table == 0, np.float32(-0.0), table) for key, table in control.items()
        }
        assert not np.array_equal(np.signbit(turned["T"]), np.signbit(control["T"]))
        ours, theirs = (
            BranchTables({key: RealTable("regression", table) for key, table in tables.items()})
            for tables in (turned, control)
        )
        outcomes.append(replace(outcome, control=theirs, treatments={NAME: ours}))
    result = estimate(outcomes, plan_of(4, primary_metric="rmsd"))
    (row,) = [r for r in result.distances if (r.metric, r.time) == ("rmsd", "T")]
    assert (row.exactly_zero, row.mean_distance) == (False, 0.0)
    assert row.verdict == "below the floor"
    assert ZERO_WITH_OTHER_BITS in row.notes
    same = [replace(o, treatments={NAME: o.control}) for o in outcomes]
    rows = estimate(same, plan_of(4, primary_metric="rmsd")).distances
    assert all(row.exactly_zero and not row.notes for row in rows)


def embedded(outcome: SeedOutcomes) -> SeedOutcomes:
    """The same seed with embeddings, one per example, in place of probabilities."""

    def as_table(branch: BranchTables) -> BranchTables:
        tables = {key: RealTable("embedding", np.log(t)) for key, t in branch.tables.items()}
        return BranchTables(tables)

    return replace(
        outcome,
        labels=np.empty(0, dtype=np.int64),
        observed=Observed(outputs=("embedding",)),
        control=as_table(outcome.control),
        placebos=tuple(map(as_table, outcome.placebos)),
        treatments={name: as_table(branch) for name, branch in outcome.treatments.items()},
    )


def cosines(table: NDArray[Any]) -> NDArray[np.float64]:
    directions = table.astype(np.float64)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.asarray(directions @ directions.T)


def test_quarters_of_embeddings_are_by_likeness_and_make_up_the_whole() -> None:
    outcomes = [embedded(outcome) for outcome in study_of(4)]
    plan = plan_of(4, primary_metric="relative_distance")
    result = estimate(outcomes, plan)
    rows = {(r.part, r.time): r for r in result.profiles}
    assert {r.metric for r in rows.values()} == {"relative_distance"}
    assert list(rows) == [(f"likeness {n}/4", time) for time in ("t0+W", "T") for n in range(1, 5)]
    treated, floors = [], []
    for outcome in outcomes:
        before, control = (cosines(outcome.control.tables[t].values) for t in ("t0", "T"))
        n = len(before)
        least = np.argsort((before.sum(axis=1) - 1) / (n - 1), kind="stable")[: n // 4]
        apart = [
            np.abs(control - cosines(branch.tables["T"].values))[least].mean() / 2
            for branch in (outcome.treatments[NAME], *outcome.placebos)
        ]
        treated.append(apart[0])
        floors.append(apart[1:])
    least_like = rows["likeness 1/4", "T"]
    assert least_like.effect == pytest.approx(np.mean(treated) - np.mean(floors), abs=1e-9)
    assert least_like.p == within_seed_permutation_test(treated, floors).p
    whole = next(r for r in result.distances if (r.metric, r.time) == ("relative_distance", "T"))
    parts = [rows[f"likeness {n}/4", "T"].effect for n in range(1, 5)]
    assert np.mean(parts) == pytest.approx(whole.excess, abs=1e-9)


def test_a_control_that_collapsed_has_no_parts() -> None:
    outcomes = [embedded(outcome) for outcome in study_of(3)]
    point = RealTable("embedding", np.ones((48, 4), dtype=np.float32))
    for outcome in outcomes:
        outcome.control.tables["t0"] = point  # type: ignore[index]
    result = estimate(outcomes, plan_of(3, primary_metric="relative_distance"))
    assert result.profiles == ()
