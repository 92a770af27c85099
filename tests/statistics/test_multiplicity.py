from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from auditkit.records.estimate import (
    BELOW_FLOOR,
    EFFECT,
    EQUIVALENT,
    EXACTLY_ZERO,
    INCONCLUSIVE,
    NEGLIGIBLE,
    SAME,
    DistanceEstimate,
    SignedEstimate,
)
from auditkit.statistics import multiplicity

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@pytest.fixture(scope="module", autouse=True)
def _no_collection() -> Iterator[None]:
    """Statsmodels asks for a whole collection a call, of all that other tests have left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)
        yield


@settings(deadline=None, max_examples=30)
@given(p_values)
def test_corrections_agree_with_statsmodels(values: list[float]) -> None:
    assert multiplicity.holm(values) == pytest.approx(multipletests(values, method="holm")[1])
    assert multiplicity.benjamini_hochberg(values) == pytest.approx(
        multipletests(values, method="fdr_bh")[1]
    )


def test_corrections_of_nothing() -> None:
    assert multiplicity.holm([]) == ()
    assert multiplicity.benjamini_hochberg([]) == ()


@pytest.mark.parametrize(
    ("m", "placebos", "n"), [(1, 3, 3), (10, 3, 4), (20, 3, 5), (100, 3, 6), (5, 9, 2)]
)
def test_seeds_needed(m: int, placebos: int, n: int) -> None:
    assert multiplicity.seeds_needed(m, placebos, 0.05) == n
    assert m * (placebos + 1.0) ** -n <= 0.05 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("p", "margin_p", "expected"),
    [
        (0.05, None, EFFECT),
        (0.01, 0.2, EFFECT),
        (0.01, 0.01, NEGLIGIBLE),
        (0.2, 0.05, EQUIVALENT),
        (None, 0.01, EQUIVALENT),
        (0.9, None, INCONCLUSIVE),
        (0.9, 0.2, INCONCLUSIVE),
        (None, None, INCONCLUSIVE),
    ],
)
def test_verdicts(p: float | None, margin_p: float | None, expected: str) -> None:
    assert multiplicity.verdict(p, margin_p, 0.05) == expected


def distance_row(name: str, p: float, below: float | None = None) -> DistanceEstimate:
    row = DistanceEstimate(name, "tv", "as-is", "T", "primary", (), (), (), 0, 0, 0)
    return replace(row, permutation_p=p, below_p=below)


def test_equal_treatments_are_counted_once() -> None:
    rows = [distance_row("a", 0.01), distance_row("b", 0.01), distance_row("c", 0.04)]
    _, apart = multiplicity.assign_verdicts([], rows, 0.05)
    assert [row.adjusted_p for row in apart] == pytest.approx([0.03, 0.03, 0.04])
    _, found = multiplicity.assign_verdicts([], rows, 0.05, {"a": "a", "b": "a", "c": "c"})
    assert [row.adjusted_p for row in found] == pytest.approx([0.02, 0.02, 0.04])


def test_below_the_floor_is_corrected_by_itself() -> None:
    rows = [distance_row("a", 0.99, 0.02), distance_row("b", 0.98, 0.04), distance_row("c", 0.01)]
    _, found = multiplicity.assign_verdicts([], rows, 0.05)
    assert [row.adjusted_below_p for row in found] == [pytest.approx(0.06), 0.08, None]
    assert [row.verdict for row in found] == [INCONCLUSIVE, INCONCLUSIVE, EFFECT]
    _, found = multiplicity.assign_verdicts([], [rows[0], rows[2]], 0.05)
    assert [row.verdict for row in found] == [BELOW_FLOOR, EFFECT]


def test_a_number_that_never_differs_says_so() -> None:
    row = SignedEstimate(
        *("a", "accuracy", "as-is", "T", "exploratory"), (0, 1), (0.0, 0.0), n=2, n_left_out=0
    )
    rows = [row, replace(row, per_seed=(0.0, 0.1)), replace(row, per_seed=(), seeds=(), n=0)]
    rows += [replace(row, verdict=EXACTLY_ZERO, exactly_zero=True)]
    found, _ = multiplicity.assign_verdicts(rows, [], 0.05)
    assert [row.verdict for row in found] == [SAME, INCONCLUSIVE, INCONCLUSIVE, EXACTLY_ZERO]
