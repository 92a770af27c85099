from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_examples import DISTANCE, SIGNED, TABLE
from scipy import stats

from auditkit.records.agreement import Agreement
from auditkit.records.estimate import DistanceEstimate, EstimateTable, SignedEstimate
from auditkit.statistics.agreement import compare

RNG = np.random.default_rng(0)


def signed(values: list[float], verdict: str = "inconclusive", **others: Any) -> SignedEstimate:
    """A signed estimate with a value a seed."""
    return replace(
        SIGNED,
        seeds=tuple(range(len(values))),
        per_seed=tuple(values),
        n=len(values),
        ate=float(np.mean(values)) if values else None,
        exactly_zero=False,
        verdict=verdict,
        **others,
    )


def distance(values: list[float], floors: list[float | None]) -> DistanceEstimate:
    """A distance with its floor a seed."""
    return replace(
        DISTANCE,
        seeds=tuple(range(len(values))),
        per_seed=tuple(values),
        floor_per_seed=tuple(floors),
        exactly_zero=False,
        verdict="inconclusive",
    )


def table(*rows: SignedEstimate | DistanceEstimate) -> EstimateTable:
    """A table of these rows."""
    return replace(
        TABLE,
        signed=tuple(row for row in rows if isinstance(row, SignedEstimate)),
        distances=tuple(row for row in rows if isinstance(row, DistanceEstimate)),
    )


def one(
    before: SignedEstimate | DistanceEstimate,
    after: SignedEstimate | DistanceEstimate,
    **margins: float,
) -> Agreement:
    """The comparison of a single estimand."""
    (row,) = compare(table(before), table(after), margins)
    return row


def noisy(mean: float, sd: float = 1e-3, n: int = 8) -> list[float]:
    return [float(x) for x in mean + sd * RNG.standard_normal(n)]


def test_equal_bits_agree() -> None:
    row = one(signed([0.1, 0.2]), signed([0.1, 0.2]))
    assert (row.verdict, row.reason) == ("agree", "equal bits for every seed")


def test_exactly_zero_in_both_agrees_whatever_the_floor_is() -> None:
    before = replace(distance([0.0, 0.0], [0.1, 0.2]), exactly_zero=True)
    after = replace(distance([0.0, 0.0], [0.3, 0.1]), exactly_zero=True)
    assert one(before, after).reason == "exactly 0 in both"


def test_a_shift_of_every_seed_disagrees() -> None:
    before = noisy(0.5)
    after = [value + shift for value, shift in zip(before, noisy(0.1), strict=True)]
    row = one(signed(before), signed(after))
    assert row.verdict == "disagree"
    # Known answer: scipy's paired test, and Holm over a single test changes nothing.
    assert row.adjusted_p == pytest.approx(stats.ttest_rel(after, before).pvalue)
    assert row.difference == pytest.approx(np.mean(after) - np.mean(before))
    assert row.interval is not None
    low, high = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert row.interval.low == pytest.approx(low)
    assert row.interval.high == pytest.approx(high)


def test_effects_of_opposite_sign_disagree() -> None:
    row = one(signed([0.5, 0.1], "effect"), signed([-0.4, -0.3], "effect"))
    assert row.verdict == "disagree"
    assert "opposite sign" in row.reason


def test_effects_of_the_same_sign_agree_where_no_difference_is_seen() -> None:
    before = noisy(0.5, 0.1)
    after = [value + shift for value, shift in zip(before, noisy(0.0, 0.1), strict=True)]
    row = one(signed(before, "effect"), signed(after, "effect"))
    assert (row.verdict, row.reason) == ("agree", "both establish an effect of the same sign")


def test_no_difference_seen_is_no_agreement() -> None:
    row = one(signed([0.1, -0.2, 0.3]), signed([0.2, -0.3, 0.25]))
    assert row.verdict == "cannot tell"


def test_a_margin_of_the_plan_can_establish_agreement() -> None:
    before = noisy(0.0, 0.1)
    after = [value + shift for value, shift in zip(before, noisy(0.0, 1e-4), strict=True)]
    assert one(signed(before), signed(after)).verdict == "cannot tell"
    row = one(signed(before), signed(after), **{SIGNED.metric: 0.01})
    assert (row.verdict, row.reason) == (
        "agree",
        "the difference lies within the plan's margin 0.01",
    )


@pytest.mark.parametrize(
    ("verdict", "margin", "expected"),
    [
        # The record claims an effect of 0.1, which is gone: no margin makes that an agreement.
        ("effect", 0.99, "cannot tell"),
        # Where the record itself says that its effect does not matter, or claims none, it may go.
        ("effect but negligible", 0.99, "agree"),
        ("inconclusive", 0.99, "agree"),
        ("effect", None, "cannot tell"),
    ],
)
def test_a_margin_alone_does_not_make_a_lost_effect_agree(
    verdict: str, margin: float | None, expected: str
) -> None:
    margins = {} if margin is None else {SIGNED.metric: margin}
    before = signed([0.1, 0.101, 0.099], verdict)
    after = signed([0.3, -0.3, 0.01])
    assert one(before, after, **margins).verdict == expected


def test_a_margin_decides_where_the_difference_is_smaller_than_the_effect() -> None:
    before = noisy(0.5)
    after = [value + shift for value, shift in zip(before, [1e-3, -1e-3] * 4, strict=True)]
    row = one(signed(before, "effect"), signed(after), **{SIGNED.metric: 0.9})
    assert (row.verdict, row.reason) == (
        "agree",
        "the difference lies within the plan's margin 0.9",
    )


def test_only_seeds_that_stand_in_both_are_compared() -> None:
    after = replace(signed([9.0, 0.25, 0.1]), seeds=(7, 1, 0))
    row = one(signed([0.1, 0.2]), after)
    assert row.n == 2
    assert row.difference == pytest.approx(0.025)


def test_a_pair_without_seeds_cannot_be_told() -> None:
    row = one(signed([]), signed([]))
    assert (row.verdict, row.reason, row.n) == ("cannot tell", "no seed stands in both", 0)


def test_distances_are_compared_by_their_excess_over_the_floor() -> None:
    before = distance([0.5, 0.4, 0.3], [0.1, 0.2, None])
    after = distance([0.6, 0.4, 0.3], [0.1, 0.2, 0.1])
    row = one(before, after)
    assert row.n == 2
    assert row.difference == pytest.approx(0.05)


def test_further_times_are_corrected_among_themselves_here_too() -> None:
    before, after = signed(noisy(0.1)), signed(noisy(0.1))
    alone = one(before, after)
    times = [f"t0+{n}" for n in (1, 2, 3)]
    befores, afters = ([row, *(replace(row, time=t) for t in times)] for row in (before, after))
    together = compare(table(*befores), table(*afters), {})
    assert alone.adjusted_p is not None
    assert together[0] == alone
    assert [row.adjusted_p for row in together[1:]] == [min(1.0, 3 * alone.adjusted_p)] * 3


def test_an_estimand_that_only_one_has_is_not_compared() -> None:
    other = signed([0.1], perturbation="another")
    assert compare(table(signed([0.1])), table(other), {}) == ()


@given(st.integers(0, 2**32 - 1))
def test_chance_alone_seldom_disagrees(seed: int) -> None:
    # Holm over the family keeps the chance of any false disagreement at the table's level.
    rng = np.random.default_rng(seed)
    rows = [
        signed([float(x) for x in rng.standard_normal(6)], perturbation=f"p{n}") for n in range(20)
    ]
    others = [
        signed([float(x) for x in rng.standard_normal(6)], perturbation=f"p{n}") for n in range(20)
    ]
    found = compare(table(*rows), table(*others), {})
    assert sum(row.verdict == "disagree" for row in found) <= 3
