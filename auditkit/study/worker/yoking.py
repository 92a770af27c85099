"""Branches that are yoked: given the control's data in place of those that their own course makes.

Without a loader the control's data are what its steps said that they consume; they are kept in a
file of the run, ``consumed.safetensors``, which check 6 holds to the control's evidence. With a
loader whose samples depend on the model they are the control's indices.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from auditkit.errors import NothingToPerturb, ProgramError
from auditkit.files import store
from auditkit.formats.consumed_file import CONSUMED_FILE, section_name, sections_by_step
from auditkit.formats.ordering import Batch
from auditkit.observe.loader.consumption import Said, StepDriver
from auditkit.observe.loader.driver import LoaderDriver
from auditkit.observe.values.codec import Leaves, pack, unpack
from auditkit.program.data_source import data_source
from auditkit.program.session import Session
from auditkit.records.declaration import is_yoked
from auditkit.records.job import Job
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.records.tensor import RawTensor

_HINT = "batch = ak.consume(indices, batch) in the step, which then trains on what it is given back"


def require_yokable(session: Session, spec: PerturbationSpec | None) -> None:
    """Require a program of which the control's data can be given to another branch.

    Raises:
        ProgramError: When there is nothing to give, or what there is has no indices.
    """
    if not is_yoked(spec):
        return
    source = data_source(session.program)
    if source == "loader":
        raise ProgramError(
            "yoked=yes says nothing here: the loader delivers the control's samples in any case",
            hint="leave yoked=yes out; it is for programs with loader=None or data_from='model'",
        )
    if source == "model" and session.driver.iterable:
        raise ProgramError(
            "a loader without indices cannot be yoked: what it yields is not kept",
            hint="leave yoked=yes out, or use a map-style data set",
        )


def require_said(session: Session, spec: PerturbationSpec) -> None:
    """Require steps to have said what they consume, before anything is yoked to it.

    Raises:
        NothingToPerturb: When none of those that were taken has.
    """
    if is_yoked(spec) and isinstance(session.driver, StepDriver) and not session.driver.has_said:
        raise NothingToPerturb("yoked=yes, and no step said what it consumes", hint=_HINT)


def keep_consumed(session: Session, plan: StudyPlan) -> None:
    """Let a control keep what its branches are yoked to."""
    if isinstance(session.driver, StepDriver) and any(map(is_yoked, plan.perturbations)):
        session.driver.keep(range(plan.fork_at + 1, plan.horizon + 1))


def consumed_tensors(session: Session, plan: StudyPlan) -> tuple[dict[str, RawTensor], Any] | None:
    """What was kept after the fork, as the content of a file; None where nothing was to be."""
    driver = session.driver
    if not isinstance(driver, StepDriver) or not driver.keeps:
        return None
    sections: dict[str, Leaves] = {}
    for step, calls in driver.consumed.items():
        if step <= plan.fork_at:
            continue  # kept for an earlier fork
        for number, said in enumerate(calls):
            for part, leaves in (("indices", said.indices), ("batch", said.batch)):
                if leaves is not None:
                    sections[section_name(step, number, part)] = leaves
    if not sections:
        raise ProgramError(
            "yoked=yes, and no step of the control said what it consumes",
            hint=_HINT,
        )
    return pack(sections)


def yoke(
    session: Session, plan: StudyPlan, job: Job, order: list[Batch], spec: PerturbationSpec | None
) -> None:
    """Give a branch the control's data, where its perturbation says so.

    Raises:
        ProgramError: As :func:`require_yokable`.
        AuditError: When the control's data cannot be read.
    """
    if not is_yoked(spec):
        return
    require_yokable(session, spec)
    driver = session.driver
    if isinstance(driver, StepDriver):
        driver.yoke(_read(Path(job.order or "")))
    elif isinstance(driver, LoaderDriver):
        driver.yoke(order[plan.fork_at :], plan.fork_at + 1)


def _read(order: Path) -> Mapping[int, list[Said]]:
    """What lies beside the order file; while a run is published, under its final name."""
    there = order.with_name(CONSUMED_FILE)
    partial = there.with_name(f"{CONSUMED_FILE}{store.PARTIAL}")
    path = partial if partial.exists() else there
    sections = unpack(*store.read_tensors(path, what=CONSUMED_FILE))
    return {
        step: [Said(call.get("indices"), call.get("batch")) for call in calls]
        for step, calls in sections_by_step(sections).items()
    }
