"""What a Recorder does in a script that auditkit itself has started."""

from __future__ import annotations

from auditkit.errors import LineLost
from auditkit.formats.structure import from_dict
from auditkit.observe.machine.process_group import rank_and_size
from auditkit.processes.protocol import connect
from auditkit.recorder.registered import Course
from auditkit.recorder.row_client import RowCourse
from auditkit.recorder.script_jobs import JobCourse
from auditkit.recorder.wrapping import Wrapped
from auditkit.records.job import Job
from auditkit.records.task import RowsTask


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
