"""What holds for a study as a whole, and not for one row of its estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from auditkit.records.estimate import ALPHA, MIN_PAIRS
from auditkit.records.metric_names import base_metric
from auditkit.records.plan import DISTANCE_METRICS, StudyPlan
from auditkit.statistics.equal_treatments import equality_notes
from auditkit.statistics.multiplicity import seeds_needed
from auditkit.statistics.outcomes import SeedValues


def study_notes(
    values: Sequence[SeedValues],
    n_seeds: int,
    plan: StudyPlan,
    primary: str,
    equal: Mapping[str, str],
) -> list[str]:
    """Notes on seeds, placebos, and what the tests can show.

    Args:
        values: The numbers of the seeds whose control stands.
        n_seeds: Seeds with outcomes.
        plan: The plan.
        primary: Its primary metric.
        equal: By treatment, the first one that it gave equal bits with.
    """
    notes = []
    if n_seeds < len(plan.seeds):
        notes.append(
            f"planned seeds that are missing: {len(plan.seeds) - n_seeds} of {len(plan.seeds)}"
        )
    if len(values) < n_seeds:
        notes.append(f"seeds left out because their control diverged: {n_seeds - len(values)}")
    if plan.placebos == 0:
        notes.append("no placebos: distances have no floor and are not tested")
    elif base_metric(primary) in DISTANCE_METRICS and len(values) >= MIN_PAIRS:
        m = len(plan.times) * len(set(equal.values()))
        needed = seeds_needed(m, plan.placebos, ALPHA)
        if len(values) < needed:
            k = f"{plan.placebos} placebo{'' if plan.placebos == 1 else 's'}"
            notes.append(
                f"no test of {primary} can reach {ALPHA:g} after Holm's correction: "
                f"{m} tests with {k} a seed need {needed} seeds"
            )
    return [*notes, *equality_notes(equal)]
