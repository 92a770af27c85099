"""``auditkit.diff``, apart from what verifies: nobody who verifies waits for its imports."""

from __future__ import annotations

from pathlib import Path

from auditkit.diagnose.run_difference import RunDifference, compare_runs

PathLike = str | Path


def diff(left: PathLike, right: PathLike) -> RunDifference:
    """Where and how far two runs differ, as ``auditkit diff`` says. Nothing is verified.

    Args:
        left: A manifest or a folder, perhaps with ``#`` and a trace: ``runs/a#seed-0/control``.
        right: The other.

    Raises:
        AuditError: When one of them cannot be read.
    """
    return compare_runs(str(left), str(right))
