"""Which files a process executes as code: what lies in ``sys.modules``, and what was run besides.

Python tells an audit hook of every code object and every extension that it executes. So a module
that takes itself out of ``sys.modules``, or claims another file, is seen all the same. What is
made of a string (``exec``, dataclasses, ``torch.fx``) has no file and is none of this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from auditkit.files import installed
from auditkit.records.imports import ImportedFiles

#: What takes notes of the code that runs; a hook stays for as long as its process lives.
_watches: list[ImportWatch] = []
_hooked: list[bool] = []


@dataclass
class ImportWatch:
    """What a process has imported, and what it has executed since.

    Attributes:
        folder: The program's folder.
        target: The module that defines it.
        started: Files of the modules that were there already.
        executed: What was executed since, as Python names it; the values mean nothing.
    """

    folder: Path
    target: str
    started: frozenset[str] = field(default_factory=lambda: frozenset(module_files()))
    executed: dict[str, None] = field(default_factory=dict)

    def since(self) -> dict[str, str]:
        """Files that were executed since, with the name of their module where there is one."""
        found = {path: name for path, name in module_files().items() if path not in self.started}
        for name in list(self.executed):
            path = installed.code_file(name)
            if path not in self.started and os.path.isfile(path):  # noqa: PTH113 # thousands
                found.setdefault(path, "")
        return found

    def files(self) -> ImportedFiles:
        """Everything, for the process that judges it."""
        since = self.since()
        return ImportedFiles(
            tuple(sorted(map(_printable, self.started))),
            {_printable(path): since[path] for path in sorted(since)},
        )


def current_watch() -> ImportWatch | None:
    """What takes notes now; None outside a job."""
    return _watches[-1] if _watches else None


@contextmanager
def watched_imports(folder: Path, target: str) -> Iterator[ImportWatch]:
    """Take notes of the code that runs inside the block.

    Args:
        folder: The program's folder.
        target: ``FILE.py`` or ``package.module``, with or without ``:NAME``.
    """
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_note)
    watch = ImportWatch(folder.resolve(), target.partition(":")[0].removesuffix(".py"))
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)


def module_files() -> dict[str, str]:
    """File and name of every module that has one: no frozen, built-in or generated module has."""
    found: dict[str, str] = {}
    for name, module in sorted(sys.modules.copy().items()):
        # Its own dict: a lazy module would import what it is asked for.
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str) and os.path.isabs(file):  # noqa: PTH117 # thousands
            found.setdefault(installed.code_file(file), name)
    return found


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "exec":
        name = getattr(arguments[0], "co_filename", "<")
    elif event == "import":  # of an extension: only then is there a file
        name = arguments[1]
    else:
        return
    if isinstance(name, str) and name[:1] != "<":
        for watch in _watches:
            watch.executed.setdefault(name)


def _printable(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()
