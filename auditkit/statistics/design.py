"""What a design can show at all, before anything is spent on it.

The primary metric's tests are corrected with Holm's method over perturbations and times. A label
permutation has (K + 1) ** n labelings, so its smallest p follows from the plan alone; where that,
times the number of tests, exceeds alpha, no data whatever can give an effect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.records.estimate import ALPHA, MIN_PAIRS
from auditkit.records.metric_names import base_metric
from auditkit.records.plan import DISTANCE_METRICS, StudyPlan
from auditkit.records.preflight import NudgeTrial
from auditkit.statistics.multiplicity import seeds_needed
from auditkit.statistics.outcomes import GROWN
from auditkit.statistics.resampling import DRAWS, ENUMERATION_LIMIT

#: Sizes of the placebo's nudge that are tried where the plan leaves the choice.
SCALES = tuple(16**exponent for exponent in range(6))


@dataclass(frozen=True)
class Design:
    """What the tests of the primary metric can reach.

    Attributes:
        metric: The primary metric.
        n_tests: Perturbations times forks times the times at which they are measured.
        smallest_p: Of one test, before correction; None where the test has no smallest p (the
            paired t test of a signed metric) or cannot be made.
        fewest_seeds: Seeds from which a test can reach :data:`ALPHA` after correction; None where
            no number of seeds can.
        reaches: Whether the plan's seeds can.
    """

    metric: str
    n_tests: int
    smallest_p: float | None
    fewest_seeds: int | None
    reaches: bool


def design_of(plan: StudyPlan) -> Design:
    """The arithmetic of a plan."""
    n_tests, n_seeds = plan.n_tests, len(plan.seeds)
    if base_metric(plan.primary_metric) not in DISTANCE_METRICS:
        return Design(plan.primary_metric, n_tests, None, MIN_PAIRS, n_seeds >= MIN_PAIRS)
    fewest = max(MIN_PAIRS, seeds_needed(n_tests, plan.placebos, ALPHA))
    smallest = _smallest_p(plan.placebos, n_seeds) if n_seeds >= MIN_PAIRS else None
    if _smallest_p(plan.placebos, fewest) * n_tests > ALPHA:
        return Design(plan.primary_metric, n_tests, smallest, None, False)
    return Design(plan.primary_metric, n_tests, smallest, fewest, n_seeds >= fewest)


def _smallest_p(placebos: int, n_seeds: int) -> float:
    """Of a permutation within seeds, which is drawn where it is too large to be enumerated."""
    if n_seeds * math.log(placebos + 1) <= math.log(ENUMERATION_LIMIT):
        return float((placebos + 1) ** -n_seeds)
    return 1 / (DRAWS + 1)


def grown(trial: NudgeTrial, plan: StudyPlan) -> bool | None:
    """Whether a nudge will have grown at T, by how it grew in a trial.

    A trial as long as a branch has shown it. Distances between chaotic trajectories grow
    exponentially before they saturate, and where training contracts they shrink as fast: what
    changed from half of a shorter trial to its end is carried on to the length of a branch, but
    for what has grown and grows on.

    Returns:
        None where the trial does not tell: nothing had moved at half of it.
    """
    length = plan.horizon - plan.forks[-1]  # the shortest branch
    has_moved = trial.end > GROWN
    if trial.steps >= length or (has_moved and not shrinks(trial)):
        return has_moved
    if not trial.halfway > 0:
        return None
    if not has_moved and trial.end <= trial.halfway:
        return False
    rate = math.log(trial.end / trial.halfway) / max(trial.steps / 2, 1)
    return math.log(trial.end) + rate * (length - trial.steps) > math.log(GROWN)


def shrinks(trial: NudgeTrial) -> bool:
    """Whether training contracts: a nudge had carried the probe further at half of the trial."""
    return trial.end < trial.halfway


def has_grown(trial: NudgeTrial, plan: StudyPlan) -> bool:
    """Whether a nudge was seen to grow, and is not seen to shrink away before T."""
    return trial.end > GROWN and grown(trial, plan) is True


def chosen_scale(trials: Sequence[NudgeTrial], plan: StudyPlan) -> int:
    """The scale of the first nudge that has grown, else the largest that was tried."""
    return next((trial.scale for trial in trials if has_grown(trial, plan)), trials[-1].scale)
