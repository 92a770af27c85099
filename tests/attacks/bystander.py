"""Whoever can write into a run's folder: no report is denied, and what changed is said."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from studies import Run

from attacks.attack import Attack
from auditkit.replay import study_replay
from auditkit.verification import procedure

GROUP = "bystander"

SOURCE = "code/tiny_study.py"
FORK = "seed-0000/fork.safetensors"
TRACE = "seed-0000/control.trace.safetensors"

Lay = Callable[[Path], object]


def _file(name: bytes) -> Lay:
    return lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"")


def _nested(folder: Path) -> None:
    """Deeper than any path can say."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(120):
        os.mkdir("a" * 60, dir_fd=here)
        below = os.open("a" * 60, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def _socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("socket")
    finally:
        os.chdir(here)


def _many(folder: Path) -> None:
    (folder / "many").mkdir()
    for number in range(20_000):
        os.close(os.open(folder / "many" / f"{number}", os.O_CREAT | os.O_WRONLY))


def _secret(folder: Path) -> None:
    (folder / "secret").mkdir()
    (folder / "secret" / "file").touch()


def _countersigned(folder: Path) -> None:
    os.mkfifo(folder / f"countersign-{'0' * 16}.json")
    (folder / "x").touch()


@contextlib.contextmanager
def _closed(_: Run) -> Iterator[None]:
    """A folder that cannot be read; root can read all of them, so it is said by the system."""
    honestly = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return honestly(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        yield


def _changed(module: Any, function: str, change: Callable[[Path], object], name: str) -> Any:
    """Change a file just before a function uses it, after check 3."""

    @contextlib.contextmanager
    def during(run: Run) -> Iterator[None]:
        honestly = getattr(module, function)

        def first(*given: Any, **named: Any) -> Any:
            path = run.folder / name
            if path.exists():
                change(path)
            return honestly(*given, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, function, first)
            yield

    return during


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"#")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/null")


def _laid(name: str, lay: Lay, where: str | None, says: str, **of: Any) -> tuple[Attack, Attack]:
    """Accepted with a warning; a failure where that is strict."""

    def apply(run: Run) -> None:
        lay(run.folder)

    strict = {"options": {"strict": True}, "where": where, **of}
    return (
        Attack(f"control: {name}", GROUP, apply, 0, 0, **of),
        Attack(f"{name}, where that is strict", GROUP, apply, 3, 1, says, **strict),
    )


def _late(name: str, during: Any, check: int, says: str, **of: Any) -> Attack:
    return Attack(name, GROUP, lambda _: None, check, 1, says, during=during, subject="few", **of)


_UNLISTED = "the manifest lists no such file"
_SINCE = "changed since check 3 read it"
_AGAIN = {"needs_replay": True}

ATTACKS = (
    *_laid("a name that is no UTF-8", _file(b"\xff\xfe"), "\\xff\\xfe", _UNLISTED),
    *_laid("a name of two lines", _file(b"a\nVerdict: failed"), "a\\nVerdict: failed", _UNLISTED),
    *_laid("a name that paints", _file(b"\x1b[2J"), "\\x1b[2J", _UNLISTED),
    *_laid("half a pair in UTF-8", _file(b"\xed\xa0\x80"), "\\xed\\xa0\\x80", _UNLISTED),
    *_laid("endless nesting", _nested, None, "not looked into"),
    *_laid("a socket", _socket, "socket", _UNLISTED),
    *_laid("a FIFO", lambda folder: os.mkfifo(folder / "fifo"), "fifo", _UNLISTED),
    *_laid("a link to everything", lambda f: (f / "all").symlink_to("/"), "all", _UNLISTED),
    *_laid("twenty thousand files", _many, "many/0", _UNLISTED),
    *_laid("a folder that cannot be read", _secret, None, "not looked into", during=_closed),
    *_laid(
        "a FIFO in a countersignature's place",
        _countersigned,
        "x",
        _UNLISTED,
    ),
    _late(
        "a source that changes after check 3",
        _changed(study_replay, "copy_code", _append, SOURCE),
        8,
        _SINCE,
        where=SOURCE,
        **_AGAIN,
    ),
    _late(
        "a source that is gone after check 3",
        _changed(study_replay, "copy_code", Path.unlink, SOURCE),
        8,
        _SINCE,
        where=SOURCE,
        **_AGAIN,
    ),
    _late(
        "a fork that changes after check 3",
        _changed(study_replay, "copy_code", _flip, FORK),
        8,
        _SINCE,
        where=FORK,
        **_AGAIN,
    ),
    _late(
        "a trace that changes after check 3",
        _changed(procedure, "content_findings", _flip, TRACE),
        4,
        "another SHA-256",
        where=TRACE,
    ),
    _late(
        "a trace that is gone after check 3",
        _changed(procedure, "content_findings", Path.unlink, TRACE),
        4,
        "no such file",
        where=TRACE,
    ),
    _late(
        "a trace that becomes a link after check 3",
        _changed(procedure, "content_findings", _to_link, TRACE),
        4,
        "not a regular file",
        where=TRACE,
    ),
)
