"""Paths below a home folder, which no record may name (double-blind)."""

from __future__ import annotations

import os
from pathlib import Path


def without_home(value: str) -> str:
    """A value with this user's home folder as ``~``."""
    home = str(Path.home())
    return f"~{value[len(home) :]}" if value == home or value.startswith(home + os.sep) else value


def hide_home(text: str) -> str:
    """A text with this user's home folder as ``~`` wherever it stands, as in ``--data=...``."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def at_home(value: str) -> str:
    """The same value for this user: ``~/...`` lies below this home folder."""
    return f"{Path.home()}{value[1:]}" if value == "~" or value.startswith("~/") else value
