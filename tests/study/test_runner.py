"""A study from its plan to its signed manifest; killed, interrupted, gone on with.

What is kept: the manifest lists everything and says the same however the run came about, and a
run that was cut short is no run until it is finished.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_shell import PATIENCE, Shell, content, is_running, timeless, wait_for
from conftest import Author
from record_examples import PREFLIGHT
from studies import PLAN, PROGRAMS, InProcessWorkers, Run, check_files, study_in_process

from auditkit.cli.options import default_jobs
from auditkit.diagnose.run_list import find_runs
from auditkit.errors import PlanError, UnknownPerturbation
from auditkit.files import artifacts, store
from auditkit.formats.schema import check as check_schema
from auditkit.processes.side_by_side import Slots
from auditkit.processes.worker_pool import Workers
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.job import Job, ProgramSource
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey, fingerprint
from auditkit.signing.trust import SigningKey
from auditkit.study.request import StudyRequest, resolve
from auditkit.study.runner import run_study
from auditkit.study.worker import jobs

TINY = "tiny_study.py"

#: Two seeds of the shortest study.
SMALL = ("--seeds", "0,1", "--perturb", "carry", "--jobs", "1")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell.at(tmp_path / "user")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, run in one go in this process."""
    shell = Shell.at(tmp_path_factory.mktemp("uninterrupted") / "user")
    assert shell("run", TINY, *SMALL, "--out", "out").code == 0
    return shell.folder / "out"


def same_study(left: Path, right: Path) -> None:
    """Check that two runs have the same files and say the same but for times."""
    assert content(left) == content(right)
    assert timeless(left / "manifest.json") == timeless(right / "manifest.json")


def only_partial(folder: Path) -> None:
    """Check that a run that was cut short has nothing under a final name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert [path.name for path in files if path.suffix != ".partial"] == []


@pytest.mark.parametrize("edited_before", ["trunk", "branches"])
def test_an_edit_after_the_preflight_ends_the_run_where_it_is_seen(
    tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch, edited_before: str
) -> None:
    ran, asked = jobs.run_job, []

    def edited(job: Job, *others: Any) -> Any:
        if job.kind == edited_before and edited_before not in asked:
            with (tmp_path / "run-program" / TINY).open("a", encoding="utf-8") as file:
                file.write("# a remark\n")
        asked.append(job.kind)
        return ran(job, *others)

    monkeypatch.setattr(jobs, "run_job", edited)
    with pytest.raises(PlanError, match=f"{TINY} changed while the study ran") as told:
        study_in_process(tmp_path / "run", key, PLAN.changed(seeds=[0, 1]))
    assert "--resume" in str(told.value.hint)
    # A further seed may have begun its trunk, which ends it as well.
    assert asked.count("branches") == (edited_before == "branches")


@pytest.mark.parametrize("edited", [TINY, "data/path"])
def test_after_an_edit_is_put_back_only_what_it_spoiled_is_run_again(
    tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch, edited: str
) -> None:
    numbers = tmp_path / "numbers.txt"
    numbers.write_text(" ".join(str(n % 7 / 7) for n in range(56)))
    file = numbers if edited == "data/path" else tmp_path / "run-program" / TINY
    ran, kinds, before = jobs.run_job, list[str](), list[str]()

    def noted(job: Job, *others: Any) -> Any:
        kinds.append(f"{job.kind} {job.seed}")
        if kinds[-1] == "branches 1" and not before:  # those of the first seed are kept
            before.append(file.read_text())
            file.write_text(before[0].replace("0.0 ", "0.5 ") + "\n")
        return ran(job, *others)

    monkeypatch.setattr(jobs, "run_job", noted)
    small = StudyPlan(3, 2, 7, [0, 1], ["carry"], placebos=1)

    def run(**options: Any) -> Run:
        arguments = {"path": str(numbers)}
        return study_in_process(tmp_path / "run", key, small, arguments=arguments, **options)

    with pytest.raises(PlanError, match=f"seed 1: {edited} changed while the study ran") as told:
        run()
    assert "--resume" in str(told.value.hint)
    file.write_text(before[0])
    kinds.clear()
    finished = run(resume=True)
    trained = {kind for kind in kinds if kind.startswith(("trunk", "seed", "branches"))}
    assert trained == {"branches 1"}
    assert check_files(finished).verdict == "integrity-only"


# The manifest


def test_the_manifest_lists_every_file_with_its_role_and_follows_the_schema(honest: Run) -> None:
    manifest = honest.manifest
    names = set(artifacts.list_files(honest.folder)) - {"report.json"}  # what verify leaves
    assert names - {file.name for file in manifest.files} == {"manifest.json", "signer.pub"}
    roles = {
        "fork": {"fork"},
        "order": {"order"},
        "trace": {"trunk.trace", *(f"{name}.trace" for name in manifest.plan.branch_names)},
        "outcome": {f"{name}.outcome" for name in manifest.plan.branch_names},
    }
    for role, stems in roles.items():
        expected = {
            f"seed-{s:04d}/{stem}.safetensors" for s in manifest.plan.seeds for stem in stems
        }
        assert {file.name for file in manifest.files if file.role == role} == expected
    assert {file.name for file in manifest.files if file.role == "code"} == {"code/tiny_study.py"}
    check_schema(timeless_with_times(honest.path), "manifest", "1", what="manifest")


def timeless_with_times(manifest: Path) -> Any:
    """The whole statement."""
    statement = timeless(manifest)
    statement["predicate"]["run"] = {
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:00:00Z",
    }
    return statement


def test_branches_come_in_the_plans_order_with_roles_and_versions(honest: Run) -> None:
    manifest = honest.manifest
    assert [record.seed for record in manifest.seeds] == list(manifest.plan.seeds)
    for record in manifest.seeds:
        assert tuple(branch.name for branch in record.branches) == manifest.plan.branch_names
        for branch in record.branches:
            role, spec = manifest.plan.branch(branch.name)
            assert (branch.role, branch.perturbation) == (role, spec)
            assert branch.version == (None if spec is None else DECLARATIONS[spec.name].version)
            assert branch.diverged_at is None


@pytest.mark.slow  # a run killed between two seeds, below, is finished with other jobs, too
def test_other_jobs_give_the_same_files_and_the_same_statement_but_for_times(
    author: Author, honest: Run, tmp_path: Path
) -> None:
    jobs = "1" if default_jobs(1, len(honest.manifest.seeds)) > 1 else "2"
    done = author.auditkit("run", TINY, "--out", str(tmp_path / "out"), "--jobs", jobs)
    assert (done.returncode, done.stderr) == (0, "")
    same_study(tmp_path / "out", honest.folder)


def test_what_a_program_prints_changes_nothing(tmp_path: Path) -> None:
    plan = StudyPlan(2, 1, 3, [0], ["carry"], placebos=1)

    def trunk(workers: Any, target: str) -> Any:
        out = tmp_path / target.partition(".")[0]
        out.mkdir()
        return workers.run(
            Job("trunk", ProgramSource(target, str(PROGRAMS), {}), plan, 0, str(out))
        )

    with Workers() as workers:
        loud = trunk(workers, "odd_study.py:talkative")
    quiet = trunk(InProcessWorkers(), "tiny_study.py:make_program")
    assert loud.control.digests == quiet.control.digests
    assert loud.fork_digests == quiet.fork_digests


# Killed and gone on with


def children(pid: int) -> list[int]:
    """Processes that a process started, and those that they started."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True)  # noqa: S607
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    direct = [child for child, parent in pairs if parent == pid]
    return direct + [below for child in direct for below in children(child)]


@pytest.mark.parametrize(
    ("branch", "step", "arguments"),
    [(1, 3, ("--arg", "workers=2")), pytest.param(2, 9, (), marks=pytest.mark.slow)],
    ids=["in the trunk, with loader workers", "in a branch"],
)
def test_a_run_whose_parent_is_killed_leaves_partial_files_and_no_process(
    branch: int, step: int, arguments: tuple[str, ...], shell: Shell, tmp_path: Path
) -> None:
    halted, options = tmp_path / "halted", (*SMALL, *arguments, "--out", "out")
    halt = {"AUDITKIT_TEST_HALT": f"{branch}:{step}:{halted}"}
    process = shell.start("run", "halting_study.py", *options, env=halt)
    wait_for(halted.exists)
    worker = int(halted.read_text())
    family = children(process.pid)
    assert worker in family
    # The one that all are forked from, the one that has imported the program, trunk and branches.
    assert len(family) == (5 if arguments else 4)
    process.kill()
    process.communicate(timeout=PATIENCE)
    wait_for(lambda: not any(is_running(pid) for pid in family))
    out = shell.folder / "out"
    only_partial(out)
    verified = shell("verify", "out/manifest.json")
    assert verified.code == 2
    assert "an unfinished run, without a manifest" in verified.line
    # By workers of the same kind, which have the same settings: the trunk may be there.
    resumed = shell("run", "halting_study.py", *options, "--resume", fresh=True)
    assert resumed.code == 0, resumed.err
    again = shell("run", "halting_study.py", *options[:-1], "again", fresh=True)
    assert again.code == 0, again.err
    same_study(out, shell.folder / "again")


def test_a_run_killed_between_two_seeds_is_finished_to_the_same_study(
    author: Author, honest: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("run", TINY, "--out", str(out), "--jobs", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "auditkit", *options],
        cwd=author.programs,
        env=author.env,
        stderr=subprocess.DEVNULL,
    )
    wait_for((out / "seed-0001" / "trunk.json.partial").exists)
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    only_partial(out)
    written = {path: path.stat().st_mtime_ns for path in (out / "seed-0000").iterdir()}
    resumed = author.auditkit(*options, "--resume")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    for path, when in written.items():
        if ".json." not in path.name:
            assert path.with_suffix("").stat().st_mtime_ns == when, (
                "a complete seed is not run again"
            )
    same_study(out, honest.folder)


# Cut short in this process: what is written when a seed is complete and the next one fails


@contextmanager
def full_disk(name: str) -> Iterator[None]:
    """Lets the disk be full when a certain file is written."""
    real = store._write_new

    def write(path: Path, chunks: Any, mode: int) -> None:
        if name in str(path):
            real(path, [b"half"], mode)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, chunks, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_write_new", write)
        yield


@pytest.fixture(scope="module")
def met_a_full_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a user whose run was cut short: seed 0 is complete, 1 met a full disk."""
    shell = Shell.at(tmp_path_factory.mktemp("cut-short") / "user")
    with full_disk("seed-0001/.carry.trace"):
        done = shell("run", TINY, *SMALL, "--out", "out")
    assert done.code == 2
    assert done.line.startswith("seed 1, carry: cannot write ")
    assert done.line.endswith(": No space left on device")
    return shell.folder


@pytest.fixture
def cut_short(shell: Shell, met_a_full_disk: Path) -> Path:
    """A copy of that run, in a copy of the user's folder."""
    shutil.copytree(met_a_full_disk, shell.folder, dirs_exist_ok=True)
    return shell.folder / "out"


def resume(shell: Shell, *options: str, program: str = TINY) -> Any:
    """Go on with a run."""
    return shell("run", program, *(options or SMALL), "--out", "out", "--resume")


def test_a_full_disk_keeps_complete_seeds_and_no_half_file(
    cut_short: Path, shell: Shell, uninterrupted: Path
) -> None:
    only_partial(cut_short)
    assert (cut_short / "seed-0000" / "replica.json.partial").exists()
    assert not list((cut_short / "seed-0001").glob(".*"))
    assert resume(shell).code == 0
    same_study(cut_short, uninterrupted)


def test_a_disk_that_is_full_when_the_manifest_is_written_loses_nothing(
    shell: Shell, uninterrupted: Path
) -> None:
    with full_disk(".manifest.json."):
        done = shell("run", TINY, *SMALL, "--out", "out")
    assert done.code == 2
    assert "No space left on device" in done.line
    assert shell("verify", "out/manifest.json").code == 2
    assert resume(shell).code == 0
    same_study(shell.folder / "out", uninterrupted)


def test_a_run_with_a_complete_seed_is_only_gone_on_with_when_asked_to(
    cut_short: Path, shell: Shell
) -> None:
    before = content(cut_short)
    done = shell("run", TINY, *SMALL, "--out", "out")
    assert done.code == 2
    assert done.line == (
        "out: the folder holds an unfinished run: 1 of 2 seeds complete; seed 1: trunk and 1 of 3 "
        "branches; go on with --resume, or give another --out"
    )
    assert content(cut_short) == before


@pytest.mark.parametrize("lost", [None, "order-reverse.outcome"], ids=["whole", "a part lost"])
def test_a_run_killed_while_it_published_is_gone_on_with(
    lost: str | None, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files with their final names, too, samples are compared and branches begun."""
    run = ("run", TINY, "--seeds", "0", "--perturb", "order-reverse", "--out", "out")
    renamed: list[str] = []

    def stop(source: Path, target: Path) -> None:
        renamed.append(source.name)
        source.rename(target)
        if source.name.startswith("order.safetensors"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "rename", stop)
        assert shell(*run).code == 130
    assert any(name.startswith("fork") for name in renamed)
    if lost:
        (found,) = (shell.folder / "out/seed-0000").glob(f"{lost}.*")
        found.write_bytes(b"other bytes")
    done = shell(*run, "--resume")
    assert done.code == 0, done.err
    assert shell(*run[:-1], "again").code == 0
    same_study(shell.folder / "out", shell.folder / "again")


def test_a_run_of_which_nothing_was_complete_is_begun_anew_and_says_so(shell: Shell) -> None:
    one = ("run", TINY, "--seeds", "0", "--perturb", "carry", "--out", "out")
    with full_disk("seed-0000/.fork"):
        assert shell(*one).code == 2
    (run,) = find_runs(shell.folder / "out")
    assert run.state == "unfinished"  # there is nothing to resume
    done = shell(*one)
    assert done.code == 0
    assert done.out.startswith("begins anew: of the interrupted run in this folder nothing was")


@pytest.mark.parametrize("how", ["one bit", "cut short", "removed"])
def test_a_damaged_file_of_a_finished_branch_is_noticed_and_the_branch_run_again(
    how: str, cut_short: Path, shell: Shell, uninterrupted: Path
) -> None:
    path = cut_short / "seed-0000" / "carry.outcome.safetensors.partial"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(data if how == "one bit" else data[:-1])
    changed = written_at(cut_short, "seed-0000/carry.trace")
    kept = written_at(cut_short, "seed-0000/fork")
    assert resume(shell).code == 0
    assert written_at(cut_short, "seed-0000/carry.trace") > changed
    assert written_at(cut_short, "seed-0000/fork") == kept
    same_study(cut_short, uninterrupted)


def written_at(run: Path, stem: str) -> int:
    """When a file was written, partial or final."""
    final = run / f"{stem}.safetensors"
    path = final if final.exists() else run / f"{stem}.safetensors.partial"
    return path.stat().st_mtime_ns


def test_finished_parts_are_not_run_again(cut_short: Path, shell: Shell) -> None:
    stems = ("seed-0000/fork", "seed-0000/carry.trace", "seed-0001/fork", "seed-0001/control.trace")
    before = [written_at(cut_short, stem) for stem in stems]
    done = resume(shell)
    assert done.code == 0
    assert done.out.startswith(
        "goes on with what was complete: 1 of 2 seeds complete; seed 1: trunk and 1 of 3 branches\n"
    )
    assert [written_at(cut_short, stem) for stem in stems] == before


@pytest.mark.parametrize(
    ("options", "program", "change"),
    [
        (
            ("--seeds", "0,1", "--perturb", "order-swap"),
            TINY,
            "another plan: perturbations: carry there, order-swap here",
        ),
        (
            ("--seeds", "0-2", "--perturb", "carry"),
            TINY,
            "another plan: seeds: 0-1 there, 0-2 here",
        ),
        ((*SMALL, "--horizon", "15"), TINY, "another plan: horizon: 14 there, 15 here"),
        (
            (*SMALL, "--arg", "accumulate=1"),
            TINY,
            "other arguments: accumulate: none there, 1 here",
        ),
        (SMALL, "halting_study.py", "another target: {} there, halting_study.py:make_program here"),
        (
            SMALL,
            "tiny_study:make_program",
            "another target: {} there, tiny_study:make_program here",
        ),
    ],
)
def test_another_study_is_not_mixed_into_an_unfinished_one(
    options: tuple[str, ...], program: str, change: str, cut_short: Path, shell: Shell
) -> None:
    before = content(cut_short)
    done = resume(shell, *options, program=program)
    assert done.code == 2
    assert done.line == (
        f"out: the unfinished run has {change.format('tiny_study.py:make_program')}; "
        "--resume takes the same program, data and plan; give another --out for others"
    )
    assert content(cut_short) == before


def test_a_source_that_changed_since_is_refused_before_anything_is_lost(
    cut_short: Path, shell: Shell, uninterrupted: Path
) -> None:
    source, before = shell.folder / TINY, content(cut_short)
    original = source.read_text()
    source.write_text(original.replace("lr=0.05", "lr=0.06"))
    done = resume(shell)
    assert done.code == 2
    assert done.line == (
        "out: tiny_study.py has changed since the run was stopped; --resume takes the same "
        "program, data and plan; give another --out for others"
    )
    assert content(cut_short) == before
    source.write_text(original)
    assert resume(shell).code == 0
    same_study(cut_short, uninterrupted)


def test_another_environment_is_refused_before_anything_is_lost(
    cut_short: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(cut_short)
    monkeypatch.setenv("OMP_SCHEDULE", "static")
    done = resume(shell)
    assert done.code == 2
    assert "the environment has changed since the run was stopped: variables: OMP_SC" in done.line
    assert content(cut_short) == before


def test_threads_are_the_plans_and_make_no_other_environment(
    cut_short: Path, shell: Shell, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert resume(shell).code == 0
    same_study(cut_short, uninterrupted)
    recorded = Run(cut_short, None).manifest.environment.variables  # type: ignore[arg-type]
    assert recorded["OMP_NUM_THREADS"] == str(StudyPlan.threads)


def test_the_time_of_the_first_start_is_kept(cut_short: Path, shell: Shell) -> None:
    journal = store.read_bytes(cut_short / "run.json.partial").decode()
    assert resume(shell).code == 0
    started = Run(cut_short, None).manifest.run.started  # type: ignore[arg-type]
    assert f'"started":"{started}"' in journal


# Calls from Python


def request(out: Path, **fields: Any) -> StudyRequest:
    """A request for the tiny study."""
    source = ProgramSource("tiny_study.py:make_program", str(PROGRAMS), {})
    return StudyRequest(**{"program": source, "plan": PLAN, "out": out, **fields})


def test_no_seed_at_a_time_is_refused_before_the_folder_is_made(
    tmp_path: Path, key: PrivateKey
) -> None:
    with pytest.raises(PlanError, match="jobs must be at least 1, not 0"):
        run_study(request(tmp_path / "out", jobs=0), SigningKey(key, fingerprint(key), "test"))
    assert not (tmp_path / "out").exists()


def test_parameters_are_filled_in_and_equal_perturbations_found() -> None:
    plan = StudyPlan(1, 1, 2, [0], ["adam-reset:moments=v", "ulp"])
    shown = [spec.branch_name for spec in resolve(plan, DECLARATIONS).perturbations]
    assert shown == ["adam-reset--moments-v--step-reset", "ulp--draw-0--scale-1"]
    with pytest.raises(PlanError, match="a perturbation is given twice"):
        resolve(StudyPlan(1, 1, 2, [0], ["ulp", "ulp:scale=1"]), DECLARATIONS)
    with pytest.raises(UnknownPerturbation, match="unknown perturbation 'nope'"):
        resolve(StudyPlan(1, 1, 2, [0], ["nope"]), DECLARATIONS)


@pytest.mark.parametrize(
    ("window", "name", "told"),
    [
        (1, "order-reverse:unit=batch", "window's 1 batches in their order for seed 0-3"),
        (2, "order-shuffle:draw=1,unit=batch", "window's 2 batches in their order for seed 3"),
    ],
)
def test_an_order_of_batches_that_is_the_controls_is_refused_with_the_seeds(
    window: int, name: str, told: str
) -> None:
    plan = StudyPlan(1, window, 9, range(4), [name])
    with pytest.raises(PlanError, match=told):
        resolve(plan, DECLARATIONS)
    resolve(plan.changed(perturbations=[name.replace("batch", "sample")]), DECLARATIONS)
    resolve(plan.changed(window=5), DECLARATIONS)


def test_branches_have_the_processes_that_no_seed_needs(shell: Shell) -> None:
    free: list[int] = []

    class Counting(InProcessWorkers):
        slots = Slots()

        def run(self, job: Job, *told: Any) -> Any:
            free.append(self.slots.adjust(0, 100))
            self.slots.adjust(free[-1], 0)
            raise PlanError("enough")

    workers: Any = Counting()
    asked = request(shell.folder / "out", jobs=5, preflight=PREFLIGHT)
    with pytest.raises(PlanError, match="enough"):
        run_study(asked, SigningKey(None, "", "test"), workers=workers)  # type: ignore[arg-type]
    assert free[0] == 5 - len(asked.seeds) > 0
    assert workers.slots.adjust(0, 100) == 5


def test_a_failing_seed_stops_the_others(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    class Failing(InProcessWorkers):
        def run(self, job: Job, *told: Any) -> Any:
            if job.kind == "preflight":
                return PREFLIGHT
            begun.append(job.seed)
            if job.seed:
                time.sleep(0.02)  # as long as a job takes at least: else all 50 may be over
            raise PlanError(f"seed {job.seed} fails")

    monkeypatch.setattr("auditkit.study.seed_runs.Workers", Failing)
    plan = StudyPlan(1, 1, 2, range(50), ["carry"])
    with pytest.raises(PlanError, match="seed 0 fails"):
        run_study(request(shell.folder / "out", plan=plan), SigningKey(None, "", "test"))  # type: ignore[arg-type]
    assert len(begun) < 50


def test_a_run_of_the_command_line_passes_the_checks_that_execute_nothing(
    uninterrupted: Path, honest: Run
) -> None:
    assert check_files(honest, strict=True).exit_code == 0
    assert (uninterrupted / "manifest.json").exists()


def test_seeds_that_are_one_and_threads_that_the_program_sets_are_warned_of_at_once(
    tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What verify would fail, the author is told while it can be mended."""

    class ManyThreads(InProcessWorkers):
        def _one(self, job: Job, report: Any) -> list[Any]:
            (result,) = super()._one(job, report)
            if job.kind == "build":  # which says nothing of its environment
                return [result]
            variables = {**result.environment.variables, "MKL_NUM_THREADS": "4"}
            return [replace(result, environment=replace(result.environment, variables=variables))]

    monkeypatch.setattr("auditkit.study.seed_runs.Workers", ManyThreads)
    store.make_folder(tmp_path / "own")
    store.copy_file(PROGRAMS / "one_seed_study.py", tmp_path / "own" / "one_seed_study.py")
    target = "one_seed_study.py:make_fixed_generator"
    source = ProgramSource(target, str(tmp_path / "own"), {})
    plan = resolve(StudyPlan(8, 3, 16, [3, 5], ["carry"], placebos=1), DECLARATIONS)
    said: list[str] = []
    signer = SigningKey(key, fingerprint(key), "test")
    run_study(StudyRequest(source, plan, tmp_path / "out"), signer, warn=said.append)
    assert said == [
        "this run will not verify: MKL_NUM_THREADS was 4, the protocol asks for 1; leave it to the "
        "plan",
        "this run will not verify: seeds 3 and 5 are one seed, with the same order; let the "
        "factory's seed decide what is drawn",
    ]
