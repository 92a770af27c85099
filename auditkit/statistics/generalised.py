"""Effects for other seeds *and* other examples: two-way t intervals over seeds x examples.

Every other interval is for the probe as it is: the study's observable. Whoever speaks of the task
and not of the probe has two sources of chance, and crossed ones, since every seed is looked at on
the same examples. To count examples as if they were seeds, or to leave their chance out, covers 50
to 90 % where 95 % is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from auditkit.records.estimate import MIN_PAIRS, Interval
from auditkit.records.further_estimates import Generalised
from auditkit.records.metric_names import qualified
from auditkit.records.output_kinds import EMBEDDING, REGRESSION
from auditkit.records.plan import StudyPlan
from auditkit.statistics.examples import distance_examples, signed_examples
from auditkit.statistics.moments import RELATIVE_ZERO
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes, table_key, variants_of
from auditkit.statistics.positions import PositionTable, same_bits

Values = NDArray[np.float64]

#: Positions of one text are no examples that were drawn apart. Which of them are one text, nothing
#: says; successive ones are taken together, in so many runs (the method of batch means).
RUNS = 20

POSITIONS = (
    f"positions are taken together in {RUNS} runs of successive ones, which is right where no run "
    "is shorter than a text"
)


@dataclass(frozen=True)
class TwoWay:
    """A mean over seeds and examples.

    Attributes:
        mean: It.
        interval: Its t interval.
        df: Degrees of freedom (Satterthwaite).
    """

    mean: float
    interval: Interval
    df: float


def two_way_interval(table: Values, level: float = 0.95) -> TwoWay | None:
    """Interval for the mean of ``(S, X)`` over seeds and examples, both drawn at random.

    The variance of the mean is (MS_seeds + MS_examples - MS_residual) / (S X), with Satterthwaite's
    degrees of freedom. The interval is never narrower than that of the seeds' means alone, which
    speaks of these examples only.

    Returns:
        None for fewer than two seeds or examples, and where the seeds' means do not differ.
    """
    n_seeds, n_examples = table.shape
    if n_seeds < 2 or n_examples < 2:
        return None
    mean, of_seed, of_example = float(table.mean()), table.mean(axis=1), table.mean(axis=0)
    if np.ptp(of_seed) <= RELATIVE_ZERO * np.abs(table).max():
        return None
    residual = table - of_seed[:, None] - of_example[None, :] + mean
    df_seeds, df_examples = n_seeds - 1, n_examples - 1
    df_residual = df_seeds * df_examples
    seeds = n_examples * float(np.square(of_seed - mean).sum()) / df_seeds
    examples = n_seeds * float(np.square(of_example - mean).sum()) / df_examples
    noise = float(np.square(residual).sum()) / df_residual
    choices = [(_half_width(seeds / table.size, df_seeds, level), float(df_seeds))]
    if examples > noise:
        total = seeds + examples - noise
        parts = seeds**2 / df_seeds + examples**2 / df_examples + noise**2 / df_residual
        df = max(df_seeds, total**2 / parts)
        choices.append((_half_width(total / table.size, df, level), df))
    half, df = max(choices)
    return TwoWay(mean, Interval(mean - half, mean + half, level), df)


def _half_width(variance: float, df: float, level: float) -> float:
    return float(special.stdtrit(df, (1 + level) / 2)) * math.sqrt(variance)


def generalised(
    outcomes: Sequence[SeedOutcomes], plan: StudyPlan, level: float
) -> tuple[tuple[Generalised, ...], tuple[str, ...]]:
    """Every effect at t0+W and T on metrics that are means over examples.

    Args:
        outcomes: One a seed.
        plan: Names treatments and times.
        level: Of the intervals.

    Returns:
        The effects, and why there are none of some.
    """
    standing = [outcome for outcome in outcomes if outcome.control.diverged_at is None]
    found: list[Generalised] = []
    reasons = []
    observed = outcomes[0].observed
    for probe in observed.probes:
        said = f" of {probe}" if probe else ""
        labels = [outcome.labels_of(probe) for outcome in standing]
        first = table_key("T", "as-is", probe)
        if len(standing) < MIN_PAIRS:
            reasons.append(f"no two-way interval: fewer than {MIN_PAIRS} seeds")
        elif (kind := observed.kind_of(probe)).name == EMBEDDING:
            reasons.append(f"no two-way interval{said}: of {kind.told} it is not computed")
        elif not all(np.array_equal(labels[0], each) for each in labels) or _lengths_differ(
            standing, first
        ):
            reasons.append(f"no two-way interval{said}: the probe differs between seeds")
        elif kind.name == REGRESSION and not labels[0].size:
            reasons.append(f"no two-way interval{said}: of predictions errors alone have one")
        elif is_by_position(standing, first) and len(standing[0].control.tables[first]) < 2 * RUNS:
            reasons.append(f"no two-way interval{said}: fewer than {2 * RUNS} positions")
        else:
            if is_by_position(standing, first):
                reasons.append(f"two-way intervals{said}: {POSITIONS}")
            for variant in variants_of(outcomes, plan, probe):
                for time in plan.times:
                    found += _of_table(standing, plan, (probe, variant, time), level)
    return tuple(found), tuple(dict.fromkeys(reasons))


def is_by_position(outcomes: Sequence[SeedOutcomes], key: str) -> bool:
    """Whether there is no whole table, but what was kept of every position."""
    return any(isinstance(each.control.tables[key], PositionTable) for each in outcomes)


def _runs(table: Values, *, by_position: bool) -> Values:
    """The examples of ``(S, X)``; of positions the means of successive ones."""
    if not by_position:
        return table
    return np.stack([run.mean(axis=1) for run in np.array_split(table, RUNS, axis=1)], axis=1)


def _lengths_differ(standing: Sequence[SeedOutcomes], key: str) -> bool:
    return len({len(outcome.control.tables[key]) for outcome in standing}) > 1


def _of_table(
    standing: Sequence[SeedOutcomes], plan: StudyPlan, place: tuple[str, str, str], level: float
) -> Iterator[Generalised]:
    """The effects on one table of a probe."""
    probe, variant, time = place
    key = table_key(time, variant, probe)
    floors = {outcome.seed: _floor(outcome, key) for outcome in standing}
    for name in plan.treatment_names:
        columns: dict[str, list[Values]] = {}
        for outcome in standing:
            branch = outcome.treatments[name]
            if branch.diverged_at is None:
                effects = _effects(outcome, branch, key, probe, floors[outcome.seed])
                for metric, column in effects.items():
                    columns.setdefault(metric, []).append(column)
        for metric, rows in columns.items():
            if len(rows) < MIN_PAIRS or _is_exactly_zero(standing, name, key):
                continue
            table = np.array(rows)
            units = _runs(table, by_position=is_by_position(standing, key))
            two_way = two_way_interval(units, level)
            if two_way is not None:
                yield Generalised(
                    *(name, qualified(probe, metric), variant, time),
                    n_seeds=len(units),
                    n_examples=units.shape[1],
                    effect=float(table.mean()),
                    # runs may differ by a position in length
                    interval=two_way.interval.moved(float(table.mean()) - two_way.mean),
                    df=two_way.df,
                )


def _is_exactly_zero(standing: Sequence[SeedOutcomes], name: str, key: str) -> bool:
    """Whether every treatment that stands has its control's bits: then there is no estimate."""
    return all(
        same_bits(outcome.control.tables[key], outcome.treatments[name].tables[key])
        for outcome in standing
        if outcome.treatments[name].diverged_at is None
    )


def _floor(outcome: SeedOutcomes, key: str) -> dict[str, Values]:
    """Mean distance of the placebos that stand, example by example; empty without any."""
    control = outcome.control.tables[key]
    each = [
        distance_examples(control, placebo.tables[key])
        for placebo in outcome.placebos
        if placebo.diverged_at is None
    ]
    return {name: np.mean([one[name] for one in each], axis=0) for name in each[0]} if each else {}


def _effects(
    outcome: SeedOutcomes,
    branch: BranchTables,
    key: str,
    probe: str,
    floor: Mapping[str, Values],
) -> dict[str, Values]:
    """Of every example, treatment minus control, and distance minus floor."""
    control, treated = outcome.control.tables[key], branch.tables[key]
    labels = outcome.labels_of(probe)
    found: dict[str, Values] = {}
    if labels.size:
        ours, theirs = (signed_examples(table, labels) for table in (treated, control))
        found = {metric: ours[metric] - theirs[metric] for metric in ours}
    distances = distance_examples(control, treated)
    return found | {metric: distances[metric] - floor[metric] for metric in floor}
