"""Numbered folders of runs: ``exp1-0001``, ``exp1-0002``; two that begin at once get two."""

from __future__ import annotations

import re
from pathlib import Path

from auditkit.files import store


def claim(base: Path) -> int:
    """Make the folder of the next number, which nobody else gets.

    Args:
        base: Path without a number; a folder of that very name counts as the first.

    Raises:
        StoreError: When it cannot be made.
    """
    store.make_folder(base.parent)
    pattern = re.compile(rf"{re.escape(base.name)}-(\d{{4,9}})", re.ASCII)
    found = [pattern.fullmatch(path.name) for path in base.parent.iterdir()]
    number = max((int(one[1]) for one in found if one), default=int(base.exists())) + 1
    while not store.make_new_folder(numbered(base, number)):
        number += 1
    return number


def numbered(base: Path, number: int) -> Path:
    """The folder of a number."""
    return base.with_name(f"{base.name}-{number:04d}")
