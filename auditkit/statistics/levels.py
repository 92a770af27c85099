"""What the controls reach by themselves, beside a guess that looks at nothing.

A difference means little where the control itself says no more than how often each class occurs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.formats.outcome_names import measure_name
from auditkit.records.estimate import AS_IS, MIN_PAIRS, ControlLevel
from auditkit.records.metric_names import MEASURES, qualified
from auditkit.records.output_kinds import REGRESSION
from auditkit.records.plan import StudyPlan
from auditkit.statistics import inference
from auditkit.statistics.metrics import CLIP
from auditkit.statistics.outcomes import SeedOutcomes, SeedValues, table_key

#: Metrics that a constant guess has a meaningful value of; and those of them of which more is
#: better. The guess has no calibration error, and need not be any good for that.
COMPARED = ("accuracy", "nll", "brier")
COMPARED_OF_REALS = ("mse", "mae")
_MORE_IS_BETTER = ("accuracy",)

#: Twice the size of the one-sided test whose lower end is looked at.
_LEVEL = 0.90

#: Gains below this are rounding.
_ROUNDING = 1e-12


def control_levels(
    outcomes: Sequence[SeedOutcomes],
    values: Sequence[SeedValues],
    variants: Sequence[str],
    plan: StudyPlan,
    probe: str = "",
) -> tuple[ControlLevel, ...]:
    """Compare the controls with a constant guess.

    Args:
        outcomes: One a seed.
        values: The numbers of the seeds whose control stands.
        variants: As is, and perhaps recalibrated.
        plan: Names the times.
        probe: The probe's name, where it has one.

    Returns:
        One level a metric, variant and time; none where no control stands.
    """
    if not values:
        return ()
    by_seed = {outcome.seed: outcome.labels_of(probe) for outcome in outcomes}
    labels = [by_seed[value.seed] for value in values]
    is_real = outcomes[0].observed.kind_of(probe).name == REGRESSION
    return tuple(
        _level(metric, (variant, time, probe), values, labels)
        for metric in (COMPARED_OF_REALS if is_real else COMPARED)
        for variant in variants
        for time in plan.probed
    )


def measure_levels(
    values: Sequence[SeedValues], measures: Iterable[str], plan: StudyPlan
) -> tuple[ControlLevel, ...]:
    """What the program's own measures of the controls are; nothing is guessed of them.

    Args:
        values: The numbers of the seeds whose control stands.
        measures: Names of the measures.
        plan: Names the times.

    Returns:
        One level a measure and time; none where no control stands.
    """
    found = []
    for name in measures if values else ():
        for time in plan.probed:
            reached = [value.control[measure_name(time, name), ""] for value in values]
            mean = float(np.mean(reached))
            level = ControlLevel(
                f"{MEASURES}/{name}", AS_IS, time, tuple(reached), mean, None, at_chance=None
            )
            found.append(level)
    return tuple(found)


def constant_guess(metric: str, labels: NDArray[Any]) -> float:
    """A metric of the table that gives every example the share of each class among the labels.

    The table itself is never made: it could be of as many columns as a language has words. Of
    targets it is the best constant: the mean for ``mse``, a median for ``mae``.
    """
    if metric == "mse":
        return float(labels.var(axis=0).mean())
    if metric == "mae":
        return float(np.abs(labels - np.median(labels, axis=0)).mean())
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return {
        "accuracy": float(shares.max()),
        "nll": float(-(shares * np.log(np.maximum(shares, CLIP))).sum()),
        "brier": float(1 - np.square(shares).sum()),
    }[metric]


def _level(
    metric: str,
    table: tuple[str, str, str],
    values: Sequence[SeedValues],
    labels: Sequence[NDArray[Any]],
) -> ControlLevel:
    variant, time, probe = table
    key = table_key(time, variant, probe)
    reached = np.array([value.control[key, metric] for value in values])
    guessed = np.array([constant_guess(metric, each) for each in labels])
    gains = reached - guessed if metric in _MORE_IS_BETTER else guessed - reached
    interval = inference.t_interval(gains, _LEVEL) if len(gains) >= MIN_PAIRS else None
    low = interval.low if interval is not None else None
    return ControlLevel(
        metric=qualified(probe, metric),
        variant=variant,
        time=time,
        per_seed=tuple(float(value) for value in reached),
        mean=float(reached.mean()),
        constant_guess=float(guessed.mean()),
        at_chance=bool((float(gains.mean()) if low is None else low) <= _ROUNDING),
    )
