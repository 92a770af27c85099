"""Whether training has read a file that it wrote, told by a process and all its forks."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

#: Bytes of a file's name that are told.
_MOST_OF_NAME = 255


class ReadBack:
    """Said once, in memory that forks share, as a loader's workers are."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1 + _MOST_OF_NAME)

    def __bool__(self) -> bool:
        return self._memory[0] != 0

    @property
    def name(self) -> str:
        """Name of the file, without its folder; nothing where none is known."""
        return os.fsdecode(self._memory[1:].rstrip(b"\0"))

    def say(self, path: str = "") -> None:
        """There is one.

        Args:
            path: Of the file, where it is known.
        """
        name = os.fsencode(Path(path).name)[:_MOST_OF_NAME]
        self._memory[1 : 1 + len(name)] = name
        self._memory[0] = 1
