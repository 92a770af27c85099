"""How processes of jobs ended: well, or before they had answered for all that they had begun."""

from __future__ import annotations

from dataclasses import dataclass

from auditkit.processes.side_by_side import REPLICA
from auditkit.records.job import Job
from auditkit.records.results import BranchesResult


@dataclass
class Ending:
    """How the process of a job, or those of its branches, ended.

    Attributes:
        left: Branches that no result is there of.
        n_results: Results, that of a trunk included.
        status: The exit status, where that is told.
    """

    left: list[str]
    n_results: int = 0
    status: int | None = None

    def take(self, result: object) -> None:
        """Count a result."""
        self.n_results += 1
        if isinstance(result, BranchesResult):
            done = {branch.name for branch in result.branches}
            self.left = [name for name in self.left if name not in done]

    @property
    def is_early(self) -> bool:
        """Whether it died: a process that cannot be forked ends well with branches left."""
        return self.n_results == 0 or bool(self.status and self.left)

    def what(self, job: Job) -> str:
        """What was not finished."""
        if job.kind == "seed" and self.n_results == 0:
            return "trunk"
        # The replica begins when all others have ended well.
        begun = [name for name in self.left if name != REPLICA] or self.left
        if len(begun) == 1:
            return begun[0]
        return f"one of {', '.join(begun)}" if begun else job.kind
