"""Where auditkit listens for the processes of a command that it has started.

The other end is in :mod:`auditkit.processes.protocol`.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from auditkit.errors import ConnectionLost, JsonError, StoreError
from auditkit.processes.protocol import HOST, Connection, close_in_children

_TOKEN_BYTES = 32

Handler = Callable[[Connection, dict[str, Any]], None]


@dataclass(frozen=True)
class _Client:
    connection: Connection
    thread: threading.Thread


class Server:
    """Where auditkit listens for the processes of a command; use it in a ``with`` block.

    Every process that connects is handled in a thread of its own. The thread closes the connection
    when the handler returns. Leaving the block ends every connection and waits for the handlers,
    which must not go on for long after that.

    Args:
        handler: Called with the connection and the first message of each process.
        on_failure: Called, from any thread, when a handler has raised.
    """

    def __init__(self, handler: Handler, on_failure: Callable[[], None] = lambda: None) -> None:
        self._handler = handler
        self._on_failure = on_failure
        self._tokens = (secrets.token_hex(_TOKEN_BYTES), secrets.token_hex(_TOKEN_BYTES))
        self._lock = threading.Lock()
        self._clients: list[_Client] = []
        self._failures: list[BaseException] = []
        self._pids: set[int] = set()
        self._closing = False

    def __enter__(self) -> Server:
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="auditkit-"))
                self._listener, self._address = _listen(folder)
                stack.callback(self._listener.close)
                self._wake, woken = socket.socketpair()
                stack.callback(self._wake.close)
            except OSError as error:
                reason = error.strerror or str(error)
                raise StoreError(f"cannot listen for a command's processes: {reason}") from error
            close_in_children(self._listener, self._wake, woken)
            self._accepting = threading.Thread(target=self._accept, args=(woken,), daemon=True)
            self._accepting.start()
            self._resources = stack.pop_all()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        if kind is None:
            self.check()

    @property
    def variable(self) -> str:
        """What :data:`SESSION_VARIABLE` must be in the command's environment. It is a secret."""
        return f"{'.'.join(self._tokens)}@{self._address}"

    @property
    def connected(self) -> int:
        """How many processes have connected so far."""
        with self._lock:
            return len(self._pids)

    @property
    def failure(self) -> BaseException | None:
        """What a handler raised first; a lost connection only when nothing else was raised."""
        with self._lock:
            other = [error for error in self._failures if not isinstance(error, ConnectionLost)]
            return next(iter(other + self._failures), None)

    def check(self) -> None:
        """Raise what a handler has raised, if one has."""
        failure = self.failure
        if failure is not None:
            raise failure

    def wait(self, seconds: float) -> bool:
        """Wait until every connection so far has ended by itself.

        Returns:
            Whether they have; False when ``seconds`` have passed before.
        """
        end = time.monotonic() + seconds
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            client.thread.join(max(0.0, end - time.monotonic()))
        return not any(client.thread.is_alive() for client in clients)

    def close(self) -> None:
        """Stop listening and end every connection; not to be called from a handler."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._wake.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        for client in self._clients:
            client.connection.shut_down()
        for client in self._clients:
            client.thread.join()
        self._resources.close()

    def _accept(self, woken: socket.socket) -> None:
        with woken, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            try:
                while all(key.fileobj is not woken for key, _ in selector.select()):
                    with contextlib.suppress(BlockingIOError, ConnectionError):  # it gave up
                        self._start_thread(Connection(self._listener.accept()[0]))
            except Exception as error:  # a thread's error is raised by check()
                self._listener.close()  # who connects now must not wait
                self._fail(error)

    def _start_thread(self, connection: Connection) -> None:
        thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
        with self._lock:
            live = [known for known in self._clients if known.thread.is_alive()]
            try:
                thread.start()
            except BaseException:
                connection.close()
                raise
            self._clients = [*live, _Client(connection, thread)]

    def _serve(self, connection: Connection) -> None:
        try:
            client_info = self._handshake(connection)
            if client_info is not None:
                self._handler(connection, client_info)
        except BaseException as error:  # a thread's error is raised by check()
            self._fail(error)
        finally:
            connection.close()

    def _handshake(self, connection: Connection) -> dict[str, Any] | None:
        """The first message of a process that knows the session; None of any other."""
        try:
            if not connection.handshake(*self._tokens, is_client=False):
                return None
            message = connection.receive()
        except (OSError, ConnectionLost):  # it has died, or is no child of ours
            return None
        if message is None:
            return None
        client_info, pid = message.get("hello"), message.get("pid")
        if not isinstance(client_info, dict) or not isinstance(pid, int):
            raise JsonError("the first message of a process is no hello")
        with self._lock:
            self._pids.add(pid)
        return client_info

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._closing and isinstance(error, ConnectionLost):
                return  # our own doing
            self._failures.append(error)
        self._on_failure()


def _listen(folder: str) -> tuple[socket.socket, str]:
    """A listening socket in a private folder; where it cannot be there, on this machine only."""
    places: list[tuple[socket.AddressFamily, Any]] = [
        (socket.AF_UNIX, f"{folder}/line"),  # fails when the path is too long (100 bytes or so)
        (socket.AF_INET, (HOST, 0)),
    ]
    for family, place in places:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.bind(place)
            listener.listen(4096)  # the system takes less where it must
            listener.setblocking(False)
        except OSError:
            listener.close()
            if family == socket.AF_INET:
                raise
            continue
        break
    name = listener.getsockname()
    return listener, f"unix:{name}" if isinstance(name, str) else f"tcp:{name[1]}"
