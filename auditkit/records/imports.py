"""What a process says of the files that it executed as code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ImportedFiles:
    """Absolute paths of what a process imported, for the process that judges them.

    Attributes:
        started: What was there before any of the program's code ran: the interpreter's start,
            auditkit, and what auditkit imports.
        since: What was executed since, with the name of its module; empty where it has none.
        programs: Command lines of other programs that it started.
        digests: SHA-256 of what was executed, when it was, by path; of what is installed, nothing.
    """

    started: tuple[str, ...]
    since: dict[str, str]
    programs: tuple[str, ...] = ()
    digests: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence[ImportedFiles]) -> ImportedFiles:
        """What several processes imported."""
        since = {path: name for part in parts for path, name in part.since.items()}
        started = {path for part in parts for path in part.started}
        programs = tuple(dict.fromkeys(line for part in parts for line in part.programs))
        digests: dict[str, set[str]] = {}
        for part in parts:
            for path, found in part.digests.items():
                digests.setdefault(path, set()).update(found)
        return cls(
            tuple(sorted(started)),
            dict(sorted(since.items())),
            programs,
            {path: tuple(sorted(found)) for path, found in sorted(digests.items())},
        )
