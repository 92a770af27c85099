"""Talk with the processes of a user's command while they stream the rows of their loop.

The other end is :mod:`auditkit.recorder.row_client`. What a row is held against is the caller's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from auditkit.errors import AuditError, LineLost, MalformedError, Undecided
from auditkit.formats.structure import from_dict, to_dict
from auditkit.processes.commands import Ended
from auditkit.processes.protocol import Line
from auditkit.processes.server import Handler
from auditkit.processes.subprocesses import end_of
from auditkit.processes.workers import rebuild_error
from auditkit.records.environment import Environment
from auditkit.records.evidence import Trace
from auditkit.records.job import RowsTask
from auditkit.records.manifest import CodeFile

_GO = {"go": True}

#: Seconds that a script has to end itself.
_GRACE = 10.0


class Runner(Protocol):
    """Runs commands; see :class:`auditkit.processes.commands.Commands`."""

    def run(
        self,
        command: Sequence[str],
        handler: Handler,
        *,
        variables: Mapping[str, str] = {},
        output: IO[bytes] | None = None,
    ) -> Ended:
        """Run a command to its end."""


@dataclass(frozen=True)
class Ending:
    """What a process says of its loop when that is over.

    Attributes:
        steps: Steps that it took.
        order_sha256: As in :class:`auditkit.records.recording.RankRecord`.
        consumed_sha256: The same.
        final: Commitments to the state at the end.
    """

    steps: int
    order_sha256: str
    consumed_sha256: str
    final: dict[str, str]


@dataclass(frozen=True)
class About:
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
class Told:
    """What one process has told so far.

    Attributes:
        rank: Its rank.
        size: How many there are.
        step: Step of its last row; 0 before the first.
        initial: Commitments before its first step.
        about: What it runs on.
        ending: How its loop ended by itself, if it did.
        error: What its script raised, if it did.
        modules: What a step's modules gave, where that was asked.
        dumped: Whether it has written the state that was asked for.
        gone: Whether its line has ended.
    """

    rank: int
    size: int
    step: int = 0
    initial: dict[str, str] = field(default_factory=dict)
    about: About | None = None
    ending: Ending | None = None
    error: AuditError | None = None
    modules: tuple[tuple[str, str], ...] | None = None
    dumped: bool = False
    gone: bool = False

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"rank {self.rank}"


#: Answers a row: ``{"go": True}``, ``{"go": False}`` or ``{"dump_at": STEP, "path": PATH}``.
Judge = Callable[[Told, Trace], dict[str, Any]]


class _WentOn(Exception):
    """A script that was told to stop, and that has not ended for a while: it catches its end."""


class _Grace:
    """The time that a script has to end itself once it was told to."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._timer: threading.Timer | None = None
        self._over = False

    def begin(self) -> None:
        """Tell it; from now on the time runs."""
        if self._timer is None:
            self._timer = threading.Timer(_GRACE, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def receive(self) -> dict[str, Any] | None:
        """The next message, None at the end of the line.

        Raises:
            _WentOn: When the time is over; who runs the command kills it then.
        """
        try:
            message = self._line.receive()
        except LineLost:
            if not self._over:
                raise
            message = None
        if self._over:
            raise _WentOn("the script catches its own end")
        return message

    def end(self) -> None:
        """The line has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self._over = True
        self._line.hang_up()


class Conversation:
    """Holds the conversations with all processes of one command.

    Args:
        task_of: The task of a rank.
        judge: Asked about every row, from a thread a process.

    Attributes:
        told: What was told, by rank.
        changed: Notified whenever a process has told something, or has gone.
    """

    def __init__(self, task_of: Callable[[int], RowsTask], judge: Judge) -> None:
        self._task_of, self._judge = task_of, judge
        self.told: dict[int, Told] = {}
        self.changed = threading.Condition()

    def handle(self, line: Line, hello: dict[str, Any]) -> None:
        """Talk with one process; a handler of a switchboard."""
        told = Told(int(hello.get("rank", 0)), int(hello.get("size", 1)))
        with self.changed:
            if told.rank in self.told:
                raise Undecided(
                    "two Recorders of this command were given a loop",
                    hint="one Recorder a process; several processes need torch.distributed",
                )
            self.told[told.rank] = told
        grace = _Grace(line)
        try:
            line.send({"rows": to_dict(self._task_of(told.rank))})
            while (message := grace.receive()) is not None:
                answer = self._hear(told, message)
                with self.changed:
                    self.changed.notify_all()
                if answer is not None:
                    line.send(answer)
                if answer == {"go": False} or {"arrived", "modules"} & set(message):
                    grace.begin()
        finally:
            grace.end()
            with self.changed:
                told.gone = True
                self.changed.notify_all()

    def hold(
        self,
        runner: Runner,
        command: Sequence[str],
        variables: Mapping[str, str],
        output: IO[bytes] | None = None,
    ) -> Ended:
        """Run a command to its end, or until it has told all that was asked and goes on."""
        try:
            return runner.run(command, self.handle, variables=variables, output=output)
        except _WentOn:
            return Ended(0, "", len(self.told))

    def check(self, ended: Ended) -> None:
        """Raise what kept the loop from being seen.

        Raises:
            Undecided: When no Recorder called, or no step was seen.
        """
        words = f": {ended.last_words}" if ended.last_words else ""
        if not self.told:
            raise Undecided(
                f"the command {end_of(ended.status)} and no Recorder in it was given a loop{words}",
                hint="with auditkit.Recorder(...) as rec: rec.wrap(model, optimizer, loader)",
            )
        for told in self.told.values():
            if told.error is not None:
                raise Undecided(f"the script failed after step {told.step}: {told.error}")

    def _hear(self, told: Told, message: dict[str, Any]) -> dict[str, Any] | None:
        """Take a message; the answer, where one is waited for."""
        if "row" in message:
            row = _row(message["row"])
            with self.changed:  # before it is judged: a judge may wait for all processes
                told.step = row.first_step
                self.changed.notify_all()
            return self._judge(told, row)
        if "initial" in message:
            told.initial = message["initial"]
            told.about = _part(About, message)
            return _GO
        if "end" in message:
            told.ending = _part(Ending, message["end"])
            told.about = _part(About, message["end"])
            return _GO
        if "failed" in message:
            told.error = rebuild_error(message["failed"])
            return _GO
        if "left" in message:
            told.about = _part(About, message["left"])
        elif "modules" in message:
            told.modules = tuple((str(name), str(cell)) for name, cell in message["modules"])
        told.dumped = told.dumped or "dumped" in message
        return None


def _part(kind: type[Any], message: Mapping[str, Any]) -> Any:
    """The fields of a record in a message that has others, too."""
    names = kind.__dataclass_fields__
    return from_dict(kind, {k: v for k, v in message.items() if k in names}, what="message")


def _row(told: Mapping[str, Any]) -> Trace:
    try:
        columns = {name: bytes.fromhex(cell) for name, cell in told["columns"].items()}
        return Trace(int(told["step"]), bytes.fromhex(told["loss"]), columns)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedError("a process sent a row that is none") from error
