"""What a report says of perturbations that are the program's own.

The verifier's table does not have them: they are judged by what the signed plan declares of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.formats.quote import clipped
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import StudyPlan
from auditkit.records.report import Finding


def own_note(plan: StudyPlan) -> str:
    """The end of a line on what check 7 looked at; empty where all perturbations are known."""
    parts = []
    for own in plan.own_perturbations:
        patterns = ", ".join((*own.touches, *own.allowed, *own.cleared)) or "nothing"
        parts.append(
            f"; {own.name} is the program's own, judged by what its signed plan declares: version "
            f"{own.version} changes {clipped(patterns)}"
        )
    return "".join(parts)


def check_own(plan: StudyPlan) -> Iterator[Finding]:
    """Check 4, for declarations in a plan: each is of what the plan names, not auditkit's."""
    named = {spec.name for spec in plan.perturbations}
    for own in plan.own_perturbations:
        if own.name in DECLARATIONS:
            yield Finding(f"the plan declares {own.name!r}, which is auditkit's own", "plan")
        if own.name not in named:
            yield Finding(f"the plan declares {own.name!r} and does not name it", "plan")
