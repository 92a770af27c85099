"""Branches whose data are changed inside the window: what they ask of a program, and start."""

from __future__ import annotations

from typing import Any

from auditkit.errors import ProgramError
from auditkit.observe.values.digests import digest_leaves
from auditkit.observe.values.flatten import batch_leaves
from auditkit.perturbations.data import DataPerturbation
from auditkit.perturbations.registry import perturbation_of
from auditkit.program.data_source import data_source
from auditkit.program.session import Session
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.plan import PerturbationSpec, StudyPlan


def change_data(
    session: Session, plan: StudyPlan, spec: PerturbationSpec | None, version: int | None
) -> None:
    """Let a branch's perturbation change what the steps of the window consume."""
    found = _of(spec, version)
    if found is not None and spec is not None:
        _require_delivered(session, spec)
        parameters = found.declaration.resolve(spec).parameters
        session.supply.begin(found, parameters, range(plan.fork_at + 1, plan.window_end + 1))


def try_change(session: Session, spec: PerturbationSpec, step: int, delivered: Any) -> None:
    """Change a batch that was delivered, to see whether that is possible.

    Raises:
        NothingToPerturb: When it is not.
        ProgramError: When no loader delivers the control's batches.
    """
    found = _of(spec, None)
    if found is None:
        return
    _require_delivered(session, spec)
    parameters = found.declaration.resolve(spec).parameters
    changed = session.supply.changed(step, delivered, found, parameters)
    digest_leaves(EVIDENCE_RECIPE, batch_leaves(changed))


def _of(spec: PerturbationSpec | None, version: int | None) -> DataPerturbation | None:
    found = None if spec is None else perturbation_of(spec.name, version)
    return found if isinstance(found, DataPerturbation) else None


def _require_delivered(session: Session, spec: PerturbationSpec) -> None:
    if data_source(session.program) != "loader":
        raise ProgramError(
            f"{spec.typed} changes the control's batches, and no loader delivers them to a branch",
            hint="leave it out; it is for programs whose loader does not depend on the model",
        )
    if session.driver.iterable:
        raise ProgramError(
            f"{spec.typed} keeps the samples and changes their bytes, and samples without indices "
            "are known by their bytes alone",
            hint="leave it out, or use a map-style data set",
        )
