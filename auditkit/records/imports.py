"""What a process says of the files that it executed as code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImportedFiles:
    """Absolute paths of what a process imported, for the process that judges them.

    Attributes:
        started: What was there before any of the program's code ran: the interpreter's start,
            auditkit, and what auditkit imports.
        since: What was executed since, with the name of its module; empty where it has none.
    """

    started: tuple[str, ...]
    since: dict[str, str]
