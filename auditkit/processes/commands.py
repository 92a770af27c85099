"""Run a user's own command, and serve the processes that it starts.

The command is any program with its arguments: python, a launcher that starts one process for
each device, a shell script. What it runs finds auditkit by an environment variable, see
:mod:`auditkit.processes.protocol`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from auditkit.errors import CommandError, ConnectionLost, ProgramFailed
from auditkit.processes.protocol import SESSION_VARIABLE, close_in_children
from auditkit.processes.server import Handler, Server
from auditkit.processes.subprocesses import (
    TAIL_BYTES,
    environment,
    kill_session,
    kill_with_variable,
    output_tail,
)

_CHUNK = 2**16

#: Seconds for the handlers to read what was sent before the command ended. All who could write
#: are dead then, so that a handler waits longer only where a process could not be found.
_HANDLER_SECONDS = 30.0


@dataclass(frozen=True)
class CommandResult:
    """How a command ended.

    Attributes:
        returncode: Its exit status; negative for a signal, as in ``subprocess``.
        output_tail: The end of what it wrote to standard error, or else to standard output, on
            one line.
        connected: How many of its processes connected.
    """

    returncode: int
    output_tail: str
    connected: int


class Commands:
    """Starts commands, and kills those that still run when it is left.

    A command runs in a session of its own. When it ends or is stopped, whatever it left running
    is killed too; on Linux also what moved to another session, as the processes of torchrun do.

    When auditkit itself is killed, it cannot kill anything. A process that uses its connection, or
    writes output, then gets an error; one that does neither runs on to its own end.
    """

    def __init__(self) -> None:
        self._running: dict[subprocess.Popen[bytes], Server] = {}
        self._lock = threading.Lock()
        self._stopped = False

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill every running command; later ones are refused."""
        with self._lock:
            self._stopped = True
            running = list(self._running.items())
        for process, server in running:
            _kill(process, server)

    def run(
        self,
        command: Sequence[str],
        handler: Handler,
        *,
        variables: Mapping[str, str] = {},
        threads: int | None = None,
        folder: Path | None = None,
        output: IO[bytes] | None = None,
    ) -> CommandResult:
        """Run a command to its end; safe to call from several threads.

        Args:
            command: The program and its arguments. Its standard input is empty.
            handler: Called in a thread of its own with the connection and the first message of
                every process that connects.
            variables: Environment variables to set beside the usual ones.
            threads: Threads of every math library below torch and numpy; None leaves them as
                they are.
            folder: Where the command runs; None for the working folder.
            output: Gets everything that the command writes, as it comes; None for nobody.

        Returns:
            How it ended, well or not.

        Raises:
            CommandError: When it cannot be started.
            ConnectionLost: When a handler lost its connection although the command ended well. If
                it did not end well, the returned status tells more.
            ProgramFailed: When it was stopped.
            BaseException: What else a handler raised; the command is killed at once then.
        """
        completed: CommandResult | None = None
        try:
            with _WakeupPipe() as wakeup, Server(handler, wakeup.notify) as server:
                process = self._start(command, server, environment(variables, threads), folder)
                completed = self._wait(process, server, wakeup, output)
        except ConnectionLost:
            if completed is None or completed.returncode == 0:
                raise
        return completed

    def _start(
        self,
        command: Sequence[str],
        server: Server,
        variables: Mapping[str, str],
        folder: Path | None,
    ) -> subprocess.Popen[bytes]:
        if not command:
            raise CommandError("there is no command to start")
        with self._lock:
            if self._stopped:
                raise ProgramFailed("stopped")
            try:
                process = subprocess.Popen(  # noqa: S603 # the user's own command
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**variables, SESSION_VARIABLE: server.variable},
                    cwd=folder,
                    start_new_session=True,  # so that what it leaves behind can be found
                )
            except (OSError, ValueError) as error:
                raise _start_error(command, error) from error
            self._running[process] = server
        return process

    def _wait(
        self,
        process: subprocess.Popen[bytes],
        server: Server,
        wakeup: _WakeupPipe,
        output: IO[bytes] | None,
    ) -> CommandResult:
        waiter = threading.Thread(target=_notify_at_exit, args=(process, wakeup), daemon=True)
        try:
            waiter.start()
            tails = _forward_output(process, server, wakeup, output)
        except BaseException:
            _kill(process, server)
            raise
        finally:
            process.wait()
            if waiter.is_alive():
                waiter.join()
            with self._lock:
                del self._running[process]
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        if self._stopped:
            raise ProgramFailed("stopped")
        if not _handler_failed(server):
            server.wait(_HANDLER_SECONDS)
        tail = next(filter(None, map(output_tail, tails)), "")
        return CommandResult(process.returncode, tail, server.connected)


class _WakeupPipe:
    """Wakes a thread that waits for file descriptors."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        close_in_children(self._receiver, self._sender)
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    def __enter__(self) -> _WakeupPipe:
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.close()
        self._sender.close()

    def fileno(self) -> int:
        return self._receiver.fileno()

    def notify(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: earlier notifications were not read yet
            self._sender.send(b".")

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._receiver.recv(_CHUNK)


class _Tail:
    """Passes a stream on, and keeps its end."""

    def __init__(self, stream: IO[bytes], output: IO[bytes] | None) -> None:
        self._stream = stream
        self._output = output
        self.end = b""

    def fileno(self) -> int:
        return self._stream.fileno()

    def read(self) -> bool:
        """Read what is there; whether there may be more."""
        data = os.read(self.fileno(), _CHUNK)
        self.end = (self.end + data)[-TAIL_BYTES:]
        if data and self._output is not None:
            self._output.write(data)
            self._output.flush()
        return bool(data)


def _forward_output(
    process: subprocess.Popen[bytes], server: Server, wakeup: _WakeupPipe, output: IO[bytes] | None
) -> list[bytes]:
    """Read what a command writes until it ends; the ends of standard error and output."""
    assert process.stdout is not None  # noqa: S101 # it was asked for
    assert process.stderr is not None  # noqa: S101 # it was asked for
    tails = [_Tail(process.stderr, output), _Tail(process.stdout, output)]
    with selectors.DefaultSelector() as selector:
        sources: list[_WakeupPipe | _Tail] = [wakeup, *tails]
        for source in sources:
            selector.register(source, selectors.EVENT_READ)
        while process.returncode is None and not _handler_failed(server):
            for key, _ in selector.select():
                _read(key.fileobj, selector)
        _kill(process, server)  # what it left behind would hold the pipes open
        selector.unregister(wakeup)
        end = time.monotonic() + _HANDLER_SECONDS
        while selector.get_map() and time.monotonic() < end:
            ready = selector.select(0)
            if not ready:  # somebody who was not found may write, but not for us any more
                break
            for key, _ in ready:
                _read(key.fileobj, selector)
    return [tail.end for tail in tails]


def _read(source: object, selector: selectors.BaseSelector) -> None:
    if isinstance(source, _WakeupPipe):
        source.drain()
    elif isinstance(source, _Tail) and not source.read():
        selector.unregister(source)


def _handler_failed(server: Server) -> bool:
    """Whether a handler has failed by itself, not by the end of its process."""
    return server.failure is not None and not isinstance(server.failure, ConnectionLost)


def _notify_at_exit(process: subprocess.Popen[bytes], wakeup: _WakeupPipe) -> None:
    process.wait()
    wakeup.notify()


def _kill(process: subprocess.Popen[bytes], server: Server) -> None:
    kill_session(process)
    kill_with_variable(SESSION_VARIABLE, server.variable)


def _start_error(command: Sequence[str], error: OSError | ValueError) -> CommandError:
    reason = str(error)
    if isinstance(error, OSError):
        reason = error.strerror or reason
        if error.filename not in (None, command[0]):  # the folder
            reason = f"{error.filename}: {reason}"
    return CommandError(f"cannot start {command[0]!r}: {reason}")
