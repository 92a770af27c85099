"""What a design can reach, against the tests themselves on data that are as clear as can be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_examples import NUDGE

from auditkit.records.plan import StudyPlan
from auditkit.statistics.design import chosen_scale, design_of, grown
from auditkit.statistics.multiplicity import holm
from auditkit.statistics.resampling import within_seed_permutation_test

ONE = ["carry"]
TWO = ["carry", "momentum-reset"]


def plan(n_seeds: int, placebos: int, names: list[str], **fields: object) -> StudyPlan:
    """A plan of that many seeds."""
    return StudyPlan(5, 2, 50, range(n_seeds), names, placebos=placebos, **fields)  # type: ignore[arg-type]


def clearest(n_seeds: int, placebos: int, n_tests: int) -> float:
    """The smallest adjusted p that any data give: every treatment farther than any placebo."""
    test = within_seed_permutation_test([1.0] * n_seeds, [[0.0] * placebos] * n_seeds)
    return holm([test.p] * n_tests)[0]


@given(st.integers(3, 7), st.integers(1, 4), st.sampled_from([ONE, TWO]))
def test_a_design_reaches_what_the_clearest_data_reach(
    n_seeds: int, placebos: int, names: list[str]
) -> None:
    design = design_of(plan(n_seeds, placebos, names))
    best = clearest(n_seeds, placebos, design.n_tests)
    assert design.n_tests == 2 * len(names)
    assert design.smallest_p == pytest.approx((placebos + 1) ** -n_seeds)
    assert design.reaches == (best <= 0.05)
    assert design.fewest_seeds is not None
    fewest = design.fewest_seeds
    assert clearest(fewest, placebos, design.n_tests) <= 0.05
    assert fewest == 3 or clearest(fewest - 1, placebos, design.n_tests) > 0.05


def test_fewer_than_three_pairs_are_not_tested() -> None:
    design = design_of(plan(2, 3, ONE))
    assert (design.smallest_p, design.reaches, design.fewest_seeds) == (None, False, 3)


def test_a_signed_metric_is_tested_from_three_pairs_and_has_no_smallest_p() -> None:
    assert design_of(plan(3, 1, TWO, primary_metric="accuracy")).reaches
    few = design_of(plan(2, 1, TWO, primary_metric="accuracy"))
    assert (few.smallest_p, few.reaches, few.fewest_seeds) == (None, False, 3)


def test_a_test_that_is_drawn_has_the_smallest_p_of_its_draws() -> None:
    assert design_of(plan(40, 3, ONE)).smallest_p == pytest.approx(1e-5)


def test_more_tests_than_a_drawn_test_can_be_corrected_for_reach_nothing() -> None:
    many = plan(40, 1, [f"order-shuffle:draw={draw}" for draw in range(1000)])
    assert design_of(plan(40, 3, ONE)).reaches
    assert design_of(many).fewest_seeds is not None  # 2,000 tests of 1e-5 each
    assert design_of(many).reaches


LONG = plan(3, 1, ONE)  # 45 steps a branch


def test_a_nudge_grows_as_it_grew() -> None:
    trial = replace(NUDGE, scale=1, steps=20, halfway=1e-6, end=1e-5)
    assert grown(trial, LONG)  # ten times in ten steps, and 25 steps to go
    assert grown(replace(trial, end=2e-6), LONG) is False
    assert grown(replace(trial, end=2e-3), LONG)
    assert grown(replace(trial, halfway=0.0, end=0.0), LONG) is None
    assert grown(replace(trial, steps=45, end=9e-4), LONG) is False
    assert grown(replace(trial, end=1e-7), LONG) is False
    shrinking = replace(trial, halfway=5e-3, end=2e-3)
    assert grown(shrinking, LONG) is False  # to 0.4 of it every ten steps, and 25 to go
    assert grown(replace(shrinking, steps=45), LONG)
    assert grown(replace(shrinking, halfway=2e-3), LONG)


def test_the_first_scale_that_has_grown_is_chosen() -> None:
    trials = [replace(NUDGE, scale=scale, end=end) for scale, end in ((1, 1e-6), (16, 2e-3))]
    assert chosen_scale(trials, LONG) == 16
    assert chosen_scale(trials[:1], LONG) == 1
    away = replace(trials[1], halfway=1e-1, steps=20)
    assert chosen_scale([away, replace(away, scale=256, end=0.2)], LONG) == 256
