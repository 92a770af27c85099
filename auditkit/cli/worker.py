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
from typing import Any

import click

from auditkit.cli.options import WHOLE
from auditkit.errors import AuditError
from auditkit.formats import canonical
from auditkit.formats.structure import from_dict, to_dict
from auditkit.processes.forking import serve
from auditkit.processes.worker_pool import describe_error
from auditkit.records.job import Job, Progress

#: Progress lines a second at most: a line costs as much as some steps' evidence.
_LINES_PER_SECOND = 2


@click.command(hidden=True)
@click.argument("control", type=WHOLE)
def worker(control: int) -> None:
    """Prepare for jobs, and do those that come on the socket of file descriptor CONTROL."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # who stops us need not wait for the imports
    run_job = _prepare()
    line = serve(socket.socket(fileno=control))
    # This is a process of one job now, and of branches that are forked from it.
    with line, line.makefile("rb") as told:
        answer = _Answers(line, file=2)  # what a program prints goes to a file of its job
        job = from_dict(Job, canonical.loads(told.readline(), what="job"), what="job")

        def lent(wanted: int) -> int:
            answer("beside", wanted)
            return int(told.readline() or 0)

        try:
            result = run_job(job, _reporter(answer), told.readline, lent)
            answer("result", to_dict(result))
            status = 0
        except AuditError as error:
            answer("error", describe_error(error))
            status = 1  # of a branch: there is no need for the next one
    # Loader workers or libraries may hold threads that would keep this process alive.
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


def _prepare() -> Callable[..., Any]:
    """Import what every job needs, once for all of them."""
    import torch  # noqa: PLC0415 # lazy for start-up time; before any parallel work

    from auditkit.observe.machine.code import warm_up  # noqa: PLC0415
    from auditkit.observe.machine.environment import look_up_packages  # noqa: PLC0415
    from auditkit.study.worker.jobs import run_job  # noqa: PLC0415

    torch.set_num_interop_threads(1)
    with torch.profiler.record_function("first"):  # for which torch imports a module of its own
        pass
    warm_up()
    look_up_packages()
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
