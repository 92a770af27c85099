"""Jobs of a study in a user's own script: preflight, trunk, one branch, or a step's modules.

The passive counterpart of :mod:`auditkit.study.worker.jobs`. The script builds everything and runs
its loop; at the boundary before step t0+1 of a branch the fork's state is written and perturbed,
and after the horizon the script is stopped. Deterministic kernels and the plan's threads are set
when the objects are wrapped: in a study the Recorder changes the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from auditkit.errors import AuditError, ProgramError
from auditkit.formats.ordering import Batch
from auditkit.formats.packed_batch import Drawn
from auditkit.formats.run_files import OrderFile
from auditkit.formats.structure import to_dict
from auditkit.observe.loader.driver import Delivery
from auditkit.observe.machine.code import user_code
from auditkit.observe.machine.determinism import deterministic, unchanged_settings
from auditkit.observe.machine.distributed import refuse_sharded_study
from auditkit.observe.machine.environment import environment
from auditkit.observe.rng.streams import capture_streams
from auditkit.observe.state.components import State
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import commitments
from auditkit.processes.protocol import Connection
from auditkit.program.program import Program
from auditkit.program.reference import References
from auditkit.program.session import Session
from auditkit.recorder.loop import Loop, RecorderBackend
from auditkit.recorder.tasks import LoopStopped, describe_failure
from auditkit.recorder.wrapping import InstrumentedLoop, Wrapped, base_loader, instrument
from auditkit.records.job import Job, ModuleTrace, Progress
from auditkit.records.preflight import Preflight
from auditkit.records.results import BranchesResult, TrunkResult
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.describer import built_program
from auditkit.study.stages.forker import Fork, closed_on_error, load_fork
from auditkit.study.stages.perturber import perturb
from auditkit.study.worker.callbacks import BranchCallback, ModuleCallback, TrunkCallback
from auditkit.study.worker.job_files import (
    branch_record,
    branch_result,
    follow_control,
    plan_of,
    read_order,
    trunk_result,
)
from auditkit.study.worker.preflight import PreflightCallback, trial_steps

#: Seconds between two progress messages.
_EVERY_SECONDS = 0.1


class JobBackend(RecorderBackend):
    """Does one job with the user's own loop.

    Args:
        wrapped: The loop's objects.
        connection: To the parent.
        job: What to do; ``branches`` names one branch.

    Raises:
        ProgramError: When the loop has no probe.
        AuditError: When its objects will not do.
    """

    def __init__(self, wrapped: Wrapped, connection: Connection, job: Job) -> None:
        self._connection, self._job, self._plan = connection, job, plan_of(job)
        self._done = False
        self._reported_at = 0.0
        with ExitStack() as stack:
            stack.callback(connection.close)
            try:
                self._begin(wrapped, stack)
            except BaseException as error:
                connection.send({"error": describe_failure(error)})
                raise
            self._resources = stack.pop_all()

    def close(self, error: BaseException | None) -> None:
        """Tell the parent how the loop ended, where the job is not done yet."""
        with self._resources:
            if self._done:
                return
            if error is None and self._loop.live:
                self._loop.end_step()
                if self._loop.step == self._plan.horizon + 1:
                    self.on_boundary(self._loop.step, self._session.state())
                    return
            problem = error or ProgramError(
                f"the script ended after {self.step} steps",
                expected=f"{self._plan.horizon} steps, the horizon",
                hint="train longer, or give a smaller --horizon",
            )
            self._connection.send({"error": describe_failure(problem)})

    def on_boundary(self, step: int, state: State) -> None:
        """Stop the script where the job ends; else call the callback."""
        if step != self._plan.horizon + 1:
            self._callback.on_boundary(step, state)
            if not self._tried(step - 1):
                return
        self._auditor.close(state)
        self._send_result()

    def _tried(self, n_steps: int) -> bool:
        """Whether a preflight has seen what it wanted to see."""
        callback = self._callback
        return (
            isinstance(callback, PreflightCallback)
            and n_steps >= trial_steps(self._plan, self._job.step or 0)
            and callback.next_attempt is None
        )

    def on_batch(self, step: int, delivery: Delivery, leaves: Leaves) -> None:
        """See :class:`auditkit.study.stages.holder.StepCallback`."""
        self._callback.on_batch(step, delivery, leaves)

    def on_step_end(self, step: int, loss: float | None) -> None:
        """Call the callback, and stop where only one step was to be looked into."""
        self._callback.on_step_end(step, loss)
        if self._job.kind == "modules" and step == self._job.step:
            self._send_result()

    def _begin(self, wrapped: Wrapped, stack: ExitStack) -> None:
        job, plan = self._job, self._plan
        refuse_sharded_study(wrapped.objects.model)
        stack.enter_context(deterministic(plan.threads))
        settings = stack.enter_context(ExitStack())
        settings.enter_context(unchanged_settings())
        self._settings = settings.pop_all()
        starts = commitments(capture_streams().leaves())
        self._instrumented: InstrumentedLoop = instrument(wrapped.in_study)
        stack.callback(self._instrumented.close)
        self._refuse_uncaptured()
        self._session = _make_session(wrapped, self._instrumented, job.seed, starts)
        fork, order = self._open_fork()
        first = 1 if fork is None else plan.fork_at + 1
        self._auditor = Auditor(
            first, commit_data=fork is None, recipe=plan.evidence_digest, beside=fork is None
        )
        self._callback = self._make_callback(fork, order)
        self._loop = Loop(
            self._session,
            self._auditor,
            self,
            first_step=first,
            restore=None if fork is None else lambda: self._restore(fork),
            needs_warmup=wrapped.needs_warmup,
        )
        self._attach(_ReportingBoundary(self._loop, self._send_error), self._auditor)

    def _open_fork(self) -> tuple[Fork | None, OrderFile | None]:
        """Read the fork, and let the loader seek to it, if the job begins there."""
        job, plan = self._job, self._plan
        self._follow: list[Batch] = []
        self._reset: tuple[str, ...] = ()
        if job.fork is None:
            return None, None
        _, self._spec = plan.branch(job.branches[0])
        with closed_on_error(load_fork(Path(job.fork))) as fork:
            order = read_order(job)
            self._follow = follow_control(self._session, plan, order, self._spec)
            self._session.driver.restore(fork.loader)
        self._instrumented.loaders[""].next_step = plan.fork_at + 1
        return fork, order

    def _make_callback(
        self, fork: Fork | None, order: OrderFile | None
    ) -> TrunkCallback | BranchCallback | ModuleCallback:
        job, session = self._job, self._session
        if job.kind == "modules":
            assert job.step is not None  # noqa: S101 # every modules job names its step
            return ModuleCallback(session.program.model, job.step, self._report)
        if job.kind == "preflight":
            self._started, self._built = time.process_time(), built_program(session)
            return PreflightCallback(session, self._plan, self._report)
        if fork is None or order is None:
            references = References(Path(job.out))
            return TrunkCallback(session, self._plan, self._report, references, job.position_recipe)
        return BranchCallback(
            *(session, self._plan, fork.recalibration, order.content, self._report),
            References(Path(job.references or job.out)),
            job.position_recipe,
        )

    def _restore(self, fork: Fork) -> None:
        self._instrumented.restore(fork)
        version = self._job.version_of(self._job.branches[0])
        self._reset = perturb(self._session, self._spec, version, fork.recalibration)

    def _send_result(self) -> None:
        """Send the result and end the script."""
        try:
            result = self._result()
            self._settings.close()
        except Exception as error:
            self._send_error(error)
            raise
        self._connection.send({"result": to_dict(result)})
        self._done = True
        raise LoopStopped

    def _refuse_uncaptured(self) -> None:
        uncaptured = self._instrumented.uncaptured()
        if uncaptured is not None:
            raise uncaptured

    def _result(self) -> TrunkResult | BranchesResult | ModuleTrace | Preflight:
        self._refuse_uncaptured()
        job, callback = self._job, self._callback
        if isinstance(callback, PreflightCallback):
            return Preflight(
                cost=callback.cost(self._auditor, self._started, 0.0),
                built=self._built,
                code=user_code(main=True),
                opened=None,
                environment=environment(),
                undecided=callback.require_possible(),
            )
        if isinstance(callback, ModuleCallback):
            return ModuleTrace(tuple(callback.entries))
        if isinstance(callback, TrunkCallback):
            return trunk_result(job, self._session, self._auditor, callback, main=True)
        record = branch_record(
            job,
            self._session,
            job.branches[0],
            self._auditor,
            callback,
            self._follow,
            self._reset,
        )
        return branch_result(job, record, main=True)

    def _send_error(self, error: BaseException) -> None:
        """Tell the parent what went wrong, before the script can hide it."""
        if not self._done:
            self._done = True
            self._connection.send({"error": describe_failure(error)})

    def _report(self, step: int) -> None:
        now = time.monotonic()
        if now - self._reported_at < _EVERY_SECONDS and step != self._plan.horizon:
            return
        self._reported_at = now
        plan, job = self._plan, self._job
        name = job.branches[0] if job.branches else "trunk" if step <= plan.fork_at else "control"
        begin = plan.fork_at if job.fork else 0
        total = plan.horizon - begin
        progress = Progress(job.seed, name, step, step - begin, total)
        self._connection.send({"progress": to_dict(progress)})


class _ReportingBoundary:
    """A boundary whose errors reach the parent whatever the script does with them."""

    def __init__(self, inner: Loop, send_error: Callable[[BaseException], None]) -> None:
        self._inner, self._send_error = inner, send_error
        self.needs_warmup = inner.needs_warmup

    def position_reached(self) -> None:
        self._guarded(self._inner.position_reached)

    def batch_requested(self) -> Any:
        return self._guarded(self._inner.batch_requested)

    def batch_delivered(self, batch: Any, order: Drawn | None, epoch: int) -> None:
        self._guarded(self._inner.batch_delivered, batch, order, epoch)

    def _guarded(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except AuditError as error:
            self._send_error(error)
            raise


def _make_session(
    wrapped: Wrapped, instrumented: InstrumentedLoop, seed: int, starts: dict[str, str]
) -> Session:
    session = instrumented.session
    objects = session.objects
    if wrapped.probe is None:
        raise ProgramError(
            "a study compares branches on a probe, and the loop has none",
            hint="rec.wrap(model, optimizer, loader, probe=auditkit.Probe(inputs, labels))",
        )
    program = Program(
        model=objects.model,
        optimizer=objects.optimizer,
        loader=base_loader(wrapped.loader),
        loss=wrapped.loss,
        probe=wrapped.probe,
        scheduler=objects.scheduler,
        scaler=objects.scaler,
        averaged=objects.averaged,
        extras=objects.extras,
        groups=wrapped.groups,
        step=_trains_by_itself,
    )
    return Session(
        objects=objects,
        driver=session.driver,
        auxiliary=session.auxiliary,
        program=program,
        seed=seed,
        stream_seeds={},
        stream_starts=starts,
    )


def _trains_by_itself(program: Program, batch: Any, t: int) -> None:
    """Never called: the script has its own loop."""
