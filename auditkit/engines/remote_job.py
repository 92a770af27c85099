"""Do a job on another machine: the function that an engine ships there, by its name.

Its process is the engine's. In it nothing of the user's runs: jobs are done in processes that are
forked from a prepared one, as by ``auditkit run`` itself, and die with this one.
"""

from __future__ import annotations

import atexit
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from auditkit.engines.environments import refuse_other
from auditkit.engines.handover import Outbox
from auditkit.engines.order import Answer, Order
from auditkit.errors import AuditError, ProgramFailed, StoreError
from auditkit.formats import canonical
from auditkit.formats.structure import to_dict
from auditkit.processes.told_errors import describe_error
from auditkit.processes.worker_pool import Workers
from auditkit.records.environment import Environment
from auditkit.records.job import Job, Progress
from auditkit.records.results import BranchesResult

#: Seconds that prepared processes are kept for a further job, and between two looks.
_IDLE, _LOOKS = 60.0, 1.0


class WorkerDied(RuntimeError):
    """A job's process died, as where memory ran out: another worker may have more of it.

    The one error that leaves the function, so that the engine tries again.
    """


def do(text: str) -> str:
    """Do a job.

    Args:
        text: The order, as JSON.

    Returns:
        The answer, as JSON; an error that would be the same anywhere is in it.

    Raises:
        WorkerDied: When the job's process was killed.
    """
    order = canonical.decode(Order, text.encode(), what="order")
    try:
        return canonical.encode(_answer(order)).decode()
    except AuditError as error:
        if isinstance(error, ProgramFailed) and "was killed by" in error.message:
            raise WorkerDied(canonical.dumps(describe_error(error)).decode()) from error
        return canonical.encode(Answer(error=describe_error(error))).decode()


def _answer(order: Order) -> Answer:
    _require_program(order.job)
    pool = _pool_of(order)
    with pool.used():
        if order.environment is not None:
            refuse_other(order.environment, pool.environment(order.job), socket.gethostname())
        if order.task is None:
            return Answer(result=to_dict(pool.workers.run(order.job)))
        outbox = Outbox(Path(order.task))
        job = outbox.rerouted(order.job)
        for name, result in _results(pool.workers, job, outbox):
            outbox.put(name, result)
    return Answer(attempt=outbox.attempt, n_messages=outbox.n_messages)


def _results(workers: Workers, job: Job, outbox: Outbox) -> Iterator[tuple[str, Any]]:
    """The results of a job that are not handed over as they come."""

    def keep(result: BranchesResult) -> None:
        outbox.put(result.branches[0].name, result)

    report: Callable[[Progress], None] = outbox.report
    if job.kind == "seed":
        results = workers.run_seed(job, report, keep)
        yield "trunk", next(results)
        for _ in results:  # its branches were handed over one by one
            pass
    elif job.kind == "branches":
        workers.run(job, report, keep)
    else:
        yield job.kind, workers.run(job, report)


def _require_program(job: Job) -> None:
    """Require the program's folder.

    Raises:
        StoreError: When this machine does not have it.
    """
    file = job.program.target.partition(":")[0]
    place = Path(job.program.folder) / (file if file.endswith(".py") else "")
    if not place.exists():
        raise StoreError(
            f"the worker on {socket.gethostname()} does not see the program",
            where=str(place),
            hint="it must lie under this path on every worker, as in a folder that they share",
        )


class _Pool:
    """Workers that jobs of one kind of process share."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.n_running = 0
        self.since = time.monotonic()
        self._environments: dict[int, Environment] = {}

    def environment(self, job: Job) -> Environment:
        """Where a job would run: of all that are forked from one process the same, by threads."""
        threads = job.plan.threads if job.plan else 1
        if threads not in self._environments:
            self._environments[threads] = self.workers.run(replace(job, kind="environment"))
        return self._environments[threads]

    def used(self) -> _Use:
        """Keep it while the block runs."""
        return _Use(self)


class _Use:
    def __init__(self, pool: _Pool) -> None:
        self._pool = pool

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        with _LOCK:
            self._pool.n_running -= 1
            self._pool.since = time.monotonic()


_LOCK = threading.Lock()
_POOLS: dict[str, _Pool] = {}


def _pool_of(order: Order) -> _Pool:
    """The workers for an order, of which one job more is counted."""
    key = canonical.dumps([order.variables, order.scratch]).decode()
    with _LOCK:
        if key not in _POOLS:
            scratch = None if order.scratch is None else Path(order.scratch)
            _POOLS[key] = _Pool(Workers(variables=order.variables, scratch=scratch))
            threading.Thread(target=_stop_when_idle, args=(_POOLS, key), daemon=True).start()
        pool = _POOLS[key]
        pool.n_running += 1
    return pool


def _stop_when_idle(pools: dict[str, _Pool], key: str) -> None:
    while True:
        time.sleep(_LOOKS)
        with _LOCK:
            pool = pools[key]
            if pool.n_running or time.monotonic() - pool.since < _IDLE:
                continue
            del pools[key]
        pool.workers.stop()
        return


@atexit.register
def _stop_all() -> None:
    for pool in list(_POOLS.values()):
        pool.workers.stop()
