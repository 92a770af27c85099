"""Back-flow of every treatment, with and without the plan's causal break.

The unit is the seed: D2 - D1 is one number a seed, and t tests are of these. A distance of two
histories is set beside that of the placebos, which have one history but for rounding noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from auditkit.records.back_flow import (
    AMPLIFICATION,
    BROKEN_ARM,
    CARRIED,
    CONTRACTION,
    CONTRAST,
    LOWERS,
    RAISES,
    WITHIN_MARGIN,
    BackFlow,
)
from auditkit.records.causal_break import broken
from auditkit.records.estimate import ALPHA, EQUIVALENT, EXACTLY_ZERO, INCONCLUSIVE, MIN_PAIRS, SAME
from auditkit.records.metric_names import qualified
from auditkit.records.plan import CONFIRMATORY, StudyPlan
from auditkit.statistics import inference
from auditkit.statistics.looks import Looked
from auditkit.statistics.multiplicity import q_values
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes, Units, table_key
from auditkit.statistics.positions import PositionTable, distances, same_bits
from auditkit.statistics.real_outputs import Reals

#: What is said of a probe of which no whole tables are kept.
BY_POSITION = "no back-flow: no table by position is kept, and a broken branch is compared with one"

_WORDS = {
    CARRIED: (AMPLIFICATION, CONTRACTION),
    BROKEN_ARM: (AMPLIFICATION, CONTRACTION),
    CONTRAST: (LOWERS, RAISES),
}


@dataclass(frozen=True)
class _Course:
    """Distances of one branch from the control in one seed, and what is exactly equal."""

    d1: float
    carried: float
    broken: float
    equal: Mapping[str, bool]

    def of(self, arm: str) -> float:
        """Back-flow, or the contrast: its D1 is the same in both arms and falls out."""
        return {
            CARRIED: self.carried - self.d1,
            BROKEN_ARM: self.broken - self.d1,
            CONTRAST: self.carried - self.broken,
        }[arm]


def back_flows(
    outcomes: Sequence[SeedOutcomes],
    plan: StudyPlan,
    looks: Iterable[Looked],
    units: Units,
    level: float,
) -> tuple[tuple[BackFlow, ...], tuple[str, ...]]:
    """Every row, three for each treatment, metric and variant; none without a causal break.

    Args:
        outcomes: One a seed, in the plan's order.
        plan: The plan.
        looks: What there is of each probe.
        units: Of tables of real numbers.
        level: Of the intervals.

    Returns:
        The rows, and why there are none of some.
    """
    if plan.causal_break is None:
        return (), ()
    rows: list[BackFlow] = []
    notes: list[str] = []
    for looked in looks:
        for variant in looked.variants:
            keys = [table_key(time, variant, looked.probe) for time in CONFIRMATORY]
            if any(isinstance(one.control.tables.get(keys[0]), PositionTable) for one in outcomes):
                notes.append(qualified(looked.probe, BY_POSITION))
                continue
            for name in plan.treatment_names:
                measure = _measure(keys, units.scales)
                rows += _rows(outcomes, plan, looked, variant, name, measure, level)
    return _judged(rows), tuple(dict.fromkeys(notes))


Measure = Callable[[Mapping[str, BranchTables], str], Mapping[str, _Course]]


def _measure(keys: Sequence[str], scales: Mapping[str, Reals]) -> Measure:
    """Measures a branch of a seed against the control, by metric."""
    at_window, at_end = keys

    def measure(branches: Mapping[str, BranchTables], name: str) -> Mapping[str, _Course]:
        control, other = branches["control"].tables, branches[name].tables
        control_b, other_b = (branches[broken(n)].tables for n in ("control", name))
        d1 = distances(control[at_window], other[at_window], scales.get(at_window))
        carried = distances(control[at_end], other[at_end], scales.get(at_end))
        after = distances(control_b[at_end], other_b[at_end], scales.get(at_end))
        is_same = [
            same_bits(control[at_window], other[at_window]),
            same_bits(control[at_end], other[at_end]),
            same_bits(control_b[at_end], other_b[at_end]),
        ]
        untouched = same_bits(control[at_end], control_b[at_end])
        untouched &= same_bits(other[at_end], other_b[at_end])
        equal = {
            CARRIED: is_same[0] and is_same[1],
            BROKEN_ARM: is_same[0] and is_same[2],
            CONTRAST: untouched,
        }
        return {metric: _Course(d1[metric], carried[metric], after[metric], equal) for metric in d1}

    return measure


@dataclass(frozen=True)
class _Seed:
    """A seed whose branches stand: the other history, and the placebos that stand."""

    seed: int
    courses: Mapping[str, _Course]
    floors: Sequence[Mapping[str, _Course]]


def _rows(
    outcomes: Sequence[SeedOutcomes],
    plan: StudyPlan,
    looked: Looked,
    variant: str,
    name: str,
    measure: Measure,
    level: float,
) -> Iterator[BackFlow]:
    seeds = []
    for outcome in outcomes:
        branches = _standing(outcome, plan)
        if _has(branches, "control") and _has(branches, name):
            floors = [measure(branches, p) for p in plan.placebo_names if _has(branches, p)]
            seeds.append(_Seed(outcome.seed, measure(branches, name), floors))
    for metric in looked.kind.distances:
        if any(metric not in seed.courses for seed in seeds):
            continue  # it has no unit, which a note says
        courses = [seed.courses[metric] for seed in seeds]
        for arm in _WORDS:
            row = BackFlow(
                name,
                qualified(looked.probe, metric),
                variant,
                arm,
                tuple(seed.seed for seed in seeds),
                tuple(course.of(arm) for course in courses),
                tuple(_mean([one[metric].of(arm) for one in seed.floors]) for seed in seeds),
                len(courses),
                len(outcomes) - len(courses),
                *_ends(arm, courses),
                exactly_zero=bool(courses) and all(course.equal[arm] for course in courses),
                margin=plan.margins.get(qualified(looked.probe, metric), plan.margins.get(metric)),
            )
            yield _with_inference(row, level)


def _standing(outcome: SeedOutcomes, plan: StudyPlan) -> dict[str, BranchTables]:
    """Branches that did not diverge, by name."""
    placebos = dict(zip(plan.placebo_names, outcome.placebos, strict=True))
    every = {"control": outcome.control, **placebos, **outcome.treatments, **outcome.broken}
    return {name: branch for name, branch in every.items() if branch.diverged_at is None}


def _has(branches: Mapping[str, BranchTables], name: str) -> bool:
    return name in branches and broken(name) in branches


def _ends(arm: str, courses: Sequence[_Course]) -> tuple[float | None, float | None]:
    """Mean distances at t0+W and at T; a contrast has neither."""
    if arm == CONTRAST:
        return None, None
    at_end = [course.carried if arm == CARRIED else course.broken for course in courses]
    return _mean([course.d1 for course in courses]), _mean(at_end)


def _mean(numbers: Sequence[float]) -> float | None:
    return float(np.mean(numbers)) if numbers else None


def _with_inference(row: BackFlow, level: float) -> BackFlow:
    """Add the means, and intervals and tests to a row of at least three seeds."""
    pairs = zip(row.per_seed, row.floor_per_seed, strict=True)
    above = np.array([value - floor for value, floor in pairs if floor is not None])
    row = replace(
        row,
        mean=_mean(row.per_seed),
        floor=_mean([floor for floor in row.floor_per_seed if floor is not None]),
        excess=_mean(above.tolist()),
    )
    if row.exactly_zero or row.n < MIN_PAIRS:
        return row
    values = np.array(row.per_seed)
    test = inference.paired_t_test(values)
    row = replace(
        row,
        interval=inference.t_interval(values, level),
        p=None if test is None else test.p,
    )
    if len(above) < MIN_PAIRS:
        return row
    test = inference.paired_t_test(above)
    return replace(
        row,
        excess_interval=inference.t_interval(above, level),
        excess_p=None if test is None else test.p,
        equivalence_p=None if row.margin is None else _inside(row.margin, values, above),
    )


def _inside(margin: float, *values: NDArray[np.float64]) -> float | None:
    """The larger p that the means of all of these are inside a margin."""
    found = [inference.tost_p(each, margin) for each in values]
    return None if None in found else max(p for p in found if p is not None)


def _judged(rows: Sequence[BackFlow]) -> tuple[BackFlow, ...]:
    """Add q values and verdicts: both tests have to say so, so that the larger p counts.

    Equivalence is claimed as carefully, over the rows that have a margin.
    """
    found = q_values(
        [None if r.p is None or r.excess_p is None else max(r.p, r.excess_p) for r in rows]
    )
    inside = iter(q_values([row.equivalence_p for row in rows if row.margin is not None]))
    within = [None if row.margin is None else next(inside) for row in rows]
    return tuple(
        replace(row, adjusted_p=q, adjusted_equivalence_p=e, verdict=_verdict(row, q, e))
        for row, q, e in zip(rows, found, within, strict=True)
    )


def _verdict(row: BackFlow, q: float | None, equivalence_q: float | None) -> str:
    if row.exactly_zero:
        return EXACTLY_ZERO
    if row.n < MIN_PAIRS:
        return ""
    if not any(row.per_seed):
        return SAME
    is_inside = equivalence_q is not None and equivalence_q <= ALPHA
    side = _side(row, q)
    if side is None:
        return EQUIVALENT if is_inside else INCONCLUSIVE
    return WITHIN_MARGIN.format(side) if is_inside else side


def _side(row: BackFlow, q: float | None) -> str | None:
    """The word for it where both tests say so; None where they do not."""
    if q is None or row.mean is None or row.excess is None or q > ALPHA:
        return None
    if row.mean * row.excess <= 0:
        return None
    up, down = _WORDS[row.arm]
    return up if row.mean > 0 else down
