"""Starts the prepared process that jobs are forked from, and sends it jobs.

See :mod:`auditkit.processes.forking` for what that process does.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO

from auditkit.errors import ProgramFailed
from auditkit.processes.forking import FORK
from auditkit.processes.subprocesses import kill_session, kill_with_variable, log_tail

#: Whether a process that has imported torch can be forked: elsewhere system libraries forbid it.
CAN_FORK = sys.platform == "linux"

#: Tells which workers a process comes from.
WORKERS_VARIABLE = "AUDITKIT_WORKERS"

_SECONDS_TO_END = 10.0


class ForkServer:
    """A prepared process.

    Args:
        arguments: Of this interpreter; the number of the control socket is added.
        variables: The environment.

    Raises:
        OSError: When it cannot be started.
    """

    #: What it is called where it has died.
    what = "the process that workers are forked from"

    def __init__(self, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        self._mark = secrets.token_hex(16)
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 # read after the end
        self._control, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 # this interpreter, fixed arguments
                    [sys.executable, *arguments, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    pass_fds=(theirs.fileno(),),
                    env={**variables, WORKERS_VARIABLE: self._mark},
                    start_new_session=True,  # a terminal's Ctrl-C is for us, and we tell it
                )
            except BaseException:
                self._control.close()
                self._log.close()
                raise
        # What does a job without being forked may leave processes behind when it dies.
        threading.Thread(target=_end_session, args=(self._process,), daemon=True).start()

    def submit(self, line: socket.socket, log: IO[bytes], message: bytes = FORK) -> None:
        """Have a job done.

        Args:
            line: Where it is told and answered.
            log: For what its process prints.
            message: In which process, see :data:`auditkit.processes.forking.FORK`.

        Raises:
            ProgramFailed: When the prepared process is not there any more.
        """
        try:
            socket.send_fds(self._control, [message], [line.fileno(), log.fileno()])
        except OSError as error:
            status = self.wait()
            raise ProgramFailed(
                f"{self.what} ended with status {status}{log_tail(self._log)}"
            ) from error

    def wait(self) -> int:
        """Its exit status, when it is about to end; it is killed where it does not."""
        try:
            return self._process.wait(timeout=_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            kill_session(self._process)
            return self._process.wait()

    def tail(self) -> str:
        """The last lines that it wrote itself, with a colon before them."""
        return log_tail(self._log)

    def stop(self) -> None:
        """End it, with every process that it forked."""
        self._control.close()
        self._process.terminate()  # it may be importing
        self.wait()
        # What moved to a session of its own is ended by this, on Linux.
        kill_with_variable(WORKERS_VARIABLE, self._mark)
        self._log.close()


def _end_session(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    kill_session(process)
