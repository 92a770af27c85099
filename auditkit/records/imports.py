"""What a process says of the files that it executed as code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ImportedFiles:
    """Absolute paths of what a process imported, for the process that judges them.

    Attributes:
        started: What was there before any of the program's code ran: the interpreter's start,
            auditkit, and what auditkit imports.
        since: What was executed since, with the name of its module; empty where it has none.
        programs: Command lines of other programs that it started.
    """

    started: tuple[str, ...]
    since: dict[str, str]
    programs: tuple[str, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence[ImportedFiles]) -> ImportedFiles:
        """What several processes imported."""
        since = {path: name for part in parts for path, name in part.since.items()}
        started = {path for part in parts for path in part.started}
        programs = tuple(dict.fromkeys(line for part in parts for line in part.programs))
        return cls(tuple(sorted(started)), dict(sorted(since.items())), programs)
