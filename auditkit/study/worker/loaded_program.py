"""A program that has been imported, in the process of one job or in one that jobs are forked from.

Of importing it the jobs of a study need not all see the same: what it leaves to chance is found
where two processes that share nothing are compared, which those of the preflight and of the first
seed are, and every replay with the record. All others may share it. What a process cannot hand on
to its forks (:mod:`auditkit.study.worker.branch_processes`) keeps it from being shared, and so does
a file of the program that has changed since. So does a folder that importing it made, as one with
a temporary name: jobs would find there what others of them have written.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from auditkit.errors import ProgramError
from auditkit.observe.machine.determinism import deterministic, settings
from auditkit.observe.machine.imports import ImportWatch, watched_imports
from auditkit.program.program import LoadedFactory, load_factory
from auditkit.records.job import Job
from auditkit.study.worker.branch_processes import Unforkable, look_up, unshared


@dataclass
class LoadedProgram:
    """A program, and what its process was before it was imported.

    Attributes:
        factory: Calls it.
        watch: What takes notes of the code that runs.
        settings: Of torch, before.
        before: What a fork would share or lack, before; None where it has been found to share and
            lack nothing, or where that cannot be told.
        held: What ends when the program is not needed any more.
        seconds: Processor time of importing it.
    """

    factory: LoadedFactory
    watch: ImportWatch
    settings: dict[str, str]
    before: Unforkable | None
    held: ExitStack
    seconds: float

    def __enter__(self) -> LoadedProgram:
        return self

    def __exit__(self, *_: object) -> None:
        self.held.close()

    def share(self) -> None:
        """Make it ready for jobs in forks of this process.

        Raises:
            ProgramError: When importing it made something that forks cannot have.
        """
        if unshared(self.before) or self.watch.opens.has_left_new():
            raise ProgramError("the program's imports cannot be shared with forks")
        look_up()

    def begin_job(self) -> bool:
        """In a fork that is to do a job: whether the program is still what lies on disk."""
        is_current = self.watch.is_current()
        self.watch.begin_job()
        self.before = None
        return is_current


def load_program(job: Job) -> LoadedProgram:
    """Import a job's program, deterministic from the start.

    Raises:
        AuditError: When it cannot be imported.
    """
    folder, target = Path(job.program.folder), job.program.target
    with ExitStack() as held:
        held.enter_context(deterministic(job.plan.threads if job.plan else 1))
        watch = held.enter_context(watched_imports(folder, target))
        before, found = Unforkable.now(), settings()  # what the watch holds is there already
        began = time.process_time()
        factory = load_factory(target, folder)
        seconds = time.process_time() - began
        return LoadedProgram(factory, watch, found, before, held.pop_all(), seconds)
