"""Processes that have imported a user's program, each of which forks the jobs that may share that.

Importing a program takes seconds where it imports much, and a study has jobs for every seed. Such
a process is forked from the prepared one and is one itself from then on
(:mod:`auditkit.processes.forking`). Where there can be none, since a program's imports raise or
start threads, or where what was imported has changed on disk, a job's process imports it itself.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import IO

from auditkit.errors import JsonError
from auditkit.formats import canonical
from auditkit.formats.structure import to_dict
from auditkit.processes.forking import FORK
from auditkit.records.job import Job

#: Answers: the program is there; of a job, its process must be another one.
LOADED, OUTDATED = "loaded", "outdated"

#: Has the prepared process fork such a process: its line, and a file for its output.
Submit = Callable[[socket.socket, IO[bytes]], object]

_SECONDS_TO_END = 10.0
_KILLED = -9


class Gone(Exception):
    """The process is not there any more."""


class ProgramServer:
    """A process that has imported a program, or is about to.

    Args:
        job: Names the program.
        submit: Has the prepared process fork.

    Raises:
        OSError: When it cannot be forked.
    """

    #: What it is called where it has died.
    what = "the process that has imported the program, and forks its jobs,"

    def __init__(self, job: Job, submit: Submit) -> None:
        self._status: int | None = None
        self._waiting = threading.Lock()
        self._job = replace(job, kind="load", fork=None, order=None, branches=(), out="")
        self._control, theirs = socket.socketpair()
        self._answers = self._control.makefile("rb")
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 # its process has it
        try:
            with theirs:
                submit(theirs, self._log)
        except BaseException:
            self.stop()
            raise

    def load(self) -> bool:
        """Wait until the program is imported; whether it is."""
        try:
            self._control.sendall(canonical.dumps(to_dict(self._job)) + b"\n")
            return LOADED in self._answer()
        except (OSError, ValueError):  # stopped meanwhile
            return False

    def submit(self, line: socket.socket, log: IO[bytes], message: bytes = FORK) -> None:
        """Have a job done in a fork, as :meth:`auditkit.processes.fork_server.ForkServer.submit`.

        Raises:
            Gone: When there is nobody to fork it.
        """
        try:
            socket.send_fds(self._control, [message], [line.fileno(), log.fileno()])
        except OSError as error:
            raise Gone from error

    def wait(self) -> int:
        """Its exit status, when it is about to end; several jobs may ask."""
        with self._waiting:
            if self._status is None:
                self._status = self._told_status()
            return self._status

    def _told_status(self) -> int:
        self._control.settimeout(_SECONDS_TO_END)
        with contextlib.suppress(OSError, ValueError):
            status = self._answer().get("exit")
            if isinstance(status, int):
                return status
        return _KILLED

    def tail(self) -> str:
        """Nothing: what was printed while the program was imported says nothing of a job."""
        return ""

    def stop(self) -> None:
        """End it, with every process that it forked."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # wakes who waits for it
        self._answers.close()
        self._control.close()
        self._log.close()

    def _answer(self) -> dict[str, object]:
        """The next thing that it says, or that is said of it; nothing where it has ended."""
        for text in self._answers:
            with contextlib.suppress(JsonError):  # the program found the line, and wrote to it
                answer = canonical.loads(text, what="worker") if text.strip() else None
                if isinstance(answer, dict):
                    return answer
        return {}


class ProgramServers:
    """One for every program and number of threads, each started when it is first asked for."""

    def __init__(self) -> None:
        self._found: dict[object, _Slot] = {}
        self._lock = threading.Lock()
        self._stopped = False

    def of(self, job: Job, submit: Submit) -> ProgramServer | None:
        """The process that has imported a job's program; None where there is none.

        Args:
            job: Names the program.
            submit: Has the prepared process fork one.
        """
        with self._lock:
            slot = self._found.setdefault(_key(job), _Slot())
        with slot.lock:  # who comes second waits for the imports, too
            if not slot.is_decided:
                slot.is_decided = True
                server = ProgramServer(job, submit)
                with self._lock:
                    slot.server = None if self._stopped else server
                if slot.server is None or not server.load():
                    slot.server = None
                    server.stop()
            return slot.server

    def retire(self, job: Job) -> None:
        """Have no further job done by the process of a job's program; those that are, go on."""
        with self._lock:
            slot = self._found.setdefault(_key(job), _Slot())
            slot.retired, slot.server = slot.server, None

    def stop(self) -> None:
        """End all of them."""
        with self._lock:
            self._stopped = True
            servers = [
                each for slot in self._found.values() for each in (slot.server, slot.retired)
            ]
        for server in filter(None, servers):
            server.stop()


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_decided = False
        self.server: ProgramServer | None = None
        self.retired: ProgramServer | None = None


def _key(job: Job) -> object:
    return job.plan.threads if job.plan else 1, job.program.target, job.program.folder
