"""What forks of a process tell it, through a file without a name that all of them hold."""

from __future__ import annotations

import os
import tempfile
from typing import IO

_END = b"\0"


class ForkNotes:
    """Pairs of texts that forks of this process have told it."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115

    def tell(self, what: str, more: str) -> None:
        """Of a fork: tell the process that made these notes; its own it has already."""
        if os.getpid() != self._pid:
            os.write(self._file.fileno(), os.fsencode(what) + _END + os.fsencode(more) + _END)

    def since(self, start: int) -> tuple[list[tuple[str, str]], int]:
        """What forks have told from a byte on, and how many bytes that is."""
        descriptor = self._file.fileno()
        told = os.pread(descriptor, os.fstat(descriptor).st_size - start, start)
        parts = told.split(_END)[:-1]
        pairs = [*zip(parts[::2], parts[1::2], strict=False)]
        n_bytes = sum(len(what) + len(more) + 2 * len(_END) for what, more in pairs)
        return [(os.fsdecode(what), os.fsdecode(more)) for what, more in pairs], n_bytes

    def close(self) -> None:
        """Hear of nothing more."""
        self._file.close()
