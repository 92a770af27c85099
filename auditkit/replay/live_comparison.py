"""Compare a running command with a recording, row by row, and stop it where it differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from auditkit.errors import AuditError, ProgramFailed, Undecided
from auditkit.evidence.comparison import Mismatch, first_differing_module
from auditkit.formats.group_values import Plain
from auditkit.processes.row_server import CommandRunner, RankStatus, RowServer
from auditkit.records.evidence import Trace
from auditkit.records.task import RowsTask
from auditkit.replay.recorded_rows import RecordedRows

#: Seconds that a process which differs waits for the rows of the others.
_PEER_TIMEOUT = 60.0

#: How often a step is run to find the module in which its runs differ.
_MODULE_RUNS = 4


@dataclass(frozen=True)
class CommandConfig:
    """How commands are run.

    Attributes:
        runner: Runs them.
        command: The user's command.
        variables: Environment variables to set.
        output: Gets what they write; None for nobody.
    """

    runner: CommandRunner
    command: Sequence[str]
    variables: Mapping[str, str]
    output: IO[bytes] | None = None


@dataclass(frozen=True)
class RankMismatch:
    """How a process differs first, its row there, and the plain values of its groups."""

    rank: int
    mismatch: Mismatch
    row: Trace
    groups: Mapping[str, Plain]

    @property
    def row_key(self) -> object:
        """Equal where two runs differ first at the same row, and in it alike."""
        cells = {name: cell[:] for name, cell in self.row.columns.items() if any(cell[:])}
        return self.rank, self.row.first_step, cells, self.row.loss_bits[:]


class LiveComparison:
    """One run of the command, compared with the recording.

    Args:
        recorded: The recording.
        dump: Folder for states to be written to where the run differs; None for no states.
        report: Called with every step that was compared.
        commits: Whether the processes commit to their states where checkpoints were recorded.

    Attributes:
        server: What its processes have sent.
        dumped_at: The checkpoint with which written states can be compared.
    """

    def __init__(
        self,
        recorded: RecordedRows,
        dump: Path | None = None,
        report: Callable[[int], None] = lambda _: None,
        *,
        commits: bool = False,
    ) -> None:
        self._recorded, self._dump, self._report = recorded, dump, report
        self._commits = commits
        self._mismatches: dict[int, RankMismatch] = {}
        self._task = RowsTask()
        self.server = RowServer(self._task_of, self._on_row)
        self.dumped_at: int | None = None

    def run(self, config: CommandConfig, task: RowsTask, start: int = 0) -> None:
        """Run the command.

        Args:
            config: How.
            task: The task of its processes, but for checkpoint and dump, which are a rank's.
            start: Step of the checkpoint to go on from; 0 for the loop's own start.

        Raises:
            Undecided: When no loop was seen, or it ended in an error before it differed; and where
                the command has another number of processes than were recorded.
        """
        self._task, self._start = task, start
        self._recorded.begin()
        if task.dump_at is not None:
            self.dumped_at = task.dump_at
        ended = self.server.run(config.runner, config.command, config.variables, config.output)
        self._refuse_other_size()
        if self.first is None:
            self.server.check(ended)

    @property
    def first(self) -> RankMismatch | None:
        """Where the processes differ first."""
        found = sorted(self._mismatches.values(), key=lambda p: (p.row.first_step, p.rank))
        return found[0] if found else None

    def dump_path(self, rank: int) -> Path:
        """Where a rank writes its state."""
        assert self._dump is not None  # noqa: S101 # only asked where there is such a folder
        return self._dump / f"state-{rank}.safetensors"

    def _task_of(self, rank: int) -> RowsTask:
        record = self._recorded.rank(rank)
        task = replace(self._task, evidence_digest=self._recorded.manifest.evidence_digest)
        if self._start and record is not None:
            task = self._recorded.task_from(rank, self._start, task)
        if record is not None and self._commits:
            commit_at = tuple(checkpoint.step for checkpoint in record.checkpoints)
            task = replace(task, commit_at=commit_at)
        if task.dump_at is not None:
            task = replace(task, dump_to=str(self.dump_path(rank)))
        return task

    def _refuse_other_size(self) -> None:
        """Judge nothing where there are more processes, or fewer: each has other samples then."""
        size = self._recorded.size
        found = {status.size for status in self.server.by_rank.values()} - {size}
        if found:
            raise Undecided(
                "the command has another number of processes than were recorded",
                expected=size,
                found=min(found),
                hint="start as many, such as by torchrun --nproc-per-node",
            )

    def _on_row(self, status: RankStatus, row: Trace) -> dict[str, Any]:
        if status.size != self._recorded.size:
            return {"go": False}
        if status.rank == 0:
            self._report(row.first_step)
        mismatch = self._recorded.compare_row(status, row)
        changed = self.server.changed
        with changed:
            if mismatch is not None:
                # A script that catches its own end sends more; the first difference counts.
                kept = self._recorded.without_idle(status, row)
                found = RankMismatch(status.rank, mismatch, kept, dict(status.groups))
                self._mismatches.setdefault(status.rank, found)
                # Another process may differ in an earlier row that it has not sent yet.
                changed.wait_for(lambda: self._all_reached(row.first_step), _PEER_TIMEOUT)
            first = self.first
            if first is None or row.first_step < first.row.first_step:
                return {"go": True}
            return self._stop_or_dump(status, row.first_step, first.row.first_step)

    def _all_reached(self, step: int) -> bool:
        statuses = list(self.server.by_rank.values())
        return len(statuses) >= statuses[0].size and all(
            status.disconnected or status.summary is not None or status.step >= step
            for status in statuses
        )

    def _stop_or_dump(self, status: RankStatus, step: int, differs_at: int) -> dict[str, Any]:
        """Let a process go on to a recorded checkpoint, or stop it."""
        if self._dump is None or self._task.dump_at is not None:
            return {"go": False}
        at = next((c for c in self._recorded.checkpoints if c >= differs_at), None)
        if at is None or step > at or self._recorded.rank(status.rank) is None:
            return {"go": False}
        self.dumped_at = at
        return {"dump_at": at, "path": str(self.dump_path(status.rank))}


def find_differing_module(run_step: Callable[[], tuple[tuple[str, str], ...]]) -> str | None:
    """The first module that differs between runs of one step; None where none is found.

    Args:
        run_step: Runs the step, and gives what every module gave.
    """
    try:
        first = run_step()
        for _ in range(_MODULE_RUNS - 1):  # a race may give the same several times
            found = first_differing_module(first, run_step())
            if found is not None:
                return found
    except AuditError:
        pass  # a help: that there is none changes no verdict
    return None


def trace_modules(
    config: CommandConfig, recorded: RecordedRows | None, step: int, start: int = 0, rank: int = 0
) -> tuple[tuple[str, str], ...]:
    """What every module gives in one step, in the order in which they ran.

    Args:
        config: How the command is run.
        recorded: The recording with the checkpoint to go on from; None where there is none.
        step: The step.
        start: Step of that checkpoint; 0 for the loop's own start.
        rank: Whose modules.
    """

    def task_of(number: int) -> RowsTask:
        if not start or recorded is None:
            return RowsTask(modules_at=step)
        return recorded.task_from(number, start, RowsTask(modules_at=step))

    server = RowServer(task_of, lambda _, __: {"go": True})
    ended = server.run(config.runner, config.command, config.variables)
    server.check(ended)
    status = server.by_rank.get(rank)
    if status is None or status.modules is None:
        raise ProgramFailed(f"step {step} was not reached")
    return status.modules
