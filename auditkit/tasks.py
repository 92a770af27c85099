"""What a Recorder does in a script that auditkit itself has started."""

from __future__ import annotations

from auditkit.errors import LineLost
from auditkit.loopjobs import JobCourse
from auditkit.observe.world import rank_and_size
from auditkit.records.job import Job
from auditkit.records.task import RowsTask
from auditkit.rowstream import RowCourse
from auditkit.structure import from_dict
from auditkit.watched import Course
from auditkit.wire import connect
from auditkit.wrapping import Wrapped


def course_of_a_task(wrapped: Wrapped) -> Course | None:
    """The course that the parent process wants, or None where auditkit is no parent.

    Args:
        wrapped: The loop's objects.

    Raises:
        LineLost: When the parent has gone.
        AuditError: When the task does not fit the loop.
    """
    rank, size = rank_and_size()
    line = connect({"rank": rank, "size": size})
    if line is None:
        return None
    told = line.receive()
    if told is None:
        raise LineLost("auditkit, which started this script, has gone")
    if "job" in told:
        return JobCourse(wrapped, line, from_dict(Job, told["job"], what="job"))
    return RowCourse(wrapped, line, from_dict(RowsTask, told["rows"], what="task"))
