"""One trunk that is forked at several steps: each fork's files as a study of it alone has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from auditkit.files import store
from auditkit.files.run_parts import seed_name
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.state.components import State
from auditkit.observe.values.codec import Leaves
from auditkit.program.reference import References
from auditkit.program.session import Session
from auditkit.records.fork_points import plans
from auditkit.records.job import Job
from auditkit.records.results import TrunkResult
from auditkit.study.stages.auditor import Auditor
from auditkit.study.worker.callbacks import StepReporter, TrunkCallback
from auditkit.study.worker.job_files import plan_of, trunk_result
from auditkit.study.worker.shared_looks import SharedLooks


def fork_jobs(job: Job) -> tuple[Job, ...]:
    """A trunk's job as that of each of its forks; itself where there is one fork."""
    plan = plan_of(job)
    if not plan.further_forks:
        return (job,)
    folder = Path(job.out).parent
    return tuple(
        replace(job, plan=each, out=str(folder / seed_name(job.seed, each.fork_at)))
        for each in plans(plan)
    )


class ForksCallback:
    """What every fork looks at while the one trunk is held.

    Args:
        session: The live program.
        jobs: Of each fork.
        report_step: Called after every step.
    """

    def __init__(self, session: Session, jobs: Sequence[Job], report_step: StepReporter) -> None:
        self._session, self._jobs, self._report_step = session, jobs, report_step
        for job in jobs:
            store.make_folder(Path(job.out))
        self._callbacks = [
            TrunkCallback(
                session, job.plan, _say_nothing, References(Path(job.out)), job.position_recipe
            )
            for job in jobs
        ]
        looks = SharedLooks(several=len(jobs) > 1)
        for callback in self._callbacks:
            callback.looks = looks

    def on_boundary(self, step: int, state: State) -> None:
        """Begin the forks that begin here."""
        for callback in self._callbacks:
            callback.on_boundary(step, state)

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """Keep the order; of samples that were measured, those of each fork's own window."""
        for job, callback in zip(self._jobs, self._callbacks, strict=True):
            plan = plan_of(job)
            is_inside = plan.fork_at < step <= plan.window_end
            samples = delivery.samples if is_inside else None
            callback.on_batch(step, replace(delivery, samples=samples), leaves)

    def on_step_end(self, step: int, loss: float | None) -> None:
        """Evaluate at the times of every fork."""
        self._report_step(step)
        for callback in self._callbacks:
            callback.on_step_end(step, loss)

    def result(self, auditor: Auditor) -> TrunkResult:
        """Write the files of every fork; the first one's result with the others in it."""
        for callback in self._callbacks:
            callback.segments.close()
            callback.segments.require_planned(callback.order)
        first, *further = (
            trunk_result(job, self._session, auditor, callback)
            for job, callback in zip(self._jobs, self._callbacks, strict=True)
        )
        return replace(first, further=tuple(further))


def _say_nothing(_: int) -> None:
    """One of the forks reports for all."""
