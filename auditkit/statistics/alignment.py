"""Momentum against gradient where segment B begins: one cosine a seed and history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from auditkit.formats.outcome_names import ALIGNMENT
from auditkit.records.back_flow import Alignment
from auditkit.records.estimate import MIN_PAIRS
from auditkit.records.plan import StudyPlan
from auditkit.statistics import inference
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes


def alignments(
    outcomes: Sequence[SeedOutcomes], plan: StudyPlan, level: float
) -> Iterator[Alignment]:
    """A row for history A and each A'; none where the plan does not ask for it.

    Args:
        outcomes: One a seed, in the plan's order.
        plan: The plan.
        level: Of the intervals.
    """
    if plan.segments is None or not plan.segments.alignment:
        return
    for name in ("control", *plan.treatment_names):
        found = {one.seed: _cosine(_branch(one, name)) for one in outcomes}
        there = {seed: value for seed, value in found.items() if value is not None}
        values = np.array(list(there.values()))
        is_enough = len(values) >= MIN_PAIRS
        test = inference.paired_t_test(values) if is_enough else None
        yield Alignment(
            name,
            tuple(there),
            tuple(values.tolist()),
            len(values),
            len(outcomes) - len(values),
            mean=float(values.mean()) if len(values) else None,
            interval=inference.t_interval(values, level) if is_enough else None,
            p=None if test is None else test.p,
        )


def _branch(outcome: SeedOutcomes, name: str) -> BranchTables:
    return outcome.control if name == "control" else outcome.treatments[name]


def _cosine(branch: BranchTables) -> float | None:
    table = branch.tables.get(ALIGNMENT)
    return None if table is None or branch.diverged_at is not None else float(table[0])
