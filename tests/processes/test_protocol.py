"""The protocol between auditkit and a command's processes, and every way in which it can break.

The other ends here are a few lines of Python that load nothing but ``auditkit.processes.protocol``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_shell import PATIENCE, names_in

from auditkit.errors import ConnectionLost, JsonError, StoreError
from auditkit.processes import protocol
from auditkit.processes.protocol import MAX_MESSAGE, SESSION_VARIABLE, Connection, connect
from auditkit.processes.server import Server

_PRELUDE = """
import os, signal, sys, time
from auditkit.errors import ConnectionLost
from auditkit.processes.protocol import connect
connection = connect({"rank": 0})
"""


def echo(connection: Connection, client_info: dict[str, Any]) -> None:
    """A handler that answers every message with the hello and the message."""
    while (message := connection.receive()) is not None:
        connection.send({"hello": client_info, "message": message})


def start(server: Server, script: str) -> subprocess.Popen[str]:
    """A process below the server that has connected and runs a script."""
    return subprocess.Popen(
        [sys.executable, "-c", _PRELUDE + script],
        env={**os.environ, SESSION_VARIABLE: server.variable},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(server: Server, script: str) -> str:
    """What a script prints that ends well."""
    with start(server, script) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out.strip()


def call(server: Server, client_info: dict[str, Any] | None = None) -> Connection:
    """A connection from this process to itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SESSION_VARIABLE, server.variable)
        connection = connect(client_info or {})
    assert connection is not None
    return connection


def knock(server: Server) -> socket.socket:
    """A plain connection to the server's address."""
    _, family, address = protocol._parse(server.variable)
    intruder = socket.socket(family)
    intruder.settimeout(PATIENCE)
    intruder.connect(address)
    return intruder


@contextlib.contextmanager
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the bare socket at its other end."""
    here, there = socket.socketpair()
    connection = Connection(here)
    try:
        yield connection, there
    finally:
        connection.close()
        there.close()


@pytest.fixture(params=["unix", "tcp"])
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The kinds of address; the second is where a path would be too long."""
    if request.param == "tcp":
        deep = tmp_path / ("x" * 110)
        deep.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(deep))
    return str(request.param)


# Connections


def test_a_process_says_hello_and_asks(family: str) -> None:
    with Server(echo) as server:
        assert f"@{family}:" in server.variable
        said = output(server, "print(connection.request({'n': 2**60, 'x': [1.5, None]}))")
        assert server.wait(PATIENCE)
        assert server.connected == 1
    assert eval(said) == {  # noqa: S307 # of this test's own making
        "hello": {"rank": 0},
        "message": {"n": str(2**60), "x": [1.5, None]},
    }


def test_large_messages_go_both_ways_and_the_end_of_the_stream_is_none(family: str) -> None:
    assert family
    big = {"text": "x" * 5_000_000}
    seen: queue.Queue[object] = queue.Queue()

    def handler(connection: Connection, client_info: dict[str, Any]) -> None:
        seen.put(connection.receive())
        connection.send(client_info)
        seen.put(connection.receive())

    with Server(handler) as server:
        connection = call(server, big)
        assert connection.request(big) == big
        connection.close()
        assert seen.get(timeout=PATIENCE) == big
        assert seen.get(timeout=PATIENCE) is None


def test_threads_that_ask_take_turns() -> None:
    with Server(echo) as server:
        connection = call(server)
        wrong: list[object] = []

        def request(name: int) -> None:
            for n in range(50):
                message = {"name": name, "n": n}
                if connection.request(message)["message"] != message:
                    wrong.append(message)

        threads = [threading.Thread(target=request, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        connection.close()
    assert not wrong


def test_many_calls_at_once_are_heard_and_a_process_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Server(echo) as server:
        monkeypatch.setenv(SESSION_VARIABLE, server.variable)
        connections: list[Connection] = []

        def dial() -> None:
            connection = connect({})
            assert connection is not None
            connections.append(connection)

        threads = [threading.Thread(target=dial) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(connection.request({})["message"] == {} for connection in connections)
        assert (len(connections), server.connected) == (50, 1)
        for connection in connections:
            connection.close()


def test_without_the_variable_there_is_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SESSION_VARIABLE, raising=False)
    assert connect({}) is None
    monkeypatch.setenv(SESSION_VARIABLE, "")
    assert connect({}) is None


def test_the_variable_stays_for_processes_that_this_one_starts() -> None:
    with Server(echo) as server:
        script = f"print(os.environ[{SESSION_VARIABLE!r}])"
        assert output(server, script) == server.variable


def test_the_childs_side_loads_nothing_heavy() -> None:
    code = (
        "import sys, auditkit.processes.protocol\n"
        "assert not {'torch', 'numpy', 'pickle', 'multiprocessing'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Strangers and garbage


@pytest.mark.parametrize("says", [b"", b"x" * 64, b"GET / HTTP/1.1\r\n\r\n" + b" " * 64])
def test_an_intruder_is_refused_and_sent_nothing(family: str, says: bytes) -> None:
    assert family
    with Server(echo) as server:
        with knock(server) as intruder:
            intruder.sendall(says)
            with contextlib.suppress(OSError):  # it may be refused before it has said all
                intruder.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert intruder.recv(1) == b""
        call(server).close()
        assert server.wait(PATIENCE)
        assert server.connected == 1


def test_a_silent_intruder_hinders_nobody() -> None:
    with Server(echo) as server, knock(server):
        connection = call(server)
        assert connection.request({})["message"] == {}
        connection.close()


def test_who_took_the_address_over_hears_no_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    impostor = socket.create_server((protocol.HOST, 0))
    with impostor:
        heard: list[bytes] = []

        def answer() -> None:
            with impostor.accept()[0] as sock:
                sock.recv(64)
                sock.sendall(b"y" * 64)
                heard.append(sock.recv(100))

        thread = threading.Thread(target=answer)
        thread.start()
        port = impostor.getsockname()[1]
        monkeypatch.setenv(SESSION_VARIABLE, f"{'a' * 64}.{'b' * 64}@tcp:{port}")
        with pytest.raises(ConnectionLost, match="session that has ended"):
            connect({"secret": 1})
        thread.join()
    assert heard == [b""]


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (struct.pack(">I", MAX_MESSAGE + 1), "longer than"),
        (b"\xff" * 100, "longer than"),
        (struct.pack(">I", 3) + b"not", "not JSON"),
        (struct.pack(">I", 0), "not JSON"),
        (struct.pack(">I", 3) + b"NaN", "not JSON"),
        (struct.pack(">I", 2) + b"[]", "a message is an object, not an array of 0"),
    ],
)
def test_what_is_no_message_is_refused_and_ends_the_line(frame: bytes, says: str) -> None:
    with pair() as (connection, there):
        there.sendall(frame)
        with pytest.raises(JsonError, match=says):
            connection.receive()
        with contextlib.suppress(ConnectionResetError):
            assert there.recv(1) == b""


def test_a_message_that_cannot_be_sent_leaves_the_line_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "MAX_MESSAGE", 100)
    with Server(echo) as server:
        connection = call(server)
        for message in ({"text": "x" * 100}, {"x": float("nan")}, {"x": {1}}):
            with pytest.raises(JsonError):
                connection.request(message)
        assert connection.request({"x": 1})["message"] == {"x": 1}
        connection.close()


@pytest.mark.parametrize("first", [{}, {"hello": 1, "pid": 1}, {"hello": {}, "pid": "1"}])
def test_a_process_that_says_no_hello_is_an_error(first: dict[str, Any]) -> None:
    with Server(echo) as server:
        with knock(server) as sock:
            connection = Connection(sock)
            assert connection.handshake(
                *server.variable.partition("@")[0].split("."), is_client=True
            )
            connection.send(first)
            assert connection.receive() is None
        assert server.wait(PATIENCE)
        with pytest.raises(JsonError, match="no hello"):
            server.check()
        server._failures.clear()


@pytest.mark.parametrize(
    "value",
    ["x", "@", "a.b@", "a.b@udp:1", "a.b@tcp:x", "a.b@tcp:99999", ".@unix:/x", "ä.b@unix:/x"],
)
def test_a_variable_that_auditkit_did_not_set_is_told(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(SESSION_VARIABLE, value)
    with pytest.raises(ConnectionLost, match=r"is not what auditkit sets it to; .*unset AUDITKIT"):
        connect({})


# Ends that go away


def test_a_variable_that_leads_nowhere_is_told(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert family
    with Server(echo) as server:
        pass
    monkeypatch.setenv(SESSION_VARIABLE, server.variable)
    with pytest.raises(
        ConnectionLost, match="that started this command has gone; start the command"
    ):
        connect({})


def test_a_child_that_dies_between_messages_is_the_end_of_the_stream() -> None:
    seen: queue.Queue[object] = queue.Queue()

    def handler(connection: Connection, _: dict[str, Any]) -> None:
        while (message := connection.receive()) is not None:
            seen.put(message)
        seen.put(None)

    script = (
        "connection.send({'n': 1}); connection.send({'n': 2}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with Server(handler) as server, start(server, script):
        assert [seen.get(timeout=PATIENCE) for _ in range(3)] == [{"n": 1}, {"n": 2}, None]


def test_a_child_that_dies_within_a_message_is_told() -> None:
    with pair() as (connection, there):
        there.sendall(struct.pack(">I", 100) + b"{")
        there.close()
        with pytest.raises(ConnectionLost, match="broke off within a message"):
            connection.receive()
    with pair() as (connection, there):
        there.sendall(b"\0\0")
        there.close()
        with pytest.raises(ConnectionLost, match="broke off within a message"):
            connection.receive()


def test_who_asks_one_that_has_gone_is_told() -> None:
    with pair() as (connection, there):
        there.close()
        with pytest.raises(ConnectionLost, match="at the other end of the line has gone"):
            connection.request({})
    with pair() as (connection, there):
        there.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionLost, match="at the other end of the line has gone"):
            connection.request({})


def test_a_child_is_told_that_its_parent_has_gone(tmp_path: Path) -> None:
    script = (
        "try: connection.request({})\n"
        "except ConnectionLost as error: print(error)\n"
        "try: connect({})\n"
        "except ConnectionLost as error: print(error)\n"
    )
    parent = (
        "import os, subprocess, sys, threading\n"
        "from auditkit.processes.server import Server\n"
        "asked = threading.Event()\n"
        "def handler(connection, _): connection.receive(); asked.set(); connection.receive()\n"
        "with Server(handler) as server:\n"
        f"    env = {{**os.environ, {SESSION_VARIABLE!r}: server.variable}}\n"
        "    subprocess.Popen([sys.executable, '-c', sys.argv[1]], env=env)\n"
        "    asked.wait()\n"
        "    os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent, _PRELUDE + script],
        env={**os.environ, "TMPDIR": str(tmp_path)},  # which it does not tidy up
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("the process at the other end of the line has gone; start the command")
    # A dying parent may still take the call, but it does not answer any more.
    gone = "the auditkit process that started this command has gone; start"
    assert second.startswith((gone, f"{SESSION_VARIABLE} is of a session that has ended; start"))


@pytest.mark.parametrize("use", ["receive", "send"])
def test_an_interrupt_within_a_message_ends_the_line(use: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pair() as (connection, there):
        uses: dict[str, Callable[[], object]] = {
            "receive": connection.receive,
            "send": lambda: connection.send({"x": "x" * 1_000_000}),
        }
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                uses[use]()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert connection.receive() is None
        with pytest.raises(ConnectionLost):
            connection.send({})
        there.close()


# Forks


def test_a_forked_child_may_not_use_the_connection_and_does_not_disturb_it() -> None:
    script = (
        "child = os.fork()\n"
        "if not child:\n"
        "    assert not connection.is_owner\n"
        "    for use in (connection.send, lambda _: connection.receive(), connection.request):\n"
        "        try: use({})\n"
        "        except ConnectionLost as error: assert 'forked' in str(error), error\n"
        "        else: os._exit(1)\n"
        "    connection.close()\n"
        "    own = connect({'rank': 'fork'})\n"
        "    assert own.request({})['hello'] == {'rank': 'fork'}\n"
        "    os._exit(7)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "print(status, connection.is_owner, connection.request({})['hello'])\n"
    )
    with Server(echo) as server:
        assert output(server, script) == "7 True {'rank': 0}"
        assert server.connected == 2


def test_a_forked_child_does_not_hold_the_line_of_a_dead_parent_open() -> None:
    completed = threading.Event()

    def handler(connection: Connection, _: dict[str, Any]) -> None:
        while connection.receive() is not None:
            pass
        completed.set()

    script = f"child = os.fork()\nif not child: time.sleep({PATIENCE})\nprint(child, flush=True)"
    with Server(handler) as server, start(server, script) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert process.wait(PATIENCE) == 0
        assert completed.wait(PATIENCE / 2)
        os.kill(child, signal.SIGKILL)


# The server


def test_what_a_handler_raises_is_raised_at_the_end_and_by_check() -> None:
    rung = threading.Event()

    def handler(connection: Connection, client_info: dict[str, Any]) -> None:
        raise (ConnectionLost if client_info["n"] == 0 else ValueError)(f"no {client_info['n']}")

    def talk() -> None:
        with Server(handler, rung.set) as server:
            for n in range(2):
                connection = call(server, {"n": n})
                assert connection.receive() is None
                connection.close()
                assert server.wait(PATIENCE)
                assert rung.wait(PATIENCE)
                with pytest.raises((ConnectionLost, ValueError), match=f"no {n}"):
                    server.check()

    with pytest.raises(
        ValueError, match="no 1"
    ):  # a lost connection is raised only for want of others
        talk()


def test_an_error_in_the_block_is_not_hidden_by_that_of_a_handler() -> None:
    def talk() -> None:
        with Server(lambda *_: sys.exit(3)) as server:
            call(server).close()
            assert server.wait(PATIENCE)
            raise KeyError

    with pytest.raises(KeyError):
        talk()


def test_closing_is_prompt_and_ends_every_connection() -> None:
    begin = time.monotonic()
    with Server(echo) as server:
        connections = [call(server) for _ in range(3)]
        assert not server.wait(0.05)
    assert time.monotonic() - begin < PATIENCE / 4
    for connection in connections:
        with pytest.raises(ConnectionLost):
            connection.request({})
        connection.close()
    server.close()  # once more is harmless


def test_lines_that_closing_breaks_are_no_failure_but_other_errors_are() -> None:
    def asks(connection: Connection, client_info: dict[str, Any]) -> None:
        try:
            connection.request({})
        finally:
            if client_info:
                raise ValueError("cannot write the record")

    with Server(asks) as server:
        connection = call(server)
        assert connection.receive() == {}
    connection.close()

    def talk() -> None:
        with Server(asks) as server, contextlib.closing(call(server, {"n": 1})) as connection:
            assert connection.receive() == {}

    with pytest.raises(ValueError, match="cannot write"):
        talk()


def test_what_was_sent_before_a_process_ended_is_read() -> None:
    seen: list[object] = []

    def handler(connection: Connection, _: dict[str, Any]) -> None:
        time.sleep(0.2)
        while (message := connection.receive()) is not None:
            seen.append(message["n"])

    with Server(handler) as server:
        output(server, "for n in range(20): connection.send({'n': n})")
        assert server.wait(PATIENCE)
    assert seen == list(range(20))


def test_no_thread_descriptor_or_folder_is_left_behind(
    family: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if family == "unix":
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names, held, threads = names_in(tmp_path), names_in(Path("/dev/fd")), threading.enumerate()
    for _ in range(3):
        with Server(echo) as server:
            intruder = knock(server)
            connection = call(server)
            connection.request({})
        intruder.close()
        connection.close()
    assert names_in(Path("/dev/fd")) == held
    assert set(threading.enumerate()) <= set(threads)
    assert names_in(tmp_path) == names


def test_a_machine_without_temporary_folders_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(StoreError, match=r"cannot listen .*: No such file"), Server(echo):
        pass


def test_a_listener_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rung = threading.Event()

    class NoThread(threading.Thread):
        def start(self) -> None:
            if "_serve" in str(vars(self)):
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr("auditkit.processes.server.threading.Thread", NoThread)
    with Server(echo, rung.set) as server:
        with pytest.raises(ConnectionLost):
            call(server)
        assert rung.wait(PATIENCE)
        with pytest.raises(ConnectionLost):  # at once
            call(server)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            server.check()
        server._failures.clear()
