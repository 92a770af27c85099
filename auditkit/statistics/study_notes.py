"""What holds for a study as a whole, and not for one row of its estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from auditkit.records.plan import StudyPlan
from auditkit.statistics.equal_treatments import equality_notes
from auditkit.statistics.multiplicity import out_of_reach
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
    notes: list[str | None] = []
    if n_seeds < len(plan.seeds):
        notes.append(
            f"planned seeds that are missing: {len(plan.seeds) - n_seeds} of {len(plan.seeds)}"
        )
    if len(values) < n_seeds:
        notes.append(f"seeds left out because their control diverged: {n_seeds - len(values)}")
    if plan.placebos == 0:
        notes.append("no placebos: distances have no floor and are not tested")
    else:
        n_tests = len(plan.times) * len(set(equal.values()))
        notes.append(out_of_reach(primary, len(values), plan.placebos, n_tests))
    return [*(note for note in notes if note is not None), *equality_notes(equal)]
