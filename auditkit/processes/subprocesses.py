"""Processes that auditkit starts: their environment, the end of their output, and their exit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from auditkit.errors import StoreError
from auditkit.files.store import read_bytes
from auditkit.records.environment import protocol_variables

#: Bytes of a process's output that its last lines are looked for in.
TAIL_BYTES = 4096

_TAIL_LINES = 3

_PROCESSES = Path("/proc")
_SWEEPS = 100


def environment(variables: Mapping[str, str], threads: int | None = None) -> dict[str, str]:
    """Environment of a process that auditkit starts.

    Args:
        variables: What to set beside this process's own.
        threads: Threads of every math library below torch and numpy, for a process that is to be
            deterministic; what else must be set before one starts is set then, too. None leaves
            everything as it is.
    """
    if threads is None:
        return {**os.environ, **variables}
    return {**os.environ, **protocol_variables(threads), **variables}


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that was started in a session of its own, with all that is left of it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def kill_with_variable(name: str, value: str) -> None:
    """Kill every process that was started with a variable of this value, whatever its session.

    A launcher such as torchrun starts each of its processes in a session of its own, where the
    killing of the launcher's session does not reach. The value should be one that nobody else
    has. Works where ``/proc`` tells environments (Linux), and does nothing elsewhere.
    """
    mark = os.fsencode(f"{name}={value}")
    for _ in range(_SWEEPS):  # one that is about to die may have started another
        marked = [pid for pid in _pids() if _has_variable(pid, mark)]
        if not marked:
            return
        for pid in marked:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def describe_exit(returncode: int) -> str:
    """How a process ended, as a part of a sentence."""
    if returncode >= 0:
        return f"{'died' if returncode else 'ended'} with exit status {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-returncode}"


def output_tail(tail: bytes) -> str:
    """The last lines of a process's output, on one line."""
    lines = [line.strip() for line in tail.decode("utf-8", "replace").splitlines()]
    return " | ".join([line for line in lines if line][-_TAIL_LINES:])


def log_tail(log: IO[bytes]) -> str:
    """The last lines of a file that a process wrote to, as the end of a sentence."""
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - TAIL_BYTES))
    tail = output_tail(log.read())
    return f": {tail}" if tail else ""


def _pids() -> Iterator[int]:
    with contextlib.suppress(OSError):
        for folder in _PROCESSES.iterdir():
            if folder.name.isdecimal() and int(folder.name) != os.getpid():
                yield int(folder.name)


def _has_variable(pid: int, mark: bytes) -> bool:
    try:
        return mark in read_bytes(_PROCESSES / str(pid) / "environ").split(b"\0")
    except StoreError:  # somebody else's, or gone
        return False
