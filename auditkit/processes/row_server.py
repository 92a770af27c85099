"""Serve the processes of a user's command while they stream the rows of their loop.

The other end is :mod:`auditkit.recorder.row_client`. What a row is compared with is the caller's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from auditkit.errors import AuditError, ConnectionLost, MalformedError, Undecided
from auditkit.formats.group_values import Plain
from auditkit.formats.structure import from_dict, to_dict
from auditkit.processes.commands import CommandResult
from auditkit.processes.protocol import Connection
from auditkit.processes.server import Handler
from auditkit.processes.subprocesses import describe_exit
from auditkit.processes.told_errors import rebuild_error
from auditkit.records.environment import Environment
from auditkit.records.evidence import Trace
from auditkit.records.manifest import CodeFile
from auditkit.records.task import RowsTask

_GO = {"go": True}

#: Seconds that a script has to end itself.
_GRACE_SECONDS = 10.0


class CommandRunner(Protocol):
    """Runs commands; see :class:`auditkit.processes.commands.Commands`."""

    def run(
        self,
        command: Sequence[str],
        handler: Handler,
        *,
        variables: Mapping[str, str] = {},
        output: IO[bytes] | None = None,
    ) -> CommandResult:
        """Run a command to its end."""


@dataclass(frozen=True)
class LoopSummary:
    """What a process sends of its loop when that is over.

    Attributes:
        steps: Steps that it took.
        epochs: How often it iterated its training loader.
        order_sha256: As in :class:`auditkit.records.recording.RankRecord`.
        consumed_sha256: The same.
        final: Commitments to the state at the end.
        sharded: Components of which it holds only a part, at the end.
    """

    steps: int
    epochs: int
    order_sha256: str
    consumed_sha256: str
    final: dict[str, str]
    sharded: tuple[str, ...]


@dataclass(frozen=True)
class StateCommitment:
    """What a process commits to where the recorded one took a checkpoint.

    Attributes:
        step: Steps that had been taken.
        digests: ``sha256/tensor-v1`` of every section of a checkpoint; empty where none can be
            taken.
        positions: Of each data position, the digests of its parts, see
            :func:`auditkit.formats.data_position.position_digests`.
    """

    step: int
    digests: dict[str, str]
    positions: dict[str, dict[str, str]]


@dataclass(frozen=True)
class ScriptInfo:
    """What a loop runs on and consists of, as far as it is known by then.

    Attributes:
        environment: Software and hardware.
        code: Own source files.
        command: Arguments of the script.
        loaders: What the loaders are.
        starts: Commitments to the random streams where the objects were wrapped.
        unregistered: Random generators that no component holds, for people.
    """

    environment: Environment
    code: tuple[CodeFile, ...]
    command: tuple[str, ...]
    loaders: dict[str, dict[str, str]]
    starts: dict[str, str]
    unregistered: str | None


@dataclass
class RankStatus:
    """What one process has sent so far.

    Attributes:
        rank: Its rank.
        size: How many there are.
        step: Step of its last row; 0 before the first.
        initial: Commitments before its first step.
        groups: Plain values of its optimizer's groups before that step, by name.
        info: What it runs on.
        summary: How its loop ended by itself, if it did.
        error: What its script raised, if it did.
        commitments: To the state where that was asked for, by the steps that had been taken.
        modules: What a step's modules gave, where that was asked for.
        dumped: Whether it has written the state that was asked for.
        drawn: What further loaders had delivered there since the last step, by column.
        disconnected: Whether its connection has ended.
    """

    rank: int
    size: int
    step: int = 0
    initial: dict[str, str] = field(default_factory=dict)
    groups: dict[str, Plain] = field(default_factory=dict)
    info: ScriptInfo | None = None
    summary: LoopSummary | None = None
    error: AuditError | None = None
    commitments: dict[int, StateCommitment] = field(default_factory=dict)
    modules: tuple[tuple[str, str], ...] | None = None
    dumped: bool = False
    drawn: dict[str, str] = field(default_factory=dict)
    disconnected: bool = False

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"rank {self.rank}"


#: Answers a row: ``{"go": True}``, ``{"go": False}`` or ``{"dump_at": STEP, "path": PATH}``.
RowCallback = Callable[[RankStatus, Trace], dict[str, Any]]


class _StillRunning(Exception):
    """A script that was told to stop, and that has not ended for a while: it catches its end."""


class _GracePeriod:
    """The time that a script has to end itself once it was told to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._timer: threading.Timer | None = None
        self._over = False

    def start(self) -> None:
        """The script was told; from now on the time runs."""
        if self._timer is None:
            self._timer = threading.Timer(_GRACE_SECONDS, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def receive(self) -> dict[str, Any] | None:
        """The next message, None at the end of the connection.

        Raises:
            _StillRunning: When the time is over; who runs the command kills it then.
        """
        try:
            message = self._connection.receive()
        except ConnectionLost:
            if not self._over:
                raise
            message = None
        if self._over:
            raise _StillRunning("the script catches its own end")
        return message

    def cancel(self) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self._over = True
        self._connection.shut_down()


class RowServer:
    """Serves all processes of one command.

    Args:
        task_of: The task of a rank.
        on_row: Called with every row, from a thread a process; gives the answer to it.

    Attributes:
        by_rank: What each process has said so far, by rank.
        changed: Notified whenever a process has sent something, or has disconnected.
    """

    def __init__(self, task_of: Callable[[int], RowsTask], on_row: RowCallback) -> None:
        self._task_of, self._on_row = task_of, on_row
        self.by_rank: dict[int, RankStatus] = {}
        self.changed = threading.Condition()

    def handle(self, connection: Connection, client_info: dict[str, Any]) -> None:
        """Serve one process; the handler of a :class:`auditkit.processes.server.Server`."""
        status = RankStatus(int(client_info.get("rank", 0)), int(client_info.get("size", 1)))
        with self.changed:
            if status.rank in self.by_rank:
                raise Undecided(
                    "two Recorders of this command were given a loop",
                    hint="one Recorder a process; several processes need torch.distributed",
                )
            self.by_rank[status.rank] = status
        grace = _GracePeriod(connection)
        try:
            connection.send({"rows": to_dict(self._task_of(status.rank))})
            while (message := grace.receive()) is not None:
                answer = self._handle_message(status, message)
                with self.changed:
                    self.changed.notify_all()
                if answer is not None:
                    connection.send(answer)
                if answer == {"go": False} or {"arrived", "modules"} & set(message):
                    grace.start()
        finally:
            grace.cancel()
            with self.changed:
                status.disconnected = True
                self.changed.notify_all()

    def run(
        self,
        runner: CommandRunner,
        command: Sequence[str],
        variables: Mapping[str, str],
        output: IO[bytes] | None = None,
    ) -> CommandResult:
        """Run a command to its end, or until it has sent all that was asked for and runs on."""
        try:
            return runner.run(command, self.handle, variables=variables, output=output)
        except _StillRunning:
            return CommandResult(0, "", len(self.by_rank))

    def check(self, completed: CommandResult) -> None:
        """Raise what kept the loop from being seen.

        Raises:
            Undecided: When no Recorder called, or no step was seen.
        """
        wrote = f"; it wrote: {completed.output_tail!r}" if completed.output_tail else ""
        if not self.by_rank:
            raise Undecided(
                f"the command {describe_exit(completed.returncode)}, and no Recorder in it was "
                f"given a loop{wrote}",
                hint="the script needs an auditkit.Recorder, and its wrap(model, optimizer, "
                "loader) before the loop",
            )
        for status in self.by_rank.values():
            if status.error is not None:
                raise Undecided(f"the script failed after step {status.step}: {status.error}")

    def _handle_message(self, status: RankStatus, message: dict[str, Any]) -> dict[str, Any] | None:
        """Note what a message says; the answer, where one is waited for."""
        if "row" in message:
            row = _parse_row(message["row"])
            status.groups.update(message.get("groups", {}))
            with self.changed:  # before the callback: it may wait for all processes
                status.step = row.first_step
                self.changed.notify_all()
            return self._on_row(status, row)
        if "initial" in message:
            status.initial = message["initial"]
            status.info = _fields_of(ScriptInfo, message)
            return _GO
        if "end" in message:
            status.summary = _fields_of(LoopSummary, message["end"])
            status.info = _fields_of(ScriptInfo, message["end"])
            return _GO
        if "failed" in message:
            status.error = rebuild_error(message["failed"])
            return _GO
        if "left" in message:
            status.info = _fields_of(ScriptInfo, message["left"])
        elif "committed" in message:
            committed = from_dict(StateCommitment, message["committed"], what="message")
            status.commitments[committed.step] = committed
        elif "modules" in message:
            status.modules = tuple((str(name), str(cell)) for name, cell in message["modules"])
        elif "dumped" in message:
            status.dumped, status.drawn = True, message["drawn"]
        return None


def _fields_of(kind: type[Any], message: Mapping[str, Any]) -> Any:
    """The fields of a record in a message that has others, too."""
    names = kind.__dataclass_fields__
    return from_dict(kind, {k: v for k, v in message.items() if k in names}, what="message")


def _parse_row(message: Mapping[str, Any]) -> Trace:
    try:
        columns = {name: bytes.fromhex(cell) for name, cell in message["columns"].items()}
        return Trace(int(message["step"]), bytes.fromhex(message["loss"]), columns)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedError("a process sent a row that is none") from error
