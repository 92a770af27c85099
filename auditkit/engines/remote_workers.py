"""Workers of an engine: what :class:`auditkit.processes.worker_pool.Workers` are on one machine.

The same jobs go out and the same results come back. A job of several branches is one task; so is a
seed's, but where trunk and branches must share nothing. The engine is connected to when the first
job comes.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from auditkit.engines.environments import refuse_other
from auditkit.engines.handover import Inbox
from auditkit.engines.order import ATTEMPTS, Answer, Order
from auditkit.engines.spec import Engine, EngineSpec, Ticket
from auditkit.errors import ProgramFailed, StoreError, UsageError
from auditkit.files import store
from auditkit.files.places import FolderPlace
from auditkit.formats import canonical
from auditkit.formats.structure import from_dict
from auditkit.processes.told_errors import rebuild_error
from auditkit.processes.worker_pool import (
    RESULTS,
    Keep,
    Report,
    Workers,
    run_apart,
)
from auditkit.records.environment import Environment
from auditkit.records.job import Job, JobKind
from auditkit.records.results import BranchesResult, TrunkResult

#: Jobs that leave files.
_WITH_FILES: tuple[JobKind, ...] = ("trunk", "branches", "seed")

#: Seconds between two looks at a job, of which many that leave no files take no longer.
_LOOK = 0.1


class RemoteWorkers(Workers):
    """Has jobs done by an engine.

    Args:
        engine: Which engine.
        jobs: How many workers are started, where they are started here.
        variables: As of :class:`Workers`.
        scratch: As of :class:`Workers`; a folder that all workers share.
    """

    def __init__(
        self,
        engine: EngineSpec,
        jobs: int,
        variables: Mapping[str, str] | None = None,
        scratch: Path | None = None,
    ) -> None:
        super().__init__(variables, scratch)
        engine.require_installed()
        self._spec, self._n_workers = engine, jobs
        self._engine: Engine | None = None
        self._is_new = True
        self._opening = threading.Lock()
        self._environment: Environment | None = None
        self._preparing: list[Ticket] = []  # what nobody holds is cancelled by dask
        self._session = secrets.token_hex(4)
        self._n_tasks = 0

    def __enter__(self) -> Self:
        return self

    def stop(self) -> None:
        """Have every job given up; later ones are refused."""
        super().stop()
        with self._opening:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def connect(self) -> None:
        """Connect to the engine before the first job comes, which does so otherwise.

        Raises:
            AuditError: When nobody answers.
        """
        with self._opening:
            self._connected()

    def _connected(self) -> Engine:
        """The engine; the lock is held."""
        if self._engine is None:
            self._engine = self._spec.connect(self._n_workers)
        return self._engine

    def run(self, job: Job, report: Report = lambda _: None, keep: Keep = lambda _: None) -> Any:
        """As :meth:`Workers.run`."""
        if job.kind != "branches":
            (result,) = self._results(job, report)
            return result
        return _joined(job, self._results(job, report), keep)

    def run_seed(
        self, job: Job, report: Report = lambda _: None, keep: Keep = lambda _: None
    ) -> Iterator[TrunkResult | BranchesResult]:
        """As :meth:`Workers.run_seed`; of a replay, whose trunk sees no fork, in two tasks."""
        if not job.branches or self._scratch is not None:
            yield from run_apart(self, job, report, keep)
            return
        with contextlib.closing(self._results(job, report)) as results:
            yield next(results)
            yield _joined(job, results, keep)

    def _results(self, job: Job, report: Report) -> Generator[Any]:
        """The results of a job, as they come."""
        if job.kind not in _WITH_FILES:
            answer = self._wait(self._ship(job, None))
            result: Any = from_dict(RESULTS[job.kind], answer.result, what="answer of a worker")
            yield self._checked(result)
            return
        base = Path(job.out).parent
        with self._opening:  # so that nobody removes the folder above it meanwhile
            task = self._task_folder(base)
            inbox = Inbox(task, base)
        try:
            yield from map(self._checked, self._files_of(job, task, inbox, report))
        finally:
            inbox.close()
            with self._opening:
                store.remove_empty_folder(base / ATTEMPTS)

    def _files_of(self, job: Job, task: Path, inbox: Inbox, report: Report) -> Iterator[Any]:
        """Take over results with their files."""
        ticket = self._ship(job, task)
        try:
            answer = None
            while answer is None:
                answer = self._look(ticket, _LOOK)
                for message in inbox.messages():
                    yield _result(job, message.name, message.result)
                inbox.sign()
                if answer is None and (progress := inbox.progress()) is not None:
                    report(progress)
        except BaseException:
            ticket.cancel()
            raise
        for message in inbox.wait_for(answer.attempt, answer.n_messages):
            yield _result(job, message.name, message.result)

    def _task_folder(self, base: Path) -> Path:
        """A folder for a task; what earlier sessions left beside it is removed."""
        for name in FolderPlace(base / ATTEMPTS).names():
            if not name.startswith(self._session):
                FolderPlace(base / ATTEMPTS).remove(name)
        self._n_tasks += 1
        return base.absolute() / ATTEMPTS / f"{self._session}-{self._n_tasks}"

    def _ship(self, job: Job, task: Path | None) -> Ticket:
        order = Order(
            job,
            None if task is None else str(task),
            self._variables,
            None if self._scratch is None else str(self._scratch),
            self._environment,
        )
        threads = job.plan.threads if job.plan else 1
        with self._opening:
            if self._stopped:
                raise ProgramFailed("stopped")
            engine = self._connected()
            ticket = _submit(engine, order, threads)
            if self._is_new and task is None and not self._spec.is_local:
                self._prepare_others(engine, order, threads)
            self._is_new = False
            return ticket

    def _prepare_others(self, engine: Engine, order: Order, threads: int) -> None:
        """Have the other workers import what jobs need while the first one tries the program.

        Workers that are started here share one process, so that there are no others.
        """
        asking = replace(order, job=replace(order.job, kind="environment"))
        self._preparing = [_submit(engine, asking, threads) for _ in range(self._n_workers - 1)]

    def _wait(self, ticket: Ticket) -> Answer:
        pause = _LOOK / 16
        while (answer := self._look(ticket, pause)) is None:
            pause = min(2 * pause, _LOOK)
        return answer

    def _look(self, ticket: Ticket, pause: float) -> Answer | None:
        """How a job ended; None a moment later where it has not.

        Raises:
            AuditError: What it ended in.
        """
        if self._stopped:
            raise ProgramFailed("stopped")
        text = ticket.answer()
        if text is None:
            time.sleep(pause)
            return None
        answer = canonical.decode(Answer, text.encode(), what="answer of a worker")
        if answer.error is not None:
            raise rebuild_error(answer.error)
        return answer

    def _checked(self, result: Any) -> Any:
        """A result of a run, in the environment of all others."""
        here = getattr(result, "environment", None)
        if self._scratch is None and isinstance(here, Environment):
            if self._environment is None:
                self._environment = here
            refuse_other(self._environment, here)
        return result


def refuse_command(engine: EngineSpec | None) -> None:
    """Refuse to send a user's own command elsewhere.

    Raises:
        UsageError: When there is an engine.
    """
    if engine is not None:
        raise UsageError(
            f"--engine {engine.name}: a command after -- runs on this machine only",
            hint="write the loop as a program (auditkit explain study), or leave --engine out",
        )


def _submit(engine: Engine, order: Order, threads: int) -> Ticket:
    """Give an order to an engine."""
    text = canonical.encode(order).decode()
    return engine.submit(text, f"auditkit-{order.job.kind}", threads)


def _result(job: Job, name: str, told: dict[str, Any]) -> Any:
    kind: type[Any] = RESULTS[job.kind]
    if job.kind == "seed" and name == "trunk":
        kind = TrunkResult
    return from_dict(kind, told, what=f"answer of a {job.kind} job")


def _joined(job: Job, results: Iterator[Any], keep: Keep) -> BranchesResult:
    parts: dict[str, BranchesResult] = {}
    for part in results:
        keep(part)
        parts[part.branches[0].name] = part
    missing = [name for name in job.branches if name not in parts]
    if missing:
        raise StoreError(f"a worker left nothing of {missing[0]}", where=f"seed {job.seed}")
    return BranchesResult.joined([parts[name] for name in job.branches])
