"""Progress of a study or a replay on stderr, where stderr is a terminal."""

from __future__ import annotations

import sys
import threading
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from auditkit.records import job


class StepProgress:
    """A bar over all steps of all seeds, with what is running now.

    Args:
        total: Steps in all; None where only the worker knows.
        what: What is going on, e.g. ``run`` or ``replay``.
    """

    def __init__(self, total: int | None, what: str) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps,"),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not sys.stderr.isatty(),  # variables can tell rich that a file is a terminal
            transient=True,
        )
        self._what = what
        self._total = total
        self._task = self._progress.add_task(what, total=total)
        self._done: dict[tuple[int, bool], int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> StepProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def report(self, progress: job.Progress) -> None:
        """Take a worker's progress; safe to call from several threads."""
        key = (progress.seed, progress.branch in ("trunk", "control"))
        with self._lock:
            # A repeated replay starts over; what was done once stays done.
            self._done[key] = max(self._done.get(key, 0), progress.done)
            self._progress.update(
                self._task,
                total=progress.total if self._total is None else self._total,
                completed=sum(self._done.values()),
                description=(
                    f"{self._what}: seed {progress.seed}, {progress.branch}, step {progress.step}"
                ),
            )
