"""The program's own sources: every module imported from outside site-packages."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import hashlib

from auditkit import store
from auditkit.errors import StoreError
from auditkit.records.study import CodeFile

_PACKAGE = Path(__file__).resolve().parents[1]


def own_modules() -> Iterator[tuple[str, Path]]:
    """Name below ``code/`` and path of every module of the program.

    A module ``a.b`` is named ``a/b.py`` (``a/b/__init__.py`` for a package), wherever it lies, so
    that it can be imported again from ``code/`` alone.
    """
    foreign = _foreign_folders()
    for name, module in sorted(sys.modules.items()):
        path = _source(module)
        if path is None or name == "__main__" or any(path.is_relative_to(f) for f in foreign):
            continue
        relative = name.replace(".", "/")
        is_package = path.name.startswith("__init__.")
        yield (f"{relative}/{path.name}" if is_package else f"{relative}{path.suffix}"), path


def own_code(copy_to: Path | None = None, suffix: str = "") -> tuple[CodeFile, ...]:
    """Digest the program's sources as they lie on disk now.

    Args:
        copy_to: Folder to copy them to, or None.
        suffix: Appended to the copies' names.
    """
    files = []
    for name, path in own_modules():
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


def _source(module: ModuleType) -> Path | None:
    name = getattr(module, "__file__", None)
    return Path(name).resolve() if isinstance(name, str) and name else None


def _foreign_folders() -> list[Path]:
    keys = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [Path(sysconfig.get_paths()[key]).resolve() for key in keys]
    # A virtual environment's standard library lies in the base installation.
    folders.append(Path(sysconfig.__file__).resolve().parent)
    folders.append(_PACKAGE)
    folders.extend(Path(p).resolve() for p in sys.path if p.endswith("site-packages"))
    return folders
