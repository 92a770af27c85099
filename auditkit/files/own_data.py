"""Data that a program keeps beside its code, for a replay: it is given a copy of the code alone.

Their names come from somebody else's manifest. What lies under such a name in the verifier's own
working folder is linked there, and is compared when the program opens it; nothing that could be
imported is, since code is listed and copied.
"""

from __future__ import annotations

import importlib.machinery
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from auditkit.errors import UnsafePath
from auditkit.files.artifacts import check_name

_CODE = tuple(importlib.machinery.all_suffixes())


def lay(names: Iterable[str], code: Path, here: Path | None = None) -> list[str]:
    """Link files of a folder beside copied code.

    Args:
        names: Of the files, below the folder of the code.
        code: The folder of the copy.
        here: The folder that they are looked for in; by default the working folder, if there is
            one still.

    Returns:
        Names of those that lie in neither.
    """
    return [name for name in names if not _lies(name, code, here or Path())]


def _lies(name: str, code: Path, here: Path) -> bool:
    with suppress(UnsafePath, OSError):
        target, source = code / check_name(name), here / name
        if not os.path.lexists(target) and source.is_file() and not name.endswith(_CODE):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.resolve())
        return target.exists()
    return False
