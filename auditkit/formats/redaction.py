"""Paths below a home folder, which no record may name (double-blind)."""

from __future__ import annotations

import itertools
import os
from pathlib import Path


def redact_path(value: str) -> str:
    """A value with this user's home folder as ``~``.

    A path that leads to the home folder with detours (``..``, ``//``) is straightened; what is
    no absolute path stays as it is.
    """
    path = expand_home(value)
    home = _prefixes(str(Path.home()))[-1]
    if not path.startswith("/") or home == "/":
        return value
    prefixes = _prefixes(path)
    if home not in prefixes:
        return value
    end = "/" if value.endswith("/") else ""
    normalised = prefixes[-1]
    if normalised == home or normalised.startswith(f"{home}/"):
        return f"~{normalised[len(home) :]}{end}"
    return normalised if normalised == "/" else f"{normalised}{end}"


def redact_text(text: str) -> str:
    """A text with this user's home folder as ``~`` wherever it stands, as in ``--data=...``."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def expand_home(value: str) -> str:
    """The same value for this user: ``~/...`` lies below this home folder."""
    return f"{Path.home()}{value[1:]}" if value == "~" or value.startswith("~/") else value


def _prefixes(path: str) -> list[str]:
    """The folders that an absolute path leads through, straightened; the last is its end."""

    def join(above: str, part: str) -> str:
        # normpath would keep two slashes at the beginning
        return os.path.normpath(f"{above.rstrip('/')}/{part}")

    return list(itertools.accumulate(path.split("/"), join, initial="/"))
