"""Run jobs in processes of their own, deterministic from their first instruction.

Each is forked from one prepared process that has imported what every job needs
(:mod:`auditkit.processes.forking`), and a job of several branches runs each in a process of its
own, several at a time where there are free processes (:mod:`auditkit.processes.side_by_side`). A
job is told and answered on a socket of its own in JSON lines, so that whatever the user's program
prints cannot be mistaken for an answer. No pickle.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Protocol

from auditkit.errors import JsonError, ProgramFailed, StoreError
from auditkit.formats import canonical
from auditkit.formats.structure import from_dict, to_dict
from auditkit.processes.fork_server import CAN_FORK, ForkServer
from auditkit.processes.forking import BECOME, FORK, FORK_PROGRAM
from auditkit.processes.interpreter import (
    ISOLATED_ARGUMENTS,
    NVML_CHECK,
    WORKER_ARGUMENTS,
    isolated_environment,
)
from auditkit.processes.job_endings import Ending
from auditkit.processes.program_servers import OUTDATED, Gone, ProgramServer, ProgramServers
from auditkit.processes.side_by_side import SeveralProgress, Slots, side_by_side
from auditkit.processes.subprocesses import describe_exit, environment, log_tail
from auditkit.processes.told_errors import rebuild_error
from auditkit.records.environment import Environment
from auditkit.records.job import Description, Job, JobKind, ModuleTrace, Progress
from auditkit.records.preflight import Preflight
from auditkit.records.registration import RegisterResult
from auditkit.records.results import BranchesResult, BuiltProgram, TrunkResult

Report = Callable[[Progress], None]
Keep = Callable[[BranchesResult], object]

#: What a job of each kind answers with.
RESULTS: Mapping[JobKind, type[Any]] = {
    "describe": Description,
    "build": BuiltProgram,
    "preflight": Preflight,
    "register": RegisterResult,
    "trunk": TrunkResult,
    "branches": BranchesResult,
    "seed": BranchesResult,  # after that of its trunk
    "modules": ModuleTrace,
    "environment": Environment,
}


class Workers:
    """Starts workers, and stops those that still run when it is left.

    Args:
        variables: Environment variables to set in every worker beside the usual ones.
        scratch: Folder of a replay, whose workers import nothing but what is in code/ or
            installed, and have few other variables (:mod:`auditkit.processes.interpreter`); None
            for a run, whose program imports what it likes.
        fork: Whether processes are forked; if not, every one is a new interpreter.
        slots: Processes that may be at work beside that of every seed; by default none.
    """

    def __init__(
        self,
        variables: Mapping[str, str] | None = None,
        scratch: Path | None = None,
        *,
        fork: bool = CAN_FORK,
        slots: Slots | None = None,
    ) -> None:
        self._variables = dict(variables or {})
        self._scratch = scratch
        self._fork = fork
        self.slots = slots or Slots()
        #: By threads; of jobs that are not forked, by their lines.
        self._servers: dict[object, ForkServer] = {}
        self._programs = ProgramServers()
        self._running: set[socket.socket] = set()
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
            for line in self._running:
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)  # wakes who reads, and has the worker killed
            servers = list(self._servers.values())
            self._servers.clear()
        self._programs.stop()  # first: each ends its own, of which the prepared one knows nothing
        for server in servers:
            server.stop()

    def run(self, job: Job, report: Report = lambda _: None, keep: Keep = lambda _: None) -> Any:
        """Run a job to its end; safe to call from several threads.

        Args:
            job: What to do.
            report: Called with the worker's progress.
            keep: Called with the result of every branch as it ends.

        Returns:
            The record that a job of this kind answers with, see :data:`RESULTS`.

        Raises:
            AuditError: What the worker raised, or :class:`ProgramFailed` when it died.
        """
        if job.kind == "branches":
            total = SeveralProgress(report, job.branches)
            return run_branches(self._answers, job, total, keep=keep, slots=self.slots)
        result, *others = self._answers(job, report)
        if others:
            raise _foreign_answer(job)
        return result

    def run_seed(
        self, job: Job, report: Report = lambda _: None, keep: Keep = lambda _: None
    ) -> Iterator[TrunkResult | BranchesResult]:
        """Run trunk and branches in processes that share the program's imports.

        Args:
            job: Its ``fork`` and ``order`` need not be there before the second result is asked for.
            report: Called with the worker's progress.
            keep: Called with the result of every branch as it ends.

        Yields:
            The result of the trunk, then that of the branches if there are any.

        Raises:
            AuditError: As :meth:`run`.
        """
        if not job.branches:
            yield from run_apart(self, job, report, keep)
            return
        total = SeveralProgress(report, job.branches)
        with contextlib.closing(self._answers(job, total)) as answers:
            yield (trunk := next(answers))
            rest = replace(job, kind="branches", one_by_one=job.one_by_one or trunk.read_back)
            yield run_branches(self._answers, rest, total, answers, keep, self.slots)

    def _answers(self, job: Job, report: Report) -> Generator[Any]:
        """The results of a job, of as many of its parts as its process could be forked for."""
        shares = job.shares_imports and job.kind != "environment"  # which imports no program
        program = self._program(job) if shares and self._fork else None
        if program is not None:
            try:
                yield from self._answers_of(job, report, program)
                return
            except Gone:  # before anything was done
                self._programs.retire(job)
        yield from self._answers_of(job, report)

    def _answers_of(
        self, job: Job, report: Report, program: ProgramServer | None = None
    ) -> Generator[Any]:
        with contextlib.ExitStack() as stack:
            with _starting():
                log: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
                line, theirs = socket.socketpair()
                stack.enter_context(line)
                with theirs:
                    server = self._submit(job, line, theirs, log, program)
            try:
                ended = yield from _communicate(line, job, report, self.slots, program is not None)
                if self._stopped:
                    raise ProgramFailed("stopped")
                who = "a worker process"
                if ended.status is None and ended.is_unfinished:
                    # Who would have told it has ended, and may never have forked the job's process.
                    ended.status = server.wait()
                    who = server.what if self._fork else who
                if ended.is_early:
                    tail = log_tail(log) or server.tail()
                    raise ProgramFailed(
                        f"{who} {describe_exit(ended.status or 0)}{tail}",
                        where=f"seed {job.seed}, {ended.what(job)}",
                    )
            finally:
                self._end(line)

    def _program(self, job: Job) -> ProgramServer | None:
        def submit(theirs: socket.socket, log: IO[bytes]) -> None:
            with self._lock:
                self._server(job).submit(theirs, log, FORK_PROGRAM)

        with _starting():
            return self._programs.of(job, submit)

    def _submit(
        self,
        job: Job,
        line: socket.socket,
        theirs: socket.socket,
        log: IO[bytes],
        program: ProgramServer | None,
    ) -> ForkServer | ProgramServer:
        with self._lock:
            server = program or self._server(job, line)
            server.submit(theirs, log, FORK if self._fork else BECOME)
            self._running.add(line)
        return server

    def _server(self, job: Job, line: socket.socket | None = None) -> ForkServer:
        """The prepared process for a job, or for that of a line alone; the lock is held."""
        if self._stopped:
            raise ProgramFailed("stopped")
        threads = job.plan.threads if job.plan else 1
        key = threads if self._fork else line
        if key not in self._servers:
            self._servers[key] = self._start(threads)
        return self._servers[key]

    def _end(self, line: socket.socket) -> None:
        with self._lock:
            self._running.discard(line)
            server = self._servers.pop(line, None)
        if server is not None:
            server.stop()

    def _start(self, threads: int) -> ForkServer:
        variables = child_environment(threads, self._variables)
        if self._scratch is None:
            return ForkServer(WORKER_ARGUMENTS, variables)
        isolated = isolated_environment(variables, self._scratch, self._variables)
        return ForkServer(ISOLATED_ARGUMENTS, isolated)


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot start a worker process: {reason}") from error


class CanRun(Protocol):
    """What does jobs."""

    def run(self, job: Job, report: Report = ..., keep: Keep = ..., /) -> Any:
        """As :meth:`Workers.run`."""


def run_apart(
    workers: CanRun, job: Job, report: Report, keep: Keep = lambda _: None
) -> Iterator[TrunkResult | BranchesResult]:
    """As :meth:`Workers.run_seed`, in processes that share nothing.

    So that it is seen where a program is another one in every process.
    """
    alone = replace(job, kind="trunk", fork=None, order=None, branches=(), shares_imports=False)
    yield (trunk := workers.run(alone, report))
    if job.branches:
        one_by_one = job.one_by_one or trunk.read_back
        yield workers.run(replace(job, kind="branches", one_by_one=one_by_one), report, keep)


def run_branches(
    run: Callable[[Job, Report], Iterable[BranchesResult]],
    job: Job,
    report: Report,
    found: Iterable[BranchesResult] = (),
    keep: Keep = lambda _: None,
    slots: Slots | None = None,
) -> BranchesResult:
    """Run branches, each in a process of its own.

    Args:
        run: Runs a job; the results are of as many of its branches as could be run at once, but
            of the first at least.
        job: Names the branches.
        report: Called with the progress of each branch.
        found: Results that are coming already.
        keep: Called with each, from several threads.
        slots: Processes that may be at work beside one; by default none.
    """
    parts: dict[str, BranchesResult] = {}

    def take(results: Iterable[BranchesResult]) -> None:
        for part in results:
            keep(part)
            parts[part.branches[0].name] = part

    def run_alone(name: str) -> None:
        take(run(replace(job, branches=(name,)), report))
        if name not in parts:
            raise _foreign_answer(job)

    take(found)
    if not parts:
        take(run(job, report))
    missing = [name for name in job.branches if name not in parts]
    side_by_side(missing, run_alone, Slots() if slots is None or job.one_by_one else slots)
    return BranchesResult.joined([parts[name] for name in job.branches])


def child_environment(threads: int, variables: Mapping[str, str]) -> dict[str, str]:
    """Environment of a worker.

    Args:
        threads: Threads of every math library below torch and numpy.
        variables: What to set beside it.
    """
    # No bytecode: code/ must hold the recorded files and nothing else.
    return environment({"PYTHONDONTWRITEBYTECODE": "1", **NVML_CHECK, **variables}, threads)


def _communicate(
    line: socket.socket, job: Job, report: Report, slots: Slots, is_shared: bool
) -> Generator[Any, None, Ending]:
    """Tell a job, and let its process go on when the result of a trunk has been taken.

    It is lent the processes that it can use, where there are any.

    Yields:
        Its results.

    Returns:
        How it ended.

    Raises:
        AuditError: What the worker raised.
    """
    n_lent, lends = 0, True
    ended = Ending(list(job.branches))
    _tell(line, canonical.dumps(to_dict(job)))
    try:
        with contextlib.suppress(ConnectionResetError):
            for answer in _answers_on(line):
                if "progress" in answer:
                    report(from_dict(Progress, answer["progress"], what="progress"))
                elif "result" in answer:
                    is_trunk = job.kind == "seed" and ended.n_results == 0
                    kind: type[Any] = TrunkResult if is_trunk else RESULTS[job.kind]
                    result = from_dict(kind, answer["result"], what=f"answer of a {job.kind} job")
                    yield result
                    ended.take(result)
                    if is_trunk:
                        lends = not answer["result"].get("read_back")
                        _tell(line, b"")
                elif "error" in answer:
                    raise rebuild_error(answer["error"])
                elif OUTDATED in answer and is_shared and not ended.n_results:
                    raise Gone
                elif isinstance(answer.get("exit"), int):
                    ended.status = answer["exit"]
                    return ended
                elif isinstance(wanted := answer.get("beside"), int) and wanted >= 0:
                    n_lent = slots.adjust(n_lent, wanted if lends else 0)
                    _tell(line, b"%d" % n_lent)
                else:
                    raise _foreign_answer(job)
        return ended
    finally:
        slots.adjust(n_lent, 0)


def _foreign_answer(job: Job) -> ProgramFailed:
    return ProgramFailed("the program wrote to auditkit's own pipe", where=f"seed {job.seed}")


def _tell(line: socket.socket, text: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # how it died is told later
        line.sendall(text + b"\n")


def _answers_on(line: socket.socket) -> Iterator[dict[str, Any]]:
    with line.makefile("rb") as answers:
        for text in answers:
            if not text.strip():
                continue
            try:
                answer = canonical.loads(text, what="worker")
            except JsonError:
                answer = {}  # not ours: the program found the socket and wrote to it
            yield answer if isinstance(answer, dict) else {}
