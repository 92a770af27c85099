"""Where auditkit keeps what is between two commands, on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Below that of the user."""
    return user_cache() / "auditkit"


def user_cache() -> Path:
    """``$XDG_CACHE_HOME``, or ``~/.cache``: where anybody's program puts what can be made again."""
    given = os.environ.get("XDG_CACHE_HOME")
    return Path(given) if given else Path.home() / ".cache"
