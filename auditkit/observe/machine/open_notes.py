"""Notes of the files that a program opens, which the audit hook of imports is told of."""

from __future__ import annotations

import functools
import os
import stat
import sys
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from auditkit.files import installed
from auditkit.files.own_cache import user_cache
from auditkit.observe.machine.held_files import holds_what_it_writes
from auditkit.observe.machine.read_backs import ReadBack

#: Flags of an ``open`` that makes a file, or empties it: what is read from it is the process's own.
_MAKES = os.O_TRUNC | os.O_EXCL

#: What the clock of files may be behind by, in ns.
_COARSE = 20_000_000

#: Where files are made anew whenever they are looked at.
_NO_FILES = ("/proc/", "/sys/")

#: The code that takes the notes, which stands between what opens and whoever opens.
_HERE = f"{os.path.dirname(__file__)}{os.sep}"  # noqa: PTH120


@dataclass
class OpenNotes:
    """Regular files that were opened for reading while notes were taken.

    Attributes:
        wanted: How many blocks take notes of names now.
        opened: Their absolute paths, with what the system said of each before.
        made: What the process itself made or emptied before it read it.
        new: Folders that the process made where there was none, and files that had to be new.
        cached: What only imports of installed libraries read, of the user's caches, such as a list
            of the fonts that there are.
        is_training: Whether what is read now may have been written while training.
    """

    wanted: int = 0
    opened: dict[str, tuple[int, ...]] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    new: set[str] = field(default_factory=set)
    cached: set[str] = field(default_factory=set)
    is_training: bool = False
    _since: int = field(default_factory=time.time_ns)
    _read_back: ReadBack = field(default_factory=ReadBack)

    @property
    def read_back(self) -> bool:
        """Whether training has read a file that somebody had written since notes are taken.

        Or may have, of one that it held for both.
        """
        return bool(self._read_back)

    @property
    def read_back_name(self) -> str:
        """Name of the first such file, without its folder; nothing where none is known."""
        return self._read_back.name

    def note(self, name: object, flags: int) -> None:
        """Note that a file is being opened; it need not exist."""
        if not isinstance(name, (str, bytes, os.PathLike)):
            return  # a descriptor: whoever made it opened the file
        path = os.path.abspath(os.fsdecode(name))  # noqa: PTH100 # links are kept: they are names
        if self.wanted and path not in self.opened and path not in self.made:
            if flags & os.O_EXCL:
                self.make(path)
            if flags & _MAKES:
                self.made.add(path)
            elif _is_read(flags) and (version := _version(path)):
                self.opened[path] = version
                if _is_cached(path) and _is_importing_library():
                    self.cached.add(path)
        elif path in self.cached and not _is_importing_library():
            self.cached.discard(path)
        if self.is_training and _is_read(flags):
            self._look_back(path)

    def make(self, path: Any) -> None:
        """Note that a folder or a new file is being made, or found to be there already."""
        if self.wanted and not os.path.lexists(path):
            self.new.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100

    def has_left_new(self) -> bool:
        """Whether any of what the process made is still there."""
        return any(map(os.path.lexists, self.new))

    def connect(self, database: object) -> None:
        """Note that SQLite is told a file, or its URI; native code opens it."""
        if self.is_training and isinstance(database, (str, bytes, os.PathLike)):
            name = os.fsdecode(database)
            self._look_back(urlsplit(name).path if name.startswith("file:") else name)

    def look_at_held(self) -> None:
        """Note files that are held for reading and writing at once, whoever opened them."""
        if holds_what_it_writes(self._since - _COARSE):
            self._read_back.say()

    def renewed(self) -> OpenNotes:
        """The same files, for a job that begins now; nothing has been read back."""
        return OpenNotes(opened=dict(self.opened), made=set(self.made), cached=set(self.cached))

    def are_current(self) -> bool:
        """Whether every file is the one that was opened."""
        return all(_version(path) == version for path, version in self.opened.items())

    def _look_back(self, path: str) -> None:
        if not self.read_back and not path.startswith(_NO_FILES):
            status = os.stat(path)  # noqa: PTH116
            if stat.S_ISREG(status.st_mode) and status.st_mtime_ns >= self._since - _COARSE:
                self._read_back.say(path)


@functools.cache
def library_folders() -> tuple[str, ...]:
    """Where Python and distributions are installed."""
    folders = [*installed.standard_folders(), *installed.site_folders()]
    return tuple(f"{folder}{os.sep}" for folder in folders)


def _version(path: str) -> tuple[int, ...]:
    """What is another where a regular file has been written to or replaced; empty of all others."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return ()
    if not stat.S_ISREG(status.st_mode):
        return ()
    times = status.st_mtime_ns, status.st_ctime_ns  # a copy may take over the first
    return status.st_dev, status.st_ino, status.st_size, *times


def _is_read(flags: int) -> bool:
    return flags & os.O_ACCMODE != os.O_WRONLY


def _is_cached(path: str) -> bool:
    return path.startswith(f"{user_cache()}{os.sep}")


def _is_importing_library() -> bool:
    """Whether no code of the program is at work in the import that is under way, if one is."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib."):
            return True
        if not name.startswith((_HERE, *library_folders())):
            return False
        frame = frame.f_back
    return False
