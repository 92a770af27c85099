"""Which files a process executes as code, and which its program opens while it is built.

Python tells an audit hook of every code object and every extension that it executes. So a module
that takes itself out of ``sys.modules``, or claims another file, is seen all the same. What is
made of a string (``exec``, dataclasses, ``torch.fx``) has no file and is none of this. The hook is
told of every file that Python opens, too; what native code opens or maps by itself it never sees.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auditkit.files import installed
from auditkit.records.imports import ImportedFiles

#: Flags of an ``open`` that makes a file, or empties it: what is read from it is the process's own.
_MAKES = os.O_TRUNC | os.O_EXCL

#: What takes notes of the code that runs; a hook stays for as long as its process lives.
_watches: list[ImportWatch] = []
_hooked: list[bool] = []


@dataclass
class OpenNotes:
    """Regular files that were opened for reading while notes were taken.

    Attributes:
        wanted: How many blocks take notes now; none, and nothing is noted.
        opened: Their absolute paths; the values mean nothing.
        made: What the process itself made or emptied before it read it.
    """

    wanted: int = 0
    opened: dict[str, None] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)

    def note(self, name: object, flags: int) -> None:
        """Note that a file is being opened; it need not exist."""
        if not isinstance(name, (str, bytes, os.PathLike)):
            return  # a descriptor: whoever made it opened the file
        path = os.path.abspath(os.fsdecode(name))  # noqa: PTH100 # links are kept: they are names
        if path in self.opened or path in self.made:
            return
        if flags & _MAKES:
            self.made.add(path)
        elif flags & os.O_ACCMODE != os.O_WRONLY and stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            self.opened[path] = None


@dataclass
class ImportWatch:
    """What a process has imported, and what it has executed since.

    Attributes:
        folder: The program's folder.
        target: The module that defines it.
        started: Files of the modules that were there already.
        executed: What was executed since, as Python names it; the values mean nothing.
        opens: The files that the program opened.
    """

    folder: Path
    target: str
    started: frozenset[str] = field(default_factory=lambda: frozenset(module_files()))
    executed: dict[str, None] = field(default_factory=dict)
    opens: OpenNotes = field(default_factory=OpenNotes)

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


@contextmanager
def noted_opens() -> Iterator[None]:
    """Take notes of the files that are opened inside the block; of none where no job watches."""
    notes = OpenNotes() if (watch := current_watch()) is None else watch.opens
    notes.wanted += 1
    try:
        yield
    finally:
        notes.wanted -= 1


def module_files() -> dict[str, str]:
    """File and name of every module that has one: no frozen, built-in or generated module has."""
    found: dict[str, str] = {}
    for name, module in sorted(sys.modules.copy().items()):
        # Its own dict: a lazy module would import what it is asked for.
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str) and os.path.isabs(file):  # noqa: PTH117 # thousands
            found.setdefault(installed.code_file(file), name)
    return found


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        _note_open(arguments[0], arguments[2])
        return
    if event == "exec":
        name = getattr(arguments[0], "co_filename", "<")
    elif event == "import":  # of an extension: only then is there a file
        name = arguments[1]
    else:
        return
    if isinstance(name, str) and name[:1] != "<":
        for watch in _watches:
            watch.executed.setdefault(name)


def _note_open(name: object, flags: object) -> None:
    for watch in _watches:
        if watch.opens.wanted and isinstance(flags, int):
            # What is raised here would be raised by the program's own ``open``.
            with suppress(Exception):
                watch.opens.note(name, flags)


def _printable(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()
