"""A process of its own for the trunk and every branch of a seed, all with the same history.

One process calls the factory once, and every branch is a fork of it, taken before anything is
restored: what a branch leaves behind in module-level state, in a cache or in the environment, no
other branch sees. Two forks would share what is not memory of their own, or lack it: threads, a
device, open files (their position is shared; what only appends, as to a log, has none),
connections, shared memory, child processes. Where the program has made any of these, this process
runs what is first itself, and everything else is given a new process that calls the factory once,
too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from auditkit.errors import StoreError
from auditkit.files.store import read_bytes
from auditkit.observe.machine.code import import_notes
from auditkit.observe.machine.environment import look_up_packages
from auditkit.observe.rng.streams import capture_streams
from auditkit.perturbations.registry import look_up_plug_ins
from auditkit.processes.fork_server import CAN_FORK
from auditkit.processes.job_endings import ANSWERED, Answer
from auditkit.processes.side_by_side import n_ready

_PROC = Path("/proc/self")


@dataclass(frozen=True)
class Unforkable:
    """What a process has that a fork of it would share or lack.

    Attributes:
        threads: Their number.
        files: Open files, pipes and sockets, by descriptor and name; not those that are only
            appended to.
        shared: Writable shared memory.
        children: Process identifiers.
        devices: Accelerators that were initialised, or that a fork could not initialise.
    """

    threads: int
    files: frozenset[str]
    shared: frozenset[str]
    children: frozenset[str]
    devices: frozenset[str]

    @classmethod
    def now(cls) -> Unforkable | None:
        """Of this process; None where the system does not tell."""
        if not CAN_FORK:
            return None
        tasks = [task.name for task in (_PROC / "task").iterdir()]
        return cls(
            threads=len(tasks),
            files=frozenset(_open_files()),
            shared=frozenset(_shared_memory()),
            children=frozenset(_children(tasks)),
            devices=frozenset(
                name
                for name, device in (("cuda", torch.cuda), ("xpu", torch.xpu))
                if device.is_initialized() or _is_lost_in_forks(device)
            ),
        )

    def beyond(self, before: Unforkable) -> list[str]:
        """What of it was not there before, for people."""
        files = sorted(name.partition(" ")[2] for name in self.files - before.files)
        return [
            *([f"{self.threads} threads"] if self.threads > 1 else []),
            *sorted(self.devices),
            *(f"the open {name}" for name in files),
            *(["shared memory"] if self.shared - before.shared else []),
            *(["a child process"] if self.children - before.children else []),
        ]


class Forks:
    """Processes with the history that this one has now.

    Args:
        before: What this process had before the program was loaded, if that could be told.
    """

    def __init__(self, before: Unforkable | None) -> None:
        self.can_fork = not unshared(before)

    def begin(self) -> bool:
        """Fork a process and wait for its end; this one ends as that one where it did not answer.

        Returns:
            Whether this is the process that has something to do: the new one, or the one that was
            there where it cannot be forked.
        """
        if not self.can_fork:
            return True
        look_up()
        pid, answer = _fork()
        if pid == 0:
            return True
        _, status = os.waitpid(pid, 0)
        if not answer:
            _end_like(os.waitstatus_to_exitcode(status))
        answer.close()
        return False

    def each(self, names: Sequence[str], lent: Callable[[int], int] = lambda _: 0) -> str:
        """Fork a process for every branch, in their order.

        Args:
            names: The branches.
            lent: Called with how many processes beside one could be at work; says how many may.

        Returns:
            In every process the branch that it is to run. The process that forked does not come
            back; where it cannot fork it comes back with the first branch.
        """
        if not self.can_fork:
            return names[0]
        look_up()
        waiting, running, at_once, failed = deque(names), dict[int, Answer](), 1, 0
        while waiting or running:
            useful = len(running) + n_ready(waiting, len(running))
            if useful != at_once:
                at_once = 1 + lent(useful - 1)
            while n_ready(waiting, len(running)) and len(running) < at_once:
                name = waiting.popleft()
                pid, answer = _fork()
                if pid == 0:
                    return name
                running[pid] = answer
            pid, status = os.wait()
            if pid not in running:
                continue  # a process that the factory has left behind
            if not running.pop(pid):  # those that are running are worth their end
                failed = failed or os.waitstatus_to_exitcode(status)
                waiting.clear()
        return _end_like(failed)


def unshared(before: Unforkable | None) -> tuple[str, ...]:
    """What keeps this process from being forked, for people; nothing where it can be.

    Args:
        before: What it had before the program was loaded, if that could be told.
    """
    now = Unforkable.now()
    if now is None or before is None:
        return ("what this system does not tell of a process",)
    return tuple(now.beyond(before))


def look_up() -> None:
    """Look up here what every fork of this process would have to look up again.

    Of the packages, the imports and the RECORDs that name them, and the plug-ins.
    """
    look_up_packages()
    import_notes()
    look_up_plug_ins()


def _fork() -> tuple[int, Answer]:
    """Fork a process with the same random streams; 0 in the new one; and whether it answers."""
    sys.stdout.flush()
    sys.stderr.flush()
    streams, answer = capture_streams(), Answer()
    pid = os.fork()
    if pid == 0:
        answer.expect()
        streams.restore()  # Python seeds its own anew in every new process
    return pid, answer


def _end_like(code: int) -> NoReturn:
    """End as a branch has ended."""
    if code == ANSWERED:  # which it has not
        sys.stderr.write(f"the program ended its process with exit status {code}\n")
        sys.stderr.flush()
        code = 1
    if code < 0:
        with contextlib.suppress(OSError):  # of SIGKILL nobody can take the default away
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(abs(code))


def _is_lost_in_forks(device: Any) -> bool:
    """Whether a fork cannot initialise it: already asking whether there is one may see to that.

    torch tells it in the fork alone.
    """
    if not device._is_compiled():
        return False
    pid = os.fork()
    if pid == 0:
        os._exit(int(device._is_in_bad_fork()))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


def _open_files() -> list[str]:
    found = []
    for link in (_PROC / "fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists the folder is gone
            mode = link.stat().st_mode
            if not stat.S_ISCHR(mode) and not (
                stat.S_ISREG(mode) and _only_appends(int(link.name))
            ):
                found.append(f"{link.name} {link.readlink()}")
    return found


def _only_appends(descriptor: int) -> bool:
    """Whether it is as a log is opened: whoever writes does at the end, wherever others have."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    return bool(flags & os.O_APPEND) and flags & os.O_ACCMODE == os.O_WRONLY


def _shared_memory() -> list[str]:
    """Mappings that are writable and shared: a fork writes into its parent's."""
    lines = read_bytes(_PROC / "maps").decode("utf-8", "replace").splitlines()
    return [line for line in lines if line.split(maxsplit=2)[1] in ("rw-s", "-w-s", "rwxs")]


def _children(tasks: Sequence[str]) -> list[str]:
    found: list[str] = []
    for task in tasks:
        with contextlib.suppress(StoreError):  # a kernel that does not tell
            found += read_bytes(_PROC / "task" / task / "children").decode().split()
    return found
