"""What is said at a study's end of branches that diverged: they are no pairs."""

from __future__ import annotations

from collections.abc import Sequence

from auditkit.records.manifest import SeedRecord
from auditkit.records.plan import as_typed


def divergence_note(records: Sequence[SeedRecord]) -> str | None:
    """Which branches became NaN or infinite, in how many seeds; None where none did.

    Args:
        records: The seeds of one fork.
    """
    steps: dict[str, list[int]] = {}
    left = False
    for record in records:
        control, *others = record.branches
        for branch in record.branches:
            if branch.diverged_at is not None:
                steps.setdefault(branch.name, []).append(branch.diverged_at)
        treated = [branch for branch in others if branch.role == "treatment"]
        left |= control.diverged_at is None and any(b.diverged_at is None for b in treated)
    if not steps:
        return None
    told = ", ".join(
        f"{as_typed(name)} in {len(found)} of {len(records)} seeds (first at step {min(found)})"
        for name, found in steps.items()
    )
    note = f"NaN or infinite loss or outcomes, and left out as diverged: {told}"
    return note if left else f"{note}; no pair is left, so verify will give no estimates"
