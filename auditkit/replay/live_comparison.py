"""Compare a running command with a recording, row by row, and stop it where it differs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from auditkit.errors import AuditError, ProgramFailed
from auditkit.evidence.comparison import (
    Mismatch,
    compare_commitments,
    compare_rows,
    first_differing_module,
)
from auditkit.evidence.reader import RecordingEvidence
from auditkit.processes.row_server import CommandRunner, RankStatus, RowServer, ScriptInfo
from auditkit.records.evidence import Trace
from auditkit.records.recording import TRACE_STEPS, CheckpointRecord, RankRecord
from auditkit.records.task import RowsTask
from auditkit.records.tensor import RawTensor
from auditkit.replay.checkpoint_comparison import CheckpointComparison

# What was recorded

#: Settings of a loader that need change nothing of what it delivers; if they do, a row says so.
_SPEED_ONLY = ("workers", "persistent workers")


class RecordedRows:
    """Reads the traces of a recording a chunk at a time.

    Args:
        evidence: The recording, whose files passed checks 1 to 5.
    """

    def __init__(self, evidence: RecordingEvidence) -> None:
        self.evidence = evidence
        self.manifest = evidence.manifest
        self._chunks: dict[int, tuple[int, Trace]] = {}
        self._first: dict[int, Trace] = {}
        common = [
            {checkpoint.step for checkpoint in rank.checkpoints} for rank in self.manifest.ranks
        ]
        self.checkpoints = sorted(set.intersection(*common))

    def rank(self, number: int) -> RankRecord | None:
        """The record of a rank, or None where there is no such rank."""
        ranks = self.manifest.ranks
        return ranks[number] if 0 <= number < len(ranks) else None

    def task_from(self, rank: int, step: int, task: RowsTask) -> RowsTask:
        """The task, to be begun at a rank's checkpoint."""
        taken = self._checkpoint(rank, step)
        path = str((self.evidence.root / taken.file).resolve())
        return replace(task, checkpoint=path, drawn=taken.drawn, first_step=step + 1)

    def snapshot(self, rank: int, step: int) -> tuple[Mapping[str, RawTensor], object]:
        """Content of a checkpoint."""
        return self.evidence.tensors(self._checkpoint(rank, step).file)

    def compare_row(self, status: RankStatus, row: Trace) -> Mismatch | None:
        """How a process's row differs from the recorded one.

        A row is read by one thread a rank, so that no two touch the same chunk.
        """
        record = self.rank(status.rank)
        if record is None:
            return Mismatch(status.where, row.first_step, "processes", (), "length")
        if row.first_step > record.steps + 1:
            return Mismatch(status.where, row.first_step, "steps", (), "length")
        starts, chunk = self.differing_starts(status), self._chunk(record, row.first_step)
        first = self._first.setdefault(status.rank, row)
        idle = [
            name
            for name in starts
            if _is_idle(record, name)
            and row.cell(row.first_step, name) == first.cell(first.first_step, name)
        ]
        seen = {**row.columns, **{name: chunk.cell(row.first_step, name) for name in idle}}
        return compare_rows(
            status.where,
            chunk,
            Trace(row.first_step, row.loss_bits, seen),
            starts if row.first_step == 1 else (),
        )

    def differing_starts(self, status: RankStatus) -> Collection[str]:
        """Random streams that were elsewhere when the process handed its objects over."""
        record = self.rank(status.rank)
        if record is None or status.info is None:
            return ()
        starts = {stream.stream: stream.start for stream in record.rng.streams}
        here = status.info.starts
        return [name for name in here if starts.get(name) not in (None, here[name])]

    def compare_end(self, status: RankStatus) -> Iterator[Mismatch]:
        """Where the end of a loop differs from the recorded one."""
        record, summary = self.rank(status.rank), status.summary
        if record is None or summary is None:
            return
        if summary.epochs != record.epochs:
            yield Mismatch(status.where, None, "epochs", (), "length")
        if summary.steps != record.steps:
            yield Mismatch(status.where, summary.steps + 1, "steps", (), "length")
        if summary.order_sha256 != record.order_sha256:
            yield Mismatch(status.where, None, "order", (), "order drift")
        if summary.consumed_sha256 != record.consumed_sha256:
            yield Mismatch(status.where, None, "batch", (), "data drift")
        idle = self._idle_streams(record, status)
        for committed, state, step in (
            (record.initial, status.initial, 1),
            (record.final, summary.final, record.steps + 1),
        ):
            found = {**state, **{name: committed[name] for name in idle if name in committed}}
            mismatch = compare_commitments(status.where, committed, found, step)
            if mismatch is not None:
                yield mismatch
        for loader, key, *_ in _loader_differences(record, status.info):
            if key not in _SPEED_ONLY:
                yield Mismatch(
                    status.where, None, f"{key} of the {_loader(loader)}", (), "description"
                )

    def checkpoint_comparison(self, status: RankStatus) -> CheckpointComparison | None:
        """Compares a process's checkpoints; None where it is none of the recorded ones."""
        record = self.rank(status.rank)
        if record is None:
            return None
        others = {loader for loader, *_ in _loader_differences(record, status.info)}
        idle = self._idle_streams(record, status)
        return CheckpointComparison(self.evidence, record, status, idle, others)

    def false_starts(self, status: RankStatus) -> tuple[str, ...]:
        """Random streams that are used, and did not begin where the record says."""
        record = self.rank(status.rank)
        if record is None or status.info is None:
            return ()
        idle, here = self._idle_streams(record, status), status.info.starts
        return tuple(
            one.stream
            for one in record.rng.streams
            if one.start not in (None, here.get(one.stream)) and one.stream not in idle
        )

    def _idle_streams(self, record: RankRecord, status: RankStatus) -> list[str]:
        """Streams that stood elsewhere, and that nobody drew from, there or here."""
        final = {} if status.summary is None else status.summary.final
        return [
            name
            for name in self.differing_starts(status)
            if _is_idle(record, name) and final.get(name) == status.initial.get(name)
        ]

    def differing_code(self, status: RankStatus) -> tuple[str, ...]:
        """What a loop consists of that is not what was recorded, a line each."""
        record, info = self.rank(status.rank), status.info
        if record is None or info is None:
            return ()
        loaders = (
            f"{_loader(loader)}: {key} is {there} there, {here} here"
            for loader, key, there, here in _loader_differences(record, info)
        )
        return (*self._files(info), *self._arguments(info), *loaders)

    def _files(self, info: ScriptInfo) -> Iterator[str]:
        there = {file.name: file.sha256 for file in self.manifest.program.code}
        here = {file.name: file.sha256 for file in info.code}
        for name in sorted(set(there) | set(here)):
            if name in there and name in here:
                if there[name] != here[name]:
                    yield f"{name} is another file than the recorded one"
            elif name in here:
                yield f"{name} is no recorded file"

    def _arguments(self, info: ScriptInfo) -> Iterator[str]:
        there, here = self.manifest.command, info.command
        if there != here:
            shown = [" ".join(arguments) or "none" for arguments in (there, here)]
            yield f"the script's arguments: {shown[0]} there, {shown[1]} here"

    def _checkpoint(self, rank: int, step: int) -> CheckpointRecord:
        checkpoints = self.manifest.ranks[rank].checkpoints
        return next(checkpoint for checkpoint in checkpoints if checkpoint.step == step)

    def _chunk(self, record: RankRecord, step: int) -> Trace:
        number = min((step - 1) // TRACE_STEPS, len(record.traces) - 1)
        kept = self._chunks.get(record.rank)
        if kept is None or kept[0] != number:
            kept = self._chunks[record.rank] = (number, self.evidence.trace(record.traces[number]))
        return kept[1]


def _is_idle(record: RankRecord, stream: str) -> bool:
    """Whether nothing drew from a stream in the whole recording: where it stood is no matter."""
    return any(one.stream == stream and one.start == one.end for one in record.rng.streams)


def _loader(name: str) -> str:
    """How messages name a loader."""
    return f"loader {name}" if name else "training loader"


def _loader_differences(
    record: RankRecord, info: ScriptInfo | None
) -> Iterator[tuple[str, str, str, str]]:
    """Name of the loader, setting, and what it is there and here."""
    loaders = {} if info is None else info.loaders
    for name in sorted(set(record.loaders) | set(loaders)):
        there, here = record.loaders.get(name, {}), loaders.get(name, {})
        for key in sorted(set(there) | set(here)):
            if there.get(key) != here.get(key):
                yield name, key, there.get(key, "absent"), here.get(key, "absent")


# What runs

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
    """How a process differs first, and its row there."""

    rank: int
    mismatch: Mismatch
    row: Trace

    @property
    def row_key(self) -> object:
        """Equal where two runs differ first at the same row, and in it alike."""
        cells = {name: cell for name, cell in self.row.columns.items() if any(cell)}
        return self.rank, self.row.first_step, cells, self.row.loss_bits


class LiveComparison:
    """One run of the command, compared with the recording.

    Args:
        recorded: The recording.
        dump: Folder for states to be written to where the run differs; None for no states.
        report: Called with every step that was compared.

    Attributes:
        server: What its processes have sent.
        dumped_at: The checkpoint with which written states can be compared.
    """

    def __init__(
        self,
        recorded: RecordedRows,
        dump: Path | None = None,
        report: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._recorded, self._dump, self._report = recorded, dump, report
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
            Undecided: When no loop was seen, or it ended in an error before it differed.
        """
        self._task, self._start = task, start
        if task.dump_at is not None:
            self.dumped_at = task.dump_at
        ended = self.server.run(config.runner, config.command, config.variables, config.output)
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
        task, record = self._task, self._recorded.rank(rank)
        if self._start and record is not None:
            task = self._recorded.task_from(rank, self._start, task)
        if record is not None and task.last_step is None:
            commit_at = tuple(checkpoint.step for checkpoint in record.checkpoints)
            task = replace(task, commit_at=commit_at)
        if task.dump_at is not None:
            task = replace(task, dump_to=str(self.dump_path(rank)))
        return task

    def _on_row(self, status: RankStatus, row: Trace) -> dict[str, Any]:
        if status.rank == 0:
            self._report(row.first_step)
        mismatch = self._recorded.compare_row(status, row)
        changed = self.server.changed
        with changed:
            if mismatch is not None:
                # A script that catches its own end sends more; the first difference counts.
                self._mismatches.setdefault(status.rank, RankMismatch(status.rank, mismatch, row))
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
