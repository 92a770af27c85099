"""The hidden command that worker processes run; see ``auditkit.processes.worker_pool``."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import click

from auditkit.cli.options import WHOLE
from auditkit.errors import AuditError
from auditkit.formats import canonical
from auditkit.formats.structure import from_dict, prepare, to_dict
from auditkit.processes.forking import serve
from auditkit.processes.freed_memory import keep_freed_memory
from auditkit.processes.job_endings import answered
from auditkit.processes.program_servers import LOADED, OUTDATED
from auditkit.processes.told_errors import describe_error
from auditkit.records.job import Job, Progress
from auditkit.records.results import BranchesResult, TrunkResult

_RunJob = Callable[..., Any]

#: Progress lines a second at most: a line costs as much as some steps' evidence.
_LINES_PER_SECOND = 2


@click.command(hidden=True)
@click.argument("control", type=WHOLE)
def worker(control: int) -> None:
    """Prepare for jobs, and do those that come on the socket of file descriptor CONTROL."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # who stops us need not wait for the imports
    run_job = _prepare()
    line = serve(socket.socket(fileno=control))
    job = _read_job(line)
    if job.kind == "load":
        line, job, run_job = _load(line, job)
    # This is a process of one job now, and of branches that are forked from it.
    with line, line.makefile("rb") as told:
        answer = _Answers(line, file=2)  # what a program prints goes to a file of its job

        def lent(wanted: int) -> int:
            answer("beside", wanted)
            return int(told.readline() or 0)

        try:
            result = run_job(job, _reporter(answer), told.readline, lent)
            answer("result", to_dict(result))
            status = answered()
        except AuditError as error:
            answer("error", describe_error(error))
            status = 1  # of a branch: there is no need for the next one
    _end(status)


def _read_job(line: socket.socket) -> Job:
    with line.makefile("rb") as told:  # nothing is told after it before it is answered
        return from_dict(Job, canonical.loads(told.readline(), what="job"), what="job")


def _load(line: socket.socket, job: Job) -> tuple[socket.socket, Job, _RunJob]:
    """Import a program; this returns in the processes that are forked for its jobs."""
    from auditkit.study.worker.jobs import run_loaded  # noqa: PLC0415 # imported already
    from auditkit.study.worker.loaded_program import load_program  # noqa: PLC0415

    try:
        program = load_program(job)
        program.share()
    except AuditError:
        _end(1)  # a job that finds it by itself tells it
    gc.collect()
    gc.freeze()
    line.sendall(canonical.dumps({LOADED: True}) + b"\n")
    line = serve(line)
    job = _read_job(line)
    if not program.begin_job():
        line.sendall(canonical.dumps({OUTDATED: True}) + b"\n")
        _end(0)
    return line, job, partial(run_loaded, program)


def _end(status: int) -> NoReturn:
    """End this process, which loader workers or libraries may hold threads of."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class _Answers:
    """Sends lines, which processes that are forked from this one may do at the same time.

    Args:
        line: Where to.
        file: A file that all of them have, and nobody else: whoever locks it has the turn.
    """

    def __init__(self, line: socket.socket, file: int) -> None:
        self._line = line
        self.turn = os.dup(file)  # the program may close its own

    def __call__(self, kind: str, value: Any) -> None:
        """Send a line whole."""
        fcntl.lockf(self.turn, fcntl.LOCK_EX)
        try:
            self._line.sendall(canonical.dumps({kind: value}) + b"\n")
        finally:
            fcntl.lockf(self.turn, fcntl.LOCK_UN)


def _prepare() -> _RunJob:
    """Import what every job needs, once for all of them."""
    keep_freed_memory()
    gc.disable()  # of what is imported nothing is garbage that need be found again and again
    import torch  # noqa: PLC0415 # lazy for start-up time; before any parallel work

    from auditkit.observe.machine.code import warm_up  # noqa: PLC0415
    from auditkit.observe.machine.environment import look_up_packages  # noqa: PLC0415
    from auditkit.study.worker.jobs import run_job  # noqa: PLC0415

    torch.set_num_interop_threads(1)
    with torch.profiler.record_function("first"):  # for which torch imports a module of its own
        pass
    warm_up()
    look_up_packages()
    prepare(read=[Job], written=[Progress, TrunkResult, BranchesResult])
    gc.enable()
    gc.collect()
    gc.freeze()  # what is never collected is never copied
    return run_job


def _reporter(answer: _Answers) -> Callable[[Progress], None]:
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 1 / _LINES_PER_SECOND or progress.done == progress.total:
            last = now
            answer("progress", to_dict(progress))

    return report
