from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from synthetic_outcomes import NAME, diverged, outcome_of, plan_of

from auditkit.records.back_flow import BackFlow
from auditkit.records.estimate import EQUIVALENT, EXACTLY_ZERO, INCONCLUSIVE, SAME, EstimateTable
from auditkit.statistics.estimands import estimate
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes

PLAN = plan_of(6, causal_break="optimizer-reset", placebos=1)


def table(share: float) -> np.ndarray[Any, Any]:
    """Two classes; the distance of two such tables is the difference of the shares."""
    return np.tile(np.array([[share, 1 - share]], dtype=np.float32), (12, 1))


def tables(at_window: float, at_end: float) -> BranchTables:
    return BranchTables({"t0": table(0.5), "t0+W": table(at_window), "T": table(at_end)})


def seed_of(
    seed: int, d1: float, d2: float, d2_broken: float, placebo: float = 0.0
) -> SeedOutcomes:
    """A seed whose treatment has these distances from the control, and a placebo that grows."""
    return SeedOutcomes(
        seed,
        np.arange(12) % 2,
        tables(0.5, 0.5),
        (tables(0.5, 0.5 + placebo),),
        {NAME: tables(0.5 + d1, 0.5 + d2)},
        broken={
            "control~broken": tables(0.5, 0.4),
            "placebo-0~broken": tables(0.5, 0.4 + placebo / 2),
            f"{NAME}~broken": tables(0.5 + d1, 0.4 + d2_broken),
        },
    )


def flows(outcomes: Sequence[SeedOutcomes], plan: Any = PLAN) -> dict[str, BackFlow]:
    found: EstimateTable = estimate(outcomes, plan)
    return {row.arm: row for row in found.back_flow if row.metric == "tv"}


JITTER = (0.0, 0.01, 0.02, 0.0, 0.01, 0.02)
AMPLIFIED = [seed_of(n, 0.1, 0.2 + j, 0.05 + j / 2, 0.01) for n, j in enumerate(JITTER)]


def test_a_row_is_the_difference_of_two_distances_seed_by_seed() -> None:
    found = flows(AMPLIFIED)
    values = {
        "carried": [0.1 + j for j in JITTER],
        "broken": [-0.05 + j / 2 for j in JITTER],
        "contrast": [0.15 + j / 2 for j in JITTER],
    }
    floors = {"carried": 0.01, "broken": 0.005, "contrast": 0.005}
    for arm, row in found.items():
        assert row.per_seed == pytest.approx(values[arm], abs=1e-6)
        assert row.floor == pytest.approx(floors[arm], abs=1e-6)
        assert row.seeds == PLAN.seeds
        here = stats.ttest_1samp(row.per_seed, 0)
        above = np.subtract(row.per_seed, np.array(row.floor_per_seed, dtype=float))
        assert row.p == pytest.approx(here.pvalue, rel=1e-9)
        assert row.excess_p == pytest.approx(stats.ttest_1samp(above, 0).pvalue, rel=1e-9)
        assert row.excess == pytest.approx(above.mean(), rel=1e-9)
        assert row.interval is not None
        assert row.excess_interval is not None
        interval = here.confidence_interval(0.95)
        assert (row.interval.low, row.interval.high) == pytest.approx(interval, rel=1e-9)
    assert found["carried"].d1 == pytest.approx(0.1, abs=1e-6)
    assert found["broken"].d2 == pytest.approx(0.06 - 0.005, abs=1e-6)
    assert (found["contrast"].d1, found["contrast"].d2) == (None, None)
    assert {arm: row.verdict for arm, row in found.items()} == {
        "carried": "amplification",
        "broken": "contraction",
        "contrast": "the break lowers it",
    }


def test_what_placebos_show_as_well_is_no_amplification() -> None:
    outcomes = [seed_of(n, 0.1, 0.2 + j, 0.3 + j, 0.1 + j) for n, j in enumerate(JITTER)]
    found = flows(outcomes)
    assert found["carried"].p is not None
    assert found["carried"].p < 0.001
    assert found["carried"].verdict == INCONCLUSIVE


def test_what_lies_above_0_and_below_the_floor_has_no_verdict() -> None:
    shares = [(0.11 + j, 0.2 + 3 * j) for j in JITTER]
    outcomes = [seed_of(n, 0.1, end, end, floor) for n, (end, floor) in enumerate(shares)]
    row = flows(outcomes)["carried"]
    assert row.mean is not None
    assert row.excess is not None
    assert row.mean > 0 > row.excess
    assert row.verdict == INCONCLUSIVE


def test_a_break_that_raises_it() -> None:
    outcomes = [seed_of(n, 0.1, 0.1 + j, 0.3 - j) for n, j in enumerate(JITTER)]
    assert flows(outcomes)["contrast"].verdict == "the break raises it"


def test_equal_bits_are_said_and_not_tested() -> None:
    same = [
        replace(one, broken={f"{n}~broken": b for n, b in _unbroken(one).items()})
        for one in AMPLIFIED
    ]
    found = flows(same)
    assert found["contrast"].verdict == EXACTLY_ZERO
    assert found["contrast"].p is None
    assert found["carried"].per_seed == found["broken"].per_seed


def test_two_one_sided_tests_against_the_margin_are_those_of_scipy() -> None:
    plan = PLAN.changed(margins={"tv": 0.12, "js": 0.5})
    floors = [0.02 + j for j in JITTER]
    ends = [(0.1 + j, 0.13 - j / 2, f) for j, f in zip(JITTER, floors, strict=True)]
    outcomes = [seed_of(n, 0.1, d2, broken, f) for n, (d2, broken, f) in enumerate(ends)]
    found = estimate(outcomes, plan).back_flow
    for row in (row for row in found if row.metric == "tv"):
        above = np.subtract(row.per_seed, np.array(row.floor_per_seed, dtype=float))
        p = max(
            stats.ttest_1samp(values, end, alternative=side).pvalue
            for values in (row.per_seed, above)
            for end, side in ((0.12, "less"), (-0.12, "greater"))
        )
        assert row.margin == 0.12
        assert row.equivalence_p == pytest.approx(p, rel=1e-9)
    tested = [row for row in found if row.margin is not None]
    assert {row.metric for row in tested} == {"tv", "js"}
    assert [row.adjusted_equivalence_p for row in tested] == pytest.approx(
        stats.false_discovery_control([row.equivalence_p or 0.0 for row in tested]), rel=1e-9
    )
    untested = next(row for row in found if row.margin is None)
    assert (untested.equivalence_p, untested.adjusted_equivalence_p) == (None, None)


def test_equivalence_is_a_verdict_of_its_own_and_beside_a_direction() -> None:
    wide = PLAN.changed(margins={"tv": 0.5})
    assert {arm: row.verdict for arm, row in flows(AMPLIFIED, wide).items()} == {
        "carried": "amplification (negligible)",
        "broken": "contraction (negligible)",
        "contrast": "the break lowers it (negligible)",
    }
    outcomes = [seed_of(n, 0.1, 0.09 + j, 0.1 + j, 0.01) for n, j in enumerate(JITTER)]
    assert flows(outcomes)["carried"].verdict == INCONCLUSIVE
    assert flows(outcomes, wide)["carried"].verdict == EQUIVALENT
    narrow = PLAN.changed(margins={"tv": 0.001})
    assert flows(outcomes, narrow)["carried"].verdict == INCONCLUSIVE


def test_without_a_floor_or_a_third_seed_nothing_is_called_equivalent() -> None:
    plan = PLAN.changed(margins={"tv": 0.5})
    bare = [
        replace(one, broken={**one.broken, "placebo-0~broken": diverged()}) for one in AMPLIFIED
    ]
    row = flows(bare, plan)["carried"]
    assert (row.margin, row.equivalence_p, row.verdict) == (0.5, None, INCONCLUSIVE)
    two = flows(AMPLIFIED[:2], PLAN.changed(seeds=range(2), margins={"tv": 0.5}))["carried"]
    assert (two.margin, two.equivalence_p, two.verdict) == (0.5, None, "")


def _unbroken(one: SeedOutcomes) -> dict[str, BranchTables]:
    return {"control": one.control, "placebo-0": one.placebos[0], **one.treatments}


def test_a_contrast_of_two_zeros_is_the_same_in_every_seed() -> None:
    still = [seed_of(n, 0.0, 0.0, 0.0, 0.01 + j) for n, j in enumerate(JITTER)]
    found = flows(still)
    assert found["carried"].verdict == found["broken"].verdict == EXACTLY_ZERO
    assert (found["contrast"].mean, found["contrast"].verdict) == (0.0, SAME)


def test_two_seeds_give_values_only() -> None:
    row = flows(AMPLIFIED[:2], PLAN.changed(seeds=range(2)))["carried"]
    assert (row.n, row.interval, row.p, row.adjusted_p, row.verdict) == (2, None, None, None, "")
    assert row.mean == pytest.approx(0.105, abs=1e-6)


@pytest.mark.parametrize("name", [NAME, f"{NAME}~broken", "control~broken"])
def test_a_seed_in_which_a_branch_diverged_is_left_out(name: str) -> None:
    first = AMPLIFIED[0]
    if name in first.treatments:
        first = replace(first, treatments={name: diverged()})
    else:
        first = replace(first, broken={**first.broken, name: diverged()})
    found = estimate([first, *AMPLIFIED[1:]], PLAN)
    row = next(row for row in found.back_flow if row.metric == "tv")
    assert (row.n, row.n_left_out, row.seeds) == (5, 1, PLAN.seeds[1:])
    assert found.diverged[name] == 1


def test_a_placebo_that_diverged_leaves_its_seed_without_a_floor() -> None:
    first = AMPLIFIED[0]
    first = replace(first, broken={**first.broken, "placebo-0~broken": diverged()})
    row = flows([first, *AMPLIFIED[1:]])["carried"]
    assert row.n == 6
    assert row.floor_per_seed[0] is None
    assert row.excess == pytest.approx(np.mean(row.per_seed[1:]) - 0.01, abs=1e-6)


def test_without_a_break_there_is_no_row() -> None:
    assert estimate([outcome_of(n) for n in range(3)], plan_of(3)).back_flow == ()
