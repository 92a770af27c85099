"""What is said at a study's end of branches that diverged: they are no pairs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import get_args

from auditkit.records.manifest import SeedRecord
from auditkit.records.plan import Role, as_typed


def told_divergence(records: Sequence[SeedRecord], roles: Collection[str]) -> str:
    """Which branches of such roles diverged, in how many seeds, and from which step on.

    Args:
        records: The seeds of one fork.
        roles: Of the branches that are told.

    Returns:
        One line; empty where none did.
    """
    steps: dict[str, list[int]] = {}
    for record in records:
        for branch in record.branches:
            if branch.diverged_at is not None and branch.role in roles:
                steps.setdefault(branch.name, []).append(branch.diverged_at)
    return ", ".join(
        f"{as_typed(name)} in {len(found)} of {len(records)} seeds (first at step {min(found)})"
        for name, found in steps.items()
    )


def divergence_note(records: Sequence[SeedRecord]) -> str | None:
    """Which branches became NaN or infinite, in how many seeds; None where none did.

    Args:
        records: The seeds of one fork.
    """
    told = told_divergence(records, get_args(Role))
    if not told:
        return None
    left = False
    for record in records:
        control, *others = record.branches
        treated = [branch for branch in others if branch.role == "treatment"]
        left |= control.diverged_at is None and any(b.diverged_at is None for b in treated)
    note = f"NaN or infinite loss or outcomes, and left out as diverged: {told}"
    return note if left else f"{note}; no pair is left, so verify will give no estimates"
