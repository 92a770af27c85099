"""Hold a running command against a recording, row by row, and stop it where it parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from auditkit.errors import AuditError, ProgramFailed
from auditkit.evidence.comparison import Parting, first_module
from auditkit.evidence.recorded_rows import Recorded
from auditkit.processes.row_server import Conversation, Runner, Told
from auditkit.records.evidence import Trace
from auditkit.records.job import RowsTask

#: Seconds that a process which has parted waits for the rows of the others.
_PATIENCE = 60.0

#: How often a step is run to find the module in which its runs differ.
_LOOKS = 4


@dataclass(frozen=True)
class Setting:
    """How commands are run.

    Attributes:
        runner: Runs them.
        command: The user's command.
        variables: Environment variables to set.
        output: Gets what they write; None for nobody.
    """

    runner: Runner
    command: Sequence[str]
    variables: Mapping[str, str]
    output: IO[bytes] | None = None


@dataclass(frozen=True)
class Parted:
    """Where a process parted, and its row there."""

    rank: int
    parting: Parting
    row: Trace

    @property
    def mark(self) -> object:
        """Equal where two runs part at the same row, and in it alike."""
        cells = {name: cell for name, cell in self.row.columns.items() if any(cell)}
        return self.rank, self.row.first_step, cells, self.row.loss_bits


class Held:
    """One run of the command, held against the recording.

    Args:
        recorded: The recording.
        dump: Folder for states to be written to where the run parts; None for no states.
        report: Called with every step that was compared.

    Attributes:
        conversation: What was told.
        dumped_at: The checkpoint with which written states can be compared.
    """

    def __init__(
        self,
        recorded: Recorded,
        dump: Path | None = None,
        report: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._recorded, self._dump, self._report = recorded, dump, report
        self._parted: dict[int, Parted] = {}
        self._task = RowsTask()
        self.conversation = Conversation(self._task_of, self._judge)
        self.dumped_at: int | None = None

    def run(self, setting: Setting, task: RowsTask, start: int = 0) -> None:
        """Run the command.

        Args:
            setting: How.
            task: What its processes are told, but for checkpoint and dump, which are a rank's.
            start: Step of the checkpoint to go on from; 0 for the loop's own start.

        Raises:
            Undecided: When no loop was seen, or it ended in an error before it parted.
        """
        self._task, self._start = task, start
        if task.dump_at is not None:
            self.dumped_at = task.dump_at
        ended = self.conversation.hold(
            setting.runner, setting.command, setting.variables, setting.output
        )
        if self.first is None:
            self.conversation.check(ended)

    @property
    def first(self) -> Parted | None:
        """Where the processes parted first."""
        found = sorted(self._parted.values(), key=lambda p: (p.row.first_step, p.rank))
        return found[0] if found else None

    def dump_path(self, rank: int) -> Path:
        """Where a rank writes its state."""
        assert self._dump is not None  # noqa: S101 # only asked where there is such a folder
        return self._dump / f"state-{rank}.safetensors"

    def _task_of(self, rank: int) -> RowsTask:
        values = {name: getattr(self._task, name) for name in self._task.__dataclass_fields__}
        if self._start and self._recorded.rank(rank) is not None:
            values["checkpoint"] = str(self._recorded.checkpoint(rank, self._start))
            values["first_step"] = self._start + 1
        if self._task.dump_at is not None:
            values["dump_to"] = str(self.dump_path(rank))
        return RowsTask(**values)

    def _judge(self, told: Told, row: Trace) -> dict[str, Any]:
        if told.rank == 0:
            self._report(row.first_step)
        parting = self._recorded.part(told, row)
        changed = self.conversation.changed
        with changed:
            if parting is not None:
                # A script that catches its own end sends more; what it parted at first counts.
                self._parted.setdefault(told.rank, Parted(told.rank, parting, row))
                # Another process may part in an earlier row that it has not sent yet.
                changed.wait_for(lambda: self._all_at(row.first_step), _PATIENCE)
            first = self.first
            if first is None or row.first_step < first.row.first_step:
                return {"go": True}
            return self._leave(told, row.first_step, first.row.first_step)

    def _all_at(self, step: int) -> bool:
        told = list(self.conversation.told.values())
        return len(told) >= told[0].size and all(
            one.gone or one.ending is not None or one.step >= step for one in told
        )

    def _leave(self, told: Told, step: int, parted_at: int) -> dict[str, Any]:
        """Let a process go on to a recorded checkpoint, or stop it."""
        if self._dump is None or self._task.dump_at is not None:
            return {"go": False}
        at = next((c for c in self._recorded.checkpoints if c >= parted_at), None)
        if at is None or step > at or self._recorded.rank(told.rank) is None:
            return {"go": False}
        self.dumped_at = at
        return {"dump_at": at, "path": str(self.dump_path(told.rank))}


def find_module(look: Callable[[], tuple[tuple[str, str], ...]]) -> str | None:
    """The first module that differs between runs of one step; None where it cannot be told.

    Args:
        look: Runs the step, and gives what every module gave.
    """
    try:
        first = look()
        for _ in range(_LOOKS - 1):  # a race may give the same several times
            found = first_module(first, look())
            if found is not None:
                return found
    except AuditError:
        pass  # a help: that there is none changes no verdict
    return None


def look_into(
    setting: Setting, recorded: Recorded | None, step: int, start: int = 0, rank: int = 0
) -> tuple[tuple[str, str], ...]:
    """What every module gives in one step, in the order in which they ran.

    Args:
        setting: How the command is run.
        recorded: The recording with the checkpoint to go on from; None where there is none.
        step: The step.
        start: Step of that checkpoint; 0 for the loop's own start.
        rank: Whose modules.
    """

    def task_of(number: int) -> RowsTask:
        if not start or recorded is None:
            return RowsTask(modules_at=step)
        path = str(recorded.checkpoint(number, start))
        return RowsTask(checkpoint=path, first_step=start + 1, modules_at=step)

    conversation = Conversation(task_of, lambda _, __: {"go": True})
    ended = conversation.hold(setting.runner, setting.command, setting.variables)
    conversation.check(ended)
    told = conversation.told.get(rank)
    if told is None or told.modules is None:
        raise ProgramFailed(f"step {step} was not reached")
    return told.modules
