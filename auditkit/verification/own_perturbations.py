"""What a report says of perturbations that are the program's own, or a plug-in's.

The verifier's table does not have them: they are judged by what the signed plan declares of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from auditkit.formats.quote import clipped
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.manifest import StudyManifest
from auditkit.records.plan import StudyPlan
from auditkit.records.plug_in import PlugIn
from auditkit.records.report import Finding


def own_note(plan: StudyPlan) -> str:
    """The end of a line on what check 7 looked at; empty where all perturbations are known."""
    return "".join(
        f"; {own.name} is the program's own, judged by what its signed plan declares: version "
        f"{own.version} changes {clipped(own.changes)}"
        for own in plan.own_perturbations
    )


def check_own(plan: StudyPlan) -> Iterator[Finding]:
    """Check 4, for declarations in a plan: each is of what the plan names, not auditkit's."""
    named = {part.name for spec in plan.specs for part in spec.parts}
    for own in plan.own_perturbations:
        if own.name in DECLARATIONS:
            yield Finding(f"the plan declares {own.name!r}, which is auditkit's own", "plan")
        if own.kind == "none":
            yield Finding(f"the plan declares that {own.name!r} changes nothing, as carry", "plan")
        if own.name not in named:
            yield Finding(f"the plan declares {own.name!r} and does not name it", "plan")


def plug_in_notes(manifest: StudyManifest, here: Mapping[str, PlugIn]) -> Iterator[str]:
    """Installed plug-ins that were of another version, or have another source here."""
    for one in manifest.plug_ins:
        if text := one.differences(here.get(one.name)):
            yield text
