"""The program's own sources: every module imported from outside site-packages."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from auditkit.errors import StoreError
from auditkit.files import store
from auditkit.records.manifest import CodeFile

_PACKAGE = Path(__file__).resolve().parents[2]


def own_modules(*, main: bool = False) -> Iterator[tuple[str, Path]]:
    """Name below ``code/`` and path of every module of the program.

    A module ``a.b`` is named ``a/b.py`` (``a/b/__init__.py`` for a package), wherever it lies, so
    that it can be imported again from ``code/`` alone.

    Args:
        main: Whether the script that was started is one of them, under its file's name.
    """
    folders = _foreign_folders()
    # Each as it is written and as it resolves.
    foreign = tuple({f"{path}{os.sep}" for f in folders for path in (f, f.resolve())})
    for name, module in sorted(sys.modules.items()):
        # Its own dict: a lazy module would import what it is asked for.
        file = getattr(module, "__dict__", {}).get("__file__")
        # Thousands of modules are loaded; only the few that are left are looked up on disk.
        if not isinstance(file, str) or file.startswith(foreign):
            continue
        # multiprocessing gives the script a second name
        if name == "__mp_main__" or (name == "__main__" and not main):
            continue
        path = Path(file).resolve()
        if str(path).startswith(foreign):
            continue
        if name == "__main__":
            yield path.name, path
            continue
        relative = name.replace(".", "/")
        is_package = path.name.startswith("__init__.")
        yield (f"{relative}/{path.name}" if is_package else f"{relative}{path.suffix}"), path


def is_own_file(filename: str) -> bool:
    """Whether a source file is the user's: neither installed, nor Python's, nor auditkit's."""
    if filename.startswith("<"):
        return False
    folders = _foreign_folders()
    foreign = tuple({f"{path}{os.sep}" for f in folders for path in (f, f.resolve())})
    return not str(Path(filename).resolve()).startswith(foreign)


def own_code(
    copy_to: Path | None = None, suffix: str = "", *, main: bool = False
) -> tuple[CodeFile, ...]:
    """Digest the program's sources as they lie on disk now.

    Args:
        copy_to: Folder to copy them to, or None.
        suffix: Appended to the copies' names.
        main: Whether the script that was started is one of them.
    """
    files = []
    for name, path in sorted(dict(own_modules(main=main)).items()):
        try:
            data = store.read_bytes(path, what="source")
        except StoreError:
            continue  # a module made in memory, or deleted since: there is nothing to copy
        files.append(CodeFile(name, hashlib.sha256(data).hexdigest()))
        if copy_to is not None:
            target = copy_to / f"{name}{suffix}"
            store.make_folder(target.parent)
            store.write_bytes(target, data)
    return tuple(files)


def _foreign_folders() -> list[Path]:
    """Folders of other people's code."""
    paths = sysconfig.get_paths()
    folders = [Path(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    # A virtual environment's standard library lies in the base installation.
    folders.append(Path(sysconfig.__file__).parent)
    folders.append(_PACKAGE)
    found = map(Path, sys.path)
    folders.extend(path for path in found if path.name in ("site-packages", "dist-packages"))
    return folders
