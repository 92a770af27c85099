"""The prepared process: it has imported what every job needs, and forks one process a job.

So that only one process pays for the imports, and that every job's process has the same history:
of the imports, of nothing else. It runs none of the user's code, draws from no random stream and
has no thread of its own. The other side is :mod:`auditkit.processes.fork_server`. One of its
processes may become such a process itself, which has imported a user's program, too, for the jobs
that may share that (:mod:`auditkit.processes.program_servers`).

A job comes as one message with two file descriptors: the line on which the job is told and
answered, and the file for what its process prints. When that process has ended, whatever it left
behind is killed, and its exit status is the last thing on the line. When the other end of a line
is closed, its process is killed; when the other end of everything is gone, all are.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from auditkit.formats import canonical

#: Messages: fork a process for the job, or one for a program, which forks others from itself; or do
#: the job in this process, which ends with it.
FORK, FORK_PROGRAM, BECOME = b"F", b"P", b"B"

_CHUNK = 4096

#: For what was killed to be gone.
_SECONDS_TO_END = 1.0


def serve(control: socket.socket) -> socket.socket:
    """Fork a process for every job that comes.

    Returns in the process that is to do a job, with the job's line; in the prepared process itself
    it does not return.

    Args:
        control: Where jobs come from.
    """
    _reseedings()
    jobs = _Jobs(control)
    while True:
        for descriptor, _ in jobs.poll():
            if descriptor in jobs.lines:
                jobs.kill(descriptor)
            elif descriptor == control.fileno():
                message, line, log = _receive(control, jobs)
                if message == BECOME or jobs.fork(line, log, message):
                    jobs.close()
                    return _begin_job(line, log, alone=message == BECOME)
        jobs.reap()


class _Jobs:
    """The processes of the jobs, by the descriptors of their lines."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._ended, self._waker = socket.socketpair()
        for end in (self._ended, self._waker):
            end.setblocking(False)
        # A signal that is ignored wakes nobody.
        handlers = {signal.SIGCHLD: lambda *_: None, signal.SIGTERM: self.stop}
        self._before = {number: signal.signal(number, do) for number, do in handlers.items()}
        self._woken = signal.set_wakeup_fd(self._waker.fileno())
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._ended, select.POLLIN)
        self.lines: dict[int, _Forked] = {}

    def poll(self) -> list[tuple[int, int]]:
        """Wait until something happened."""
        events = self._poll.poll()
        with contextlib.suppress(BlockingIOError):
            self._ended.recv(_CHUNK)
        return events

    def fork(self, line: socket.socket, log: int, message: bytes) -> bool:
        """Fork; whether this is the new process."""
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)  # so that what it leaves behind can be found
            return True
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # whichever of both comes first
        os.close(log)
        self.lines[line.fileno()] = _Forked(line, pid, message == FORK_PROGRAM)
        self._poll.register(line, 0)  # only for its hang-up
        return False

    def kill(self, descriptor: int) -> None:
        """Kill the process of a line that nobody listens to any more."""
        self._poll.unregister(descriptor)
        self.lines[descriptor].kill()

    def stop(self, *_: object) -> NoReturn:
        """Kill every process, and end this one."""
        for forked in self.lines.values():
            forked.kill()
        # What they took is counted where they are waited for.
        until = time.monotonic() + _SECONDS_TO_END
        while self.lines and time.monotonic() < until:
            self.reap()
            time.sleep(0.001)
        for forked in self.lines.values():  # a program that is being imported may not listen
            _signal_group(forked.pid, signal.SIGKILL)
        os._exit(0)

    def reap(self) -> None:
        """Say how the processes that have ended did."""
        for descriptor, forked in list(self.lines.items()):
            done, status = os.waitpid(forked.pid, os.WNOHANG)
            if not done:
                continue
            _signal_group(forked.pid, signal.SIGKILL)
            with contextlib.suppress(KeyError):
                self._poll.unregister(descriptor)
            ending = {"exit": os.waitstatus_to_exitcode(status)}
            with contextlib.suppress(OSError), forked.line as line:
                # On a line of its own, also where the process died in the middle of one.
                line.sendall(b"\n" + canonical.dumps(ending) + b"\n")
            del self.lines[descriptor]

    def close(self) -> None:
        """In a job's process: let go of everything that is the prepared process's."""
        signal.set_wakeup_fd(self._woken)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # the program's, where it has been imported
        lines = (forked.line for forked in self.lines.values())
        for end in (self._control, self._ended, self._waker, *lines):
            end.close()


@dataclass(frozen=True)
class _Forked:
    """A process that was forked.

    Attributes:
        line: Where its exit status is told.
        pid: Its number, and that of its group.
        is_program: Whether it forks others, which have groups of their own.
    """

    line: socket.socket
    pid: int
    is_program: bool

    def kill(self) -> None:
        """Kill its group; of a program's, have it kill its own."""
        _signal_group(self.pid, signal.SIGTERM if self.is_program else signal.SIGKILL)


def _receive(control: socket.socket, jobs: _Jobs) -> tuple[bytes, socket.socket, int]:
    message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
    if not message:  # nobody is there to listen
        jobs.stop()
    line, log = descriptors
    return message, socket.socket(fileno=line), log


def _begin_job(line: socket.socket, log: int, *, alone: bool) -> socket.socket:
    """Give a job's process its own standard streams and its own randomness."""
    for target in (1, 2):  # standard input is the null device already
        os.dup2(log, target)
    os.close(log)
    sys.stdin = io.StringIO()  # a program that asks a question gets an end of file, not a wait
    # As in a new interpreter, and as Python does for its own stream: a program that draws before it
    # is seeded must not look as if it were.
    for reseed in _reseedings():
        reseed()
    if alone:  # there is no prepared process that would notice
        threading.Thread(target=_exit_with, args=(line,), daemon=True).start()
    return line


@functools.cache
def _reseedings() -> tuple[Callable[[], object], ...]:
    """Give each library's stream another seed; looked up before a program can replace them."""
    found: list[Callable[[], object]] = []
    if "numpy" in sys.modules:
        found.append(sys.modules["numpy"].random.seed)
    if "torch" in sys.modules:
        found.append(sys.modules["torch"].default_generator.seed)
    return tuple(found)


def _exit_with(line: socket.socket) -> None:
    poll = select.poll()
    poll.register(line, 0)
    poll.poll()
    os._exit(1)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
