"""How processes of jobs ended: well, or before they had answered for all that they had begun."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field

from auditkit.processes.side_by_side import REPLICA
from auditkit.records.job import Job
from auditkit.records.results import BranchesResult

#: Exit status of a process that has answered for what it did; of a program that ends its process
#: by itself any other is likelier, and 0 likeliest. Who waits for a fork asks its `Answer`.
ANSWERED = 87

#: Of a fork: what it was forked for.
_expected: list[Answer] = []


class Answer:
    """Whether a fork has answered, in memory that it shares with who waits for it.

    A program may end its process with any exit status.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def __bool__(self) -> bool:
        return self._memory[0] != 0

    def expect(self) -> None:
        """Of the fork: this is what :func:`answered` gives."""
        _expected[:] = [self]

    def give(self) -> None:
        """The fork has answered."""
        self._memory[0] = 1

    def close(self) -> None:
        """Nobody asks any more."""
        self._memory.close()


def answered() -> int:
    """Note that this process has answered for what it did.

    Returns:
        The exit status to end it with.
    """
    for answer in _expected:
        answer.give()
    return ANSWERED


@dataclass
class Ending:
    """How the process of a job, or those of its branches, ended.

    Attributes:
        left: Branches that no result is there of.
        n_results: Results, that of a trunk included.
        status: The exit status: of the process that answered, or 0 of one that has forked those
            that did. None where it is not told.
        done: Branches that a result is there of.
    """

    left: list[str]
    n_results: int = 0
    status: int | None = None
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._first = self.left[:1]

    def take(self, result: object) -> None:
        """Count a result."""
        self.n_results += 1
        if isinstance(result, BranchesResult):
            self.done += [one.name for one in result.branches if one.name in self.left]
            self.left = [name for name in self.left if name not in self.done]

    @property
    def is_unfinished(self) -> bool:
        """Whether there is something that it has not answered for."""
        return self.n_results == 0 or bool(self.left)

    @property
    def is_early(self) -> bool:
        """Whether it died, perhaps with exit status 0.

        A process that cannot be forked ends well when it has run the first branch.
        """
        is_alone = self.status == ANSWERED and self.done in ([], self._first)
        return self.is_unfinished and not (self.n_results and is_alone)

    def what(self, job: Job) -> str:
        """What was not finished."""
        if job.kind == "seed" and self.n_results == 0:
            return "trunk"
        # The replica begins when all others have ended well.
        begun = [name for name in self.left if name != REPLICA] or self.left
        if len(begun) == 1:
            return begun[0]
        return f"one of {', '.join(begun)}" if begun else job.kind
