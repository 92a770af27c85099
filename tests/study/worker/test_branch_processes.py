"""Every branch in a process of its own, with the history of all others: in real processes."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import pytest
from cli_shell import wait_for
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from studies import (
    PLAN,
    PROGRAMS,
    Run,
    check,
    check_files,
    failures,
    findings_text,
    study_in_process,
)

from auditkit.errors import (
    AuditError,
    PlanError,
    ProbeDisturbance,
    ProgramFailed,
    ReplicaMismatch,
    UncapturedState,
)
from auditkit.processes.job_endings import ANSWERED, Answer, answered
from auditkit.processes.side_by_side import Slots
from auditkit.processes.worker_pool import Workers
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.job import Job, ProgramSource
from auditkit.records.plan import StudyPlan
from auditkit.records.results import BranchesResult, TrunkResult
from auditkit.signing.keys import PrivateKey, fingerprint
from auditkit.signing.trust import SigningKey
from auditkit.study.request import StudyRequest, resolve
from auditkit.study.runner import run_study
from auditkit.study.worker import branch_processes
from auditkit.study.worker.branch_processes import Forks, Unforkable, unshared

#: As few branches as there can be, and one that changes nothing.
SMALL = StudyPlan(3, 2, 7, [4], ["carry", "order-reverse"], placebos=1)
N_BRANCHES = len(SMALL.branch_names) - 1

#: Of the first, trunk and branches share nothing.
TWO_SEEDS = replace(SMALL, seeds=(4, 5))

#: The same with fewer branches: a new interpreter takes its seconds.
FEW = StudyPlan(3, 2, 7, [4, 5], ["order-reverse"], placebos=1)


@pytest.fixture(scope="module")
def forked() -> Iterator[Workers]:
    """Workers whose prepared process serves every test here."""
    with Workers() as workers:
        yield workers


def run(
    folder: Path,
    target: str,
    workers: Workers,
    arguments: Mapping[str, str] | None = None,
    plan: StudyPlan = SMALL,
) -> tuple[dict[str, str], list[str]]:
    """Run a study in real processes.

    Returns:
        Digests of its files by name, but for what is signed, and what it warned of.
    """
    source = ProgramSource(target, str(PROGRAMS), dict(arguments or {}))
    key = Ed25519PrivateKey.generate()
    said: list[str] = []
    try:
        run_study(
            StudyRequest(source, resolve(plan, DECLARATIONS), folder),
            SigningKey(key, fingerprint(key), "test"),
            warn=said.append,
            workers=workers,
        )
    except ReplicaMismatch as error:  # its files are there
        said.append(error.message)
    names = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in names
        if path.name != "signer.pub"
    }
    return files, said


class PartlyForked:
    """Workers of which those of some seeds are new interpreters."""

    def __init__(self, forked: Workers, alone: Workers, seeds: Collection[int]) -> None:
        self._forked, self._alone, self._seeds = forked, alone, seeds

    def _of(self, job: Job) -> Workers:
        return self._alone if job.seed in self._seeds else self._forked

    def run(self, job: Job, *told: Any) -> Any:
        return self._of(job).run(job, *told)

    def run_seed(self, job: Job, *told: Any) -> Any:
        return self._of(job).run_seed(job, *told)

    def stop(self) -> None:
        """Both are stopped elsewhere."""


@pytest.mark.usefixtures("new_interpreters")
@pytest.mark.parametrize(
    ("n_workers", "seeds"), [("0", {5}), pytest.param("2", {4, 5}, marks=pytest.mark.slow)]
)
def test_forks_leave_the_bytes_of_new_interpreters(
    tmp_path: Path, forked: Workers, n_workers: str, seeds: set[int]
) -> None:
    # Of the later seed trunk and branches are forks that share their imports.
    arguments = {"workers": n_workers, "optimizer": "adam", "parts": "batchnorm+dropout+ema"}
    target = "tiny_study.py:make_program"
    by_forks, _ = run(tmp_path / "forks", target, forked, arguments, FEW)
    with Workers(fork=False) as alone:
        others: Any = PartlyForked(forked, alone, seeds)
        by_new_ones, _ = run(tmp_path / "new", target, others, arguments, FEW)
    assert by_forks == by_new_ones
    assert len(by_forks) > 4 * len(FEW.branch_names)


def calls_of(
    folder: Path, workers: Workers, holds: str, plan: StudyPlan = SMALL
) -> list[tuple[str, str]]:
    """Seeds for which the factory was called, and in which processes."""
    calls = folder / "calls"
    arguments = {"holds": holds, "calls": str(calls)}
    run(folder / "out", "held_study.py:make_program", workers, arguments, plan)
    return [(seed, pid) for seed, pid in map(str.split, calls.read_text().splitlines())]


def test_the_factory_is_called_once_for_all_branches_of_a_seed(
    tmp_path: Path, forked: Workers
) -> None:
    calls = calls_of(tmp_path, forked, "nothing", TWO_SEEDS)
    first, second = ([pid for seed, pid in calls if seed == name] for name in ("4", "5"))
    # By the trunk's process; by the branches'; and of the first seed before the study, twice by
    # one process and once by another.
    assert (len(set(first)), len(first)) == (4, 5)
    assert len(set(second)) == len(second) == 2


@pytest.mark.slow
def test_trunk_and_branches_share_the_imports_of_every_seed_but_the_first(
    tmp_path: Path, key: PrivateKey, forked: Workers
) -> None:
    imports = tmp_path / "imports"
    given = {"imports": str(imports)}
    run(tmp_path / "run", "importing_study.py:make_program", forked, given, TWO_SEEDS)
    assert counted(imports) == {"4": 3, "5": 1}  # one for the build, one for the first trunk
    imports.unlink()
    made = study_in_process(
        tmp_path / "made", key, TWO_SEEDS, "importing_study.py:make_program", arguments=given
    )
    imports.unlink()
    report = check(made, fresh=True, replay="all")
    assert report.verdict == "verified", findings_text(report)
    assert counted(imports) == {"4": 2, "5": 1}


def counted(imports: Path) -> Counter[str]:
    """In how many processes that imported the program a seed was trained."""
    lines = {tuple(line.split()) for line in imports.read_text().splitlines()}
    return Counter(seed for seed, _ in lines)


@pytest.mark.parametrize("holds", ["thread", "file", "pipe", "shared", "mapped", "child", "queue"])
def test_what_a_fork_would_share_or_lack_gives_every_branch_a_new_process(
    tmp_path: Path, forked: Workers, holds: str
) -> None:
    calls = Counter(calls_of(tmp_path, forked, holds))
    # Before the study twice by one process and once by another; then by the trunk's and branches'.
    assert sorted(calls.values(), reverse=True) == [2, *[1] * (1 + 1 + N_BRANCHES)]


def test_branches_that_run_at_once_leave_the_bytes_of_those_that_do_not(
    tmp_path: Path, forked: Workers
) -> None:
    room, names = tmp_path / "room", ("carry", "order-reverse", "placebo-0", "replica")
    source = ProgramSource("tiny_study.py:make_program", str(PROGRAMS), {})
    forked.run(trunk := Job("trunk", source, SMALL, 4, str(folder(tmp_path, "trunk"))))
    fork, order = (f"{trunk.out}/{stem}.safetensors" for stem in ("fork", "order"))
    apart = replace(trunk, kind="branches", fork=fork, order=order, branches=names)
    meeting = ProgramSource("held_study.py:meeting", str(PROGRAMS), {"room": str(room)})
    at_once = replace(apart, program=meeting)
    results = []
    for job, slots in ((apart, Slots()), (at_once, Slots(jobs=2))):
        forked.slots = slots
        out = folder(tmp_path, job.program.target)
        result: BranchesResult = forked.run(replace(job, out=str(out)))
        files = {file.name: file.read_bytes() for file in out.iterdir()}
        results.append((result.branches, files))
    assert results[0] == results[1]
    assert len(results[0][1]) >= 2 * N_BRANCHES
    # Two are at work in every branch but the replica, which is alone.
    met = [tuple(map(int, line.split())) for line in room.read_text().splitlines()]
    assert len(met) == N_BRANCHES
    assert max(alive for _, alive in met) == 2
    assert met[-1] == (N_BRANCHES, 1)
    assert forked.slots.adjust(0, 9) == 1


@pytest.mark.parametrize(
    ("at", "shared", "what"), [(1, True, "trunk"), (3, True, "placebo-0"), (2, False, "placebo-0")]
)
def test_a_process_that_ends_as_if_all_were_well_is_told_and_not_run_again(
    tmp_path: Path, forked: Workers, at: int, shared: bool, what: str
) -> None:
    """Of the trunk nothing would ever come; of a branch it would be taken for one that waits."""
    out, told = folder(tmp_path, "quits"), tmp_path / "told"
    source = ProgramSource("odd_study.py:quits", str(PROGRAMS), {"told": str(told), "at": str(at)})
    names, (fork, order) = (
        ("carry", "placebo-0"),
        (f"{out}/{stem}.safetensors" for stem in ("fork", "order")),
    )
    job = Job("seed", source, SMALL, 4, str(out), fork=fork, order=order, branches=names)
    if not shared:
        plain = ProgramSource("tiny_study.py:make_program", str(PROGRAMS), {})
        forked.run(replace(job, program=plain, kind="trunk", branches=()))
    with pytest.raises(ProgramFailed) as ended:
        list(forked.run_seed(job)) if shared else forked.run(replace(job, kind="branches"))
    assert str(ended.value) == f"seed 4, {what}: a worker process ended with exit status 0"
    assert told.stat().st_size == at


def test_a_trunk_says_whether_it_reads_what_it_writes(tmp_path: Path, forked: Workers) -> None:
    arguments = {"where": str(tmp_path / "best.pt")}
    keeping = ProgramSource("held_study.py:keeping_the_best", str(PROGRAMS), arguments)
    plain = ProgramSource("tiny_study.py:make_program", str(PROGRAMS), {})
    for source, read_back in ((keeping, True), (plain, False)):
        out = folder(tmp_path, source.target)
        result: TrunkResult = forked.run(Job("trunk", source, SMALL, 4, str(out)))
        assert result.read_back == read_back


def folder(above: Path, name: str) -> Path:
    """A new folder, of the name that a seed's has."""
    made = above / name.replace(":", "-") / "seed-0004"
    made.mkdir(parents=True)
    return made


def outcome_of_forks(
    tmp_path: Path,
    names: Sequence[str],
    lent: Callable[[int], int],
    run_one: Callable[[str], object],
) -> tuple[int, list[tuple[str, str]]]:
    """How a process ended that forked branches, and what they and it noted, in its order."""
    notes = tmp_path / "notes"

    def note(*words: object) -> None:
        with notes.open("a", encoding="utf-8") as file:
            file.write(" ".join(map(str, words)) + "\n")

    def asked(wanted: int) -> int:
        note("asked", wanted)
        return lent(wanted)

    pid = os.fork()
    if pid == 0:  # nothing of the tests may go on here
        status = 1
        try:
            forks = Forks(None)
            forks.can_fork = True
            name = forks.each(names, asked)
            note("began", name)
            run_one(name)
            note("ended", name)
            status = answered()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    lines = [tuple(line.split()) for line in notes.read_text().splitlines()]
    return os.waitstatus_to_exitcode(status), [(what, name) for what, name in lines]


def at_once(notes: Sequence[tuple[str, str]]) -> list[int]:
    """How many branches were at work when each began."""
    running = itertools.accumulate({"began": 1, "ended": -1}.get(what, 0) for what, _ in notes)
    return [n for n, (what, _) in zip(running, notes, strict=True) if what == "began"]


def test_no_more_branches_are_forked_than_may_be_at_work(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e", "replica"]

    def run_one(_: str) -> None:  # the first three are there at once
        wait_for(lambda: (tmp_path / "notes").read_text().count("began") >= 3)

    status, notes = outcome_of_forks(tmp_path, names, lambda wanted: min(wanted, 2), run_one)
    assert status == 0
    assert sorted(name for what, name in notes if what == "ended") == names
    assert max(at_once(notes)) == 3
    assert notes[-2:] == [("began", "replica"), ("ended", "replica")]
    asked = [int(n) for what, n in notes if what == "asked"]
    assert asked[0] == 4  # five branches but the first, and not the replica
    assert asked[-1] == 0  # what is not needed any more is given back


def test_branches_are_forked_one_by_one_where_nothing_is_lent(tmp_path: Path) -> None:
    names = ["a", "replica", "b"]
    status, notes = outcome_of_forks(tmp_path, names, lambda _: 0, lambda _: None)
    assert (status, at_once(notes)) == (0, [1, 1, 1])
    assert [name for what, name in notes if what == "began"] == names


@pytest.mark.parametrize("code", [0, 1, ANSWERED])
def test_no_exit_status_of_a_program_stands_for_an_answer(tmp_path: Path, code: int) -> None:
    def run_one(name: str) -> None:
        if name == "a":
            os._exit(code)

    status, notes = outcome_of_forks(tmp_path, ["a", "b"], lambda _: 0, run_one)
    assert status == (1 if code == ANSWERED else code)
    assert [name for what, name in notes if what == "began"] == ["a"]


@pytest.mark.parametrize("code", [0, ANSWERED])
def test_a_trunk_that_a_program_ends_is_not_waited_for(code: int) -> None:
    pid = os.fork()
    if pid == 0:  # nothing of the tests may go on here
        forks = Forks(None)
        forks.can_fork = True
        if forks.begin():
            os._exit(code)
        os._exit(3)  # it went on as if the trunk had answered
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (1 if code == ANSWERED else code)


def test_when_a_branch_dies_those_that_run_end_and_no_further_one_begins(tmp_path: Path) -> None:
    def run_one(name: str) -> None:
        if name == "a":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)

    status, notes = outcome_of_forks(tmp_path, ["a", "b", "c", "replica"], lambda _: 1, run_one)
    assert status == -signal.SIGKILL
    assert [name for what, name in notes if what == "ended"] == ["b"]


def test_what_every_fork_would_look_up_is_looked_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up() -> None:
        with (tmp_path / "notes").open("a", encoding="utf-8") as file:
            file.write("looked up\n")

    monkeypatch.setattr(branch_processes, "look_up", look_up)
    status, notes = outcome_of_forks(tmp_path, ["a", "b"], lambda _: 0, lambda _: None)
    assert (status, notes[0]) == (0, ("looked", "up"))
    assert [what for what, _ in notes].count("looked") == 1
    forks = Forks(None)
    assert forks.begin()  # where no process can be forked, it looks up what it needs itself
    forks.can_fork = True
    monkeypatch.setattr(branch_processes, "_fork", lambda: (0, Answer()))  # as in the new one
    assert forks.begin()
    assert (tmp_path / "notes").read_text().count("looked up") == 2


def test_what_a_branch_counts_reaches_no_other_branch(tmp_path: Path, forked: Workers) -> None:
    # It stands at t0 in the control and at 0 in every branch, the replica and carry among them.
    files, said = run(tmp_path / "out", "held_study.py:counting", forked)
    (line,) = said
    assert "seed 4, replica is not what the control is; 1 more such branch" in line
    tables = [files[f"seed-0004/{name}.outcome.safetensors"] for name in ("replica", "carry")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        ("by_process", UncapturedState, "not make the same in every process: params"),
        ("probe_by_process", UncapturedState, "in every process: probe inputs"),
        ("probe_by_call", UncapturedState, "the same when it is called again: probe inputs"),
        ("probe_that_moves", ProbeDisturbance, "the probe is not what it was"),
        ("dies_in_a_branch", ProgramFailed, "a worker process was killed by SIGKILL"),
    ],
)
def test_programs_that_make_branches_incomparable_are_refused(
    tmp_path: Path, target: str, error: type[AuditError], text: str
) -> None:
    with Workers() as workers, pytest.raises(error, match=text) as caught:
        run(tmp_path / "out", f"held_study.py:{target}", workers)
    assert caught.value.exit_code == error.exit_code
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_factory_that_is_another_in_every_process_for_a_later_seed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a folder that is named from where the run began; the program changes to another.
    monkeypatch.chdir(tmp_path)
    text = "not make the same in every process: params"
    with Workers() as workers, pytest.raises(UncapturedState, match=text):
        run(Path("out"), "held_study.py:later_by_process", workers, plan=TWO_SEEDS)
    assert (tmp_path / "out" / "seed-0004" / "replica.json.partial").exists()


def test_outcomes_name_what_they_were_computed_on(small: Run) -> None:
    seed = small.manifest.seeds[0]
    control, *others = seed.branches
    assert set(control.evaluated_on or {}) == {"inputs", "labels", "recalibration"}
    assert f"recalibration/{(control.evaluated_on or {})['recalibration']}" in seed.fork_digests
    assert all(branch.evaluated_on == control.evaluated_on for branch in others)


@pytest.mark.parametrize("name", ["inputs", "labels", "recalibration"])
@pytest.mark.parametrize("branch", [0, 3])
def test_a_branch_that_was_evaluated_on_something_else_fails_check_4(
    forged: Run, branch: int, name: str
) -> None:

    def edit(statement: dict[str, Any]) -> None:
        on = statement["predicate"]["seeds"][0]["branches"][branch]["evaluated_on"]
        on[name] = "0" * 64

    forging.edit_statement(forged, edit)
    report = check_files(forged)
    assert (failures(report), report.exit_code) == ({4}, 1)


@pytest.mark.parametrize(
    "target", [pytest.param("by_process", marks=pytest.mark.slow), "probe_by_process"]
)
def test_processes_of_one_replay_that_are_not_given_the_same_fail_check_8(
    tmp_path: Path, key: PrivateKey, target: str
) -> None:
    # Made in one process, where the study is consistent; replayed in several.
    run = study_in_process(tmp_path / "run", key, target=f"held_study.py:{target}")
    report = check(run, fresh=True, replay="all")
    assert (8 in failures(report), report.exit_code) == (True, 1)
    assert "two processes called the factory with one seed" in findings_text(report)


def test_a_replayed_trunk_cannot_see_the_recorded_fork(tmp_path: Path, key: PrivateKey) -> None:
    target = "held_study.py:looking_for_the_fork"
    run = study_in_process(tmp_path / "run", key, TWO_SEEDS, target)
    report = check(run, fresh=True, replay="all")
    assert not {8} & failures(report), findings_text(report)


def test_a_loader_without_indices_takes_no_order_perturbation(tmp_path: Path, key: Any) -> None:
    shutil.copy(PROGRAMS / "tiny_study.py", tmp_path)
    (tmp_path / "listed_study.py").write_text(
        "from dataclasses import replace\n"
        "import tiny_study\n"
        "def make_program(seed):\n"
        "    program = tiny_study.make_program(seed)\n"
        "    return replace(program, loader=list(program.loader))\n"
    )
    with pytest.raises(PlanError, match="a loader that is a list has no indices") as told:
        study_in_process(tmp_path / "run", key, PLAN, "listed_study.py", tmp_path)
    assert "leave order-reverse out" in str(told.value.hint)
    assert not list((tmp_path / "run").glob("seed-*/*fork*"))  # before anything was trained


@pytest.mark.parametrize(
    ("mode", "is_shared"), [("a", False), ("w", True), ("a+", True), ("r", True)]
)
def test_a_log_that_is_only_appended_to_keeps_no_process_from_being_forked(
    tmp_path: Path, mode: str, is_shared: bool
) -> None:
    (tmp_path / "train.log").touch()
    before = Unforkable.now()
    with (tmp_path / "train.log").open(mode, encoding="utf-8"):
        told = unshared(before)
    assert [text for text in told if "threads" not in text] == (  # a test may have some
        [f"the open {tmp_path / 'train.log'}"] if is_shared else []
    )
    assert unshared(None)  # of a system that does not tell


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_device_that_a_fork_could_not_initialise_keeps_a_process_from_being_forked(
    monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    process = os.getpid()
    before = Unforkable.now()
    monkeypatch.setattr("torch.cuda._is_compiled", lambda: True)
    monkeypatch.setattr("torch.cuda._is_in_bad_fork", lambda: is_lost and os.getpid() != process)
    now = Unforkable.now()
    assert now is not None
    assert before is not None
    assert now.devices == before.devices | ({"cuda"} if is_lost else set())
