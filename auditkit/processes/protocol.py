"""The protocol between auditkit and the processes of a user's command.

auditkit listens (see :mod:`auditkit.processes.server`) and starts the command with
:data:`SESSION_VARIABLE` in its environment. Any process below it that calls :func:`connect` gets
a :class:`Connection`, and talks with a handler in auditkit's own process. The command may be a
shell script or a launcher that starts many processes: the variable reaches all of them.

Messages are canonical JSON objects, each after its length in four bytes. No pickle. Both ends
prove that they know the session before any message: the child with one random token, the parent
with another, so that neither a process that finds the address by chance nor one that takes it
over when the parent has gone can send or receive anything.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import struct
import threading
import weakref
from typing import Any

from auditkit.errors import ConnectionLost, JsonError
from auditkit.formats import canonical
from auditkit.formats.quote import brief

#: Tells a process which session it belongs to: ``TOKEN.TOKEN@unix:PATH`` or
#: ``TOKEN.TOKEN@tcp:PORT``.
SESSION_VARIABLE = "AUDITKIT_SESSION"

#: The only address that is listened on where a socket has no place in a folder.
HOST = "127.0.0.1"

#: Longest message, in bytes of JSON. What claims to be longer is refused before it is read.
MAX_MESSAGE = 64 * 2**20

_LENGTH = struct.Struct(">I")
_CHUNK = 2**20

#: Seconds for the handshake, which both ends make at once.
HANDSHAKE_TIMEOUT = 60.0

#: A training script may have restored the default of SIGPIPE, which would kill it silently.
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)

_HINT = f"start the command through auditkit again, or unset {SESSION_VARIABLE}"

#: Sockets of this process. A forked child (a loader's worker) closes its copies at once: else
#: the other end would not notice the death of the process that it talks with.
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def close_in_children(*sockets: socket.socket) -> None:
    """Have forked children close their copies of these sockets."""
    _sockets.update(sockets)


def _close_inherited() -> None:
    for inherited in list(_sockets):
        inherited.close()


os.register_at_fork(after_in_child=_close_inherited)


class Connection:
    """Sends and receives messages. Several threads may use it; a forked child may not.

    Args:
        sock: A connected socket, which the connection owns from now on.
        hint: What to do when the connection is lost.
    """

    def __init__(self, sock: socket.socket, hint: str | None = None) -> None:
        self._socket = sock
        self._hint = hint
        self._pid = os.getpid()
        self._sending = threading.Lock()
        self._receiving = threading.RLock()
        close_in_children(sock)

    @property
    def is_owner(self) -> bool:
        """Whether this process opened the connection, and was not forked from the one that did."""
        return self._pid == os.getpid()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message.

        Raises:
            JsonError: When it is no canonical JSON, or longer than :data:`MAX_MESSAGE`. Nothing
                was sent then.
            ConnectionLost: When the other end has gone, or in a forked child.
        """
        data = canonical.dumps(message)
        if len(data) > MAX_MESSAGE:
            raise JsonError(f"a message of {len(data)} bytes is longer than {MAX_MESSAGE}")
        self._check_process()
        with self._sending:
            try:
                self._socket.sendall(_LENGTH.pack(len(data)) + data, _NO_SIGNAL)
            except OSError as error:
                raise self._lost() from error
            except BaseException:  # an interrupt: half a message may have been sent
                self.shut_down()
                raise

    def receive(self) -> dict[str, Any] | None:
        """Wait for a message.

        Returns:
            The message, or None when the other end has closed the connection or has died.

        Raises:
            JsonError: When what came is no message. The connection is of no use after that.
            ConnectionLost: When the connection broke off within a message, or in a forked child.
        """
        self._check_process()
        with self._receiving:
            try:
                return self._message()
            except BaseException:  # the next bytes are not the beginning of a message
                self.shut_down()
                raise

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and wait for the answer; threads take turns.

        Raises:
            JsonError: As :meth:`send` and :meth:`receive`.
            ConnectionLost: When no answer comes, because the other end has gone.
        """
        self._check_process()
        with self._receiving:
            self.send(message)
            answer = self.receive()
        if answer is None:
            raise self._lost()
        return answer

    def shut_down(self) -> None:
        """End the connection from any thread: who waits for it, at either end, wakes up."""
        with contextlib.suppress(OSError):
            if self.is_owner:
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection; in a forked child, leave its parent's alone."""
        self.shut_down()
        self._socket.close()

    def handshake(self, client_token: str, server_token: str, *, is_client: bool) -> bool:
        """Exchange the tokens of a session; the client sends its token first.

        Returns:
            Whether the other end sent its token. The server sends nothing to one that did not.

        Raises:
            OSError: When the other end has gone or stays silent.
        """
        own, expected = (client_token, server_token) if is_client else (server_token, client_token)
        self._socket.settimeout(HANDSHAKE_TIMEOUT)
        if is_client:
            self._socket.sendall(own.encode(), _NO_SIGNAL)
        token = _read(self._socket, len(expected))
        if token is None or not hmac.compare_digest(token, expected.encode()):
            return False
        if not is_client:
            self._socket.sendall(own.encode(), _NO_SIGNAL)
        self._socket.settimeout(None)
        return True

    def _message(self) -> dict[str, Any] | None:
        prefix = _read(self._socket, _LENGTH.size)
        if prefix is None:
            return None
        (length,) = _LENGTH.unpack(prefix)
        if length > MAX_MESSAGE:
            raise JsonError(f"a message of {length} bytes is longer than {MAX_MESSAGE}")
        data = _read(self._socket, length)
        if data is None:
            raise ConnectionLost("the line broke off within a message", hint=self._hint)
        message = canonical.loads(data, what="message", max_bytes=MAX_MESSAGE)
        if not isinstance(message, dict):
            raise JsonError(f"a message is an object, not {brief(message)}")
        return message

    def _lost(self) -> ConnectionLost:
        return ConnectionLost("the process at the other end of the line has gone", hint=self._hint)

    def _check_process(self) -> None:
        if not self.is_owner:
            raise ConnectionLost(
                "the line to auditkit belongs to the process that this one was forked from"
            )


def connect(client_info: dict[str, Any]) -> Connection | None:
    """Connect to the auditkit process that started this command.

    The environment stays as it is, so that processes which this one starts can connect too. So
    can a forked child, though not by a connection of its parent: it gets one of its own. Who does
    not want that asks :attr:`Connection.is_owner` first.

    Args:
        client_info: What the handler is given first.

    Returns:
        A connection, or None when auditkit did not start this command.

    Raises:
        ConnectionLost: When that process has gone, or does not know this session.
        JsonError: When ``client_info`` is no JSON object.
    """
    variable = os.environ.get(SESSION_VARIABLE)
    if not variable:
        return None
    tokens, family, address = _parse(variable)
    sock = socket.socket(family, socket.SOCK_STREAM)
    connection = Connection(sock, _HINT)
    try:
        # No time limit: with one, it is an error when many processes connect at the same moment.
        sock.connect(address)
        if not connection.handshake(*tokens, is_client=True):
            raise ConnectionLost(f"{SESSION_VARIABLE} is of a session that has ended", hint=_HINT)
        connection.send({"hello": client_info, "pid": os.getpid()})
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            raise ConnectionLost(
                "the auditkit process that started this command has gone", hint=_HINT
            ) from error
        raise
    return connection


def _parse(variable: str) -> tuple[tuple[str, str], socket.AddressFamily, Any]:
    tokens, _, address = variable.partition("@")
    client, _, server = tokens.partition(".")
    scheme, _, place = address.partition(":")
    if tokens.isascii() and client and server:
        if scheme == "unix":
            return (client, server), socket.AF_UNIX, place
        if scheme == "tcp" and place.isdecimal() and int(place) < 2**16:
            return (client, server), socket.AF_INET, (HOST, int(place))
    raise ConnectionLost(f"{SESSION_VARIABLE} is not what auditkit sets it to", hint=_HINT)


def _read(sock: socket.socket, length: int) -> bytes | None:
    """So many bytes; None at the end of the stream, if that is where it ends."""
    data = bytearray()
    while len(data) < length:
        try:
            chunk = sock.recv(min(length - len(data), _CHUNK))
        except TimeoutError:
            raise
        except OSError:  # reset by a process that died with messages unread
            chunk = b""
        if not chunk:
            if data:
                raise ConnectionLost("the line broke off within a message")
            return None
        data += chunk
    return bytes(data)
