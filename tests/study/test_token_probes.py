"""Probes with labels a position: streamed, and the same numbers as of a whole table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import forging
import pytest
from studies import (
    PLAN,
    PROGRAMS,
    InProcessWorkers,
    Run,
    check,
    check_files,
    failures,
    findings_text,
    result_of,
    study_in_process,
)

from auditkit.errors import ProbeDisturbance, ProgramFailed
from auditkit.evidence.reader import RunEvidence
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.estimate import EstimateTable
from auditkit.records.job import Job, ProgramSource, Progress
from auditkit.records.report import VerificationReport
from auditkit.signing.keys import PrivateKey, fingerprint
from auditkit.signing.trust import SigningKey
from auditkit.statistics.design import SCALES
from auditkit.statistics.estimands import estimate
from auditkit.statistics.looks import NO_LABELS
from auditkit.statistics.metrics import kl
from auditkit.statistics.positions import DISTANCES_BY_POSITION, PositionTable, position_tables
from auditkit.study.request import StudyRequest, resolve
from auditkit.study.runner import run_study
from auditkit.verification.branch_tables import branch_tables

TARGET = "token_study.py:make_program"
STUDY = PLAN.changed(
    seeds=range(2), perturbations=["momentum-reset", "batchnorm-reset"], probe_at=[7]
)


def run_of(out: Path, key: PrivateKey, plan: Any = STUDY, **arguments: str) -> Run:
    return study_in_process(out, key, plan, TARGET, arguments=arguments)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> dict[str, Run]:
    """One study, with the probe looked at in every way."""
    folder = tmp_path_factory.mktemp("tokens")
    rows = {"tokens": "5", "flat": "5", "none": "2"}
    return {view: run_of(folder / view, key, view=view, rows=rows[view]) for view in rows}


@pytest.fixture(scope="module")
def report(runs: dict[str, Run]) -> VerificationReport:
    return check(runs["tokens"])


def evidence_of(run: Run) -> RunEvidence:
    return RunEvidence(run.folder, run.manifest)


def estimates_of(run: Run) -> EstimateTable:
    return estimate(branch_tables(evidence_of(run), {}), run.manifest.plan)


def test_a_study_of_a_token_probe_is_verified_with_every_branch_replayed(
    runs: dict[str, Run], report: VerificationReport
) -> None:
    assert (report.verdict, report.exit_code) == ("verified", 0), findings_text(report)
    assert report.estimates == estimates_of(runs["tokens"])


def alike(left: Any, right: Any) -> bool:
    """Whether everything is equal, numbers but for the rounding of a sum."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(alike(left[key], right[key]) for key in left)
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(alike, left, right))
    if isinstance(left, float):
        return bool(left == pytest.approx(right, rel=1e-9, abs=1e-12))
    return bool(left == right)


def test_the_numbers_are_those_of_the_whole_table(runs: dict[str, Run]) -> None:
    here, there = estimates_of(runs["tokens"]), estimates_of(runs["flat"])
    assert len(here.rows) == len(there.rows) == 2 * 9 * 2 * 3
    for left, right in zip((*here.rows, *here.levels), (*there.rows, *there.levels), strict=True):
        for name, value in asdict(left).items():
            if name in ("seed_distance", "rho", "at_chance"):  # no whole rows are kept
                continue
            assert alike(value, asdict(right)[name]), name
    assert here.floor == there.floor
    assert any("no seed-to-seed distance" in note for note in here.notes)


def test_kl_of_the_whole_table_is_kept_too(runs: dict[str, Run]) -> None:
    tokens, flat = evidence_of(runs["tokens"]), evidence_of(runs["flat"])
    for seed, other in zip(tokens.manifest.seeds, flat.manifest.seeds, strict=True):
        control = flat.outcome(other.branches[0]).tables
        first = position_tables(tokens.outcome(seed.branches[0]).tables)
        for branch in other.branches[1:]:
            tables = position_tables(tokens.outcome(seed.branch(branch.name)).tables)
            assert isinstance(first["T"], PositionTable)
            assert isinstance(tables["T"], PositionTable)
            found = DISTANCES_BY_POSITION["kl"](first["T"], tables["T"])
            assert found == pytest.approx(kl(control["T"], flat.outcome(branch).tables["T"]))


def test_what_was_not_asked_for_by_position_stays_a_whole_table(runs: dict[str, Run]) -> None:
    tables = evidence_of(runs["flat"]).outcome(runs["flat"].manifest.seeds[0].branches[0]).tables
    assert {table.shape for table in tables.values()} == {(25, 7)}


def test_without_labels_there_are_distances_and_no_signed_outcomes(runs: dict[str, Run]) -> None:
    report = check(runs["none"])
    assert (report.verdict, report.exit_code) == ("verified", 0), findings_text(report)
    found = report.estimates
    assert found is not None
    assert (found.signed, found.levels) == ((), ())
    assert NO_LABELS in found.notes
    assert len(found.distances) == 2 * 4 * 2 * 3
    outcome = evidence_of(runs["none"]).outcome(runs["none"].manifest.seeds[0].branches[0])
    assert outcome.labels.size == 0
    assert len(outcome.tables["T:predicted"]) == 30


def test_a_whole_table_without_labels(tmp_path: Path, key: PrivateKey) -> None:
    run = run_of(tmp_path / "run", key, STUDY.changed(seeds=[0]), view="rows-none")
    report = check(run)
    assert (report.verdict, report.exit_code) == ("verified", 0), findings_text(report)
    assert report.estimates is not None
    assert not report.estimates.signed


def test_a_predict_that_draws_is_given_the_same_draws_everywhere(
    tmp_path: Path, key: PrivateKey
) -> None:
    run = run_of(tmp_path / "run", key, STUDY.changed(seeds=[0]), predict="noisy", rows="2")
    assert check(run).verdict == "verified"


def test_nothing_is_left_but_the_files_of_the_manifest(runs: dict[str, Run]) -> None:
    run = runs["tokens"]
    listed = {file.name for file in run.manifest.files}
    here = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    assert here - listed <= {"manifest.json", "signer.pub"}


def test_a_probe_that_looks_at_more_than_the_model_is_refused(
    tmp_path: Path, key: PrivateKey
) -> None:
    with pytest.raises(ProbeDisturbance, match="does not give what it gave in the control"):
        run_of(tmp_path / "run", key, STUDY.changed(seeds=[0]), predict="leaky")


def test_numbers_do_not_depend_on_how_many_positions_are_looked_at_together(
    runs: dict[str, Run], tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auditkit.program.position_scores._ELEMENTS", 3)
    other = run_of(tmp_path / "run", key)
    for name in ("control", "momentum-reset"):
        here, there = (
            evidence_of(run).outcome(run.manifest.seeds[1].branch(name))
            for run in (runs["tokens"], other)
        )
        for column, values in here.tables.items():
            assert values.tobytes() == there.tables[column].tobytes()


def test_a_nudge_is_tried_on_a_token_probe(tmp_path: Path, key: PrivateKey) -> None:
    run = run_of(tmp_path / "run", key, STUDY.changed(seeds=[0], placebo_scale="auto"))
    assert run.manifest.plan.placebo_scale in SCALES


class Stopping(InProcessWorkers):
    """Dies at a branch."""

    def _one(self, job: Job, report: Callable[[Progress], None]) -> list[Any]:
        if job.branches[:1] == ("momentum-reset",):
            raise ProgramFailed("stopped")
        return super()._one(job, report)


@pytest.mark.parametrize("references", ["kept", "lost"])
def test_a_study_that_was_stopped_between_branches_goes_on(
    runs: dict[str, Run], tmp_path: Path, key: PrivateKey, references: str
) -> None:
    whole, out = runs["tokens"], tmp_path / "run"
    source = ProgramSource(TARGET, str(PROGRAMS), {"view": "tokens", "rows": "5"})
    request = StudyRequest(source, resolve(STUDY, DECLARATIONS), out, resume=True)
    signed_by = SigningKey(key, fingerprint(key), "test")
    with pytest.raises(ProgramFailed, match="stopped"):
        run_study(request, signed_by, workers=Stopping())  # type: ignore[arg-type]
    left = list(out.glob("seed-0000/*.reference.partial"))
    assert len(left) == 3
    if references == "lost":
        left[0].unlink()
    again = InProcessWorkers()
    run_study(request, signed_by, workers=again)  # type: ignore[arg-type]
    ran = [job.kind for job in again.jobs if job.seed == 0]
    assert ("trunk" in ran) == (references == "lost")
    for file in whole.manifest.files:
        if file.role != "code":
            assert (out / file.name).read_bytes() == (whole.folder / file.name).read_bytes()


# Forgeries


def _lower(columns: dict[str, Any]) -> None:
    columns["T:tv"][0] *= 0.1


def _half(columns: dict[str, Any]) -> None:
    for name in ("tv", "js", "hellinger", "kl"):
        columns[f"T:{name}"] *= 0


def _sure(columns: dict[str, Any]) -> None:
    columns["T:label_probability"][:] = 1


def _negative(columns: dict[str, Any]) -> None:
    columns["T:js"][3] = -0.5


def _without(columns: dict[str, Any]) -> None:
    del columns["T:kl"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_lower, "tv is less than the difference|tv and hellinger"),
        (_half, "tv is less than the difference|tv is 0"),
        (_sure, "label_probability and predicted"),
        (_negative, "column js is beyond"),
        (_without, "has the columns"),
    ],
)
def test_columns_that_no_probabilities_give_fail_check_4(
    runs: dict[str, Run],
    copied: Callable[[Run], Run],
    change: Callable[[dict[str, Any]], None],
    says: str,
) -> None:
    run = copied(runs["tokens"])
    forging.edit_tensors(run, run.manifest.seeds[0].branch("momentum-reset").outcome, change)
    found = result_of(check_files(run), 4)
    assert found.status == "failed"
    assert re.search(says, "\n".join(map(str, found.findings)))


def test_a_distance_that_was_scaled_fails_replay(
    runs: dict[str, Run], copied: Callable[[Run], Run]
) -> None:
    def scale(columns: dict[str, Any]) -> None:
        columns["T:js"] *= 1 - 1e-6

    run = copied(runs["tokens"])
    forging.edit_tensors(run, run.manifest.seeds[0].branch("momentum-reset").outcome, scale)
    assert failures(check_files(run)) == set()
    report = check(run)
    assert failures(report) == {8}
    assert "T:js" in findings_text(report)


def test_a_replica_that_is_not_its_control_fails_check_9(
    runs: dict[str, Run], copied: Callable[[Run], Run]
) -> None:
    def part(columns: dict[str, Any]) -> None:
        columns["T:kl"][0] = 1e-9

    run = copied(runs["tokens"])
    forging.edit_tensors(run, run.manifest.seeds[0].branch("replica").outcome, part)
    assert 9 in failures(check_files(run))
