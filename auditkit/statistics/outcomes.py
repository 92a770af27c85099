"""Outcomes of a study in memory, and the one pass that turns their tables into numbers.

Kept here: which branches count. A branch that diverged counts nowhere, at no time, so that
all times speak of the same pairs; a seed whose control diverged is left out whole. The
metrics are those of ``positions``; what the numbers say is for ``estimands``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import FormatError
from auditkit.formats.outcome_names import measure_name, probe_of, split_measure, table_name
from auditkit.records.estimate import (
    AS_IS,
    DEVELOPED_SHARE,
    RECALIBRATED,
    FloorDevelopment,
)
from auditkit.records.metric_names import MEASURES, split_metric
from auditkit.records.observed import Observed
from auditkit.records.output_kinds import REGRESSION
from auditkit.records.plan import StudyPlan, as_typed
from auditkit.statistics.positions import (
    PositionTable,
    distances,
    growth,
    same_bits,
    signed_metrics,
)
from auditkit.statistics.real_outputs import Reals
from auditkit.statistics.real_tables import collapsed, scale_of, why_no_r2

#: A placebo has grown when its total variation at T exceeds this, or what stands for it where
#: there are no probabilities.
GROWN = 1e-3

#: Stands among a placebo's distances for how far it has grown; and most branches that a note names.
_GROWTH, _PLACES = "growth", 5

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
        labels: Class indices of the probe, int64 ``(N,)``, or targets, float64 ``(N, D)``; empty
            where it has none; or those of every probe by name.
        control: The control's tables.
        placebos: The K placebos' tables, in the plan's order.
        treatments: The treatments' tables by branch name.
        observed: What branches are compared on.
        broken: Tables of broken branches, where the plan has a causal break.
    """

    seed: int
    labels: Any
    control: BranchTables
    placebos: tuple[BranchTables, ...]
    treatments: Mapping[str, BranchTables]
    observed: Observed = field(default_factory=Observed)
    broken: Mapping[str, BranchTables] = field(default_factory=dict)

    def labels_of(self, probe: str) -> NDArray[Any]:
        """The labels or targets of a probe; empty where it has none."""
        found: NDArray[Any] = self.labels
        return self.labels[probe] if isinstance(self.labels, Mapping) else found


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
        placebo_scores: Signed metrics, one mapping a placebo that stands.
    """

    seed: int
    control: Mapping[TableMetric, float]
    treatments: Mapping[str, Mapping[TableMetric, float]]
    distances: Mapping[str, Mapping[TableMetric, float]]
    placebos: tuple[Mapping[TableMetric, float], ...]
    identical: Mapping[str, frozenset[str]]
    placebo_scores: tuple[Mapping[TableMetric, float], ...] = ()


def table_key(time: str, variant: str, probe: str = "") -> str:
    """Key of a table: ``T`` or ``T/recalibrated``; of a named probe ``T@NAME``."""
    return table_name(time, probe, "" if variant == AS_IS else f"/{variant}")


def table_metric(metric: str, variant: str, time: str) -> TableMetric:
    """What a row's number belongs to, by the name of its metric."""
    probe, name = split_metric(metric)
    if probe == MEASURES:
        return measure_name(time, name), ""
    return table_key(time, variant, probe), name


def variants_of(
    outcomes: Sequence[SeedOutcomes], plan: StudyPlan, probe: str = ""
) -> tuple[str, ...]:
    """The variants that every branch that stands has of a probe: as is, or both.

    Raises:
        FormatError: When a table is missing or only some branches have recalibrated ones.
    """
    plain = [table_key(time, AS_IS, probe) for time in plan.probed]
    keys = [table_key(time, RECALIBRATED, probe) for time in plan.probed]
    included = [
        branch
        for outcome in outcomes
        for branch in _branches(outcome, plan).values()
        if branch.diverged_at is None
    ]
    if any(key not in branch.tables for branch in included for key in plain):
        raise FormatError("a branch lacks a table", expected=" and ".join(plain))
    present = {key in branch.tables for branch in included for key in keys}
    if len(present) > 1:
        raise FormatError("only some branches have recalibrated tables")
    return (AS_IS, RECALIBRATED) if present == {True} else (AS_IS,)


def check_outcomes(outcomes: Sequence[SeedOutcomes], plan: StudyPlan) -> None:
    """Check that the outcomes are ones of this plan.

    Raises:
        FormatError: Without any seed, on a seed given twice or not planned, on another number
            of placebos, on a missing treatment, or where seeds were compared on something else.
        PlanError: When the plan names a probe or measure that there is not.
    """
    seeds = [outcome.seed for outcome in outcomes]
    if not seeds:
        raise FormatError("there are no outcomes to estimate anything from")
    if len(set(seeds)) != len(seeds) or not set(seeds) <= set(plan.seeds):
        raise FormatError("the outcomes' seeds are not the plan's", found=seeds)
    if any(outcome.observed != outcomes[0].observed for outcome in outcomes):
        raise FormatError("the seeds are not compared on the same probes and measures")
    outcomes[0].observed.require(plan)
    for outcome in outcomes:
        where = f"seed {outcome.seed}"
        if len(outcome.placebos) != plan.placebos:
            raise FormatError(
                "another number of placebos than planned",
                expected=plan.placebos,
                found=len(outcome.placebos),
                where=where,
            )
        missing = {*plan.treatment_names, *plan.broken_names}
        missing -= {*outcome.treatments, *outcome.broken}
        if missing:
            raise FormatError(f"no outcome of {', '.join(sorted(missing))}", where=where)


def count_diverged(outcomes: Sequence[SeedOutcomes], plan: StudyPlan) -> dict[str, int]:
    """In how many seeds each branch diverged."""
    counts = dict.fromkeys((name for name in plan.branch_names if name != "replica"), 0)
    for outcome in outcomes:
        for name, branch in _branches(outcome, plan).items():
            counts[name] += branch.diverged_at is not None
    return counts


def non_finite_measures(
    outcomes: Sequence[SeedOutcomes], plan: StudyPlan, observed: Observed
) -> Iterator[str]:
    """Where a measure is no finite number, so that its branch counts as diverged: a note each."""
    for measure in observed.measures:
        places = []
        for outcome in outcomes:
            for name, branch in _branches(outcome, plan).items():
                values = {
                    time: float(branch.tables[key][0])
                    for time in ("t0", *plan.probed)
                    if (key := measure_name(time, measure.name)) in branch.tables
                }
                first = next(((t, v) for t, v in values.items() if not math.isfinite(v)), None)
                if first is not None:
                    told = f"seed {outcome.seed}, {as_typed(name)} ({first[1]} at {first[0]})"
                    places.append(told)
        if places:
            more = f"; and {len(places) - _PLACES} more" if len(places) > _PLACES else ""
            yield (
                f"{MEASURES}/{measure.name} is not finite, and its branch left out as diverged: "
                f"{'; '.join(places[:_PLACES])}{more}"
            )


def _branches(outcome: SeedOutcomes, plan: StudyPlan) -> dict[str, BranchTables]:
    placebos = dict(zip(plan.placebo_names, outcome.placebos, strict=True))
    every = {"control": outcome.control, **placebos, **outcome.treatments, **outcome.broken}
    return {name: every[name] for name in plan.branch_names if name != "replica"}


@dataclass(frozen=True)
class Units:
    """In which units distances are told, and what cannot be told.

    Attributes:
        scales: What ``scaled_rmsd`` is divided by, by key.
        undefined: Why a metric of a table has no value.
    """

    scales: Mapping[str, Reals] = field(default_factory=dict)
    undefined: Mapping[TableMetric, str] = field(default_factory=dict)


def units_of(outcomes: Sequence[SeedOutcomes], keys: Sequence[str]) -> Units:
    """The units of all tables.

    Raises:
        FormatError: On a table that holds what is not finite.
    """
    scales: dict[str, Reals] = {}
    undefined: dict[TableMetric, str] = {}
    standing = [outcome for outcome in outcomes if outcome.control.diverged_at is None]
    for key in keys:
        tables = [outcome.control.tables[key] for outcome in standing]
        if outcomes[0].observed.kind_of(probe_of(key)).name != REGRESSION:
            continue
        targets = [outcome.labels_of(probe_of(key)) for outcome in standing]
        scale = scale_of(tables, targets)
        if isinstance(scale, str):
            undefined[key, "scaled_rmsd"] = scale
        else:
            scales[key] = scale
        if (reason := why_no_r2(targets)) is not None:
            undefined[key, "r2"] = reason
    return Units(scales, undefined)


def collapse_notes(outcomes: Sequence[SeedOutcomes], keys: Sequence[str]) -> list[str]:
    """Where every example has one embedding, which CKA says nothing of."""
    notes = []
    for key in keys:
        branches = [
            branch
            for outcome in outcomes
            for branch in (outcome.control, *outcome.placebos, *outcome.treatments.values())
            if branch.diverged_at is None
        ]
        count = collapsed([branch.tables[key] for branch in branches])
        if count:
            notes.append(
                f"{key}: in {count} of {len(branches)} branches every example has the same "
                "embedding (collapse): cka_distance counts 1 from any other, 0 from another such"
            )
    return notes


def evaluate_metrics(
    outcomes: Sequence[SeedOutcomes], keys: Sequence[str], units: Units | None = None
) -> list[SeedValues]:
    """Evaluate every metric once on every table that counts.

    Args:
        outcomes: One a seed; seeds whose control diverged are skipped.
        keys: Keys of the tables to evaluate, and of measures.
        units: Of all tables of real numbers.

    Raises:
        FormatError: On a table that holds no probabilities, or of another shape than the
            control's.
    """
    measured = [key for key in keys if split_measure(key)[1]]
    looked_at = [key for key in keys if key not in measured]
    scales = (units or Units()).scales

    def score(branch: BranchTables, outcome: SeedOutcomes) -> dict[TableMetric, float]:
        of_tables = {
            (key, name): value
            for key in looked_at
            for name, value in signed_metrics(
                branch.tables[key], outcome.labels_of(probe_of(key))
            ).items()
        }
        return {**of_tables, **{(key, ""): float(branch.tables[key][0]) for key in measured}}

    def compare(control: BranchTables, branch: BranchTables) -> dict[TableMetric, float]:
        return _distances(control, branch, looked_at, scales)

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
                tuple(score(x, outcome) for x in outcome.placebos if x.diverged_at is None),
            )
        )
    return values


def _distances(
    control: BranchTables,
    branch: BranchTables,
    keys: Sequence[str],
    scales: Mapping[str, Reals],
) -> dict[TableMetric, float]:
    """Every distance of a branch from its control, and how far it has grown."""
    found: dict[TableMetric, float] = {}
    for key in keys:
        each = distances(control.tables[key], branch.tables[key], scales.get(key))
        grown = growth(control.tables[key], each, scales.get(key))
        found |= {(key, name): value for name, value in each.items()}
        found |= {} if grown is None else {(key, _GROWTH): grown}
    return found


def seed_distances(
    outcomes: Sequence[SeedOutcomes], keys: Sequence[str], units: Units | None = None
) -> tuple[dict[TableMetric, float], tuple[str, ...]]:
    """Mean distance between the controls of different seeds, over all pairs of seeds.

    Returns:
        The distances, and why there are none of some.
    """
    included = [outcome for outcome in outcomes if outcome.control.diverged_at is None]
    if len(included) < 2:
        return {}, ("no seed-to-seed distance: fewer than two controls",)
    found: dict[TableMetric, float] = {}
    reasons = []
    for key in keys:
        probe = probe_of(key)
        said = f" of {probe}" if probe else ""
        tables = [outcome.control.tables[key] for outcome in included]
        labels = [outcome.labels_of(probe) for outcome in included]
        if any(isinstance(table, PositionTable) for table in tables):
            reasons.append(f"no seed-to-seed distance{said}: no table by position is kept")
        elif not all(np.array_equal(labels[0], each) for each in labels):
            reasons.append(f"no seed-to-seed distance{said}: the probe differs between seeds")
        else:
            scale = (units or Units()).scales.get(key)
            each = [distances(here, there, scale) for here, there in combinations(tables, 2)]
            found |= {(key, n): float(np.mean([pair[n] for pair in each])) for n in each[0]}
    return found, tuple(dict.fromkeys(reasons))


def floor_development(
    values: Sequence[SeedValues], probe: str = "", of: str = "TV"
) -> FloorDevelopment:
    """Whether the placebos' nudge has grown by T on a probe, over all placebos that stand."""
    key = table_key("T", AS_IS, probe)
    standing = [p for value in values for p in value.placebos if any(k == key for k, _ in p)]
    found = [p[key, _GROWTH] for p in standing if (key, _GROWTH) in p]
    above = sum(distance > GROWN for distance in found)
    developed = above >= DEVELOPED_SHARE * len(found) if found else None
    return FloorDevelopment(GROWN, above, len(found or standing), developed, of)
