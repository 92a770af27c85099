"""Processes that have imported a program: which jobs share them, and when none does."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cli_shell import is_running, wait_for
from studies import PLAN, PROGRAMS

from auditkit.errors import AuditError, ProgramFailed
from auditkit.processes import fork_server
from auditkit.processes.worker_pool import Workers
from auditkit.records.job import Job, ProgramSource

pytestmark = pytest.mark.skipif(not fork_server.CAN_FORK, reason="this system forks no process")

#: Notes which process imports it, and which one builds.
TEXT = """
import os, sys, threading, time
sys.path.insert(0, {programs!r})
import tiny_study

BY = os.getpid()

def tell(what):
    file = os.open({told!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{{what}} {{BY}} {{os.getpid()}}\\n".encode())
    os.close(file)

tell("import")
{more}

def make_program(seed):
    tell("build")
    {inside}
    return tiny_study.make_program(seed)
"""


class Written:
    """A program, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.file, self._told = folder / "shared_program.py", folder / "told"

    def write(self, more: str = "", inside: str = "") -> None:
        """Write the program, with more of it at its end or in its factory."""
        fields = {"programs": str(PROGRAMS), "told": str(self._told)}
        self.file.write_text(TEXT.format(**fields, more=more, inside=inside))

    def job(self, *, shares: bool = True) -> Job:
        """Builds the program."""
        source = ProgramSource(self.file.name, str(self.file.parent), {})
        return Job("build", source, PLAN, 3, out="", shares_imports=shares)

    def told(self, what: str) -> list[tuple[int, int]]:
        """Who imported, and who did it, each time; those that are told are forgotten."""
        lines = [line.split() for line in self._told.read_text().splitlines()]
        return [(int(by), int(pid)) for kind, by, pid in lines if kind == what]


@pytest.fixture
def program(tmp_path: Path) -> Written:
    written = Written(tmp_path)
    written.write()
    return written


@pytest.fixture
def workers() -> Iterator[Workers]:
    with Workers() as made:
        yield made


def test_jobs_are_forked_from_the_process_that_imported_the_program(
    program: Written, workers: Workers
) -> None:
    results = [workers.run(program.job()) for _ in range(3)]
    assert results == [results[0]] * 3
    ((importer, _),) = program.told("import")
    builds = program.told("build")
    assert {by for by, _ in builds} == {importer}
    assert len({importer, *(pid for _, pid in builds)}) == 4


def test_a_job_that_shares_nothing_imports_it_by_itself(program: Written, workers: Workers) -> None:
    shared, alone = (workers.run(program.job(shares=shares)) for shares in (True, False))
    assert shared == alone
    assert len(program.told("import")) == 2
    assert program.told("build")[1][0] == program.told("build")[1][1]


def test_where_a_job_would_run_is_asked_without_its_program(
    program: Written, workers: Workers
) -> None:
    here, alone = (
        workers.run(replace(program.job(shares=shares), kind="environment"))
        for shares in (True, False)
    )
    assert here == alone
    workers.run(program.job())
    assert workers.run(replace(program.job(), kind="environment")) == here
    assert len(program.told("import")) == 1


def test_what_is_not_what_was_imported_is_imported_anew(program: Written, workers: Workers) -> None:
    workers.run(program.job())
    program.write(inside="raise LookupError('the new one')")
    for _ in range(2):
        with pytest.raises(ProgramFailed, match="the new one"):
            workers.run(program.job())
    assert len(program.told("import")) == 3  # each by itself from now on


@pytest.mark.parametrize("change", ["write", "touch", "remove", "nothing"])
def test_a_file_that_was_read_while_it_was_imported_is_read_anew(
    program: Written, workers: Workers, tmp_path: Path, change: str
) -> None:
    data = tmp_path / "data.txt"
    data.write_text("1")
    program.write(f"X = open({str(data)!r}).read() if os.path.exists({str(data)!r}) else 0")
    workers.run(program.job())
    if change == "write":
        data.write_text("2")
    elif change == "touch":
        os.utime(data, (1, 1))
    elif change == "remove":
        data.unlink()
    workers.run(program.job())
    assert len(program.told("import")) == (1 if change == "nothing" else 2)


@pytest.mark.parametrize(
    "more",
    [
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "KEPT = open(__file__)",
        "import mmap; SHARED = mmap.mmap(-1, 4096)",
        "import subprocess; CHILD = subprocess.Popen(['sleep', '60'])",
        "import tempfile; PLACE = tempfile.mkdtemp(dir=os.path.dirname(__file__))",
        "import tempfile; os.close(tempfile.mkstemp(dir=os.path.dirname(__file__))[0])",
    ],
)
def test_imports_that_a_fork_would_lack_or_share_are_not_shared(
    program: Written, workers: Workers, more: str
) -> None:
    program.write(more)
    for _ in range(2):
        workers.run(program.job())
    assert all(by == pid for by, pid in program.told("build"))
    assert len(program.told("import")) == 3  # one of them to see that it is so


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("raise LookupError('no such thing')", "importing shared_program.py raised LookupError"),
        ("sys.exit(3)", "a worker process died with exit status 3"),
        ("os.kill(os.getpid(), 9)", "a worker process was killed by SIGKILL"),
        ("os.write(1, b'a word'); os._exit(1)", "exit status 1: a word"),
    ],
)
def test_imports_that_fail_are_told_by_the_job(
    program: Written, workers: Workers, more: str, message: str
) -> None:
    program.write(more)
    with pytest.raises(AuditError, match=message):
        workers.run(program.job())


def test_a_process_that_is_gone_is_done_without(program: Written, workers: Workers) -> None:
    workers.run(program.job())
    ((importer, _),) = program.told("import")
    os.kill(importer, signal.SIGKILL)
    wait_for(lambda: not is_running(importer))
    for _ in range(2):
        workers.run(program.job())
    assert len(program.told("import")) == 3


def test_a_process_that_dies_before_it_has_forked_a_job_is_named(
    program: Written, workers: Workers
) -> None:
    workers.run(program.job())
    ((importer, _),) = program.told("import")
    os.kill(importer, signal.SIGSTOP)  # it hears of the job, and does nothing
    raised = []

    def run() -> None:
        try:
            workers.run(program.job())
        except ProgramFailed as error:
            raised.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(workers._running) == 2)
    os.kill(importer, signal.SIGKILL)
    for thread in threads:
        thread.join(20)
    what = "the process that has imported the program, and forks its jobs,"
    assert raised == [f"seed 3, build: {what} was killed by SIGKILL"] * 2


def test_what_a_job_does_to_its_process_no_other_sees(program: Written, workers: Workers) -> None:
    program.write(inside="assert not hasattr(sys, 'mark'); sys.mark = 1; os.environ['MARK'] = '1'")
    for _ in range(2):
        workers.run(program.job())
    assert len(program.told("import")) == 1


def test_a_job_finds_the_signal_handlers_that_the_program_has_set(
    program: Written, workers: Workers
) -> None:
    text = "signal.getsignal({0}) is {1} or sys.exit(str(signal.getsignal({0})))"
    checks = "; ".join(text.format(f"signal.{name}", "note") for name in ("SIGTERM", "SIGCHLD"))
    program.write(
        "import signal\ndef note(*_): pass\n"
        "signal.signal(signal.SIGTERM, note); signal.signal(signal.SIGCHLD, note)",
        checks,
    )
    workers.run(program.job())
    assert len(program.told("import")) == 1


@pytest.mark.parametrize(
    "more",
    [
        "import numpy; SEED = numpy.random.seed; numpy.random.seed = lambda seed: SEED(seed)",
        "import tempfile\nwith tempfile.TemporaryDirectory() as place: os.mkdir(place + '/1')",
    ],
)
def test_imports_that_are_no_concern_of_forks_are_shared(
    program: Written, workers: Workers, more: str
) -> None:
    program.write(more)
    for _ in range(2):
        workers.run(program.job())
    assert len(program.told("import")) == 1


def test_a_program_that_says_that_it_is_outdated_is_told(
    program: Written, workers: Workers
) -> None:
    program.write(
        inside="import socket, stat\n"
        "    for i in range(3, 64):\n"
        "        if os.path.exists(f'/proc/self/fd/{i}') and stat.S_ISSOCK(os.fstat(i).st_mode):\n"
        "            os.write(i, b'{\\x22outdated\\x22: true}\\n')"
    )
    for shares in (False, True):
        with pytest.raises(ProgramFailed, match="wrote to auditkit's own pipe"):
            workers.run(program.job(shares=shares))


def test_imports_that_do_not_listen_end_with_the_prepared_process(program: Written) -> None:
    more = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    there = halting(program, "more", more)
    with Workers() as workers:

        def run() -> None:
            with pytest.raises(AuditError):
                workers.run(program.job())

        thread = threading.Thread(target=run)
        thread.start()
        pid = there()
        for server in workers._servers.values():  # as when auditkit is killed
            server._control.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: not is_running(pid))
    thread.join(20)
    assert not thread.is_alive()


def test_a_job_that_dies_is_told_as_ever(program: Written, workers: Workers) -> None:
    program.write(inside="os.write(2, b'its last word'); os.kill(os.getpid(), 11)")
    for _ in range(2):
        with pytest.raises(ProgramFailed, match=r"was killed by SIGSEGV: its last word"):
            workers.run(program.job())
    assert len(program.told("import")) == 1


def halting(program: Written, where: str, before: str = "") -> Callable[[], int]:
    """Have a program wait for ever at a place; waits until a process is there."""
    program.write(**{where: f"{before}tell('here'); time.sleep(600)"})

    def there() -> int:
        wait_for(lambda: program.file.with_name("told").exists() and bool(program.told("here")))
        return program.told("here")[0][1]

    return there


@pytest.mark.parametrize("where", ["more", "inside"])
def test_when_workers_are_stopped_nothing_is_left(program: Written, where: str) -> None:
    there, raised = halting(program, where), []
    workers = Workers()

    def run() -> None:
        try:
            workers.run(program.job())
        except AuditError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    pid, begin = there(), time.monotonic()
    workers.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert time.monotonic() - begin < 5
    (importer, _), *_ = program.told("import")
    wait_for(lambda: not is_running(pid) and not is_running(importer))
    assert [error.message for error in raised] == ["stopped"]


def test_when_auditkit_is_killed_nothing_is_left(program: Written) -> None:
    there = halting(program, "inside")
    look = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from auditkit.processes.worker_pool import Workers\n"
        "from auditkit.records.job import Job, ProgramSource\n"
        "from studies import PLAN\n"
        f"source = ProgramSource({program.file.name!r}, {str(program.file.parent)!r}, {{}})\n"
        "Workers().run(Job('build', source, PLAN, 3, out='', shares_imports=True))"
    )
    with subprocess.Popen([sys.executable, "-c", look]) as process:
        pid = there()
        process.kill()
    (importer, _), *_ = program.told("import")
    wait_for(lambda: not is_running(pid) and not is_running(importer))


def test_what_jobs_took_is_counted(program: Written) -> None:
    program.write(
        inside="begin = time.process_time()\n    while time.process_time() < begin + 1: 0"
    )

    def taken() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = taken()
    with Workers() as workers:
        workers.run(program.job())
    assert taken() - before > 1


def test_two_programs_have_a_process_each(tmp_path: Path, workers: Workers) -> None:
    programs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        programs.append(Written(tmp_path / name))
        programs[-1].write()
    for _ in range(2):
        for program in programs:
            workers.run(program.job())
    assert [len(program.told("import")) for program in programs] == [1, 1]
