"""Paths below a home folder, which no record may name (double-blind)."""

from __future__ import annotations

import itertools
import os
from pathlib import Path


def without_home(value: str) -> str:
    """A value with this user's home folder as ``~``.

    A path that leads to the home folder with detours (``..``, ``//``) is straightened; what is
    no absolute path stays as it is.
    """
    path = at_home(value)
    home = _steps(str(Path.home()))[-1]
    if not path.startswith("/") or home == "/":
        return value
    steps = _steps(path)
    if home not in steps:
        return value
    end = "/" if value.endswith("/") else ""
    straight = steps[-1]
    if straight == home or straight.startswith(f"{home}/"):
        return f"~{straight[len(home) :]}{end}"
    return straight if straight == "/" else f"{straight}{end}"


def hide_home(text: str) -> str:
    """A text with this user's home folder as ``~`` wherever it stands, as in ``--data=...``."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def at_home(value: str) -> str:
    """The same value for this user: ``~/...`` lies below this home folder."""
    return f"{Path.home()}{value[1:]}" if value == "~" or value.startswith("~/") else value


def _steps(path: str) -> list[str]:
    """The folders that an absolute path leads through, straightened; the last is its end."""

    def step(above: str, part: str) -> str:
        # normpath would keep two slashes at the beginning
        return os.path.normpath(f"{above.rstrip('/')}/{part}")

    return list(itertools.accumulate(path.split("/"), step, initial="/"))
