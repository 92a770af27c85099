"""A script that auditkit itself started: its task, how it reports its errors, and its end."""

from __future__ import annotations

from typing import Any

from auditkit.errors import AuditError, ConnectionLost
from auditkit.formats.structure import from_dict
from auditkit.observe.machine.distributed import rank_and_size
from auditkit.processes.protocol import Connection, connect
from auditkit.processes.told_errors import describe_error
from auditkit.program.program import program_failure
from auditkit.records.job import Job
from auditkit.records.task import RowsTask


class LoopStopped(SystemExit):
    """Ends the user's script from within its loop, quietly and with status 0.

    A SystemExit, so that ``finally`` blocks and context managers of the script do their work
    and no traceback is printed.
    """

    def __init__(self) -> None:
        super().__init__(0)


def receive_task() -> tuple[Connection, Job | RowsTask] | None:
    """The parent's task, and the connection to it; None where auditkit did not start the script.

    Raises:
        ConnectionLost: When the parent has gone.
    """
    rank, size = rank_and_size()
    connection = connect({"rank": rank, "size": size})
    if connection is None:
        return None
    message = connection.receive()
    if message is None:
        raise ConnectionLost("auditkit, which started this script, has gone")
    if "job" in message:
        return connection, from_dict(Job, message["job"], what="job")
    return connection, from_dict(RowsTask, message["rows"], what="task")


def describe_failure(error: BaseException) -> dict[str, Any]:
    """An error of the user's script as it is sent to the parent."""
    if isinstance(error, AuditError):
        return describe_error(error)
    if isinstance(error, Exception):
        return describe_error(program_failure(error, "the script"))
    return describe_error(AuditError(f"the script was ended by {type(error).__name__}"))
