"""Which installed plug-ins a study's plan names."""

from __future__ import annotations

import importlib

from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import StudyPlan
from auditkit.records.plug_in import PlugIn

#: Loaded only where a plan names a plug-in: it needs torch.
_REGISTRY = "auditkit.perturbations.registry"


def plug_ins_of(plan: StudyPlan) -> tuple[PlugIn, ...]:
    """Where the code of those perturbations lies that neither auditkit nor the program has."""
    known = {*DECLARATIONS, *(own.name for own in plan.own_perturbations)}
    names = {part.name for spec in plan.specs for part in spec.parts} - known
    if not names:
        return ()
    installed = importlib.import_module(_REGISTRY).installed_plug_ins()
    return tuple(one for one in installed if one.name in names)
