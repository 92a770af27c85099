from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from synthetic_outcomes import NAME, diverged, outcome_of, plan_of

from auditkit.formats.outcome_names import ALIGNMENT
from auditkit.records.segments import SegmentPlan
from auditkit.statistics.estimands import estimate
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes

PLAN = plan_of(5, segments=SegmentPlan(alignment=True))
COSINES = [(0.5, 0.1), (0.6, 0.3), (0.4, -0.1), (0.55, 0.2), (0.45, 0.0)]


def with_cosines(n: int, control: float, treatment: float) -> SeedOutcomes:
    one = outcome_of(n)

    def added(branch: BranchTables, value: float) -> BranchTables:
        return replace(branch, tables={**branch.tables, ALIGNMENT: np.array([value])})

    treatments = {NAME: added(one.treatments[NAME], treatment)}
    return replace(one, control=added(one.control, control), treatments=treatments)


OUTCOMES = [with_cosines(n, *pair) for n, pair in enumerate(COSINES)]


def rows(outcomes: list[SeedOutcomes], plan: Any = PLAN) -> dict[str, Any]:
    return {row.history: row for row in estimate(outcomes, plan).alignments}


def test_a_row_is_the_mean_over_the_seeds_with_its_t_interval() -> None:
    found = rows(OUTCOMES)
    assert list(found) == ["control", NAME]
    for row, values in zip(found.values(), zip(*COSINES, strict=True), strict=True):
        assert row.per_seed == values
        test = stats.ttest_1samp(values, 0)
        assert row.p == pytest.approx(test.pvalue, rel=1e-9)
        interval = test.confidence_interval(0.95)
        assert (row.interval.low, row.interval.high) == pytest.approx(interval, rel=1e-9)
        assert (row.mean, row.n, row.n_left_out) == (pytest.approx(np.mean(values)), 5, 0)


def test_seeds_that_diverged_or_have_no_momentum_are_left_out() -> None:
    first = replace(OUTCOMES[0], treatments={NAME: diverged()})
    second = replace(OUTCOMES[1], control=outcome_of(1).control)
    found = rows([first, second, *OUTCOMES[2:]])
    assert (found["control"].seeds, found["control"].n_left_out) == ((0, 2, 3, 4), 1)
    assert (found[NAME].seeds, found[NAME].n_left_out) == ((1, 2, 3, 4), 1)


def test_few_seeds_give_values_only_and_none_an_empty_row() -> None:
    row = rows(OUTCOMES[:2], PLAN.changed(seeds=range(2)))["control"]
    assert (row.mean, row.interval, row.p) == (pytest.approx(0.55), None, None)
    row = rows([outcome_of(n) for n in range(5)])["control"]
    assert (row.n, row.mean, row.interval, row.p) == (0, None, None, None)


def test_where_the_plan_does_not_ask_there_is_no_row() -> None:
    assert rows(OUTCOMES, plan_of(5)) == {}
