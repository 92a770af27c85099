"""Run jobs in fresh processes: one process a job, deterministic from its first instruction.

A worker reads its job from standard input and answers in JSON lines on a pipe of its own, so
that whatever the user's program prints cannot be mistaken for an answer. No pickle. A worker
whose parent dies sees its standard input end, and exits.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from auditkit import errors
from auditkit.errors import AuditError, JsonError, ProgramFailed, StoreError
from auditkit.formats import canonical
from auditkit.formats.structure import from_dict, to_dict
from auditkit.processes.interpreter import isolated_arguments, isolated_environment
from auditkit.processes.subprocesses import (
    TAIL_BYTES,
    describe_exit,
    environment,
    kill_session,
    output_tail,
)
from auditkit.records.job import Description, Job, JobKind, ModuleTrace, Progress
from auditkit.records.manifest import BranchesResult, TrunkResult
from auditkit.records.registration import RegisterResult

Report = Callable[[Progress], None]
Result = TrunkResult | BranchesResult | Description | ModuleTrace

#: What a job of each kind answers with.
RESULTS: Mapping[JobKind, type[Any]] = {
    "describe": Description,
    "register": RegisterResult,
    "trunk": TrunkResult,
    "branches": BranchesResult,
    "modules": ModuleTrace,
}

#: The worker's command, run by this interpreter. ``-P`` keeps the working folder, which may be
#: somebody else's run, off ``sys.path``: a ``torch.py`` that lies there must not be imported.
WORKER_ARGUMENTS = ("-P", "-m", "auditkit", "worker")


class Workers:
    """Starts workers, and stops those that still run when it is left.

    Args:
        variables: Environment variables to set in every worker beside the usual ones.
        scratch: Folder of a replay, whose workers import nothing but what is in code/ or
            installed (:mod:`auditkit.processes.interpreter`); None for a run, whose program
            imports what it likes.
    """

    def __init__(
        self, variables: Mapping[str, str] | None = None, scratch: Path | None = None
    ) -> None:
        self._variables = dict(variables or {})
        self._scratch = scratch
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill every running worker; later jobs are refused."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            kill_session(process)

    def run(self, job: Job, report: Report = lambda _: None) -> Any:
        """Run a job to its end; safe to call from several threads.

        Args:
            job: What to do.
            report: Called with the worker's progress.

        Returns:
            The record that a job of this kind answers with, see :data:`RESULTS`.

        Raises:
            AuditError: What the worker raised, or :class:`ProgramFailed` when it died.
        """
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb") as answers, contextlib.ExitStack() as stack:
            try:
                log = stack.enter_context(tempfile.TemporaryFile())
                process = self._start(job, writer, log)
            except OSError as error:
                reason = error.strerror or str(error)
                raise StoreError(f"cannot start a worker process: {reason}") from error
            finally:
                os.close(writer)
            try:
                answer = _communicate(process, job, answers, report)
            except BaseException:
                kill_session(process)
                raise
            finally:
                self._end(process)
            if answer is None:
                raise ProgramFailed(
                    f"a worker process {describe_exit(process.returncode)}{_log_tail(log)}",
                    where=f"seed {job.seed}, {job.kind}",
                )
        if "error" in answer:
            raise rebuild_error(answer["error"])
        if "result" not in answer:
            raise ProgramFailed(
                "the program wrote to auditkit's own pipe", where=f"seed {job.seed}"
            )
        return from_dict(RESULTS[job.kind], answer["result"], what=f"answer of a {job.kind} job")

    def _start(self, job: Job, writer: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
        variables = child_environment(job.plan.threads if job.plan else 1, self._variables)
        arguments: tuple[str, ...] = WORKER_ARGUMENTS
        if self._scratch is not None:
            arguments = isolated_arguments()
            variables = isolated_environment(variables, self._scratch)
        with self._lock:
            if self._stopped:
                raise ProgramFailed("stopped")
            process = subprocess.Popen(  # noqa: S603 # this interpreter, fixed arguments
                [sys.executable, *arguments, str(writer)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(writer,),
                env=variables,
                start_new_session=True,  # so that what it leaves behind can be found, and ended
            )
            self._running.add(process)
        # What a worker forks holds the answer pipe open, and may live on when the worker dies.
        threading.Thread(target=_end_session, args=(process,), daemon=True).start()
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        # The answer pipe has ended, so the worker is about to. Its standard input is closed only
        # then: at its end a worker stops at once, and its last output would be cut off.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            kill_session(process)
            process.wait()
        with self._lock:
            self._running.discard(process)


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """When a worker has ended, end what it left behind."""
    process.wait()
    kill_session(process)


def child_environment(threads: int, variables: Mapping[str, str]) -> dict[str, str]:
    """Environment of a worker.

    Args:
        threads: Threads of every math library below torch and numpy.
        variables: What to set beside it.
    """
    # No bytecode: code/ must hold the recorded files and nothing else.
    return environment({"PYTHONDONTWRITEBYTECODE": "1", **variables}, threads)


def describe_error(error: AuditError) -> dict[str, Any]:
    """An error as a worker reports it."""
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "expected": None if error.expected is None else str(error.expected),
        "found": None if error.found is None else str(error.found),
        "where": error.where,
        "step": error.step,
        "component": error.component,
        "hint": error.hint,
    }


def _communicate(
    process: subprocess.Popen[bytes], job: Job, answers: IO[bytes], report: Report
) -> dict[str, Any] | None:
    assert process.stdin is not None  # noqa: S101 # it was asked for
    try:
        process.stdin.write(canonical.dumps(to_dict(job)) + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    for line in answers:
        try:
            answer = canonical.loads(line, what="worker")
        except JsonError:
            answer = {}  # not ours: the program found the pipe and wrote to it
        if not isinstance(answer, dict):
            answer = {}
        if "progress" not in answer:
            return answer
        report(from_dict(Progress, answer["progress"], what="progress"))
    return None


def rebuild_error(described: Mapping[str, Any]) -> AuditError:
    """Inverse of :func:`describe_error`; an error of a kind unknown here is an AuditError."""
    kind = getattr(errors, str(described.get("kind")), AuditError)
    parts = {key: value for key, value in described.items() if key not in ("kind", "message")}
    rebuilt = kind(described["message"], **parts)
    return rebuilt if isinstance(rebuilt, AuditError) else AuditError(described["message"], **parts)


def _log_tail(log: IO[bytes]) -> str:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - TAIL_BYTES))
    tail = output_tail(log.read())
    return f": {tail}" if tail else ""
