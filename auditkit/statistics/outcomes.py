"""Outcomes of a study in memory, and the one pass that turns their tables into numbers.

Kept here: which branches count. A branch that diverged counts nowhere, at no time, so that
all times speak of the same pairs; a seed whose control diverged is left out whole. The
metrics are those of ``positions``; what the numbers say is for ``estimands``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import FormatError
from auditkit.records.estimate import (
    AS_IS,
    DEVELOPED_SHARE,
    RECALIBRATED,
    FloorDevelopment,
)
from auditkit.records.plan import StudyPlan
from auditkit.statistics.positions import (
    PositionTable,
    distances,
    same_bits,
    signed_metrics,
)

#: A placebo has grown when its total variation at T exceeds this.
GROWN = 1e-3

#: What one number belongs to: a table's key (``T/recalibrated``) and a metric.
TableMetric = tuple[str, str]


@dataclass(frozen=True)
class BranchTables:
    """Probe tables of one branch.

    Attributes:
        tables: Probabilities, float32 ``(N, C)``, or what was kept of them by position
            (:class:`PositionTable`), by ``"t0+W"``, ``"T"``, the plan's further times and, where
            the model has BatchNorm, ``"t0+W/recalibrated"`` and so on. Other keys are ignored.
            Those of a diverged branch are never read.
        diverged_at: Step at which the branch diverged, or None.
    """

    tables: Mapping[str, Any]
    diverged_at: int | None = None


@dataclass(frozen=True)
class SeedOutcomes:
    """Outcomes of one seed.

    Attributes:
        seed: The seed.
        labels: Class indices of the probe, int64 ``(N,)``; empty where it has none.
        control: The control's tables.
        placebos: The K placebos' tables, in the plan's order.
        treatments: The treatments' tables by branch name.
    """

    seed: int
    labels: NDArray[np.int64]
    control: BranchTables
    placebos: tuple[BranchTables, ...]
    treatments: Mapping[str, BranchTables]


@dataclass(frozen=True)
class SeedValues:
    """The numbers of one seed whose control stands.

    Attributes:
        seed: The seed.
        control: Signed metrics of the control.
        treatments: Signed metrics by treatment; treatments that stand only.
        distances: Distances from the control by treatment.
        placebos: Distances from the control, one mapping a placebo that stands.
        identical: By treatment, the keys at which its table has the control's bits.
    """

    seed: int
    control: Mapping[TableMetric, float]
    treatments: Mapping[str, Mapping[TableMetric, float]]
    distances: Mapping[str, Mapping[TableMetric, float]]
    placebos: tuple[Mapping[TableMetric, float], ...]
    identical: Mapping[str, frozenset[str]]


def table_key(time: str, variant: str) -> str:
    """Key of a table: ``T`` or ``T/recalibrated``."""
    return time if variant == AS_IS else f"{time}/{variant}"


def variants_of(outcomes: Sequence[SeedOutcomes], plan: StudyPlan) -> tuple[str, ...]:
    """The variants that every branch that stands has: as is, or both.

    Raises:
        FormatError: When a table is missing or only some branches have recalibrated ones.
    """
    keys = [table_key(time, RECALIBRATED) for time in plan.probed]
    included = [
        branch
        for outcome in outcomes
        for branch in _branches(outcome, plan).values()
        if branch.diverged_at is None
    ]
    if any(time not in branch.tables for branch in included for time in plan.probed):
        raise FormatError("a branch lacks a table", expected=" and ".join(plan.probed))
    present = {key in branch.tables for branch in included for key in keys}
    if len(present) > 1:
        raise FormatError("only some branches have recalibrated tables")
    return (AS_IS, RECALIBRATED) if present == {True} else (AS_IS,)


def check_outcomes(outcomes: Sequence[SeedOutcomes], plan: StudyPlan) -> None:
    """Check that the outcomes are ones of this plan.

    Raises:
        FormatError: Without any seed, on a seed given twice or not planned, on another number
            of placebos, or on a missing treatment.
    """
    seeds = [outcome.seed for outcome in outcomes]
    if not seeds:
        raise FormatError("there are no outcomes to estimate anything from")
    if len(set(seeds)) != len(seeds) or not set(seeds) <= set(plan.seeds):
        raise FormatError("the outcomes' seeds are not the plan's", found=seeds)
    for outcome in outcomes:
        where = f"seed {outcome.seed}"
        if len(outcome.placebos) != plan.placebos:
            raise FormatError(
                "another number of placebos than planned",
                expected=plan.placebos,
                found=len(outcome.placebos),
                where=where,
            )
        missing = set(plan.treatment_names) - set(outcome.treatments)
        if missing:
            raise FormatError(f"no outcome of {', '.join(sorted(missing))}", where=where)


def count_diverged(outcomes: Sequence[SeedOutcomes], plan: StudyPlan) -> dict[str, int]:
    """In how many seeds each branch diverged."""
    counts = {name: 0 for name in plan.branch_names if name != "replica"}
    for outcome in outcomes:
        for name, branch in _branches(outcome, plan).items():
            counts[name] += branch.diverged_at is not None
    return counts


def _branches(outcome: SeedOutcomes, plan: StudyPlan) -> dict[str, BranchTables]:
    return {
        "control": outcome.control,
        **dict(zip(plan.placebo_names, outcome.placebos, strict=True)),
        **{name: outcome.treatments[name] for name in plan.treatment_names},
    }


def evaluate_metrics(outcomes: Sequence[SeedOutcomes], keys: Sequence[str]) -> list[SeedValues]:
    """Evaluate every metric once on every table that counts.

    Args:
        outcomes: One a seed; seeds whose control diverged are skipped.
        keys: Keys of the tables to evaluate.

    Raises:
        FormatError: On a table that holds no probabilities, or of another shape than the
            control's.
    """

    def score(branch: BranchTables, outcome: SeedOutcomes) -> dict[TableMetric, float]:
        return {
            (key, name): value
            for key in keys
            for name, value in signed_metrics(branch.tables[key], outcome.labels).items()
        }

    def compare(control: BranchTables, branch: BranchTables) -> dict[TableMetric, float]:
        return {
            (key, name): value
            for key in keys
            for name, value in distances(control.tables[key], branch.tables[key]).items()
        }

    values = []
    for outcome in outcomes:
        control = outcome.control
        if control.diverged_at is not None:
            continue
        included = {
            name: branch
            for name, branch in outcome.treatments.items()
            if branch.diverged_at is None
        }
        values.append(
            SeedValues(
                outcome.seed,
                score(control, outcome),
                {name: score(branch, outcome) for name, branch in included.items()},
                {name: compare(control, branch) for name, branch in included.items()},
                tuple(compare(control, x) for x in outcome.placebos if x.diverged_at is None),
                {
                    name: frozenset(
                        key for key in keys if same_bits(control.tables[key], branch.tables[key])
                    )
                    for name, branch in included.items()
                },
            )
        )
    return values


def seed_distances(
    outcomes: Sequence[SeedOutcomes], keys: Sequence[str]
) -> tuple[dict[TableMetric, float], str | None]:
    """Mean distance between the controls of different seeds, over all pairs of seeds.

    Returns:
        The distances, and None; or no distances, and why there are none.
    """
    included = [outcome for outcome in outcomes if outcome.control.diverged_at is None]
    if len(included) < 2:
        return {}, "no seed-to-seed distance: fewer than two controls"
    first = included[0].labels
    if not all(np.array_equal(first, outcome.labels) for outcome in included):
        return {}, "no seed-to-seed distance: the probe differs between seeds"
    if any(isinstance(included[0].control.tables[key], PositionTable) for key in keys):
        return {}, "no seed-to-seed distance: of tables by position none is kept to compare"
    found: dict[TableMetric, float] = {}
    for key in keys:
        pairs = combinations([outcome.control.tables[key] for outcome in included], 2)
        each = [distances(here, there) for here, there in pairs]
        for name in each[0]:
            found[key, name] = float(np.mean([values[name] for values in each]))
    return found, None


def floor_development(values: Sequence[SeedValues]) -> FloorDevelopment:
    """Whether the placebos' nudge has grown by T, over all placebos that stand."""
    distances = [placebo["T", "tv"] for value in values for placebo in value.placebos]
    above = sum(distance > GROWN for distance in distances)
    developed = above >= DEVELOPED_SHARE * len(distances) if distances else None
    return FloorDevelopment(GROWN, above, len(distances), developed)
