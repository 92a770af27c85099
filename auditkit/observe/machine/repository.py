"""Which commit a folder is at. Never a remote, a branch or an author (double-blind)."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SECONDS = 10


def git_state(folder: Path, program: str) -> tuple[str | None, bool | None]:
    """Commit of the folder, and whether it is what ran.

    Args:
        folder: The program's folder.
        program: Its file there, which counts as a change where git does not track it.

    Returns:
        ``(None, None)`` outside a repository, before its first commit, or without git.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    untracked = _git(folder, "ls-files", "--error-unmatch", "--", program) is None
    return commit.strip(), None if changes is None else untracked or bool(changes.strip())


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 # a fixed command, no shell
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
