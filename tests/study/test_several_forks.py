"""A study with several forks: one trunk a seed, and every fork verified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import pytest
from studies import (
    PLAN,
    InProcessWorkers,
    Run,
    check,
    check_files,
    failures,
    findings_text,
    result_of,
    study_in_process,
)

from auditkit.cli.progress import StepProgress
from auditkit.diagnose.runs import open_run
from auditkit.errors import AuditError, PlanError, StoreError
from auditkit.evidence.reader import RunEvidence
from auditkit.files.run_folder import RunFolder
from auditkit.formats import canonical
from auditkit.formats.structure import to_dict
from auditkit.records.estimate import PRIMARY, EstimateTable
from auditkit.records.fork_points import views
from auditkit.records.job import Job
from auditkit.records.plan import as_typed
from auditkit.records.report import VerificationReport
from auditkit.signing.keys import PrivateKey
from auditkit.statistics.estimands import estimate
from auditkit.statistics.multiplicity import holm
from auditkit.study.extension import EarlierStudy
from auditkit.study.request import script_source
from auditkit.study.worker import jobs as jobs_module
from auditkit.verification.branch_tables import branch_tables
from auditkit.verification.report_json import check_agreement, report_from_json
from auditkit.verification.reproduction import compare_studies, read_study

FORKS = (4, 6)
SEVERAL = PLAN.changed(
    fork_at=FORKS, horizon=10, seeds=range(3), perturbations=["momentum-reset", "order-reverse"]
)


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    """What the workers of the study were asked for."""
    return []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey, jobs: list[Job]) -> Run:
    ran = InProcessWorkers.run

    def noted(self: InProcessWorkers, job: Job, *others: Any) -> Any:
        jobs.append(job)
        result = ran(self, job, *others)
        return replace(result, read_back=True) if job.kind == "trunk" else result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InProcessWorkers, "run", noted)
        return study_in_process(tmp_path_factory.mktemp("several") / "run", key, SEVERAL)


@pytest.fixture(scope="module")
def report(run: Run) -> VerificationReport:
    return check(run)


@pytest.fixture(scope="module")
def table(report: VerificationReport) -> EstimateTable:
    assert report.estimates is not None, findings_text(report)
    return report.estimates


def test_every_fork_is_replayed_and_verified(report: VerificationReport) -> None:
    assert (report.verdict, report.exit_code) == ("verified", 0), findings_text(report)
    n_branches = 3 * 2 * (len(SEVERAL.branch_names) - 1)
    assert result_of(report, 8).summary == f"all {n_branches} branches and 6 trunks"
    assert "after steps 4, 6" in result_of(report, 7).summary


def test_the_trunk_of_a_seed_runs_once(run: Run, jobs: list[Job]) -> None:
    kinds = [job.kind for job in jobs]
    assert kinds.count("trunk") == len(run.manifest.seeds) == 3
    assert kinds.count("branches") == 6


@pytest.mark.usefixtures("run")
def test_what_the_trunk_reads_back_counts_for_the_branches_of_every_fork(jobs: list[Job]) -> None:
    assert {job.one_by_one for job in jobs if job.kind == "branches"} == {True}


def test_a_fork_is_on_record_as_a_study_of_it_alone_has_it(
    run: Run, tmp_path: Path, key: PrivateKey
) -> None:
    alone = study_in_process(tmp_path / "alone", key, SEVERAL.at(6).changed(seeds=[1]))
    here, there = run.folder / "seed-0001-fork-6", alone.folder / "seed-0001"
    names = sorted(file.name for file in there.iterdir())
    assert sorted(file.name for file in here.iterdir()) == names
    for name in names:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name


def test_the_table_names_the_fork_of_every_row(table: EstimateTable) -> None:
    assert table.forks == FORKS
    names = [f"{name}/t0={fork}" for fork in FORKS for name in SEVERAL.treatment_names]
    assert list(dict.fromkeys(row.perturbation for row in table.distances)) == names
    assert {row.perturbation for row in table.persistence} == set(names)
    times = ["t0+W/t0=4", "t0+W/t0=6", "T"]
    assert list(dict.fromkeys(level.time for level in table.levels)) == times
    assert as_typed(names[0]) == "momentum-reset at t0=4"


def test_holm_spans_the_forks(table: EstimateTable) -> None:
    primary = [row for row in table.distances if row.family == PRIMARY]
    assert len(primary) == SEVERAL.n_tests == 2 * 2 * 2
    adjusted = holm([1.0 if row.test_p is None else row.test_p for row in primary])
    for row, p in zip(primary, adjusted, strict=True):
        assert row.adjusted_p == (None if row.test_p is None else p)
    (needs,) = [note for note in table.notes if note.startswith("no test of tv can reach")]
    assert "8 tests with 1 placebo a seed" in needs


def test_each_fork_is_estimated_as_by_itself(run: Run, table: EstimateTable) -> None:
    view = views(run.manifest)[1]
    alone = estimate(branch_tables(RunEvidence(run.folder, view), {}), view.plan)
    rows = [row for row in table.rows if row.perturbation.endswith("/t0=6")]
    for here, there in zip(rows, alone.rows, strict=True):
        own: dict[str, Any] = {
            "perturbation": there.perturbation,
            "adjusted_p": there.adjusted_p,
            "adjusted_equivalence_p": there.adjusted_equivalence_p,
            "verdict": there.verdict,
        }
        assert replace(here, **own) == there


def test_the_report_is_read_back_and_agrees(run: Run, report: VerificationReport) -> None:
    assert report_from_json(canonical.encode(report), what="report.json") == report
    here = check_files(run)
    check_agreement(report, here, run.manifest, what="report.json")
    assert report.estimates is not None
    other = replace(report, estimates=replace(report.estimates, forks=()))
    with pytest.raises(AuditError, match="of another plan"):
        check_agreement(other, here, run.manifest, what="report.json")


def test_a_sample_is_drawn_from_all_forks(run: Run) -> None:
    found = check(run, replay=2, replay_seed=1)
    assert (found.verdict, found.exit_code) == ("sampled", 0), findings_text(found)
    n_all = 3 * 2 * (len(SEVERAL.branch_names) - 1)
    assert result_of(found, 8).summary.startswith(f"2 of {n_all} branches with their trunks")


def test_the_same_study_is_reproduced(run: Run) -> None:
    study = read_study(run.path, hashlib.sha256(run.path.read_bytes()).hexdigest())
    compared = compare_studies(study, study)
    assert compared.bit_identical
    assert {row.perturbation.partition("/")[2] for row in compared.rows} == {"t0=4", "t0=6"}


def test_traces_of_every_fork_can_be_compared(run: Run) -> None:
    assert "seed 0 fork 4, control" in open_run(str(run.folder)).sources
    one = open_run(f"{run.folder}#seed-2-fork-6/momentum-reset")
    assert list(one.sources) == ["seed 2 fork 6, momentum-reset"]


@pytest.fixture
def forged(run: Run, copied: Callable[[Run], Run]) -> Run:
    return copied(run)


def other_row(run: Run) -> None:
    def edit(arrays: forging.Arrays) -> None:
        arrays["params"][1, 0] ^= 1

    forging.edit_tensors(run, "seed-0001-fork-6/trunk.trace.safetensors", edit)


def other_start(run: Run) -> None:
    def edit(predicate: dict[str, Any]) -> None:
        predicate["further"][0]["seeds"][0]["initial"]["params"] = "0" * 64

    forging.edit_predicate(run, edit)


def other_end(run: Run) -> None:
    def edit(predicate: dict[str, Any]) -> None:
        for branch in predicate["further"][0]["seeds"][0]["branches"]:
            branch["digests"]["T"]["params"] = "0" * 64

    forging.edit_predicate(run, edit)


def without_a_fork(run: Run) -> None:
    forging.edit_predicate(run, lambda predicate: predicate.pop("further"))


def without_the_plan_s_fork(run: Run) -> None:
    forging.edit_predicate(run, lambda predicate: predicate["plan"].pop("further_forks"))


def swapped(run: Run) -> None:
    def edit(predicate: dict[str, Any]) -> None:
        seeds, further = predicate["seeds"], predicate["further"][0]
        predicate["seeds"], further["seeds"] = further["seeds"], seeds

    forging.edit_predicate(run, edit)


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (other_row, "the forks of a seed are not of one trunk"),
        (other_start, "the forks of a seed are not of one trunk: another initial"),
        (other_end, "the forks of a seed are not of one trunk: another state at T"),
        (without_a_fork, "the forks are not the plan's"),
        (without_the_plan_s_fork, "the forks are not the plan's"),
        (swapped, "steps"),
    ],
)
def test_forks_that_do_not_belong_together_are_caught_without_replay(
    forged: Run, forge: Callable[[Run], None], says: str
) -> None:
    forge(forged)
    found = check_files(forged)
    assert 4 in failures(found)
    assert says in findings_text(found)


def test_an_edited_table_of_a_further_fork_is_caught_by_replay(forged: Run) -> None:
    name = "seed-0002-fork-6/momentum-reset.outcome.safetensors"
    forging.edit_tensors(forged, name, lambda arrays: forging.flatter(arrays["T"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auditkit.replay.seed_replay.MAX_REPLAYS", 1)
        found = check(forged)
    assert failures(found) == {8}
    (finding,) = result_of(found, 8).findings
    assert finding.where == "t0=6, seed 2, momentum-reset"


def test_one_fork_in_a_list_is_the_plan_of_a_number() -> None:
    assert PLAN.changed(fork_at=[6]) == PLAN
    assert "further_forks" not in to_dict(PLAN)
    assert SEVERAL.changed(fork_at=4).forks == (4,)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"fork_at": []}, "fork_at: an empty list"),
        ({"fork_at": [6, 4]}, "fork_at: step 4 stands after 6"),
        ({"fork_at": [4, 4]}, "fork_at: step 4 stands after 4"),
        ({"fork_at": [4, 4.5]}, "fork_at must be whole numbers, not 4.5"),
        ({"fork_at": [0, 4]}, "fork_at must be a whole number of 1"),
        ({"fork_at": "46"}, "fork_at must be a whole number of 1"),
        ({"fork_at": [4, 6], "evidence_every": 2}, "evidence_every: a study with several forks"),
        ({"fork_at": [4, 12]}, "the window of the fork at step 12 ends at step 15"),
        ({"fork_at": [4, 6], "probe_at": [13]}, "probe_at: a study with several forks"),
    ],
)
def test_forks_that_contradict_a_plan_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        PLAN.changed(**values)


def test_a_script_takes_one_fork() -> None:
    with pytest.raises(PlanError, match="a study of a script takes one fork") as caught:
        script_source(["python", "train.py", "{seed}"], SEVERAL, Path())
    assert "a study of each fork" in str(caught.value.hint)


def test_seeds_are_added_to_a_study_with_one_fork(run: Run) -> None:
    with pytest.raises(PlanError, match="a study that seeds are added to takes one fork"):
        EarlierStudy(run.manifest, b"").extended([7])


def test_an_interrupted_study_goes_on_with_the_forks_that_are_complete(
    tmp_path: Path, key: PrivateKey
) -> None:
    plan = SEVERAL.changed(seeds=[0], perturbations=["momentum-reset"])
    ran, out = jobs_module.run_job, tmp_path / "run"
    shown, resumed = (StepProgress(plan.seed_steps, "run") for _ in range(2))
    assert plan.seed_steps == 10 + 3 * 6 + 3 * 4
    asked: list[tuple[str, int]] = []

    def noted(job: Job, *others: Any) -> Any:
        asked.append((job.kind, job.plan.fork_at if job.plan else 0))
        return ran(job, *others)

    def full_disk(job: Job, *others: Any) -> Any:
        if len(asked) == 6:  # two trials, trunk, and the three branches of the first fork
            raise StoreError("no space left")
        return noted(job, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs_module, "run_job", full_disk)
        with pytest.raises(StoreError, match="no space left"):
            study_in_process(out, key, plan, report=shown.report)
    assert "28 of 40 steps" in shown.head()
    assert asked[2:] == [("trunk", 4), *[("branches", 4)] * 3]
    assert RunFolder(out).progress().endswith("seed 0: trunk and 3 of 6 branches")
    asked.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs_module, "run_job", noted)
        run = study_in_process(out, key, plan, resume=True, report=resumed.report)
    assert "12 of 12 steps" in resumed.head(), "what was kept is not waited for"
    assert asked[2:] == [("branches", 6)] * 3
    assert check_files(run).exit_code == 0, findings_text(check_files(run))
