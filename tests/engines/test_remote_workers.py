"""A study by an engine: what it leaves, and what becomes of workers that are lost, slow or other.

The engine here is of threads, and a job's process is this one; the real ones are in
``test_dask_engine.py`` and ``test_ray_engine.py``.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_shell import content, timeless, wait_for
from studies import PLAN, PROGRAMS, TINY, InProcessWorkers, Run
from thread_engine import Do, ThreadEngine

from auditkit.engines import handover, remote_job, remote_workers
from auditkit.engines.lost import unreachable
from auditkit.engines.order import ALIVE, ATTEMPTS
from auditkit.engines.remote_job import WorkerDied, do
from auditkit.engines.remote_workers import RemoteWorkers, refuse_command
from auditkit.errors import (
    AttemptsDiffer,
    AuditError,
    ConnectionLost,
    PlanError,
    ProgramFailed,
    StoreError,
    Undecided,
    UsageError,
)
from auditkit.evidence.reader import RunEvidence
from auditkit.files import artifacts, store
from auditkit.files.places import FolderPlace
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.job import Job, ProgramSource, Progress
from auditkit.replay.request import ReplayRequest
from auditkit.replay.study_replay import replay
from auditkit.signing.keys import fingerprint, generate_key
from auditkit.signing.trust import SigningKey
from auditkit.study.preflight import try_program
from auditkit.study.request import StudyRequest, resolve
from auditkit.study.runner import run_study

#: Two seeds: of the first, trunk and branches are two tasks; of the other they are one.
SMALL = resolve(PLAN.changed(seeds=[0, 1], perturbations=["carry"]), DECLARATIONS)
KEY = generate_key()


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_job, "Workers", lambda **_: InProcessWorkers())
    monkeypatch.setattr(remote_job, "_POOLS", {})
    monkeypatch.setattr(remote_workers, "_LOOK", 0.001)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    store.copy_file(PROGRAMS / "tiny_study.py", folder / "tiny_study.py")
    return folder


@pytest.fixture(scope="module")
def request_(program: Path) -> StudyRequest:
    """A study whose program was tried."""
    request = StudyRequest(ProgramSource(TINY, str(program), {}), SMALL, Path("out"), jobs=2)
    found = try_program(InProcessWorkers(), request.program, SMALL, seed=0)
    return replace(request, preflight=found)


@pytest.fixture(scope="module")
def alone(request_: StudyRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same study without an engine."""
    return study(
        replace(request_, out=tmp_path_factory.mktemp("alone") / "out"), InProcessWorkers()
    )


def study(request: StudyRequest, workers: Any) -> Run:
    run_study(request, SigningKey(KEY, fingerprint(KEY), "test"), workers=workers)
    return Run(request.out, KEY)


def by_engine(request: StudyRequest, out: Path, work: Do = do) -> Run:
    with RemoteWorkers(ThreadEngine(work, attempts=2), 2) as workers:
        return study(replace(request, out=out), workers)


def same_study(left: Run, right: Run) -> None:
    """Check that two runs have the same files and say the same.

    But for what is opened, where the process that runs the program is also the one that waits.
    """
    assert content(left.folder) == content(right.folder)
    here, there = (timeless(run.path) for run in (left, right))
    for statement in (here, there):
        del statement["predicate"]["opened"]
    assert here == there


def tell(text: str) -> dict[str, Any]:
    """An order or answer."""
    told: dict[str, Any] = json.loads(text)
    return told


class Losing:
    """Loses the first worker that does a seed's job: before, in the middle of it, or after it.

    What it had handed over by then stays.
    """

    def __init__(self, when: str) -> None:
        self.when, self.is_lost = when, False
        self._lock = threading.Lock()

    def __call__(self, text: str) -> str:
        order = tell(text)
        with self._lock:
            now = order["job"]["kind"] == "seed" and not self.is_lost
            self.is_lost |= now
        if not now:
            return do(text)
        if self.when == "after":
            do(text)
        elif self.when == "middle":
            order["job"]["branches"] = order["job"]["branches"][:1]
            do(json.dumps(order))
        raise WorkerDied(json.dumps({"kind": "ProgramFailed", "message": "was killed by SIGKILL"}))


# What it leaves


@pytest.mark.parametrize("when", ["middle", "after"])
def test_the_study_is_the_one_that_one_machine_makes_also_where_a_worker_dies(
    request_: StudyRequest, alone: Run, tmp_path: Path, when: str
) -> None:
    lost = Losing(when)
    made = by_engine(request_, tmp_path / "out", lost)
    assert lost.is_lost
    same_study(made, alone)
    assert not (made.folder / ATTEMPTS).exists()


def test_a_job_that_ran_twice_and_gave_other_files_is_refused(tmp_path: Path) -> None:
    job = Job("trunk", ProgramSource(TINY, "", {}), SMALL, 1, str(tmp_path / "seed-0001"))
    inbox = handover.Inbox(tmp_path / "task", tmp_path / "taken")
    for content_there, n_messages in ((b"bits", 1), (b"bits", 0)):
        outbox = handover.Outbox(tmp_path / "task")
        store.write_bytes(Path(outbox.rerouted(job).out) / "fork.partial", content_there)
        outbox.put("trunk", SMALL)
        assert len(list(inbox.messages())) == n_messages
    assert (tmp_path / "taken" / "seed-0001" / "fork.partial").read_bytes() == b"bits"
    outbox = handover.Outbox(tmp_path / "task")
    store.write_bytes(Path(outbox.rerouted(job).out) / "fork.partial", b"other bits")
    outbox.put("trunk", SMALL)
    with pytest.raises(AttemptsDiffer, match="ran twice, and seed-0001/fork is not the same"):
        list(inbox.messages())


def test_a_replay_by_an_engine_verifies_and_sees_nothing_but_what_it_is_given(
    alone: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ThreadEngine()
    choice = {0: ("carry", "replica"), 1: ("carry", "replica")}
    request = ReplayRequest(choice, {}, jobs=2, engine=engine)
    outcome = replay(RunEvidence(alone.folder, alone.manifest), request, lambda _: None)
    assert outcome.findings == ()
    assert len(outcome.outcomes) == 6
    for order in map(tell, engine.orders):
        assert str(alone.folder) not in json.dumps(order)
        if order["job"]["kind"] == "trunk":
            assert order["job"]["fork"] is None


def test_an_engine_that_is_not_there_is_asked_for_once_and_no_seed_is_tried(
    alone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def nobody(jobs: int) -> ThreadEngine:
        asked.append(jobs)
        raise unreachable("ray", "node:1", TimeoutError())

    engine = ThreadEngine(address="node:1")
    object.__setattr__(engine, "connect", nobody)
    request = ReplayRequest({0: ("carry",), 1: ("carry",)}, {}, jobs=2, engine=engine)
    with pytest.raises(Undecided, match="nothing was replayed: no scheduler of ray") as caught:
        replay(RunEvidence(alone.folder, alone.manifest), request, lambda _: None)
    assert (caught.value.where, asked) == ("node:1", [2])


def test_progress_comes_back(program: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    out = tmp_path / "out" / "seed-0001"
    job = Job("trunk", ProgramSource(TINY, str(program), {}), SMALL, 1, str(out), ".partial")
    waits = threading.Event()

    def slow(text: str) -> str:
        answer = do(text)
        assert waits.wait(60)
        return answer

    def report(progress: Progress) -> None:
        seen.append(progress)
        if progress.done == progress.total:
            waits.set()

    with RemoteWorkers(ThreadEngine(slow), 1) as workers:
        workers.run(job, report)
    assert (seen[-1].seed, seen[-1].branch, seen[-1].done) == (1, "control", SMALL.horizon)


@pytest.mark.parametrize(("address", "n_others"), [(None, 0), ("tcp://node:8786", 2)])
def test_the_others_of_a_cluster_prepare_while_the_first_worker_tries_the_program(
    program: Path, tmp_path: Path, address: str | None, n_others: int
) -> None:
    engine = ThreadEngine(address=address)
    source = ProgramSource(TINY, str(program), {})
    with RemoteWorkers(engine, 3) as workers:
        workers.run(Job("describe", source, None, 0, ""))
        workers.run(Job("build", source, SMALL, 0, ""))
        workers.run(Job("trunk", source, SMALL, 0, str(tmp_path / "first" / "seed-0000")))
    kinds = [tell(order)["job"]["kind"] for order in engine.orders]
    assert kinds == ["describe", *["environment"] * n_others, "build", "trunk"]
    engine = ThreadEngine(address=address)  # where jobs come at once, each prepares its own
    with RemoteWorkers(engine, 3) as workers:
        workers.run(Job("trunk", source, SMALL, 0, str(tmp_path / "out" / "seed-0000")))
    assert len(engine.orders) == 1


# What is refused


@pytest.mark.parametrize(
    ("part", "name", "said"),
    [("hardware", "cpu", "hardware"), ("packages", "torch", r"packages: torch is 2\.0 there, \d")],
)
def test_a_worker_with_another_environment_is_refused_before_it_begins(
    program: Path, tmp_path: Path, part: str, name: str, said: str
) -> None:
    def elsewhere(text: str) -> str:
        order = tell(text)
        if order["environment"] is not None:
            order["environment"][part][name] = "2.0"
        return do(json.dumps(order))

    source, outs = ProgramSource(TINY, str(program), {}), [tmp_path / "0", tmp_path / "1"]
    first, second = (Job("trunk", source, SMALL, 0, str(out / "seed-0000")) for out in outs)
    with RemoteWorkers(ThreadEngine(elsewhere), 1) as workers:
        workers.run(first)
        with pytest.raises(PlanError, match=f"environment than the workers before: {said}"):
            workers.run(second)
    assert (outs[0] / "seed-0000" / "fork.safetensors").exists()
    assert not outs[1].exists() or not artifacts.list_files(outs[1])


def test_a_worker_is_asked_once_for_what_all_its_processes_have(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Counting(InProcessWorkers):
        def run(self, job: Job, *told: Any) -> Any:
            asked.append(job.kind)
            return super().run(job, *told)

    monkeypatch.setattr(remote_job, "Workers", lambda **_: Counting())
    with RemoteWorkers(ThreadEngine(), 1) as workers:
        for name in "abc":
            out = str(tmp_path / name / "seed-0000")
            workers.run(Job("trunk", ProgramSource(TINY, str(program), {}), SMALL, 0, out))
    assert asked == ["trunk", "environment", "trunk", "trunk"]


def test_other_packages_that_a_worker_says_afterwards_are_refused(
    request_: StudyRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Moving(InProcessWorkers):
        def run(self, job: Job, *told: Any) -> Any:
            result = super().run(job, *told)
            if job.kind == "trunk":
                here = result.environment
                self._environment = replace(here, packages={**here.packages, "torch": "1.0"})
            return result

    monkeypatch.setattr(remote_job, "Workers", lambda **_: Moving())
    with pytest.raises(PlanError, match=r"packages: torch is .* there, 1\.0 here"):
        by_engine(request_, tmp_path / "out")


def test_a_folder_that_workers_do_not_see_is_named(request_: StudyRequest, tmp_path: Path) -> None:
    def blind(text: str) -> str:
        order = tell(text)
        if order["task"] is not None:
            order["task"] = "/somewhere/else"
        return do(json.dumps(order))

    with pytest.raises(StoreError, match="does not see the folder that its files go to"):
        by_engine(request_, tmp_path / "out", blind)


def test_a_program_that_workers_do_not_see_is_named(request_: StudyRequest, tmp_path: Path) -> None:
    moved = replace(request_.program, folder=str(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match="does not see the program"):
        by_engine(replace(request_, program=moved), tmp_path / "out")


def test_what_is_seen_nowhere_ends_in_an_error_and_not_in_a_wait(
    request_: StudyRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "_SEEN", 0.01)
    fetched = FolderPlace.fetched

    def without_forks(self: Any, name: str) -> Any:
        return None if "/fork." in name else fetched(self, name)

    monkeypatch.setattr(FolderPlace, "fetched", without_forks)
    with pytest.raises(ConnectionLost, match=r"fork\.safetensors\.partial is not what its worker"):
        by_engine(request_, tmp_path / "out")


def test_a_users_own_command_stays_here() -> None:
    refuse_command(None)
    with pytest.raises(UsageError, match="a command after -- runs on this machine only"):
        refuse_command(ThreadEngine())


# What ends


def test_an_error_of_the_program_comes_back_as_what_it_is(program: Path, tmp_path: Path) -> None:
    with (
        RemoteWorkers(ThreadEngine(), 1) as workers,
        pytest.raises(AuditError, match="has no function 'no'") as caught,
    ):
        workers.run(
            Job("describe", ProgramSource("tiny_study.py:no", str(program), {}), None, 0, "")
        )
    assert caught.value.exit_code == 2


def test_a_killed_study_is_gone_on_with_by_an_engine_or_without(
    request_: StudyRequest, alone: Run, tmp_path: Path
) -> None:
    def failing(text: str) -> str:
        if tell(text)["job"]["kind"] == "seed":
            raise ConnectionLost("the scheduler is gone")
        return do(text)

    for workers in (InProcessWorkers(), RemoteWorkers(ThreadEngine(), 2)):
        out = tmp_path / type(workers).__name__
        with pytest.raises(ConnectionLost):
            by_engine(request_, out, failing)
        (out / ATTEMPTS / "0000-1" / "aaaa").mkdir(parents=True)  # of a client that was killed
        (out / ATTEMPTS / "0000-1" / ALIVE).touch()
        with workers:
            same_study(study(replace(request_, out=out, resume=True), workers), alone)


def test_a_worker_ends_when_nobody_waits_for_it(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "_LOOKS", 0.0)
    task = tmp_path / "task"
    inbox = handover.Inbox(task, tmp_path)
    outbox = handover.Outbox(task)
    outbox.report(Progress(0, "trunk", 1, 1, 2))
    assert inbox.progress() == Progress(0, "trunk", 1, 1, 2)
    monkeypatch.setattr(handover, "_PATIENCE", 0.0)
    with pytest.raises(ProgramFailed, match="nobody waits"):
        outbox.report(Progress(0, "trunk", 2, 2, 2))
    monkeypatch.undo()
    monkeypatch.setattr(handover, "_LOOKS", 0.0)
    inbox.close()
    with pytest.raises(ProgramFailed, match="nobody waits"):
        outbox.report(Progress(0, "trunk", 2, 2, 2))


def test_workers_that_are_stopped_take_no_job(program: Path) -> None:
    workers = RemoteWorkers(ThreadEngine(), 1)
    workers.stop()
    job = Job("describe", ProgramSource(TINY, str(program), {}), None, 0, "")
    with pytest.raises(ProgramFailed, match="stopped"):
        workers.run(job)


def test_prepared_processes_end_when_no_job_comes(
    monkeypatch: pytest.MonkeyPatch, program: Path
) -> None:
    stopped = threading.Event()
    monkeypatch.setattr(InProcessWorkers, "stop", lambda _: stopped.set())
    monkeypatch.setattr(remote_job, "_IDLE", 0.0)
    monkeypatch.setattr(remote_job, "_LOOKS", 0.001)
    with RemoteWorkers(ThreadEngine(), 1) as workers:
        job = Job("describe", ProgramSource(TINY, str(program), {}), None, 0, "")
        assert workers.run(job).plan is not None
    assert stopped.wait(60)
    wait_for(lambda: not remote_job._POOLS)
