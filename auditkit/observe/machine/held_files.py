"""Files that a process holds for reading and for writing at once, whoever opened them.

Linux lists them, also those that only native code knows of (SQLite, HDF5, LMDB, ``numpy.memmap``).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from auditkit.errors import StoreError
from auditkit.files.store import read_bytes

_PROC = Path("/proc/self")


def holds_what_it_writes(since: int) -> bool:
    """Whether this process can read from a file what it writes there.

    That is a file with a name, which another process can open too: one that was written and is
    open for both, or one that is mapped so (whether that was written nobody tells). Where the
    system does not list them, it is False.

    Args:
        since: When what counts as written begins, in ns.
    """
    return any(status.st_mtime_ns >= since for status in _open_for_both()) or any(_mapped())


def _open_for_both() -> Iterator[os.stat_result]:
    with suppress(OSError):
        for link in list((_PROC / "fdinfo").iterdir()):
            with suppress(OSError, StoreError):  # the one that lists the folder is gone
                status = (_PROC / "fd" / link.name).stat()
                if _has_name(status) and _flags(link) & os.O_ACCMODE == os.O_RDWR:
                    yield status


def _flags(link: Path) -> int:
    fields = dict(line.split(b":", 1) for line in read_bytes(link).splitlines() if b":" in line)
    return int(fields.get(b"flags", b"0"), 8)


def _mapped() -> Iterator[str]:
    lines: list[str] = []
    with suppress(StoreError):
        lines = os.fsdecode(read_bytes(_PROC / "maps")).splitlines()
    for line in lines:
        fields = line.split(maxsplit=5)
        if fields[1][1:] == "w-s" or fields[1][1:] == "wxs":
            with suppress(OSError, IndexError):  # it has no name, or none any more
                if _has_name(Path(fields[5]).stat()):
                    yield fields[5]


def _has_name(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_nlink > 0
