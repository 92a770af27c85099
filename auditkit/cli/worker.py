"""The hidden command that worker processes run; see ``auditkit.processes.worker_pool``."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

import click

from auditkit.cli.options import WHOLE
from auditkit.errors import AuditError
from auditkit.formats import canonical
from auditkit.formats.structure import from_dict, to_dict
from auditkit.processes.worker_pool import describe_error
from auditkit.records.job import Job, Progress

#: Progress lines a second at most.
_LINES_PER_SECOND = 10


@click.command(hidden=True)
@click.argument("pipe", type=WHOLE)
def worker(pipe: int) -> None:
    """Do the job on standard input; answer on file descriptor PIPE."""
    line = sys.stdin.buffer.readline()
    job = from_dict(Job, canonical.loads(line, what="job"), what="job")
    sys.stdin = io.StringIO()  # a program that asks a question gets an end of file, not a wait
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with os.fdopen(pipe, "wb") as answers:
        try:
            _answer(answers, "result", to_dict(_run(job, _reporter(answers))))
        except AuditError as error:
            _answer(answers, "error", describe_error(error))
    # Loader workers or libraries may hold threads that would keep this process alive.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _run(job: Job, report: Callable[[Progress], None]) -> Any:
    import torch  # noqa: PLC0415 # lazy for start-up time; before any parallel work

    from auditkit.study.worker.jobs import run_job  # noqa: PLC0415

    torch.set_num_interop_threads(1)
    return run_job(job, report)


def _reporter(answers: IO[bytes]) -> Callable[[Progress], None]:
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 1 / _LINES_PER_SECOND or progress.done == progress.total:
            last = now
            _answer(answers, "progress", to_dict(progress))

    return report


def _answer(answers: IO[bytes], kind: str, value: Any) -> None:
    answers.write(canonical.dumps({kind: value}) + b"\n")
    answers.flush()


def _exit_with_parent() -> None:
    # The parent keeps our standard input open for as long as it lives and wants us. Read without
    # a file object: its lock would be held for ever in a forked loader worker, which closes it.
    while os.read(0, 1):
        pass
    os._exit(1)
