"""Whether a perturbation that somebody else wrote changes what it declares, before a study begins.

Check 7 asks the same of the evidence; there it would be found after everything has run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from auditkit.errors import NothingToPerturb, PlanError
from auditkit.observe.values.digests import digest_leaves
from auditkit.perturbations.registry import perturbation_of
from auditkit.program.session import Session
from auditkit.records.declaration import matches
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.plan import PerturbationSpec
from auditkit.study.stages.perturber import perturb


def perturb_as_declared(
    session: Session, spec: PerturbationSpec, recalibration: Sequence[Any] = ()
) -> None:
    """Apply a perturbation, and compare what it changed with what it declares.

    Raises:
        NothingToPerturb: When it changed nothing, or not what it says that it changes.
        PlanError: When it changed something else.
        AuditError: Whatever applying it ends in.
    """
    before = _digests(session)
    perturb(session, spec, recalibration=recalibration)
    after = _digests(session)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    declaration = perturbation_of(spec.name).declaration
    allowed, touches = declaration.may_touch(spec), declaration.touches(spec)
    others = sorted(name for name in changed if not matches(name, allowed))
    if others:
        raise PlanError(
            f"it changes {', '.join(others)}",
            expected=", ".join(allowed) or "no change",
            hint="declare all that it changes (touches=, may_touch=), or change less",
        )
    idle = [one for one in touches if not any(matches(name, (one,)) for name in changed)]
    if idle or (allowed and not changed):
        error = NothingToPerturb(
            f"it does not change {idle[0] if idle else 'anything'}",
            component=idle[0] if idle else None,
            hint=f"components here: {', '.join(sorted(before))}",
        )
        # What is there may be changed by it later; what is not there will not come.
        error.for_now = any(matches(name, tuple(idle) or allowed) for name in before)
        raise error


def _digests(session: Session) -> dict[str, bytes]:
    state = session.state()
    return {name: digest_leaves(EVIDENCE_RECIPE, leaves) for name, leaves in state.items()}
