"""Progress of a command on stderr: lines that stay in their place in a terminal, else one a minute.

A command that is done within a moment says nothing. Whatever takes longer gives its first sign of
life after :data:`_FIRST` seconds at the latest, before torch is loaded or the program is built.
``AUDITKIT_PROGRESS`` is the number of seconds between two lines; 0 for none.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleRenderable, Group
from rich.text import Text

from auditkit.cli.console import terminal_width
from auditkit.cli.options import decimal_number
from auditkit.formats.quote import printable
from auditkit.records.plan import as_typed

if TYPE_CHECKING:
    from auditkit.records.job import Progress

#: Seconds after which the first line is written where there is no terminal, and between others.
_FIRST, _BETWEEN = 1.0, 60.0

#: Says how many seconds lie between two lines; 0 for no lines.
VARIABLE = "AUDITKIT_PROGRESS"

#: Times a second that a terminal is drawn anew.
_REFRESH = 4

#: Jobs that have a line of their own.
_MOST_LINES = 8

#: A terminal's columns where nobody says how many it has.
_COLUMNS = 80

_BAR = 30


class StepProgress:
    """Steps of all seeds together, and below them what each job is doing now.

    Args:
        total: Steps in all; None where only the worker knows.
        what: What is going on, e.g. ``run`` or ``replay``.
        begins: What is done before the first step.
        unit: What is counted.
    """

    def __init__(
        self,
        total: int | None,
        what: str,
        begins: str = "building the program ...",
        unit: str = "steps",
    ) -> None:
        self._what, self._total, self._begins, self._unit = what, total, begins, unit
        self._done: dict[tuple[int, int | None, bool], int] = {}
        self._jobs: dict[int, Progress] = {}
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._stepping: float | None = None
        self._shown = _shown(self)

    def __enter__(self) -> StepProgress:
        self._started = time.monotonic()
        self._shown.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shown.stop()

    def report(self, progress: Progress) -> None:
        """Take a worker's progress; safe to call from several threads."""
        key = (progress.seed, progress.fork, progress.branch in ("trunk", "control"))
        with self._lock:
            if progress.kept:
                self._total = self._total and max(self._total - progress.kept, 0)
                return
            self._stepping = self._stepping or time.monotonic()
            # A repeated replay starts over; what was done once stays done.
            self._done[key] = max(self._done.get(key, 0), progress.done)
            self._total = progress.total if self._total is None else self._total
            self._jobs[progress.seed] = progress

    def expect(self, total: int | None, what: str, begins: str) -> None:
        """Go on to something else.

        Args:
            total: As for the constructor.
            what: As for the constructor.
            begins: As for the constructor.
        """
        with self._lock:
            self._what, self._total, self._begins = what, total, begins

    def head(self) -> str:
        """How far it is, on one line: the same number of columns throughout."""
        with self._lock:
            now, total = time.monotonic(), self._total
            gone = now - self._started
            # a recording's last row is of no step
            done = min(sum(self._done.values()), total or 0)
            if not done or not total:
                what = f"{self._what}: " if self._what else ""
                return f"{what}{self._begins} {_clock(gone)} gone"
            since = now - (self._stepping or now)
            head = f"{self._what}: {done:{len(str(total))}} of {total} {self._unit}, "
            head += f"{_clock(gone)} gone"
            left = _clock(since * (total - done) / done) if since >= 1 else "-:--"
            return head if done == total else f"{head}, {left} left"

    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        with self._lock:
            return min(1.0, sum(self._done.values()) / self._total) if self._total else 0.0

    def jobs(self) -> list[str]:
        """What every job is doing, by seed."""
        with self._lock:
            running = [item for _, item in sorted(self._jobs.items()) if item.done < item.total]
        lines = [
            f"seed {item.seed}: {as_typed(item.branch)}, step {item.step}"
            for item in running[:_MOST_LINES]
        ]
        more = len(running) - _MOST_LINES
        return [*lines, f"and {more} more"] if more > 0 else lines


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Say what is waited for, while it is."""
    with StepProgress(None, "", text):
        yield


class _InTerminal:
    """Lines that are drawn in their place, and gone at the end."""

    def __init__(self, progress: StepProgress) -> None:
        from rich.live import Live  # noqa: PLC0415 # only a terminal needs it

        self._progress = progress
        self._width = terminal_width(is_terminal=True) or _COLUMNS
        self._live = Live(
            console=Console(stderr=True, width=self._width, highlight=False),
            get_renderable=self._draw,
            refresh_per_second=_REFRESH,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=True,
        )

    def start(self) -> None:
        """Draw."""
        self._live.start(refresh=True)

    def stop(self) -> None:
        """Leave nothing."""
        self._live.stop()

    def _draw(self) -> ConsoleRenderable:
        head = self._progress.head()
        room = min(_BAR, self._width - len(head) - 3)
        if room >= 8 and self._progress.share():
            filled = round(room * self._progress.share())
            head += f"  {'#' * filled}{'.' * (room - filled)}"
        lines = [head, *(f"  {line}" for line in self._progress.jobs())]
        return Group(*(Text(printable(line), no_wrap=True, overflow="ellipsis") for line in lines))


class _InLines:
    """A line after a moment, then one a minute."""

    def __init__(self, progress: StepProgress) -> None:
        self._progress = progress
        said = decimal_number(os.environ.get(VARIABLE, ""))
        self._between = _BETWEEN if said is None else said
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        # that of now: what is put in its place later (a test's) may be closed in between
        self._stream = sys.stderr

    def start(self) -> None:
        """Tell from now on."""
        if self._between > 0:
            self._thread.start()

    def stop(self) -> None:
        """Tell nothing more."""
        self._over.set()
        if self._between > 0:
            self._thread.join()

    def _tell(self) -> None:
        pause = min(_FIRST, self._between)
        while not self._over.wait(pause):
            text = "; ".join((self._progress.head(), *self._progress.jobs()))
            try:
                print(f"auditkit: {printable(text)}", file=self._stream, flush=True)
            except (OSError, ValueError):  # nobody reads it any more
                return
            pause = self._between


def _shown(progress: StepProgress) -> _InTerminal | _InLines:
    # variables can tell rich that a file is a terminal
    return _InTerminal(progress) if sys.stderr.isatty() else _InLines(progress)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
