"""``auditkit.diff``, apart from what verifies: nobody who verifies waits for its imports."""

from __future__ import annotations

import os

from auditkit.api import values
from auditkit.diagnose.run_difference import RunDifference, compare_runs

PathLike = str | os.PathLike[str]


def diff(left: PathLike, right: PathLike) -> RunDifference:
    """Where and how far two runs differ, as ``auditkit diff`` says. Nothing is verified.

    Args:
        left: A manifest or a folder, perhaps with ``#`` and a trace: ``runs/a#seed-0/control``.
        right: The other.

    Raises:
        UsageError: When an argument is no path.
        AuditError: When one of them cannot be read.
    """
    return compare_runs(str(values.path("left", left)), str(values.path("right", right)))
