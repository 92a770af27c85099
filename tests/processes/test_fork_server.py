"""The prepared process: what it forks, what it ends, and what is left when anything dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cli_shell import is_running, wait_for
from studies import PLAN, PROGRAMS

from auditkit.errors import AuditError, ProgramFailed
from auditkit.processes import fork_server
from auditkit.processes.fork_server import ForkServer
from auditkit.processes.interpreter import WORKER_ARGUMENTS
from auditkit.processes.worker_pool import Workers, child_environment
from auditkit.records.job import Job, ProgramSource

pytestmark = pytest.mark.skipif(not fork_server.CAN_FORK, reason="this system forks no process")


def building(target: str, **arguments: str) -> Job:
    """A job that builds a program."""
    source = ProgramSource(target, str(PROGRAMS), arguments)
    return Job("register", source, PLAN, 3, "", step=0)


def training(target: str, **arguments: str) -> Job:
    """A job that trains a few steps."""
    return replace(building(target, **arguments), kind="preflight", step=1)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Process ids of the prepared processes that were started."""
    started: list[int] = []
    begin = ForkServer.__init__

    def spy(self: ForkServer, *arguments: object) -> None:
        begin(self, *arguments)  # type: ignore[arg-type]
        started.append(self._process.pid)

    monkeypatch.setattr(ForkServer, "__init__", spy)
    return started


def test_all_jobs_are_forked_from_one_process(prepared: list[int], tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    with Workers() as workers:
        for _ in range(3):
            workers.run(building("held_study.py:make_program", calls=str(calls)))
    pids = [line.split()[1] for line in calls.read_text().splitlines()]
    assert len(set(pids)) == 3
    assert len(prepared) == 1
    assert str(prepared[0]) not in pids
    assert not is_running(prepared[0])


def test_what_a_program_draws_before_it_is_seeded_is_another_in_every_process(
    tmp_path: Path,
) -> None:
    drawn = tmp_path / "drawn"
    with Workers() as workers:
        for _ in range(2):
            workers.run(building("drawing_study.py:make_program", to=str(drawn)))
    first, second = (line.split() for line in drawn.read_text().splitlines())
    python, numpy, torch, threads = zip(first, second, strict=True)
    assert python[0] != python[1]
    assert numpy[0] != numpy[1]
    assert torch[0] != torch[1]
    assert threads == ("1", "1")


def test_a_prepared_process_that_is_killed_is_told(prepared: list[int]) -> None:
    with Workers() as workers:
        workers.run(building("tiny_study.py:make_program"))
        os.kill(prepared[0], signal.SIGKILL)
        wait_for(lambda: not is_running(prepared[0]))
        with pytest.raises(ProgramFailed, match="ended with status -9"):
            workers.run(building("tiny_study.py:make_program"))


def test_a_job_that_runs_when_the_prepared_process_is_killed_comes_to_its_end(
    prepared: list[int], tmp_path: Path
) -> None:
    halted = tmp_path / "halted"
    halted.with_suffix(".seen").touch()  # it halts where it is a preflight, too
    with (
        Workers({"AUDITKIT_TEST_HALT": f"1:2:{halted}"}) as workers,
        in_thread(lambda: workers.run(training("halting_study.py:make_program"))) as raised,
    ):
        wait_for(halted.exists)
        os.kill(prepared[0], signal.SIGKILL)
        halted.unlink()
    assert raised == []


@pytest.mark.parametrize("sign", ["stop", "terminate"])
def test_when_workers_are_stopped_nothing_of_a_job_is_left(
    prepared: list[int], tmp_path: Path, sign: str
) -> None:
    halted = tmp_path / "halted"
    halted.with_suffix(".seen").touch()  # it halts where it is a preflight, too
    workers = Workers({"AUDITKIT_TEST_HALT": f"1:2:{halted}"})
    with in_thread(
        lambda: workers.run(training("halting_study.py:make_program", workers="2"))
    ) as raised:
        wait_for(halted.exists)
        pid = int(halted.read_text())
        begin = time.monotonic()
        if sign == "terminate":
            os.kill(prepared[0], signal.SIGTERM)
            wait_for(lambda: not is_running(prepared[0]))
        workers.stop()
        assert time.monotonic() - begin < 5
    wait_for(lambda: not is_running(pid))
    assert len(raised) == 1


def test_what_a_program_moved_to_a_session_of_its_own_is_ended_too(tmp_path: Path) -> None:
    with Workers() as workers:
        workers.run(
            building("held_study.py:make_program", holds="daemon", calls=str(tmp_path / "c"))
        )
        found = [pid for pid in started_with("/bin/sleep") if is_running(pid)]
    assert found
    assert not any(is_running(pid) for pid in found)


def started_with(word: str) -> list[int]:
    """Processes whose command begins with a word and that this test's workers started."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,args="], capture_output=True, check=True)  # noqa: S607
    pairs = [line.split(maxsplit=1) for line in listed.stdout.decode().splitlines()]
    return [int(pid) for pid, command in pairs if command.startswith(f"{word} 600")]


def test_a_prepared_process_that_cannot_prepare_is_told_by_its_last_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = ("-c", "raise ImportError('no torch here')")
    monkeypatch.setattr("auditkit.processes.worker_pool.WORKER_ARGUMENTS", broken)
    with Workers() as workers, pytest.raises(ProgramFailed, match="ImportError: no torch here"):
        workers.run(building("tiny_study.py:make_program"))


def test_a_prepared_process_has_one_thread_and_has_drawn_nothing() -> None:
    look = (
        "import os, random, socket; state = random.getstate()\n"
        "from auditkit.cli import worker\n"
        "import numpy, torch\n"
        "before = numpy.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()\n"
        "worker._prepare()\n"
        "after = numpy.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()\n"
        "assert before == after and random.getstate() == state\n"
        "assert not torch.cuda.is_initialized()\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", look],
        env=child_environment(1, {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


def test_a_worker_has_the_auditkit_that_starts_it(tmp_path: Path) -> None:
    other = tmp_path / "auditkit"
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('another auditkit')")
    done = subprocess.run(
        [sys.executable, *WORKER_ARGUMENTS, "no number"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "CONTROL 'no number' is not a whole number" in done.stderr


class in_thread:  # noqa: N801 # reads as a statement
    """Runs something in a thread while a block does something to it; what it raised."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._raised: list[AuditError] = []
        self._thread = threading.Thread(target=self._run, args=(call,))

    def __enter__(self) -> list[AuditError]:
        self._thread.start()
        return self._raised

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self, call: Callable[[], object]) -> None:
        try:
            call()
        except AuditError as error:
            self._raised.append(error)
