"""Jobs of a study in processes that run the user's own command.

Stands in for :class:`auditkit.processes.worker_pool.Workers`: the same jobs go out and the same
results come back, but the process is the user's script, and the Recorder in it does the job
(:mod:`auditkit.recorder.script_jobs`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from auditkit.errors import ProgramFailed, UncapturedState
from auditkit.formats.structure import from_dict, to_dict
from auditkit.processes.commands import CommandResult, Commands
from auditkit.processes.protocol import Connection
from auditkit.processes.side_by_side import SeveralProgress
from auditkit.processes.subprocesses import describe_exit
from auditkit.processes.told_errors import rebuild_error
from auditkit.processes.worker_pool import RESULTS, Keep, Report, run_apart
from auditkit.records.job import Job, Progress
from auditkit.records.results import BranchesResult, BuiltProgram, TrunkResult

#: What stands for the seed in a command's arguments.
SEED = "{seed}"


@dataclass
class _Answer:
    """What came back over the connection."""

    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    n_connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class ScriptWorkers:
    """Runs jobs in the user's own script.

    Args:
        command: The command; ``{seed}`` in an argument stands for the study seed.
        folder: Where it runs; None for the working folder.
        variables: Environment variables to set beside the usual ones.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._command, self._folder = tuple(command), folder
        self._variables = dict(variables or {})
        self._commands = Commands()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill what is running; later jobs are refused."""
        self._commands.stop()

    def run(self, job: Job, report: Report = lambda _: None, keep: Keep = lambda _: None) -> Any:
        """Do a job; safe to call from several threads.

        A job of several branches is done in as many processes, the replica last; ``keep`` is called
        with the result of each. They run one after the other: nothing that a script is told by its
        command says which branch it is, so they all write to the same places.

        Raises:
            AuditError: What the script's Recorder raised.
            ProgramFailed: When the script ended without an answer.
        """
        if job.kind != "branches":
            return self._run(job, report)
        parts: list[BranchesResult] = []
        total = SeveralProgress(report, job.branches)
        for name in job.branches:
            parts.append(self._run(replace(job, branches=(name,)), total))
            keep(parts[-1])
        return BranchesResult.joined(parts)

    def run_seed(
        self, job: Job, report: Report = lambda _: None, keep: Keep = lambda _: None
    ) -> Iterator[TrunkResult | BranchesResult]:
        """Do a seed's trunk, and then its branches.

        As :meth:`auditkit.processes.worker_pool.Workers.run_seed`, in processes that share nothing.
        """
        return run_apart(self, job, report, keep)

    def _run(self, job: Job, report: Report) -> Any:
        answer = _Answer()

        def handle(connection: Connection, client_info: dict[str, Any]) -> None:
            with answer.lock:
                answer.n_connections += 1
                if answer.n_connections > 1:
                    raise ProgramFailed(
                        "a study of a script has one process, and several said hello",
                        hint="one Recorder a script; distributed training can be recorded, not "
                        "branched",
                    )
            connection.send({"job": to_dict(job)})
            while (message := connection.receive()) is not None:
                if "progress" in message:
                    report(from_dict(Progress, message["progress"], what="progress"))
                elif "result" in message:
                    answer.result = message["result"]
                else:
                    answer.error = message.get("error", {})

        threads = job.plan.threads if job.plan else 1
        completed = self._commands.run(
            [part.replace(SEED, str(job.seed)) for part in self._command],
            handle,
            threads=threads,
            folder=self._folder,
            variables=self._variables,
        )
        if answer.error is not None:
            raise rebuild_error(answer.error)
        if answer.result is None:
            raise _no_result(completed, job)
        return from_dict(RESULTS[job.kind], answer.result, what=f"answer of a {job.kind} job")


def require_seeded(tried: BuiltProgram, trunk: TrunkResult) -> None:
    """Refuse a script that begins with other random numbers whenever it is started.

    Streams that are seeded between ``wrap`` and the first step are no matter.

    Args:
        tried: What it had made before the study, for the same seed.
        trunk: What its trunk began with.

    Raises:
        UncapturedState: When no replay could begin as the trunk did.
    """
    starts = {one.stream: one.start for one in trunk.rng.streams if one.start}
    chance = [
        name
        for name, start in starts.items()
        if start == trunk.initial.get(name) != tried.initial.get(name, start)
    ]
    if chance:
        raise UncapturedState(
            f"{', '.join(chance)} {'begin' if len(chance) > 1 else 'begins'} elsewhere whenever "
            "the script is started, so that no replay would be equal",
            hint="let it seed random, numpy and torch from {seed} before it builds anything",
        )


def _no_result(completed: CommandResult, job: Job) -> ProgramFailed:
    where = f"seed {job.seed}, {', '.join(job.branches) or job.kind}"
    tail = f"; it wrote: {completed.output_tail!r}" if completed.output_tail else ""
    if completed.connected:
        return ProgramFailed(f"the script {describe_exit(completed.returncode)}{tail}", where=where)
    return ProgramFailed(
        f"the script {describe_exit(completed.returncode)}, and no Recorder in it was given a "
        f"loop{tail}",
        where=where,
        hint="the script needs an auditkit.Recorder, and its wrap(model, optimizer, loader, "
        "probe=...) before the loop",
    )
