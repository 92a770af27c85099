"""What a replaying process is given, and how often it is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import pytest
from numpy.typing import NDArray
from studies import (
    FAULTY,
    PLAN,
    PROGRAMS,
    TINY,
    InProcessWorkers,
    Run,
    check,
    first_finding,
    result_of,
    study_in_process,
)

from auditkit.errors import OrderDrift, ProgramFailed, RestoreMismatch
from auditkit.evidence.reader import RunEvidence
from auditkit.formats.structure import to_dict
from auditkit.processes.side_by_side import Slots
from auditkit.processes.worker_pool import Workers
from auditkit.records.environment import Environment
from auditkit.records.job import Description, Job, ProgramSource
from auditkit.records.report import Finding
from auditkit.replay.study_replay import MAX_REPLAYS, ReplayOutcome, ReplayRequest, replay
from auditkit.signing.keys import PrivateKey

UNFIT = "the recorded program cannot go on from the recorded fork"


class SpyingWorkers(InProcessWorkers):
    """Notes what lies in a replay's folder before each job."""

    def __init__(self, run: Run, environment: Environment | None = None) -> None:
        super().__init__(environment or run.manifest.environment)
        self.seen: list[set[str]] = []
        self.scratch = Path()

    def run(self, job: Job, *told: Any) -> Any:
        self.scratch = Path(job.program.folder).parent
        self.seen.append(
            {
                str(path.relative_to(self.scratch))
                for path in self.scratch.rglob("*")
                if path.is_file()
            }
        )
        return super().run(job, *told)


@pytest.fixture
def spied(small: Run) -> tuple[SpyingWorkers, ReplayOutcome]:
    return replay_with(SpyingWorkers(small), small)


def replay_with(
    spy: SpyingWorkers, run: Run, names: tuple[str, ...] = ("carry",), **options: Any
) -> tuple[SpyingWorkers, ReplayOutcome]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auditkit.replay.study_replay.Workers", lambda **_: spy)
        request = ReplayRequest({0: names}, {}, **options)
        return spy, replay(RunEvidence(run.folder, run.manifest), request, lambda _: None)


def test_a_replaying_process_is_given_code_fork_and_order_only(
    spied: tuple[SpyingWorkers, ReplayOutcome],
) -> None:
    spy, _ = spied
    code = {"code/tiny_study.py"}
    given = {f"seed-0000/given/{name}.safetensors" for name in ("fork", "order")}
    assert spy.seen == [code, code | given]


def test_a_replaying_process_is_told_no_path_of_the_run(
    spied: tuple[SpyingWorkers, ReplayOutcome], small: Run
) -> None:
    spy, _ = spied
    for job in spy.jobs:
        told = json.dumps(to_dict(job))
        assert str(small.folder) not in told
        assert ".trace" not in told
        assert ".outcome" not in told


def test_nothing_of_a_replay_is_left_behind(
    spied: tuple[SpyingWorkers, ReplayOutcome], small: Run
) -> None:
    spy, _ = spied
    assert not spy.scratch.exists()
    assert not list(small.folder.rglob("__pycache__"))


def test_a_replay_that_gives_the_record_is_made_once(
    spied: tuple[SpyingWorkers, ReplayOutcome],
) -> None:
    spy, outcome = spied
    assert [job.kind for job in spy.jobs] == ["trunk", "branches"]
    assert outcome.findings == ()
    assert set(outcome.outcomes) == {(0, "control"), (0, "carry")}


def test_a_seed_without_chosen_branches_has_its_trunk_replayed(small: Run) -> None:
    spy, _ = replay_with(SpyingWorkers(small), small, ())
    assert [job.kind for job in spy.jobs] == ["trunk"]


def test_a_replay_that_differs_is_repeated(forged: Run) -> None:
    forging.edit_trace(forged, "carry", 9, "params")
    spy, outcome = replay_with(SpyingWorkers(forged), forged)
    assert [job.kind for job in spy.jobs] == ["trunk", *["branches"] * MAX_REPLAYS]
    (finding,) = outcome.findings
    assert (finding.step, finding.component, finding.exit_code) == (9, "params", 1)


def test_one_repetition_runs_other_branches_before(forged: Run) -> None:
    forging.edit_trace(forged, "carry", 9, "params")
    spy, _ = replay_with(SpyingWorkers(forged), forged)
    everything = forged.manifest.plan.branch_names[1:]
    assert [job.branches for job in spy.jobs[1:]] == [("carry",)] * 2 + [everything, ("carry",)]
    spy, _ = replay_with(SpyingWorkers(forged), forged, everything)
    assert [job.branches for job in spy.jobs[1:]] == [
        *[everything] * 2,
        everything[::-1],
        everything,
    ]


def test_only_the_first_replay_runs_branches_at_once(forged: Run) -> None:
    # What one leaves behind for the next shows where they come one after the other.
    forging.edit_trace(forged, "carry", 9, "params")
    spy, _ = replay_with(SpyingWorkers(forged), forged)
    assert [job.one_by_one for job in spy.jobs] == [False, False, True, True, True]


def test_a_replay_has_as_many_processes_as_it_is_allowed(small: Run) -> None:
    given: list[Slots] = []

    def workers(slots: Slots, **_: object) -> InProcessWorkers:
        given.append(slots)
        assert slots.adjust(0, 100) == 2  # of three, the seed has one
        assert slots.adjust(2, 0) == 0
        return InProcessWorkers(small.manifest.environment)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auditkit.replay.study_replay.Workers", workers)
        request = ReplayRequest({0: ()}, {}, jobs=3)
        replay(RunEvidence(small.folder, small.manifest), request, lambda _: None)
    assert given[0].adjust(0, 100) == 3  # it has ended


def test_what_is_found_comes_in_the_plans_order_whatever_order_was_drawn(
    forged: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auditkit.replay.seed_replay.MAX_REPLAYS", 1)
    names = forged.manifest.plan.branch_names[1:]
    for name in names:
        forging.edit_outcome(forged, name, "T", forging.flatter)
    spy, outcome = replay_with(SpyingWorkers(forged), forged, names[::-1])
    assert spy.jobs[1].branches == names[::-1]
    places = [f"seed 0, {name}" for name in names]
    assert [finding.where for finding in outcome.findings] == places
    assert list(dict.fromkeys(distance.where for distance in outcome.distances)) == places


def test_no_nondeterminism_is_said_to_have_been_seen_in_so_many_replays(forged: Run) -> None:
    forging.edit_trace(forged, "carry", 9, "params")
    _, outcome = replay_with(SpyingWorkers(forged), forged)
    (finding,) = outcome.findings
    assert f"no nondeterminism seen in {MAX_REPLAYS} replays" in finding.message


def test_an_edited_table_has_a_distance(forged: Run) -> None:
    forging.edit_outcome(forged, "carry", "T", forging.flatter)
    _, outcome = replay_with(SpyingWorkers(forged), forged)
    (found,) = outcome.distances
    assert (found.where, found.kind, found.name) == ("seed 0, carry", "probe", "T")
    assert found.total_variation is not None
    assert 0 < found.total_variation < 0.1
    assert not outcome.close


def test_an_edited_snapshot_has_a_distance(forged: Run) -> None:
    def double(slot: NDArray[Any]) -> None:
        slot *= 2

    forging.edit_fork(forged, "optimizer/momentum_buffer", "last.weight", double)
    _, outcome = replay_with(SpyingWorkers(forged), forged, ())
    (found,) = outcome.distances
    assert (found.where, found.kind, found.name) == (
        "seed 0, fork",
        "state",
        "optimizer/momentum_buffer",
    )
    assert found.largest_relative == 0.5


def test_a_sampler_that_is_another_in_replay_is_order_drift(small: Run) -> None:
    class Drifting(SpyingWorkers):
        def run(self, job: Job, *told: Any) -> Any:
            if job.kind == "branches":
                self.jobs.append(job)
                raise OrderDrift("planted", where="seed 0, carry", step=9, component="order")
            return super().run(job, *told)

    spy, outcome = replay_with(Drifting(small), small)
    assert [job.branches for job in spy.jobs[1:]] == [("carry",)] * MAX_REPLAYS
    (finding,) = outcome.findings
    assert (finding.where, finding.step, finding.component, finding.exit_code) == (
        "seed 0, carry",
        9,
        "order",
        1,
    )
    assert "order drift" in finding.message
    assert f"no nondeterminism seen in {MAX_REPLAYS} replays" in finding.message


def test_a_sampler_that_drifts_in_one_replay_of_two_is_nondeterminism(small: Run) -> None:
    class Wavering(SpyingWorkers):
        def run(self, job: Job, *told: Any) -> Any:
            if job.kind == "branches" and len(self.jobs) == 1:
                self.jobs.append(job)
                raise OrderDrift("planted", where="seed 0, carry", step=9, component="order")
            return super().run(job, *told)

    _, outcome = replay_with(Wavering(small), small)
    (finding,) = outcome.findings
    assert (finding.step, finding.component) == (9, "order")
    assert "nondeterminism: 2 replays disagree with each other" in finding.message


def test_replays_that_disagree_are_looked_into_module_by_module(
    tmp_path: Path, key: PrivateKey
) -> None:
    plan = PLAN.with_perturbations(PLAN.perturbations[:1])
    target = FAULTY.replace("make_program", "make_clock_program")
    run = study_in_process(tmp_path / "run", key, plan, target)
    spy, _ = replay_with(SpyingWorkers(run), run, ())
    assert [job.kind for job in spy.jobs] == ["trunk", "trunk", "modules", "modules"]
    assert {(job.step, job.branches) for job in spy.jobs[2:]} == {(8, ("control",))}


def test_a_replay_that_cannot_be_made_is_undecided(small: Run) -> None:
    class DyingWorkers(SpyingWorkers):
        def run(self, job: Job, *told: Any) -> Any:
            raise ProgramFailed("a worker process died with exit status -9")

    _, outcome = replay_with(DyingWorkers(small), small)
    assert outcome.undecided
    assert outcome.findings == (
        Finding(
            "cannot be replayed: a worker process died with exit status -9", "seed 0", exit_code=6
        ),
    )


def test_a_snapshot_of_another_program_cannot_be_replayed_as_recorded(forged: Run) -> None:
    def shrink(arrays: forging.Arrays) -> None:
        del arrays["params/last.bias"]

    forging.edit_tensors(forged, "seed-0000/fork.safetensors", shrink)
    report = check(forged)
    assert report.exit_code == 5
    assert "a tensor is missing" in first_finding(report, 7).message
    assert result_of(report, 8).status == "failed"
    finding = first_finding(report, 8)
    assert finding.message.startswith(f"{UNFIT}: a tensor is missing, so the record is of")
    assert finding.exit_code == 1


class UnfitWorkers(SpyingWorkers):
    """Jobs of one kind cannot be done with the state that they are given."""

    def __init__(self, run: Run, kind: str, environment: Environment | None = None) -> None:
        super().__init__(run, environment)
        self.kind = kind

    def run(self, job: Job, *told: Any) -> Any:
        if job.kind == self.kind:
            raise RestoreMismatch("another shape", where="carry", component="params")
        return super().run(job, *told)


def test_a_fork_that_the_recorded_program_cannot_restore_contradicts_the_record(
    small: Run,
) -> None:
    _, outcome = replay_with(UnfitWorkers(small, "branches"), small)
    (finding,) = outcome.findings
    assert (finding.where, finding.component) == ("seed 0, carry", "params")
    assert finding.message.startswith(f"{UNFIT}: another shape, so the record is of")
    assert (finding.exit_code, outcome.undecided) == (1, False)


def test_in_another_environment_a_fork_that_cannot_be_restored_is_undecided_and_never_close(
    small: Run,
) -> None:
    elsewhere = replace(small.manifest.environment, python="3.99.0 CPython")
    workers = UnfitWorkers(small, "branches", elsewhere)
    _, outcome = replay_with(workers, small, tolerance=1.0)
    (finding,) = outcome.findings
    assert "environment differs" in finding.message
    assert "an edit cannot be excluded" in finding.message
    assert (finding.exit_code, outcome.undecided, outcome.close) == (6, True, False)


def test_a_trunk_is_given_nothing_of_the_record_that_it_could_contradict(small: Run) -> None:
    _, outcome = replay_with(UnfitWorkers(small, "trunk"), small)
    (finding,) = outcome.findings
    assert finding.message.startswith("cannot be replayed: ")
    assert (finding.exit_code, outcome.undecided) == (6, True)


@pytest.mark.parametrize("n_answers", [1, 2])
def test_repetitions_that_fail_take_nothing_from_what_was_found(
    n_answers: int, forged: Run
) -> None:
    class TiringWorkers(SpyingWorkers):
        def run(self, job: Job, *told: Any) -> Any:
            if job.kind == "branches" and len(self.jobs) > n_answers:
                raise ProgramFailed("tired")
            return super().run(job, *told)

    forging.edit_trace(forged, "carry", 9, "params")
    _, outcome = replay_with(TiringWorkers(forged), forged)
    (finding,) = outcome.findings
    assert (finding.step, finding.component, finding.exit_code) == (9, "params", 1)
    seen = f"{n_answers} replay{'s' if n_answers > 1 else ''}, so the record is of"
    assert f"no nondeterminism seen in {seen}" in finding.message
    assert not outcome.undecided


@pytest.mark.parametrize(
    "edit",
    [
        lambda predicate: predicate["program"]["description"].update(optimizer="Adam"),
        lambda predicate: predicate["seeds"][0]["data"]["loader"].update({"batch size": "512"}),
        lambda predicate: predicate["seeds"][0]["data"].update(consumed_sha256="0" * 64),
        lambda predicate: predicate["seeds"][0]["data"].update(probe_sha256="0" * 64),
        lambda predicate: predicate["seeds"][0]["initial"].update(params="0" * 64),
        lambda predicate: predicate["seeds"][0]["rng"]["streams"][0].update(start="0" * 64),
        lambda predicate: predicate["seeds"][0]["branches"][0]["digests"]["T"].update(
            params="0" * 64
        ),
    ],
    ids=["description", "loader", "data", "probe", "initial", "stream", "commitment"],
)
def test_what_the_manifest_says_of_the_program_is_compared_with_the_replay(
    forged: Run, edit: Callable[[dict[str, Any]], None]
) -> None:
    forging.edit_predicate(forged, edit)
    report = check(forged)
    assert report.exit_code == 1
    assert result_of(report, 8).status == "failed"


def test_a_seed_that_is_another_fails_its_replay(forged: Run) -> None:
    def rename(predicate: dict[str, Any]) -> None:
        predicate["plan"]["seeds"] = [5]
        predicate["seeds"][0]["seed"] = 5

    forging.edit_predicate(forged, rename)
    report = check(forged)
    assert report.exit_code == 1
    assert first_finding(report, 8).step == 1


@pytest.mark.usefixtures("new_interpreters")
def test_workers_import_nothing_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A reader may well stand in the folder of somebody else's run.
    (tmp_path / "auditkit").mkdir()
    for name in ("torch.py", "auditkit/__init__.py", "auditkit/__main__.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the working folder')")
    monkeypatch.chdir(tmp_path)
    job = Job("describe", ProgramSource(TINY, str(PROGRAMS), {}), None, 0, out="", step=0)
    with Workers() as workers:
        described: Description = workers.run(job)
    assert described.plan is not None
