"""The files that a job reads and writes, and the records that it hands back to name them.

The same for a program that auditkit drives and for a script that runs by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from auditkit.errors import NothingToPerturb, RestoreMismatch, UnsupportedLoader
from auditkit.files import store
from auditkit.formats.flat_order import FlatOrder
from auditkit.formats.ordering import (
    CURRICULUM,
    Batch,
    delivered_order,
    flat_sha256,
    keeps_augmentation,
    moves_batches,
    order_sha256,
    positions,
)
from auditkit.formats.quote import class_of
from auditkit.formats.run_files import (
    OrderFile,
    order_from_tensors,
    order_to_tensors,
    outcome_to_tensors,
    trace_to_tensors,
)
from auditkit.formats.sample_digests import samples_to_tensors
from auditkit.observe.loader.driver import LoaderDriver
from auditkit.observe.machine.code import user_code
from auditkit.observe.machine.environment import environment
from auditkit.observe.machine.opened import opened_files
from auditkit.perturbations.registry import perturbation_of
from auditkit.program.data_source import data_source
from auditkit.program.difficulty import require_difficulty
from auditkit.program.session import Session
from auditkit.records.digest import ABSENT, EVIDENCE_BYTES
from auditkit.records.evidence import Trace
from auditkit.records.job import Job
from auditkit.records.manifest import BranchRecord
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.records.results import BranchesResult, BuiltProgram, TrunkResult
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.describer import data_record, rng_contract
from auditkit.study.worker.callbacks import BranchCallback, TrunkCallback
from auditkit.study.worker.recalibration import compact, notes
from auditkit.study.worker.yoking import consumed_tensors


class _JobFiles:
    """Names and writes the files of a job."""

    def __init__(self, job: Job) -> None:
        self._folder = Path(job.out)
        self._suffix = job.suffix

    def name(self, stem: str) -> str:
        """Name below the manifest's folder."""
        return f"{self._folder.name}/{stem}.safetensors"

    def write(self, stem: str, tensors: dict[str, Any], meta: object = None) -> None:
        """Write one file whole."""
        path = self._folder / f"{stem}.safetensors{self._suffix}"
        store.write_tensors(path, tensors, meta)

    def write_samples(self, branch: str, callback: BranchCallback) -> str | None:
        """Write what a branch's samples looked like; its name, or None where nobody measured."""
        if all(digest == ABSENT for batch in callback.samples for digest in batch):
            return None
        self.write(f"{branch}.samples", samples_to_tensors(callback.samples))
        return self.name(f"{branch}.samples")


def read_order(job: Job) -> OrderFile:
    """The control's order, which a branches job is given.

    Raises:
        RestoreMismatch: When it ends before the horizon.
    """
    tensors, _ = store.read_tensors(Path(job.order or ""), what="order")
    order = order_from_tensors(tensors, what="order")
    if len(order.batches) < (job.plan.horizon if job.plan else 0):
        raise RestoreMismatch(
            f"the order file ends at step {len(order.batches)}", component="order"
        )
    return order


def plan_of(job: Job) -> StudyPlan:
    """The plan of a job that must have one."""
    assert job.plan is not None  # noqa: S101 # every job but describe has one
    return job.plan


def trunk_result(
    job: Job, session: Session, auditor: Auditor, callback: TrunkCallback, *, main: bool = False
) -> TrunkResult:
    """Write the files of trunk and control.

    Args:
        job: The job.
        session: The live program at the horizon.
        auditor: Its rows 1..T+1.
        callback: What was evaluated.
        main: Whether the script that was started belongs to the program's code.
    """
    plan, files = plan_of(job), _JobFiles(job)
    snapshot = compact(session, callback)
    files.write("fork", snapshot.tensors, snapshot.meta)
    files.write("trunk.trace", trace_to_tensors(auditor.trace(1, plan.fork_at)))
    trace = auditor.trace(plan.fork_at + 1)
    content = _content(session, auditor.trace())
    hard = _difficulty(session, plan, callback.order)
    files.write("order", order_to_tensors(callback.order, content, hard))
    files.write("control.trace", trace_to_tensors(trace))
    files.write("control.outcome", outcome_to_tensors(callback.outcome()))
    consumed = consumed_tensors(session, plan)
    if consumed is not None:
        files.write("consumed", *consumed)
    tail = callback.order[plan.fork_at :]
    control = BranchRecord(
        name="control",
        role="control",
        perturbation=None,
        version=None,
        trace=files.name("control.trace"),
        outcome=files.name("control.outcome"),
        order_sha256=_order_digest(tail, content, plan.fork_at),
        digests=callback.digests,
        diverged_at=callback.diverged_at,
        evaluated_on=callback.evaluated_on,
        samples=files.write_samples("control", callback),
        consumed=None if consumed is None else files.name("consumed"),
    )
    return TrunkResult(
        control=control,
        rng=rng_contract(session, callback.digests),
        data=data_record(session, auditor.consumed_sha256, callback.order),
        fork_digests=snapshot.digests,
        order_sha256=_order_digest(callback.order, content, 0),
        initial=callback.initial,
        made=callback.made,
        components=tuple(sorted(trace.columns)),
        program=callback.description,
        environment=environment(),
        code=user_code(_code_folder(job), job.suffix, main=main, known=job.sources),
        opened=opened_files(job.program.arguments, job.listed),
        left=callback.left,
        notes=notes(callback, snapshot),
        observed=callback.observed,
    )


def branch_record(
    job: Job,
    session: Session,
    name: str,
    auditor: Auditor,
    callback: BranchCallback,
    follow: list[Batch],
    reset: tuple[str, ...] = (),
) -> BranchRecord:
    """Write the files of one branch.

    Args:
        job: The job.
        session: The live program at the horizon.
        name: The branch.
        auditor: Its rows t0+1..T+1.
        callback: What was evaluated.
        follow: The order that it was given, where none was consumed by index.
        reset: What its perturbation changed in the optimizer's groups and attributes.

    Raises:
        RestoreMismatch: When the program's difficulties are not those that the control was given.
    """
    plan, files = plan_of(job), _JobFiles(job)
    role, spec = plan.branch(name)
    if spec is not None and spec.name == CURRICULUM:
        _require_same_difficulty(session, plan, read_order(job), spec)
    trace = auditor.trace()
    files.write(f"{name}.trace", trace_to_tensors(trace))
    files.write(f"{name}.outcome", outcome_to_tensors(callback.outcome()))
    content = _content(session, trace)
    return BranchRecord(
        name=name,
        role=role,
        perturbation=spec,
        version=None if spec is None else _version(job, name, spec),
        trace=files.name(f"{name}.trace"),
        outcome=files.name(f"{name}.outcome"),
        order_sha256=_order_digest(callback.order or follow, content, 0),
        digests=callback.digests,
        diverged_at=callback.diverged_at,
        evaluated_on=callback.evaluated_on,
        samples=files.write_samples(name, callback),
        reset=reset,
    )


def _version(job: Job, name: str, spec: PerturbationSpec) -> int:
    return perturbation_of(spec.name, job.version_of(name)).declaration.version


def branch_result(
    job: Job, record: BranchRecord, built: BuiltProgram | None = None, *, main: bool = False
) -> BranchesResult:
    """The answer of a process that ran a branch."""
    return BranchesResult(
        branches=(record,),
        environment=environment(),
        code=user_code(_code_folder(job), job.suffix, main=main, known=job.sources),
        built=() if built is None else (built,),
    )


def measure_samples(session: Session, plan: StudyPlan, spec: PerturbationSpec | None) -> None:
    """Digest the samples of the window one by one where an order perturbation moves them.

    In every other branch, and outside the window, the batches themselves are compared.

    Args:
        session: The live program.
        plan: The plan.
        spec: The branch's perturbation; None for the control, which is measured for all of them.

    Raises:
        UnsupportedLoader: When an order perturbation meets a loader without indices.
        NothingToPerturb: When it leaves the order as it is.
    """
    driver = session.driver
    specs = plan.perturbations if spec is None else (spec,)
    moved = [s.name for s in specs if perturbation_of(s.name).declaration.kind == "order"]
    if moved:
        require_indices(session, moved)
    if moved and isinstance(driver, LoaderDriver):
        # Of several forks from the first one's window to the last one's: see ForksCallback.
        driver.measure(range(plan.fork_at + 1, plan.forks[-1] + plan.window + 1))


def require_indices(session: Session, moved: Sequence[str]) -> None:
    """Require a loader whose order can be changed.

    Args:
        session: The live program.
        moved: Names of the order perturbations.

    Raises:
        UnsupportedLoader: When it draws no indices.
    """
    if data_source(session.program) == "model":
        raise UnsupportedLoader(
            "the program says data_from='model': no order is held that could be changed",
            hint=f"leave {', '.join(dict.fromkeys(moved))} out",
        )
    if not session.driver.iterable:
        return
    loader = session.program.loader
    if loader is None:
        raise UnsupportedLoader(
            "a program without a loader has no order that could be changed",
            hint=f"leave {', '.join(dict.fromkeys(moved))} out",
        )
    is_torch = isinstance(loader, DataLoader)
    what = "an iterable data set" if is_torch else f"a loader that is a {class_of(loader)}"
    raise UnsupportedLoader(
        f"{what} has no indices that could be put in another order",
        hint=f"leave {', '.join(dict.fromkeys(moved))} out, or use a map-style data set",
    )


def follow_control(
    session: Session, plan: StudyPlan, order: OrderFile, spec: PerturbationSpec | None
) -> list[Batch]:
    """Fix the order of a branch; returns the batches that it will be delivered.

    Raises:
        UnsupportedLoader: When an order perturbation meets a loader without indices.
        RestoreMismatch: When the control left not one difficulty for each sample.
    """
    control = order.batches[plan.fork_at :]
    moves = spec is not None and perturbation_of(spec.name).declaration.kind == "order"
    if moves and spec is not None:
        require_indices(session, [spec.name])
    if session.driver.iterable or data_source(session.program) != "loader":
        return control
    hard = None
    if spec is not None and spec.name == CURRICULUM:
        require_difficulty(session, spec, ())
        hard = order.difficulty or ()
        if len(hard) != sum(map(len, control[: plan.window])):
            raise RestoreMismatch(
                f"the order file has {len(hard)} difficulties, not one for each of the window's "
                "samples",
                component="order",
            )
    moved = spec if moves else None
    follow = delivered_order(control, moved, plan.window, session.seed, hard)
    window = zip(control[: plan.window], follow, strict=False)
    if moves and all(np.array_equal(here, there) for here, there in window):
        raise NothingToPerturb(
            "the window's samples come in their order still",
            component="order",
            hint="a longer --window, or another draw=",
        )
    session.driver.pin_order(control, follow, plan.fork_at + 1)
    if spec is not None and keeps_augmentation(spec):
        require_kept(session, spec)
        at, first = positions(spec, plan.window, session.seed), plan.fork_at + 1
        session.supply.keep_augmentation({first + n: first + int(m) for n, m in enumerate(at)})
    return follow


def require_kept(session: Session, spec: PerturbationSpec) -> None:
    """Refuse to keep the augmentation of batches that are not moved, or not augmented.

    Raises:
        NothingToPerturb: Saying which.
    """
    if not keeps_augmentation(spec):
        return
    if not moves_batches(spec):
        raise NothingToPerturb("augment=kept is of whole batches", hint="unit=batch,augment=kept")
    if session.supply.augment is None:
        raise NothingToPerturb(
            "augment=kept: the program augments no batches that are delivered",
            hint="leave augment=kept out: a sample that is moved keeps its own augmentation",
        )


def _require_same_difficulty(
    session: Session, plan: StudyPlan, order: OrderFile, spec: PerturbationSpec
) -> None:
    """Ask the program for the difficulties that a branch was ordered by.

    This is after the branch has trained, as it is in the control: what the program does when it is
    asked must not be in one branch only.
    """
    window = order.batches[plan.fork_at : plan.window_end]
    hard = require_difficulty(session, spec, window)
    if hard is not None and tuple(hard) != order.difficulty:
        raise RestoreMismatch(
            "Program.difficulty does not give what it gave the control", component="order"
        )


def _difficulty(session: Session, plan: StudyPlan, order: list[Batch]) -> list[float] | None:
    """Of the window's samples, where a branch is ordered by it."""
    window = order[plan.fork_at : plan.window_end]
    found = (require_difficulty(session, spec, window) for spec in plan.perturbations)
    return next((each for each in found if each is not None), None)


def _content(session: Session, trace: Trace) -> bytes | None:
    """Without indices, the order evidence of every step; None with indices."""
    if not session.driver.iterable:
        return None
    nothing = bytes(trace.n_rows * EVIDENCE_BYTES)  # a step need not say what it consumes
    return bytes(trace.columns.get("order", nothing)[:-EVIDENCE_BYTES])


def _order_digest(batches: list[Batch], content: bytes | None, skip: int) -> str:
    """Commitment to an order.

    Args:
        batches: int64 ``(B, 2)`` a step.
        content: For an iterable dataset, a 16-byte digest a step, which is committed to instead.
        skip: Digests of ``content`` to leave out at its start.
    """
    if content is None:
        return order_sha256(batches)
    return flat_sha256(FlatOrder.of_content(content).part(skip))


def _code_folder(job: Job) -> Path | None:
    return Path(job.code) if job.code else None
