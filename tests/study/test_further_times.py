"""A study with further times: what it adds is verified, and what it had before stays the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forging
import numpy as np
import pytest
from studies import (
    PLAN,
    Run,
    check,
    check_files,
    failures,
    findings_text,
    result_of,
    study_in_process,
)

from auditkit.evidence.reader import RunEvidence
from auditkit.formats import canonical
from auditkit.records.estimate import EstimateTable
from auditkit.records.report import VerificationReport
from auditkit.replay.attempts import Attempt, SeedComparison
from auditkit.signing.keys import PrivateKey
from auditkit.statistics.estimands import estimate
from auditkit.verification.branch_tables import branch_tables
from auditkit.verification.report_json import check_agreement, report_from_json
from auditkit.verification.reproduction import compare_studies, read_study

#: The fork is at step 6, the window ends at 9, the horizon is 14; an epoch ends at step 8.
WITHOUT = PLAN.changed(seeds=range(3), perturbations=["momentum-reset"])
WITH = WITHOUT.changed(probe_at=[7, 8, 12])
FURTHER = ("t0+1", "t0+2", "t0+6")
BRANCH = "momentum-reset"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> tuple[Run, Run]:
    """The same study without further times and with some."""
    folder = tmp_path_factory.mktemp("further")
    without = study_in_process(folder / "without", key, WITHOUT)
    return without, study_in_process(folder / "with", key, WITH)


@pytest.fixture(scope="module")
def report(runs: tuple[Run, Run]) -> VerificationReport:
    return check(runs[1])


@pytest.fixture
def curved(runs: tuple[Run, Run], copied: Callable[[Run], Run]) -> Run:
    """A copy of the study with further times, to be forged."""
    return copied(runs[1])


def estimates_of(run: Run) -> EstimateTable:
    """The estimates of what was recorded."""
    evidence = RunEvidence(run.folder, run.manifest)
    return estimate(branch_tables(evidence, {}), run.manifest.plan)


def test_every_branch_is_evaluated_and_digested_at_every_time_and_verified(
    runs: tuple[Run, Run], report: VerificationReport
) -> None:
    assert (report.verdict, report.exit_code) == ("verified", 0), findings_text(report)
    evidence = RunEvidence(runs[1].folder, runs[1].manifest)
    times = {"t0", "t0+W", "T", *FURTHER}
    for seed in evidence.manifest.seeds:
        for branch in seed.branches:
            assert set(branch.digests) == times
            tables = set(evidence.outcome(branch).tables)
            assert tables == times | {f"{time}/recalibrated" for time in times}


def test_nothing_at_the_two_times_depends_on_further_ones(
    runs: tuple[Run, Run], report: VerificationReport
) -> None:
    without, within = (RunEvidence(run.folder, run.manifest) for run in runs)
    for before, after in zip(without.manifest.seeds, within.manifest.seeds, strict=True):
        for here, there in zip(before.branches, after.branches, strict=True):
            assert here.digests.items() <= there.digests.items()
            traces = {(run.folder / here.trace).read_bytes() for run in runs}
            assert len(traces) == 1
            tables = within.outcome(there).tables
            for name, table in without.outcome(here).tables.items():
                assert table.tobytes() == tables[name].tobytes()
    earlier, later = estimates_of(runs[0]), report.estimates
    assert later is not None
    assert earlier.rows == tuple(row for row in later.rows if row.time not in FURTHER)
    assert earlier.persistence == later.persistence
    assert (earlier.notes, earlier.floor) == (later.notes, later.floor)


def test_a_manifest_without_them_is_written_as_before(runs: tuple[Run, Run]) -> None:
    plans = [forging.statement_of(run)["predicate"]["plan"] for run in runs]
    assert "probe_at" not in plans[0]
    assert plans[1] == {**plans[0], "probe_at": [7, 8, 12]}


def test_the_report_has_their_rows_and_what_the_control_reaches(
    runs: tuple[Run, Run], report: VerificationReport
) -> None:
    table = report.estimates
    assert table is not None
    assert list(table.times.items()) == [
        *(("t0+1", 7), ("t0+2", 8), ("t0+W", 9), ("t0+6", 12), ("T", 14)),
    ]
    further = [row for row in table.rows if row.time in FURTHER]
    assert len(further) == 3 * 9 * 2  # times, metrics, as is and recalibrated
    assert {row.family for row in further} == {"exploratory"}
    assert {level.time for level in table.levels} == set(table.times)
    assert report_from_json(canonical.encode(report), what="report.json") == report
    check_agreement(report, check_files(runs[1]), runs[1].manifest, what="report.json")


def other_commitment(run: Run) -> None:
    def edit(statement: forging.Statement) -> None:
        forging.branch_in(statement, BRANCH)["digests"]["t0+6"]["params"] = "0" * 64

    forging.edit_statement(run, edit)


def test_what_is_edited_at_a_further_time_is_caught_by_replay(curved: Run) -> None:
    other_commitment(curved)
    forging.edit_outcome(curved, BRANCH, "t0+2", forging.flatter, seed=1)
    forging.edit_outcome(curved, "control", "t0+6/recalibrated", forging.flatter, seed=2)
    forging.edit_outcome(curved, "replica", "t0+6/recalibrated", forging.flatter, seed=2)
    found = check(curved)
    assert (found.exit_code, failures(found), found.estimates) == (1, {8}, None)
    places = [(f.where, f.step, f.component) for f in result_of(found, 8).findings]
    assert places == [
        (f"seed 0, {BRANCH}", 12, "params"),
        (f"seed 1, {BRANCH}", None, "t0+2"),
        ("seed 2, control", None, "t0+6/recalibrated"),
        ("seed 2, replica", None, "t0+6/recalibrated"),
    ]


def test_no_environment_excuses_what_is_edited_at_a_further_time(
    runs: tuple[Run, Run], curved: Run
) -> None:
    other_commitment(curved)
    recorded, here = (RunEvidence(run.folder, run.manifest) for run in (curved, runs[1]))
    branch = here.manifest.seeds[0].branch(BRANCH)
    traces, outcomes = {BRANCH: here.trace(branch.trace)}, {BRANCH: here.outcome(branch)}
    attempt = Attempt(None, traces, outcomes, {BRANCH: branch})
    seed = SeedComparison(recorded.seed(recorded.manifest.seeds[0]))
    (found,) = seed.unfounded(attempt)
    assert (found.kind, found.step, found.component) == ("commitment", 12, "params")


def without_number(run: Run) -> None:
    forging.edit_outcome(run, BRANCH, "t0+2", lambda table: table.fill(np.nan))


def without_table(run: Run) -> None:
    def edit(arrays: forging.Arrays) -> None:
        del arrays["t0+6"]

    for branch in run.manifest.plan.branch_names:
        name = forging.branch_in(forging.statement_of(run), branch)["outcome"]
        forging.edit_tensors(run, name, edit)


def without_commitments(run: Run) -> None:
    def edit(statement: forging.Statement) -> None:
        del forging.branch_in(statement, BRANCH)["digests"]["t0+6"]

    forging.edit_statement(run, edit)


def without_component(run: Run) -> None:
    def edit(statement: forging.Statement) -> None:
        del forging.branch_in(statement, BRANCH)["digests"]["t0+6"]["params"]

    forging.edit_statement(run, edit)


def change_plan(*steps: int) -> Callable[[Run], None]:
    def edit(predicate: dict[str, Any]) -> None:
        predicate["plan"]["probe_at"] = list(steps)
        if not steps:
            del predicate["plan"]["probe_at"]

    return lambda run: forging.edit_predicate(run, edit)


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (without_number, "diverged at step 8 by its evidence, at None by the manifest"),
        (without_table, "outcome tables are "),
        (without_commitments, "commitments are not given for t0, t0+1, t0+2, t0+W, t0+6, T and"),
        (without_component, "no commitment at t0+6"),
        (change_plan(), "commitments are not given for t0, t0+W, T and no other time"),
        (change_plan(7, 12), "commitments are not given for t0, t0+1, t0+W, t0+6, T and"),
        (change_plan(7, 8, 11), "commitments are not given for t0, t0+1, t0+2, t0+W, t0+5, T"),
    ],
)
def test_times_that_are_not_the_plans_are_caught_without_replay(
    curved: Run, forge: Callable[[Run], None], says: str
) -> None:
    forge(curved)
    found = check_files(curved)
    assert (found.exit_code, 4 in failures(found)) == (1, True)
    assert says in findings_text(found)


@pytest.mark.parametrize("steps", [(12, 7), (7, 7), (9,), (14,)])
def test_a_plan_whose_further_steps_are_none_is_malformed(
    curved: Run, steps: tuple[int, ...]
) -> None:
    change_plan(*steps)(curved)
    assert (check_files(curved).exit_code, check_files(curved).verdict) == (5, "failed")


def test_a_reproduction_compares_further_times_too(runs: tuple[Run, Run], curved: Run) -> None:
    def compared(reproduced: Run) -> Any:
        paths: list[Path] = [reproduced.path, runs[1].path]
        read = [read_study(path, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths]
        return compare_studies(*read)

    assert compared(runs[1]).bit_identical
    assert {row.time for row in compared(runs[1]).rows} == set(WITH.probed)
    forging.edit_outcome(curved, BRANCH, "t0+6", forging.flatter)
    assert compared(curved).edited == (
        f"seed 0, {BRANCH}: the recorded table t0+6 is not of the recorded states",
    )
