"""The end of a script that auditkit started and that has done what it was started for."""

from __future__ import annotations


class LoopStopped(SystemExit):
    """Ends the user's script from within its loop, quietly and with status 0.

    A SystemExit, so that ``finally`` blocks and context managers of the script do their work
    and no traceback is printed.
    """

    def __init__(self) -> None:
        super().__init__(0)
