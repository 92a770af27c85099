"""Commands of a user: how they are started and talked with, and every way in which they end.

The commands here are a few lines of Python that load nothing but ``auditkit.processes.protocol``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_shell import PATIENCE, names_in, wait_for

from auditkit.errors import CommandError, ConnectionLost, JsonError, ProgramFailed, UsageError
from auditkit.processes.commands import CommandResult, Commands
from auditkit.processes.protocol import SESSION_VARIABLE, Connection
from auditkit.processes.subprocesses import environment, kill_with_variable
from auditkit.records.environment import CHILD_VARIABLES, THREAD_VARIABLES

_PRELUDE = """
import json, os, signal, subprocess, sys, time
from auditkit.processes.protocol import connect
"""

#: Starts two processes in sessions of their own, as torchrun does.
_LAUNCHER = """
import subprocess, sys
script = sys.argv[1]
ranks = [subprocess.Popen([sys.executable, "-c", script, str(rank)], start_new_session=True)
         for rank in range(2)]
sys.exit(max(rank.wait() for rank in ranks))
"""

_REQUEST = (
    "connection = connect({'rank': sys.argv[1]})\nassert connection.request({'n': 1}) == {'n': 2}\n"
)


def python(script: str, *arguments: str) -> list[str]:
    """A command that runs a script."""
    return [sys.executable, "-c", _PRELUDE + script, *arguments]


def nobody(connection: Connection, client_info: dict[str, Any]) -> None:
    """A handler of commands that do not call."""
    raise AssertionError(client_info)


def count(connection: Connection, _: dict[str, Any]) -> None:
    """A handler that answers every number with the next one."""
    while (message := connection.receive()) is not None:
        connection.send({"n": message["n"] + 1})


def run(script: str, *arguments: str, **options: Any) -> CommandResult:
    """Run a script that does not call."""
    with Commands() as commands:
        return commands.run(python(script, *arguments), nobody, **options)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False)  # noqa: S607
    return state.stdout.strip()[:1] not in (b"", b"Z")


def written(file: Path) -> list[int]:
    """Process ids that a script wrote to a file, once they are there."""
    wait_for(lambda: file.exists() and file.read_text().endswith("\n"))
    return [int(pid) for pid in file.read_text().split()]


# Connections


def test_a_command_that_calls_is_handled_while_it_runs() -> None:
    with Commands() as commands:
        assert commands.run(python(_REQUEST, "0"), count) == CommandResult(0, "", 1)


def test_two_processes_of_one_launcher_are_two_connections() -> None:
    hellos: list[str] = []

    def handler(connection: Connection, client_info: dict[str, Any]) -> None:
        hellos.append(client_info["rank"])
        count(connection, client_info)

    with Commands() as commands:
        completed = commands.run([sys.executable, "-c", _LAUNCHER, _PRELUDE + _REQUEST], handler)
    assert (completed, sorted(hellos)) == (CommandResult(0, "", 2), ["0", "1"])


def test_a_shell_script_hands_the_session_on(tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_text('#!/bin/sh\n"$@" 0 && "$@" 1\nexit 5\n')
    script.chmod(0o755)
    with Commands() as commands:
        completed = commands.run(["./train.sh", *python(_REQUEST)], count, folder=tmp_path)
    assert completed == CommandResult(5, "", 2)


def test_what_was_sent_before_the_end_is_read() -> None:
    seen: list[int] = []

    def slow(connection: Connection, _: dict[str, Any]) -> None:
        time.sleep(0.3)
        while (message := connection.receive()) is not None:
            seen.append(message["n"])

    script = "connection = connect({})\nfor n in range(9): connection.send({'n': n})\nos._exit(0)"
    with Commands() as commands:
        commands.run(python(script), slow)
    assert seen == list(range(9))


def test_several_threads_run_commands_at_once() -> None:
    completed: list[CommandResult] = []
    with Commands() as commands:
        threads = [
            threading.Thread(
                target=lambda: completed.append(commands.run(python(_REQUEST, "0"), count))
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert completed == [CommandResult(0, "", 1)] * 4


# Ends


def test_a_command_that_ignores_everything_is_run_to_its_end() -> None:
    assert run("print('done')") == CommandResult(0, "done", 0)


@pytest.mark.parametrize(
    ("script", "completed"),
    [
        ("print('out'); print('1\\n2\\n\\n3\\n4', file=sys.stderr); sys.exit(7)", (7, "2 | 3 | 4")),
        ("os.kill(os.getpid(), signal.SIGTERM)", (-signal.SIGTERM, "")),
        ("sys.stdin.read() or sys.exit('nothing to read')", (1, "nothing to read")),
    ],
)
def test_exit_status_and_output_tail_are_returned(script: str, completed: tuple[int, str]) -> None:
    assert run(script) == CommandResult(*completed, 0)


def test_more_output_than_a_pipe_holds_is_no_hindrance() -> None:
    completed = run("os.write(1, b'x' * 3_000_000); os.write(2, b'y\\xff' * 1_000_000)")
    assert completed.returncode == 0
    assert len(completed.output_tail) < 5000


def test_output_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    go = tmp_path / "go"
    output = io.BytesIO()
    script = (
        "print('first', flush=True); print('second', file=sys.stderr, flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        "print('third')"
    )

    def let_go() -> None:
        wait_for(lambda: len(output.getvalue().splitlines()) == 2)
        go.touch()

    waiting = threading.Thread(target=let_go)
    waiting.start()
    assert run(script, output=output) == CommandResult(0, "second", 0)
    waiting.join()
    assert sorted(output.getvalue().splitlines()[:2]) == [b"first", b"second"]
    assert output.getvalue().endswith(b"third\n")


def test_output_that_cannot_be_passed_on_ends_the_command() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    begin = time.monotonic()
    with os.fdopen(writer, "wb", buffering=0) as closed, pytest.raises(BrokenPipeError):
        run(f"print('x', flush=True); time.sleep({PATIENCE})", output=closed)
    assert time.monotonic() - begin < PATIENCE / 2


def test_a_command_that_dies_in_the_middle_is_told_by_its_status() -> None:
    def asks(connection: Connection, _: dict[str, Any]) -> None:
        connection.request({})

    script = "connect({}).receive(); print('oh', file=sys.stderr, flush=True); os._exit(9)"
    with Commands() as commands:
        assert commands.run(python(script), asks) == CommandResult(9, "oh", 1)
        with pytest.raises(ConnectionLost):
            commands.run(python("connect({}).receive()"), asks)


@pytest.mark.parametrize("error", [ValueError("no"), JsonError("no")])
def test_a_handler_that_fails_ends_the_command(error: Exception) -> None:
    def fails(connection: Connection, _: dict[str, Any]) -> None:
        raise error

    begin = time.monotonic()
    with Commands() as commands, pytest.raises(type(error), match="no"):
        commands.run(python(f"connection = connect({{}}); time.sleep({PATIENCE})"), fails)
    assert time.monotonic() - begin < PATIENCE / 2


def test_garbage_from_a_process_of_the_command_is_told() -> None:
    script = f"connect({{}})._socket.sendall(b'\\xff' * 9); time.sleep({PATIENCE})"
    with Commands() as commands, pytest.raises(JsonError, match="longer than"):
        commands.run(python(script), count)


# Starting


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["no-such-command"], "cannot start 'no-such-command': No such file or directory"),
        (["./plain.txt", "x"], "cannot start './plain.txt': Permission denied"),
        (["a\0b"], r"cannot start 'a\x00b': embedded null byte"),
        ([], "there is no command to start"),
    ],
)
def test_a_command_that_cannot_be_started_is_one_line(
    tmp_path: Path, command: Sequence[str], says: str
) -> None:
    (tmp_path / "plain.txt").write_text("no program")
    with Commands() as commands, pytest.raises(CommandError) as caught:
        commands.run(command, nobody, folder=tmp_path)
    assert str(caught.value) == says
    assert isinstance(caught.value, UsageError)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        run("", folder=tmp_path / "no")
    assert f"{tmp_path / 'no'}: No such file or directory" in str(caught.value)


def test_folder_variables_and_threads_reach_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv(SESSION_VARIABLE, "of an outer command")
    output = io.BytesIO()
    variables = {"EXTRA": "1", SESSION_VARIABLE: "mine"}
    script = "print(json.dumps([os.getcwd(), dict(os.environ)]))"
    run(script, variables=variables, threads=2, folder=tmp_path, output=output)
    folder, found = json.loads(output.getvalue())
    assert Path(folder) == tmp_path.resolve()
    assert found["EXTRA"] == "1"
    assert found[SESSION_VARIABLE].count("@") == 1
    assert {name: found[name] for name in THREAD_VARIABLES} == dict.fromkeys(THREAD_VARIABLES, "2")
    assert {name: found[name] for name in CHILD_VARIABLES} == CHILD_VARIABLES
    assert environment({})["OMP_NUM_THREADS"] == "64"


# Stopping


@pytest.mark.parametrize("session", [False, True])
def test_what_a_command_leaves_behind_is_ended(tmp_path: Path, session: bool) -> None:
    left = tmp_path / "left"
    child = f"import time; time.sleep({PATIENCE})"
    script = (
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], "
        f"start_new_session={session})\n"
        f"open({str(left)!r}, 'w').write(f'{{child.pid}}\\n')\nos._exit(3)"
    )
    begin = time.monotonic()
    assert run(script).returncode == 3
    assert time.monotonic() - begin < PATIENCE / 2
    wait_for(lambda: not is_running(written(left)[0]))


def test_stopping_kills_launchers_with_their_processes_and_refuses_what_comes(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"
    script = (
        f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep({PATIENCE})"
    )
    commands = Commands()
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            commands.run([sys.executable, "-c", _LAUNCHER, _PRELUDE + script], nobody)
        except ProgramFailed as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(lambda: pids.exists() and pids.read_text().count("\n") == 2)
    commands.__exit__()
    thread.join(PATIENCE)
    assert [str(error) for error in raised] == ["stopped"]
    wait_for(lambda: not any(map(is_running, written(pids))))
    with pytest.raises(ProgramFailed, match="stopped"):
        commands.run(python(""), nobody)


def test_an_interrupt_kills_the_command(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}}\\n'); time.sleep({PATIENCE})"
    parent = (
        "import sys\nfrom auditkit.processes.commands import Commands\n"
        "with Commands() as commands:\n"
        "    try: commands.run(sys.argv[1:], print)\n"
        "    except KeyboardInterrupt: print('interrupted')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent, *python(script)], stdout=subprocess.PIPE, text=True
    )
    with process:
        (pid,) = written(pids)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE)[0] == "interrupted\n"
    wait_for(lambda: not is_running(pid))


def test_a_command_whose_auditkit_is_killed_notices_at_its_line(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "connection = connect({})\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
        "connection.request({})"
    )
    parent = (
        "import sys\nfrom auditkit.processes.commands import Commands\n"
        "Commands().run(sys.argv[1:], lambda other, _: [other.receive(), other.receive()])\n"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}  # which it does not tidy up
    with subprocess.Popen([sys.executable, "-c", parent, *python(script)], env=env) as process:
        (pid,) = written(pids)
        assert is_running(pid)
        process.kill()
    wait_for(lambda: not is_running(pid))


def test_only_marked_processes_are_killed() -> None:
    sleep = [sys.executable, "-c", f"import time; time.sleep({PATIENCE})"]
    with contextlib.ExitStack() as stack:
        marked, other = (
            stack.enter_context(
                subprocess.Popen(sleep, env={**os.environ, "MARK": value}, start_new_session=True)
            )
            for value in ("abc", "abcd")
        )
        stack.callback(other.kill)
        kill_with_variable("MARK", "abc")
        assert marked.wait(PATIENCE) == -signal.SIGKILL
        assert other.poll() is None
        kill_with_variable("MARK", "nobody has this")


def test_no_thread_descriptor_or_folder_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held, threads = names_in(Path("/dev/fd")), threading.enumerate()
    with Commands() as commands:
        for _ in range(2):
            commands.run(python(_REQUEST, "0"), count)
            with pytest.raises(CommandError):
                commands.run(["no-such-command"], nobody)
            with pytest.raises(AssertionError):
                commands.run(python("connect({}); time.sleep(60)"), nobody)
    assert names_in(Path("/dev/fd")) == held
    assert set(threading.enumerate()) <= set(threads)
    assert names_in(tmp_path) == []
