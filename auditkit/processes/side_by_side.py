"""Branches of one seed, several at a time: as many processes as no other seed has a use for.

A seed under way may always have one process at work. What is left of the processes that were asked
for is lent to branches (:class:`Slots`). Branches that are forks ask for it where they are forked
(:mod:`auditkit.study.worker.branch_processes`); those that cannot be forks are started here
(:func:`side_by_side`). Either way a replica at the end begins when all others have ended, so that
it finds what any of them changed outside its process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from auditkit.records.job import Progress

Report = Callable[[Progress], None]

#: Comes after all others where it comes last.
REPLICA = "replica"


class Slots:
    """Processes that may be at work beside the one of every seed under way.

    Args:
        jobs: Processes that may be at work at a time.
        n_seeds: Seeds to run, as many at a time as there may be processes.
    """

    def __init__(self, jobs: int = 1, n_seeds: int = 1) -> None:
        self._n_waiting = max(0, n_seeds - jobs)
        self._n_free = max(0, jobs - n_seeds)
        self._lock = threading.Lock()

    def end_seed(self) -> None:
        """Pass the process of a seed that has ended on: to the next one, or to branches."""
        with self._lock:
            if self._n_waiting:
                self._n_waiting -= 1
            else:
                self._n_free += 1

    def adjust(self, held: int, wanted: int) -> int:
        """Give back what is not wanted any more, or take as many as there are.

        Args:
            held: How many the caller has.
            wanted: How many he can use.

        Returns:
            How many he has now.
        """
        with self._lock:
            taken = min(wanted - held, self._n_free)
            self._n_free -= taken
            return held + taken


def n_ready(waiting: Sequence[str], n_running: int) -> int:
    """How many of the branches that wait may begin now, were there processes enough.

    Args:
        waiting: In their order.
        n_running: How many of the same job are running.
    """
    if not waiting or waiting[-1] != REPLICA:
        return len(waiting)
    return len(waiting) - 1 or int(not n_running)


def side_by_side(names: Sequence[str], run: Callable[[str], object], slots: Slots) -> None:
    """Run branches in processes that share nothing, one of them in this thread.

    Args:
        names: The branches, in their order.
        run: Runs one to its end; called from several threads.
        slots: For those beside it.

    Raises:
        BaseException: What one of them raised; no further one is begun then.
    """
    n_first = n_ready(names, 1)
    waiting, beside = deque(names[:n_first]), list[Future[None]]()

    def run_waiting(most: int) -> None:
        for _ in range(most):
            try:
                name = waiting.popleft()
            except IndexError:  # others took the rest
                return
            try:
                run(name)
            except BaseException:
                waiting.clear()
                raise

    def run_beside() -> None:
        try:
            run_waiting(n_first)
        finally:
            slots.adjust(1, 0)

    with ThreadPoolExecutor(max(1, len(names))) as pool:
        while waiting:
            n_taken = slots.adjust(0, len(waiting) - 1)
            beside += [pool.submit(run_beside) for _ in range(n_taken)]
            run_waiting(1)
    for future in beside:
        future.result()
    for name in names[n_first:]:
        run(name)


class SeveralProgress:
    """Reports the progress of every branch of a job as one of the whole.

    Args:
        report: Called with the progress of the whole.
        names: The branches; progress of anything else is passed on.
    """

    def __init__(self, report: Report, names: Collection[str]) -> None:
        self._report, self._names = report, frozenset(names)
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, progress: Progress) -> None:
        """Add it to that of the others."""
        if progress.branch in self._names:
            with self._lock:
                before = self._done.get(progress.branch, 0)  # one that is run again starts over
                self._done[progress.branch] = max(before, progress.done)
                done = sum(self._done.values())
            progress = replace(progress, done=done, total=len(self._names) * progress.total)
        self._report(progress)
