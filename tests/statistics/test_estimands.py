from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cattrs
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import softmax
from statsmodels.stats.multitest import multipletests

from auditkit.errors import FormatError
from auditkit.records.estimate import (
    DistanceEstimate,
    EstimateTable,
    Persistence,
    SignedEstimate,
)
from auditkit.records.plan import StudyPlan
from auditkit.statistics import metrics
from auditkit.statistics.estimands import estimate
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes
from auditkit.statistics.persistence import fieller_interval

N, C = 40, 4
TIMES = ("t0+W", "T")
NAME = "momentum-reset"

Logits = NDArray[np.float64]


def plan_for(n_seeds: int, placebos: int = 3, **changes: Any) -> StudyPlan:
    settings: dict[str, Any] = {
        "fork_at": 10,
        "window": 5,
        "horizon": 50,
        "seeds": range(n_seeds),
        "perturbations": [NAME],
        "placebos": placebos,
    }
    return StudyPlan(**{**settings, **changes})


def table(logits: Logits) -> NDArray[np.float32]:
    return np.asarray(softmax(logits, axis=1), dtype=np.float32)


def branch(
    rng: np.random.Generator, base: Logits, noise: float, keys: tuple[str, ...] = TIMES
) -> BranchTables:
    """The control's logits moved by independent noise, at every key."""
    return BranchTables({key: table(base + noise * rng.normal(size=base.shape)) for key in keys})


def seed_outcomes(
    seed: int,
    noise: float = 1.0,
    placebo_noise: float = 0.3,
    placebos: int = 3,
    names: tuple[str, ...] = (NAME,),
    keys: tuple[str, ...] = TIMES,
) -> SeedOutcomes:
    rng = np.random.default_rng([17, seed])
    labels = np.arange(N) % C
    base = 2 * rng.normal(size=(N, C)) + 2 * np.eye(C)[labels]
    return SeedOutcomes(
        seed,
        labels,
        branch(rng, base, 0.0, keys),
        tuple(branch(rng, base, placebo_noise, keys) for _ in range(placebos)),
        {name: branch(rng, base, noise, keys) for name in names},
    )


def study(n_seeds: int, **changes: Any) -> list[SeedOutcomes]:
    return [seed_outcomes(seed, **changes) for seed in range(n_seeds)]


def diverged(at: int = 20) -> BranchTables:
    return BranchTables({key: np.full((N, C), np.nan, np.float32) for key in TIMES}, at)


def with_treatment(outcome: SeedOutcomes, tables: BranchTables, name: str = NAME) -> SeedOutcomes:
    return replace(outcome, treatments={**outcome.treatments, name: tables})


def signed(result: EstimateTable, metric: str = "nll", **where: str) -> SignedEstimate:
    where = {"variant": "as-is", "time": "T", "perturbation": NAME, "metric": metric, **where}
    (row,) = [r for r in result.signed if all(getattr(r, k) == v for k, v in where.items())]
    return row


def distance(result: EstimateTable, metric: str = "tv", **where: str) -> DistanceEstimate:
    where = {"variant": "as-is", "time": "T", "perturbation": NAME, "metric": metric, **where}
    (row,) = [r for r in result.distances if all(getattr(r, k) == v for k, v in where.items())]
    return row


def persistence(result: EstimateTable, metric: str, variant: str = "as-is") -> Persistence:
    (row,) = [r for r in result.persistence if (r.metric, r.variant) == (metric, variant)]
    return row


def round_trip(result: EstimateTable) -> EstimateTable:
    text = json.dumps(cattrs.unstructure(result), allow_nan=False)
    return cattrs.structure(json.loads(text), EstimateTable)


def test_a_row_for_everything() -> None:
    plan = plan_for(6, perturbations=[NAME, "optimizer-reset"])
    result = estimate(study(6, names=(NAME, "optimizer-reset")), plan)
    expected = [
        (name, metric, time)
        for kind in (metrics.SIGNED, metrics.DISTANCES)
        for name in plan.treatment_names
        for metric in kind
        for time in TIMES
    ]
    assert [(row.perturbation, row.metric, row.time) for row in result.rows] == expected
    assert len(result.persistence) == 18
    assert {row.variant for row in result.rows} == {"as-is"}
    assert result.times == {"t0+W": 15, "T": 50}
    assert (result.n_seeds, result.n_seeds_left_out, result.placebos) == (6, 0, 3)
    assert result.notes == ()


def test_signed_row_agrees_with_scipy() -> None:
    outcomes = study(8)
    row = signed(estimate(outcomes, plan_for(8)))
    of = [metrics.nll(o.control.tables["T"], o.labels) for o in outcomes]
    treated = [metrics.nll(o.treatments[NAME].tables["T"], o.labels) for o in outcomes]
    test = stats.ttest_rel(treated, of)
    assert row.per_seed == pytest.approx(np.subtract(treated, of))
    assert row.seeds == tuple(range(8))
    assert row.ate is not None
    assert row.ate == pytest.approx(np.mean(treated) - np.mean(of))
    assert row.t_p == pytest.approx(test.pvalue)
    assert row.interval is not None
    assert row.interval.low == pytest.approx(test.confidence_interval().low)
    assert row.d_z == pytest.approx(test.statistic / np.sqrt(8))
    assert row.control_sd == pytest.approx(np.std(of, ddof=1))
    assert row.ate_in_control_sd == pytest.approx(row.ate / np.std(of, ddof=1))
    assert row.sign_flip_kind == "exact"
    assert row.verdict == "effect"  # noise on the logits costs likelihood


def test_distance_row_by_hand() -> None:
    outcomes = study(5)
    row = distance(estimate(outcomes, plan_for(5)))
    d = [metrics.tv(o.control.tables["T"], o.treatments[NAME].tables["T"]) for o in outcomes]
    floors = [
        np.mean([metrics.tv(o.control.tables["T"], p.tables["T"]) for p in o.placebos])
        for o in outcomes
    ]
    between = np.mean(
        [
            metrics.tv(a.control.tables["T"], b.control.tables["T"])
            for i, a in enumerate(outcomes)
            for b in outcomes[:i]
        ]
    )
    assert row.mean_distance == pytest.approx(np.mean(d))
    assert row.floor == pytest.approx(np.mean(floors))
    assert row.floor_per_seed == pytest.approx(floors)
    assert row.excess is not None
    assert row.excess == pytest.approx(np.mean(d) - np.mean(floors))
    assert row.seed_distance == pytest.approx(between)
    assert row.rho == pytest.approx(row.excess / (between - np.mean(floors)))
    assert (row.permutation_p, row.permutation_kind, row.n_labelings) == (4**-5, "exact", 4**5)
    assert row.interval is not None
    assert row.interval.low == pytest.approx(
        stats.ttest_1samp(np.subtract(d, floors), 0).confidence_interval().low
    )
    assert row.verdict == "effect"


def test_families_and_their_corrections() -> None:
    plan = plan_for(6, perturbations=[NAME, "optimizer-reset"], primary_metric="js")
    keys = (*TIMES, "t0+W/recalibrated", "T/recalibrated")
    result = estimate(study(6, noise=0.32, names=(NAME, "optimizer-reset"), keys=keys), plan)
    primary = [row for row in result.rows if row.family == "primary"]
    assert {(row.metric, row.variant) for row in primary} == {("js", "as-is")}
    assert len(primary) == 4
    rest = [row for row in result.rows if row.family == "exploratory"]
    assert len(primary) + len(rest) == len(result.rows) == 2 * 9 * 2 * 2
    for rows, method in ((primary, "holm"), (rest, "fdr_bh")):
        raw = [row.test_p for row in rows]
        assert [row.adjusted_p for row in rows] == pytest.approx(
            multipletests(raw, method=method)[1]
        )
        for row in rows:
            assert row.adjusted_p is not None
            assert row.verdict == ("effect" if row.adjusted_p <= 0.05 else "inconclusive")


@pytest.mark.parametrize("metric", ["tv", "nll"])
def test_further_times_are_corrected_among_themselves(metric: str) -> None:
    """What is measured there changes no number of the two times, Holm's and q's included."""
    names = (NAME, "optimizer-reset")
    settings: dict[str, Any] = {
        "perturbations": names,
        "primary_metric": metric,
        "margins": {"nll": 0.5},
    }
    plan = plan_for(6, **settings)
    further = plan_for(6, **settings, probe_at=[12, 20, 40])
    assert list(further.probed) == ["t0+2", "t0+W", "t0+10", "t0+30", "T"]
    every = (*TIMES, "t0+2", "t0+10", "t0+30")  # those of TIMES are drawn first
    keys = (*every, *(f"{time}/recalibrated" for time in every))
    outcomes = study(6, noise=0.32, names=names, keys=keys)
    without, result = estimate(outcomes, plan), estimate(outcomes, further)
    assert without.rows == tuple(row for row in result.rows if row.time in TIMES)
    assert without.persistence == result.persistence
    assert without.notes == result.notes
    assert (without.times, result.times) == (plan.times, further.probed)
    rows = [row for row in result.rows if row.time not in TIMES]
    assert len(rows) == 2 * 9 * 2 * 3
    assert {row.family for row in rows} == {"exploratory"}
    assert [row.adjusted_p for row in rows] == pytest.approx(
        multipletests([row.test_p for row in rows], method="fdr_bh")[1]
    )
    assert signed(result, time="t0+10").adjusted_equivalence_p is not None
    levels = [(level.metric, level.variant, level.time) for level in result.levels]
    assert len(set(levels)) == len(levels) == 3 * 2 * 5


def test_a_branch_without_a_table_of_a_further_time_is_refused() -> None:
    with pytest.raises(FormatError, match=r"lacks a table .*t0\+W and t0\+10 and T"):
        estimate(study(3), plan_for(3, probe_at=[20]))
    keys = (*TIMES, "t0+10", "t0+W/recalibrated", "T/recalibrated")
    with pytest.raises(FormatError, match="only some branches have recalibrated tables"):
        estimate(study(3, keys=keys), plan_for(3, probe_at=[20]))


def test_a_signed_primary_metric_is_corrected_with_its_t_test() -> None:
    result = estimate(study(6), plan_for(6, primary_metric="nll"))
    rows = [signed(result, time=time) for time in TIMES]
    assert all(row.family == "primary" for row in rows)
    raw = [row.t_p for row in rows if row.t_p is not None]
    assert [row.adjusted_p for row in rows] == pytest.approx(multipletests(raw, method="holm")[1])
    assert distance(result).family == "exploratory"


def test_sign_flip_and_studentised_interval_appear_where_they_should() -> None:
    five = signed(estimate(study(5), plan_for(5)))
    assert five.sign_flip_p is None
    assert "sign-flip" in five.notes[0]
    outcomes = study(6)
    # One seed of six with a far larger effect: skewed.
    outcomes[2] = with_treatment(outcomes[2], seed_outcomes(2, noise=12.0).treatments[NAME])
    row = signed(estimate(outcomes, plan_for(6)))
    assert row.sign_flip_p is not None
    assert row.studentised is not None
    assert row.interval is not None
    assert row.studentised != row.interval
    assert stats.skew(row.per_seed, bias=False) > 1


def batchnorm_study(n: int) -> list[SeedOutcomes]:
    """Like batchnorm-reset: off at t0+W as is, equal bits once recalibrated and at T."""
    recalibrated = tuple(f"{time}/recalibrated" for time in TIMES)
    outcomes = []
    for outcome in study(n, keys=(*TIMES, *recalibrated)):
        same = {key: outcome.control.tables[key].copy() for key in ("T", *recalibrated)}
        off = {"t0+W": outcome.treatments[NAME].tables["t0+W"]}
        outcomes.append(with_treatment(outcome, BranchTables({**same, **off})))
    return outcomes


def test_equal_bits_are_said_and_not_tested() -> None:
    result = estimate(batchnorm_study(4), plan_for(4))
    for row in result.rows:
        exact = (row.time, row.variant) != ("t0+W", "as-is")
        assert row.exactly_zero == exact
        assert (row.verdict == "exactly 0 (bit-identical)") == exact
        assert (row.test_p is None) == exact
        assert (row.adjusted_p is None) == exact
        assert (row.interval is None) == exact
    early = distance(result, time="t0+W")
    assert early.permutation_p == 4**-4
    assert early.adjusted_p == 2 * 4**-4  # the untested row at T keeps its place
    late = distance(result)
    assert (late.mean_distance, late.excess, late.rho) == (0.0, None, None)
    assert persistence(result, "tv").ratio == 0.0
    assert persistence(result, "tv").reason == "the effect at T is exactly 0 (bit-identical)"
    undefined = persistence(result, "tv", "recalibrated")
    assert (undefined.ratio, undefined.reason) == (
        None,
        "undefined: the effect at t0+W is exactly 0",
    )
    assert round_trip(result) == result


def test_one_bit_is_enough_to_be_tested() -> None:
    outcomes = batchnorm_study(3)
    changed = outcomes[1].treatments[NAME].tables["T"]
    changed[0, 0] = np.nextafter(changed[0, 0], np.float32(1))
    row = distance(estimate(outcomes, plan_for(3)))
    assert not row.exactly_zero
    assert row.permutation_p == 1.0  # nearer than every placebo


def test_a_diverged_treatment_leaves_its_pair_out() -> None:
    outcomes = study(6)
    outcomes[4] = with_treatment(outcomes[4], diverged())
    result = estimate(outcomes, plan_for(6))
    for row in result.rows:
        assert (row.n, row.n_left_out, row.seeds) == (5, 1, (0, 1, 2, 3, 5))
    assert result.diverged == {
        "control": 0,
        "placebo-0": 0,
        "placebo-1": 0,
        "placebo-2": 0,
        NAME: 1,
    }
    assert distance(result).n_labelings == 4**5
    assert result.n_seeds_left_out == 0
    assert round_trip(result) == result


def test_a_diverged_control_leaves_the_seed_out() -> None:
    outcomes = study(5)
    outcomes[0] = replace(outcomes[0], control=diverged())
    result = estimate(outcomes, plan_for(5))
    without = estimate(outcomes[1:], plan_for(5))
    assert result.n_seeds_left_out == result.diverged["control"] == 1
    assert "seeds left out because their control diverged: 1" in result.notes
    for row, other in zip(result.rows, without.rows, strict=True):
        assert row == replace(other, n_left_out=1)
    assert result.persistence == without.persistence


def test_a_diverged_placebo_leaves_the_floor_only() -> None:
    outcomes = study(4)
    outcomes[1] = replace(outcomes[1], placebos=(diverged(), *outcomes[1].placebos[1:]))
    outcomes[2] = replace(outcomes[2], placebos=(diverged(),) * 3)
    result = estimate(outcomes, plan_for(4))
    row = distance(result)
    assert (row.n, row.n_with_floor, row.n_left_out) == (4, 3, 0)
    assert row.floor_per_seed[2] is None
    assert row.n_labelings == 4 * 3 * 4
    assert row.excess == pytest.approx(np.mean(row.effect_per_seed))
    assert "pairs without a placebo that stands: 1" in row.notes
    assert result.diverged["placebo-0"] == 2
    assert result.floor.n_placebos == 8


def test_everything_diverged() -> None:
    outcomes = [replace(outcome, control=diverged()) for outcome in study(2)]
    result = estimate(outcomes, plan_for(2))
    assert all(row.n == 0 and row.verdict == "inconclusive" for row in result.rows)
    assert all(row.test_p is None for row in result.rows)
    assert signed(result).ate is None
    assert distance(result).notes == ("no pair stands: floor and excess are undefined",)
    assert result.floor.developed is None
    assert round_trip(result) == result


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_seeds_give_values_only(n: int) -> None:
    result = estimate(study(n), plan_for(n))
    row, far = signed(result), distance(result)
    assert row.ate == pytest.approx(np.mean(row.per_seed))
    assert far.excess is not None
    assert (far.rho is None) == (n == 1)
    for each in result.rows:
        assert each.test_p is None
        assert each.interval is None
        assert each.verdict == "inconclusive"
        assert "values only: fewer than 3 pairs" in each.notes
    assert all(each.ratio is None for each in result.persistence)
    assert ("no seed-to-seed distance: fewer than two controls" in result.notes) == (n == 1)
    assert round_trip(result) == result


@pytest.mark.parametrize(("noise", "developed"), [(1e-5, False), (0.3, True)])
def test_a_floor_that_has_not_developed_is_said(noise: float, developed: bool) -> None:
    result = estimate(study(3, placebo_noise=noise), plan_for(3))
    assert result.floor.developed is developed
    assert (result.floor.n_above, result.floor.n_placebos) == (9 if developed else 0, 9)
    for row in result.distances:
        said = "floor not developed at T" in row.notes
        assert said == (row.time == "T" and not developed)


def test_the_floor_has_developed_at_80_percent() -> None:
    outcomes = study(5, placebos=2)
    flat = outcomes[0].control
    outcomes[0] = replace(outcomes[0], placebos=(flat, flat))
    assert estimate(outcomes, plan_for(5, placebos=2)).floor.developed is True
    outcomes[1] = replace(outcomes[1], placebos=(outcomes[1].control, outcomes[1].placebos[1]))
    assert estimate(outcomes, plan_for(5, placebos=2)).floor.developed is False


def test_seed_distance_needs_one_probe() -> None:
    outcomes = study(3)
    outcomes[1] = replace(outcomes[1], labels=np.roll(outcomes[1].labels, 1))
    result = estimate(outcomes, plan_for(3))
    assert distance(result).seed_distance is None
    assert distance(result).rho is None
    assert distance(result).permutation_p == 1 / 64
    assert "no seed-to-seed distance: the probe differs between seeds" in result.notes


@pytest.mark.parametrize(
    ("margin", "noise", "verdict"),
    [
        (1.9, 1.0, "effect but negligible"),
        (1e-6, 1.0, "effect"),
        (1.9, 0.02, "equivalent"),
        (1e-6, 0.02, "inconclusive"),
    ],
)
def test_equivalence_against_a_margin(margin: float, noise: float, verdict: str) -> None:
    outcomes = study(6, noise=noise)
    plan = plan_for(6, primary_metric="brier", margins={"brier": margin})
    row = signed(estimate(outcomes, plan), "brier")
    assert row.margin == margin
    assert row.equivalence_p is not None
    assert row.verdict == verdict
    assert signed(estimate(outcomes, plan)).equivalence_p is None  # no margin for nll


def test_equivalence_of_distances_waits_for_20_pairs() -> None:
    few = distance(estimate(study(6), plan_for(6, margins={"tv": 0.9})))
    assert few.equivalence_p is None
    assert few.log_equivalence_p is not None  # of logarithms, which any number may be tested by
    assert few.verdict == "effect but negligible"
    assert "equivalence below 20 pairs: of logarithms, the typical seed's" in few.notes
    plan = plan_for(20, placebos=1, margins={"tv": 0.9})
    many = distance(estimate(study(20, placebos=1, noise=0.3), plan))
    assert many.verdict == "equivalent"
    far = distance(estimate(study(20, placebos=1), plan))
    assert far.verdict == "effect but negligible"
    assert far.n_labelings == 2**20


def test_persistence_is_the_ratio_with_fieller() -> None:
    result = estimate(study(6), plan_for(6))
    early, late = (signed(result, time=time).per_seed for time in TIMES)
    expected = fieller_interval(np.array(late), np.array(early))
    ratio = persistence(result, "nll")
    assert expected is not None
    assert ratio.ratio == pytest.approx(np.mean(late) / np.mean(early))
    assert (ratio.ratio, ratio.interval) == (expected.value, expected.interval)


def test_persistence_is_undefined_without_an_effect_in_the_window() -> None:
    result = estimate(study(6, noise=0.3), plan_for(6))  # treatment = placebo
    assert persistence(result, "tv") == Persistence(
        NAME,
        "tv",
        "as-is",
        None,
        None,
        "undefined: the effect at t0+W is not established; every ratio is possible",
    )


def test_what_cannot_be_rejected_is_said() -> None:
    plan = plan_for(3, perturbations=[NAME, "optimizer-reset"])
    result = estimate(study(3, names=(NAME, "optimizer-reset")), plan)
    assert any("4 tests with 3 placebos a seed need 4 seeds" in note for note in result.notes)
    assert not any(row.verdict == "effect" for row in result.rows if row.family == "primary")


def test_missing_seeds_are_noted_and_order_does_not_matter() -> None:
    outcomes = study(4)
    result = estimate(outcomes, plan_for(6))
    assert "planned seeds that are missing: 2 of 6" in result.notes
    assert estimate(outcomes[::-1], plan_for(6)) == result


def test_estimates_survive_json() -> None:
    outcomes = study(12)  # more labelings than are enumerated
    result = estimate(outcomes, plan_for(12, margins={"tv": 0.1, "nll": 0.2}))
    assert distance(result).permutation_kind == "monte-carlo"
    assert round_trip(result) == result
    assert estimate(outcomes, plan_for(12, margins={"tv": 0.1, "nll": 0.2})) == result


def _drop_treatment(o: SeedOutcomes) -> SeedOutcomes:
    return replace(o, treatments={})


def _drop_time(o: SeedOutcomes) -> SeedOutcomes:
    return replace(o, control=BranchTables({"T": o.control.tables["T"]}))


def _one_recalibrated(o: SeedOutcomes) -> SeedOutcomes:
    tables = dict(o.control.tables)
    return replace(o, control=BranchTables({**tables, "T/recalibrated": tables["T"]}))


def _nan(o: SeedOutcomes) -> SeedOutcomes:
    return replace(o, control=replace(diverged(), diverged_at=None))


def _other_shape(o: SeedOutcomes) -> SeedOutcomes:
    return with_treatment(o, BranchTables({k: v[1:] for k, v in o.control.tables.items()}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_drop_treatment, "no outcome of momentum-reset"),
        (lambda o: replace(o, placebos=o.placebos[:1]), "placebos"),
        (lambda o: replace(o, seed=99), "seeds"),
        (lambda o: replace(o, seed=1), "seeds"),
        (_drop_time, "lacks a table"),
        (_one_recalibrated, "recalibrated"),
        (_nan, "NaN"),
        (_other_shape, "labels"),
    ],
)
def test_outcomes_that_do_not_fit_are_refused(
    spoil: Callable[[SeedOutcomes], SeedOutcomes], message: str
) -> None:
    outcomes = study(3)
    with pytest.raises(FormatError, match=message):
        estimate([spoil(outcomes[0]), *outcomes[1:]], plan_for(3))


def test_no_outcomes_are_refused() -> None:
    with pytest.raises(FormatError, match="no outcomes"):
        estimate([], plan_for(3))


def false_effects(tries: int, n_seeds: int, placebos: int) -> int:
    """How often a placebo that poses as the treatment gets any primary verdict *effect*."""
    found = 0
    plan = plan_for(n_seeds, placebos)
    for attempt in range(tries):
        rng = np.random.default_rng([23, attempt])
        outcomes = []
        for seed in range(n_seeds):
            labels = rng.integers(0, 3, 6)
            base, noise = rng.normal(size=(6, 3)), rng.lognormal(-1, 0.7)
            branches = [branch(rng, base, noise) for _ in range(placebos + 1)]
            control = branch(rng, base, 0.0)
            outcomes.append(
                SeedOutcomes(seed, labels, control, tuple(branches[1:]), {NAME: branches[0]})
            )
        rows = estimate(outcomes, plan).rows
        found += any(row.verdict == "effect" for row in rows if row.family == "primary")
    return found


def test_a_placebo_posing_as_treatment_is_rarely_an_effect() -> None:
    assert stats.binomtest(false_effects(100, 4, 3), 100, 0.05, "greater").pvalue > 1e-3


@pytest.mark.slow
def test_a_placebo_posing_as_treatment_is_an_effect_in_at_most_5_percent() -> None:
    assert stats.binomtest(false_effects(2000, 4, 3), 2000, 0.05, "greater").pvalue > 1e-2


@pytest.mark.parametrize("n_seeds", [3, 6])
def test_no_spread_over_seeds_is_no_interval_of_width_0(n_seeds: int) -> None:
    """One seed under several numbers: nothing that is shown may claim certainty."""
    one = seed_outcomes(0)
    result = estimate([replace(one, seed=seed) for seed in range(n_seeds)], plan_for(n_seeds))
    for row in result.rows:
        assert row.interval is None
        assert any("standard deviation of exactly 0 gives no interval" in n for n in row.notes)
    row = signed(result)
    assert (row.sd, row.studentised, row.t_p, row.ate_in_control_sd) == (0.0, None, None, None)
    assert "the controls do not differ between seeds: no seed SDs" in row.notes
    assert all(p.interval is None for p in result.persistence)
    kept = persistence(result, "tv")
    assert kept.ratio is not None
    assert "gives no interval" in (kept.reason or "")


def test_one_ratio_in_every_seed_is_no_interval_of_width_0() -> None:
    """The early and the late effect differ from seed to seed, and their ratio does not."""
    outcomes = []
    for outcome in study(6):
        control, treated = (
            BranchTables(dict.fromkeys(TIMES, tables["T"]))
            for tables in (outcome.control.tables, outcome.treatments[NAME].tables)
        )
        outcomes.append(replace(outcome, control=control, treatments={NAME: treated}))
    kept = persistence(estimate(outcomes, plan_for(6)), "nll")
    assert (kept.ratio, kept.interval) == (1.0, None)
    assert "gives no interval" in (kept.reason or "")


def test_below_the_floor_is_a_verdict_of_its_own() -> None:
    result = estimate(study(4, noise=0.1, placebo_noise=0.5), plan_for(4))
    row = distance(result)
    assert row.below_p == 4.0**-4
    assert row.adjusted_below_p == 2 * 4.0**-4
    assert row.permutation_p == 1.0
    assert row.verdict == "below the floor"
    assert distance(estimate(study(4), plan_for(4))).verdict == "effect"


def test_a_skewed_excess_has_the_bootstrap_interval_beside_it() -> None:
    outcomes = [seed_outcomes(seed, noise=5.0 if seed == 3 else 0.4) for seed in range(6)]
    skewed = distance(estimate(outcomes, plan_for(6)))
    assert skewed.studentised is not None
    few = distance(estimate(outcomes[1:5], plan_for(6)))
    assert few.studentised is None
    assert "skewed, and no studentised interval below 5 pairs" in few.notes
    assert not any("studentised" in note for note in skewed.notes)
    assert distance(estimate(study(6), plan_for(6))).studentised is None


def equal_pair(n_seeds: int) -> tuple[list[SeedOutcomes], StudyPlan]:
    names = (NAME, "optimizer-reset", "order-reverse")
    outcomes = [
        with_treatment(outcome, outcome.treatments[NAME], "optimizer-reset")
        for outcome in study(n_seeds, names=names)
    ]
    return outcomes, plan_for(n_seeds, perturbations=list(names))


def test_treatments_of_equal_bits_are_said_to_be_one() -> None:
    outcomes, plan = equal_pair(3)
    result = estimate(outcomes, plan)
    note = f"{NAME}, optimizer-reset: equal bits in every seed, so each of their tests is counted"
    assert any(text.startswith(note) for text in result.notes)
    row = distance(result)
    assert row.permutation_p == 4.0**-3
    assert row.adjusted_p == 4 * 4.0**-3  # two treatments at two times
    other = with_treatment(outcomes[0], outcomes[0].control, "optimizer-reset")
    apart = estimate([other, *outcomes[1:]], plan)
    assert not any("equal bits" in text for text in apart.notes)
    assert any("6 tests with 3 placebos" in text for text in apart.notes)


def test_treatments_that_diverge_alike_are_equal_and_at_another_step_are_not() -> None:
    outcomes, plan = equal_pair(3)
    both = with_treatment(
        with_treatment(outcomes[0], diverged(20)), diverged(20), "optimizer-reset"
    )
    assert any("equal bits" in text for text in estimate([both, *outcomes[1:]], plan).notes)
    apart = with_treatment(both, diverged(21))
    assert not any("equal bits" in text for text in estimate([apart, *outcomes[1:]], plan).notes)
