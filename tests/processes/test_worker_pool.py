"""Workers: how a job is told, how an answer comes back, and every way in which a worker can end.

The workers here are a few lines that load nothing; the real one is started where it matters.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_shell import PATIENCE, is_running, names_in, wait_for
from record_examples import CONTROL, ENVIRONMENT, TRUNK
from studies import PLAN, PROGRAMS

from auditkit import errors
from auditkit.errors import AuditError, OrderDrift, ProgramFailed, StoreError
from auditkit.formats.structure import to_dict
from auditkit.processes import worker_pool
from auditkit.processes.side_by_side import Slots
from auditkit.processes.told_errors import describe_error, rebuild_error
from auditkit.processes.worker_pool import (
    Workers,
    child_environment,
    run_apart,
    run_branches,
)
from auditkit.records.environment import CHILD_VARIABLES, THREAD_VARIABLES
from auditkit.records.job import Description, Job, JobKind, ProgramSource, Progress
from auditkit.records.manifest import BranchRecord
from auditkit.records.preflight import Preflight
from auditkit.records.results import BranchesResult

#: The beginning of every worker here, which does its job without being forked: ``job`` is what it
#: was told, ``answer`` sends a line.
_PRELUDE = """
import json, os, signal, socket, sys, time
control = socket.socket(fileno=int(sys.argv[1]))
_, (line, log), _, _ = socket.recv_fds(control, 1, 2)
control.close()
os.dup2(log, 1), os.dup2(log, 2)
line = socket.socket(fileno=line)
job = json.loads(line.makefile().readline())
def answer(value):
    line.sendall(json.dumps(value).encode() + b"\\n")
"""

_PLAN_NONE = '{"result": {"plan": None}}'

#: Of one branch.
PART = BranchesResult((replace(CONTROL, name="carry"),), ENVIRONMENT, ())

Worker = Callable[[str], None]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """Lets every worker run a script."""

    def use(script: str) -> None:
        monkeypatch.setattr(worker_pool, "WORKER_ARGUMENTS", ("-c", _PRELUDE + script))

    return use


def job(kind: JobKind = "describe", **fields: Any) -> Job:
    """A job that no worker here looks at."""
    source = ProgramSource("tiny_study.py:make_program", str(PROGRAMS), {})
    return Job(**{"program": source, "plan": None, "seed": 3, "out": "", **fields}, kind=kind)


def failure(asked: Job | None = None) -> ProgramFailed:
    """The error of a worker that ends without an answer."""
    with Workers(fork=False) as workers, pytest.raises(ProgramFailed) as caught:
        workers.run(asked or job())
    return caught.value


# Answers


def test_the_answer_is_a_record_and_progress_comes_before_it(worker: Worker) -> None:
    worker(
        "for done in (1, 2):\n"
        "    answer({'progress': "
        "dict(seed=job['seed'], branch='trunk', step=done, done=done, total=2)})\n"
        f"answer({_PLAN_NONE})"
    )
    seen: list[Progress] = []
    with Workers(fork=False) as workers:
        assert workers.run(job(), seen.append) == Description(None)
    assert seen == [Progress(3, "trunk", 1, 1, 2), Progress(3, "trunk", 2, 2, 2)]


def test_what_a_program_prints_is_no_answer(worker: Worker) -> None:
    worker(
        f"print(json.dumps({_PLAN_NONE}))\nprint('noise', file=sys.stderr)\n"
        f"os.write(1, b'x' * 1_000_000)\nanswer({_PLAN_NONE})"
    )
    with Workers(fork=False) as workers:
        assert workers.run(job()) == Description(None)


@pytest.mark.parametrize("line", ["[1]", "'x'", "{}", "{'prog': 1}", _PLAN_NONE])
def test_a_program_that_writes_to_the_answers_is_told_so(worker: Worker, line: str) -> None:
    worker(f"answer({line})\nanswer({_PLAN_NONE})")
    assert str(failure()) == "seed 3: the program wrote to auditkit's own pipe"


def test_text_that_a_program_writes_to_the_answers_is_no_crash(worker: Worker) -> None:
    worker("line.sendall(b'\\xff\\n')")
    assert str(failure()) == "seed 3: the program wrote to auditkit's own pipe"


def test_an_answer_of_another_shape_is_refused(worker: Worker) -> None:
    worker("answer({'result': {'plans': None}})")
    with (
        Workers(fork=False) as workers,
        pytest.raises(AuditError, match="answer of a describe job"),
    ):
        workers.run(job())


# Processes that are lent


@pytest.mark.parametrize(("asked", "lent"), [([1], [1]), ([5, 1, 0, 9], [2, 1, 0, 2]), ([0], [0])])
def test_a_job_is_lent_what_is_free_and_gives_it_back(
    worker: Worker, asked: list[int], lent: list[int]
) -> None:
    worker(
        "told = line.makefile()\n"
        f"for n, expected in zip({asked}, {lent}):\n"
        "    answer({'beside': n})\n"
        "    assert int(told.readline()) == expected\n"
        f"answer({_PLAN_NONE})"
    )
    slots = Slots(jobs=3)
    with Workers(fork=False, slots=slots) as workers:
        assert workers.run(job()) == Description(None)
    assert slots.adjust(0, 100) == 2


def test_what_was_lent_to_a_job_that_died_is_not_lost(worker: Worker) -> None:
    worker("answer({'beside': 2})\nline.makefile().readline()\nos.kill(os.getpid(), 9)")
    slots = Slots(jobs=3)
    with Workers(fork=False, slots=slots) as workers, pytest.raises(ProgramFailed, match="SIGKILL"):
        workers.run(job())
    assert slots.adjust(0, 100) == 2


@pytest.mark.parametrize("number", ["-1", "'2'", "None", "1.5", "[1]"])
def test_a_number_of_processes_that_is_none_is_no_answer(worker: Worker, number: str) -> None:
    worker(f"answer({{'beside': {number}}})\nanswer({_PLAN_NONE})")
    assert str(failure()) == "seed 3: the program wrote to auditkit's own pipe"


def part_of(name: str) -> BranchesResult:
    """The result of a branch of which nothing else is looked at."""
    record: Any = SimpleNamespace(name=name)
    return BranchesResult((record,), ENVIRONMENT, ())


@pytest.mark.parametrize(("one_by_one", "n_at_once"), [(False, 2), (True, 1)])
def test_branches_that_cannot_be_forked_run_at_once_too_and_come_in_order(
    one_by_one: bool, n_at_once: int
) -> None:
    names = ("a", "b", "c", "d", "replica")
    together, lock = threading.Barrier(n_at_once), threading.Lock()
    running: list[str] = []
    most: list[int] = []

    def run(asked: Job, _: object) -> list[BranchesResult]:
        name = asked.branches[0]
        with lock:
            running.append(name)
            most.append(len(running))
        if name in ("b", "c"):
            together.wait(PATIENCE)
            time.sleep(0.02)  # room for one that should not have begun
        with lock:
            running.remove(name)
        return [part_of(name)]

    asked, kept = job("branches", branches=names, one_by_one=one_by_one), list[str]()
    result = run_branches(
        *(run, asked, lambda _: None),
        keep=lambda part: kept.append(part.branches[0].name),
        slots=Slots(jobs=2),
    )
    assert tuple(branch.name for branch in result.branches) == names
    assert sorted(kept) == sorted(names)
    assert (max(most), most[-1], kept[-1]) == (n_at_once, 1, "replica")


def test_a_process_that_answers_for_another_branch_is_told_so() -> None:
    asked = job("branches", branches=("a", "b"))
    with pytest.raises(ProgramFailed, match="wrote to auditkit's own pipe"):
        run_branches(lambda *_: [part_of("a")], asked, lambda _: None)


@pytest.mark.parametrize(
    ("answered", "status", "where"),
    [
        ((), -9, "one of a, b"),
        (("a",), -9, "b"),
        (("a", "b"), -9, "replica"),
        (("b",), 0, "a"),
        (("a",), 0, "b"),
        (("a", "b"), 0, "replica"),
    ],
)
def test_a_branch_that_dies_is_named_and_not_run_again(
    answered: tuple[str, ...], status: int, where: str, worker: Worker
) -> None:
    parts = [to_dict(replace(PART, branches=(_named(name),))) for name in answered]
    answers = "".join(f"answer({{'result': json.loads({json.dumps(p)!r})}})\n" for p in parts)
    worker(f"{answers}answer({{'exit': {status}}})\ntime.sleep({PATIENCE})")
    asked = job("branches", branches=("a", "b", "replica"))
    with Workers(fork=False) as workers, pytest.raises(ProgramFailed) as died:
        workers.run(asked)
    how = "was killed by SIGKILL" if status else "ended with exit status 0"
    assert str(died.value) == f"seed 3, {where}: a worker process {how}"


def _named(name: str) -> BranchRecord:
    return replace(PART.branches[0], name=name)


@pytest.mark.parametrize("read_back", [False, True])
def test_no_process_is_lent_to_branches_of_a_program_that_reads_what_it_writes(
    worker: Worker, read_back: bool
) -> None:
    trunk = to_dict(replace(TRUNK, read_back=read_back))
    worker(
        "told = line.makefile()\n"
        f"answer({{'result': json.loads({json.dumps(trunk)!r})}})\n"
        "assert told.readline() == '\\n'\n"
        "answer({'beside': 2})\n"
        f"assert int(told.readline()) == {0 if read_back else 2}\n"
        f"answer({{'result': json.loads({json.dumps(to_dict(PART))!r})}})\n"
    )
    asked = job("seed", branches=(PART.branches[0].name,))
    with Workers(fork=False, slots=Slots(jobs=3)) as workers:
        first, second = workers.run_seed(asked)
    assert (first.read_back, second) == (read_back, PART)  # type: ignore[union-attr]


@pytest.mark.parametrize("read_back", [False, True])
def test_processes_that_share_nothing_are_told_so_too(read_back: bool) -> None:
    told: list[Job] = []

    class Told:
        def run(self, asked: Job, *_: object) -> Any:
            told.append(asked)
            return replace(TRUNK, read_back=read_back)

    list(run_apart(Told(), job("seed", branches=("a",)), lambda _: None))
    assert [one.one_by_one for one in told] == [False, read_back]


# Errors


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values() if isinstance(kind, type)],
    ids=lambda kind: kind.__name__,
)
def test_every_error_of_the_tree_comes_back_as_itself(kind: type[AuditError]) -> None:
    error = kind(
        "no",
        expected=3,
        found=None,
        where="seed 3, carry",
        step=7,
        component="params",
        hint="do so",
        lacking=("--arg data=PATH",),
    )
    rebuilt = rebuild_error(describe_error(error))
    assert type(rebuilt) is kind
    assert (str(rebuilt), rebuilt.exit_code) == (str(error), kind.exit_code)
    assert rebuilt.lacking == ("--arg data=PATH",)
    assert (rebuilt.step, rebuilt.component, rebuilt.where) == (7, "params", "seed 3, carry")


def test_an_error_that_a_worker_tells_is_raised_here(worker: Worker) -> None:
    told = describe_error(OrderDrift("another order", step=9))
    worker(f"answer({{'error': {told!r}}})")
    with Workers(fork=False) as workers, pytest.raises(OrderDrift, match=r"step 9: another order"):
        workers.run(job())


def test_an_error_of_a_kind_that_only_the_worker_knows_is_still_one_of_the_tree() -> None:
    class PlugInError(AuditError):
        """An error of somebody's perturbation."""

    assert type(rebuild_error(describe_error(PlugInError("odd")))) is AuditError


# Workers that die


def test_a_worker_that_dies_is_told_with_its_place_status_and_last_lines(worker: Worker) -> None:
    worker("print('1\\n2\\n3\\n\\n4', file=sys.stderr)\nsys.exit(7)")
    error = failure()
    assert str(error) == ("seed 3, describe: a worker process died with exit status 7: 2 | 3 | 4")
    assert error.exit_code == 1


def test_a_worker_that_dies_silently_is_told_without_last_lines(worker: Worker) -> None:
    worker("os._exit(0)")
    assert str(failure()).endswith("a worker process ended with exit status 0")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_worker_that_is_killed_is_told_with_the_signals_name(worker: Worker, name: str) -> None:
    worker(f"print('last words', flush=True)\nos.kill(os.getpid(), signal.{name})\ntime.sleep(60)")
    assert str(failure()).endswith(f"a worker process was killed by {name}: last words")


def test_bytes_that_are_no_text_and_endless_lines_still_make_one_line(worker: Worker) -> None:
    worker("os.write(2, b'\\xff\\x1b[31m' + b'x' * 1_000_000)\nos._exit(1)")
    text = str(failure())
    assert len(text) < 5000
    assert "\n" not in text


def test_what_a_dead_worker_leaves_behind_is_ended_and_not_waited_for(
    tmp_path: Path, worker: Worker
) -> None:
    left = tmp_path / "left"
    worker(
        "child = os.fork()\n"
        f"if not child: time.sleep({PATIENCE})\n"
        f"open({str(left)!r}, 'w').write(str(child))\nos._exit(3)"
    )
    begin = time.monotonic()
    assert "exit status 3" in str(failure())
    assert time.monotonic() - begin < PATIENCE / 2
    wait_for(lambda: not is_running(int(left.read_text())))


def test_a_worker_that_never_reads_its_job_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "WORKER_ARGUMENTS", ("-c", "import os; os._exit(9)"))
    huge = job(branches=tuple(str(number) for number in range(100_000)))  # more than a pipe holds
    assert re.search("(exit|with) status 9$", str(failure(huge)))


def test_a_worker_that_cannot_be_started_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with Workers(fork=False) as workers, pytest.raises(StoreError) as caught:
        workers.run(job())
    assert str(caught.value) == "cannot start a worker process: No such file or directory"


def test_a_machine_without_temporary_files_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with (
        Workers(fork=False) as workers,
        pytest.raises(StoreError, match="No usable temporary directory"),
    ):
        workers.run(job())


# Stopping


@contextmanager
def waiting(workers: Workers, file: Path, worker: Worker) -> Iterator[list[AuditError]]:
    """A worker that waits for ever, in a thread of its own."""
    worker(f"open({str(file)!r}, 'w').write(str(os.getpid()))\ntime.sleep({PATIENCE})")
    raised: list[AuditError] = []

    def run() -> None:
        try:
            workers.run(job())
        except AuditError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: file.exists() and file.read_text())
    yield raised
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_stopping_kills_what_runs_and_refuses_what_comes(tmp_path: Path, worker: Worker) -> None:
    workers = Workers(fork=False)
    with waiting(workers, tmp_path / "pid", worker) as raised:
        workers.stop()
    assert str(raised[0]) == "stopped"
    assert not is_running(int((tmp_path / "pid").read_text()))
    with pytest.raises(ProgramFailed, match="stopped"):
        workers.run(job())


def test_leaving_the_context_stops_workers(tmp_path: Path, worker: Worker) -> None:
    with Workers(fork=False) as workers, waiting(workers, tmp_path / "pid", worker):
        workers.__exit__()
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_no_pipe_or_process_is_left_behind(worker: Worker) -> None:
    worker(f"answer({_PLAN_NONE})")
    held = names_in(Path("/dev/fd"))
    with Workers(fork=False) as workers:
        for _ in range(3):
            workers.run(job())
    assert names_in(Path("/dev/fd")) == held


# Environment


def test_workers_get_fixed_hashes_threads_and_write_no_bytecode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    found = child_environment(2, {"EXTRA": "1", "OMP_NUM_THREADS": "3"})
    assert found["OMP_NUM_THREADS"] == "3"
    assert all(found[name] == "2" for name in THREAD_VARIABLES if name != "OMP_NUM_THREADS")
    assert {name: found[name] for name in CHILD_VARIABLES} == CHILD_VARIABLES
    assert (found["PYTHONDONTWRITEBYTECODE"], found["EXTRA"]) == ("1", "1")


def test_threads_come_from_the_plan(worker: Worker) -> None:
    worker("sys.exit(os.environ['OMP_NUM_THREADS'])")
    assert str(failure()).endswith(": 1")
    assert str(failure(job("trunk", plan=PLAN))).endswith(": 1")


# The real worker


@pytest.mark.usefixtures("new_interpreters")
def test_modules_in_the_working_folder_are_not_imported_by_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("auditkit", "torch", "json", "click"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the working folder')")
    monkeypatch.chdir(tmp_path)
    with Workers(fork=False) as workers:
        answer: Description = workers.run(job(seed=0))
    assert answer.plan is not None
    assert answer.plan.horizon == PLAN.horizon


@pytest.mark.parametrize(
    ("factory", "end"),
    [
        ("leaves", "died with exit status 1: no licence for this data set"),
        ("vanishes", "died with exit status 7: first | library: fatal error"),
        ("is_killed", "was killed by SIGKILL"),
    ],
)
def test_a_program_that_ends_its_process_is_told_in_one_line(factory: str, end: str) -> None:
    source = ProgramSource(f"odd_study.py:{factory}", str(PROGRAMS), {})
    error = failure(job("preflight", program=source, plan=PLAN, step=1))
    assert str(error) == f"seed 3, preflight: a worker process {end}"


def test_a_program_that_asks_a_question_or_forks_loader_workers_does_not_hang() -> None:
    curious = ProgramSource("odd_study.py:curious", str(PROGRAMS), {})
    assert "EOFError" in str(failure(job("preflight", program=curious, plan=PLAN, step=1)))
    loading = ProgramSource("tiny_study.py:make_program", str(PROGRAMS), {"workers": "2"})
    with Workers(fork=False) as workers:
        answer: Preflight = workers.run(job("preflight", program=loading, plan=PLAN, step=1))
    assert answer.cost.n_probe


@pytest.mark.parametrize(
    "described",
    [
        {},
        {"message": 3, "kind": "StoreError", "where": 7, "step": "x", "lacking": 1},
        {"message": "m", "kind": "dataclass", "more": 1},
        {"message": None, "kind": None, "hint": [], "lacking": [3]},
    ],
)
def test_what_is_no_description_of_an_error_becomes_one_all_the_same(
    described: dict[str, Any],
) -> None:
    rebuilt = rebuild_error(described)
    assert isinstance(rebuilt, AuditError)
    assert str(rebuilt)
