"""Several probes, and measures: run, verified, replayed and told by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import pytest
from cli_shell import Shell
from rich.console import Console
from studies import (
    PLAN,
    Run,
    check,
    check_files,
    failures,
    findings_text,
    result_of,
    study_in_process,
    tiny_session,
)

import auditkit as ak
from auditkit.cli.estimand_tables import print_estimates
from auditkit.errors import PlanError, ProbeDisturbance, ProgramError, ProgramFailed
from auditkit.evidence.reader import RunEvidence
from auditkit.formats import canonical
from auditkit.records.estimate import EstimateTable
from auditkit.records.plan import StudyPlan
from auditkit.records.report import VerificationReport
from auditkit.signing.keys import PrivateKey
from auditkit.statistics.estimands import estimate
from auditkit.statistics.looks import NO_LABELS
from auditkit.statistics.metrics import DISTANCES, SIGNED
from auditkit.verification.branch_tables import branch_tables
from auditkit.verification.report_json import report_from_json

TARGET = "observed_study.py:make_program"
STUDY = PLAN.changed(seeds=range(3), perturbations=["momentum-reset"])
ONE = STUDY.changed(seeds=[0])


def run_of(out: Path, key: PrivateKey, plan: StudyPlan = STUDY, **arguments: str) -> Run:
    return study_in_process(out, key, plan, TARGET, arguments=arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    folder = tmp_path_factory.mktemp("observed") / "run"
    return run_of(folder, key, probes="out+in+bare", measures="norm+hits")


@pytest.fixture(scope="module")
def report(run: Run) -> VerificationReport:
    return check(run)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    """The same with the probe that has no name."""
    return study_in_process(tmp_path_factory.mktemp("single") / "run", key, STUDY)


def estimates_of(run: Run, plan: StudyPlan | None = None) -> EstimateTable:
    evidence = RunEvidence(run.folder, run.manifest)
    return estimate(branch_tables(evidence, {}), plan or run.manifest.plan)


def test_a_study_of_several_probes_and_measures_is_verified(report: VerificationReport) -> None:
    assert (report.verdict, report.exit_code) == ("verified", 0), findings_text(report)


def test_every_probe_and_measure_has_rows_under_its_name(report: VerificationReport) -> None:
    found = report.estimates
    assert found is not None
    metrics = list(dict.fromkeys(row.metric for row in found.signed))
    assert metrics == [
        *(f"out/{metric}" for metric in SIGNED),
        *(f"in/{metric}" for metric in SIGNED),
        "measures/norm",
        "measures/hits",
    ]
    named = [f"{probe}/{metric}" for probe in ("out", "in", "bare") for metric in DISTANCES]
    assert list(dict.fromkeys(row.metric for row in found.distances)) == named
    assert f"bare: {NO_LABELS}" in found.notes
    assert {level.metric.partition("/")[0] for level in found.levels} == {"out", "in", "measures"}


def test_what_the_control_reaches_of_a_measure_is_told_without_a_guess(
    run: Run, report: VerificationReport, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.estimates is not None
    level = next(
        each
        for each in report.estimates.levels
        if (each.metric, each.time) == ("measures/norm", "T")
    )
    evidence = RunEvidence(run.folder, run.manifest)
    controls = [evidence.outcome(seed.branches[0]) for seed in run.manifest.seeds]
    assert level.per_seed == tuple(float(control.tables["T=norm"][0]) for control in controls)
    assert (level.constant_guess, level.at_chance) == (None, None)
    assert report_from_json(canonical.encode(report), what="report.json") == report
    print_estimates(Console(width=100), report.estimates, everything=False)
    text = capsys.readouterr().out
    assert re.search(r"measures/norm +T +[0-9.]+ +[0-9.]+ +- +-\s", text)
    assert "- for constant guess: a measure is the program's own" in text


def test_a_measure_that_is_no_number_names_branch_and_seed(tmp_path: Path, key: PrivateKey) -> None:
    plan = STUDY.changed(seeds=[0, 1], perturbations=["momentum-reset", "carry"])
    run = run_of(tmp_path / "run", key, plan, measures="lost")
    (note,) = [note for note in estimates_of(run).notes if "is not finite" in note]
    assert note == (
        "measures/lost is not finite, and its branch left out as diverged: "
        "seed 0, momentum-reset (nan at t0); seed 1, momentum-reset (nan at t0)"
    )
    assert estimates_of(run).diverged["momentum-reset"] == 2


def test_the_primary_metric_is_the_first_probes_unless_another_is_named(run: Run) -> None:
    found = estimates_of(run)
    assert found.primary_metric == "out/tv"
    assert {row.metric for row in found.rows if row.family == "primary"} == {"out/tv"}
    for name in ("in/nll", "measures/hits"):
        other = estimates_of(run, run.manifest.plan.changed(primary_metric=name))
        assert other.primary_metric == name
        assert {row.metric for row in other.rows if row.family == "primary"} == {name}


def test_a_named_probe_has_the_numbers_that_it_has_alone(run: Run, single: Run) -> None:
    here, there = estimates_of(run), estimates_of(single)
    for row in there.rows:
        found = next(
            each
            for each in here.rows
            if (each.metric, each.variant, each.time) == (f"in/{row.metric}", row.variant, row.time)
        )
        assert (found.per_seed, found.n) == (row.per_seed, row.n)


def test_measures_are_in_the_outcome_file_at_every_time(
    run: Run, report: VerificationReport
) -> None:
    evidence = RunEvidence(run.folder, run.manifest)
    record = run.manifest.seeds[0]
    control, treated = (
        evidence.outcome(record.branch(name)).tables for name in ("control", "momentum-reset")
    )
    for time in ("t0", "t0+W", "T"):
        assert control[f"{time}=norm"].shape == (1,)
    assert control["t0=norm"] == treated["t0=norm"]  # what is drawn is the same, too
    assert control["t0=hits"] == treated["t0=hits"]
    assert report.estimates is not None
    row = next(
        row for row in report.estimates.signed if (row.metric, row.time) == ("measures/norm", "T")
    )
    assert row.per_seed[0] == float(treated["T=norm"][0] - control["T=norm"][0])
    assert row.interval is not None
    assert run.manifest.program.observed.measures[1].told == "hits (higher is better, 0 to 1)"


def test_they_are_told_by_name(
    report: VerificationReport, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.estimates is not None
    print_estimates(Console(), report.estimates, everything=False)
    text = capsys.readouterr().out
    assert all(name in text for name in ("out/tv", "in/tv", "bare/tv", "measures/norm", "out/nll"))


def test_measures_alone_make_a_study(tmp_path: Path, key: PrivateKey) -> None:
    plan = STUDY.changed(primary_metric="measures/norm")
    run = run_of(tmp_path / "run", key, plan, probes="none", measures="norm")
    report = check(run)
    assert (report.verdict, report.exit_code) == ("verified", 0), findings_text(report)
    assert report.estimates is not None
    assert {row.metric for row in report.estimates.rows} == {"measures/norm"}
    assert report.estimates.floor.developed is None


def test_a_plan_is_written_as_before_where_there_is_one_probe(single: Run) -> None:
    assert "observed" not in forging.statement_of(single)["predicate"]["program"]


@pytest.mark.parametrize(
    ("arguments", "plan", "error", "says"),
    [
        ({"measures": "text"}, ONE, ProgramError, "measure text gives"),
        ({"measures": "beyond"}, ONE, ProgramError, "beyond its range"),
        ({"measures": "writes"}, ONE, ProbeDisturbance, "measure writes"),
        ({"measures": "hooks"}, ONE, ProbeDisturbance, "hooks and methods.*measure hooks must not"),
        ({"measures": "raises"}, ONE, ProgramFailed, "measure raises raised ZeroDivisionError"),
        ({"probes": "bare+in"}, ONE.changed(primary_metric="nll"), PlanError, "needs labels"),
        ({}, ONE.changed(primary_metric="none/tv"), PlanError, "no none/tv"),
        ({}, ONE.changed(margins={"measures/norm": 1.0}), PlanError, "no measures/norm"),
        ({"measures": "hits"}, ONE.changed(margins={"measures/hits": 2.0}), PlanError, "cannot"),
        ({"probes": "none", "measures": "norm"}, ONE, PlanError, "no tv"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    tmp_path: Path,
    key: PrivateKey,
    arguments: dict[str, str],
    plan: StudyPlan,
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        run_of(tmp_path / "run", key, plan, **arguments)
    assert not list(tmp_path.glob("run/seed-*/fork*"))


def _beyond(arrays: dict[str, Any]) -> None:
    arrays["T=hits"][0] = 1.5


def _gone(arrays: dict[str, Any]) -> None:
    del arrays["T=norm"]


def _bare(arrays: dict[str, Any]) -> None:
    del arrays["T@out"]


def _labels(arrays: dict[str, Any]) -> None:
    arrays["labels@in"][0] ^= 1


@pytest.mark.parametrize("change", [_beyond, _gone, _bare, _labels])
def test_files_without_what_the_program_declares_fail_check_4(
    run: Run, copied: Callable[[Run], Run], change: Callable[[dict[str, Any]], None]
) -> None:
    other = copied(run)
    forging.edit_tensors(other, run.manifest.seeds[0].branch("momentum-reset").outcome, change)
    assert 4 in failures(check_files(other))


def test_a_measure_that_was_edited_fails_replay(run: Run, copied: Callable[[Run], Run]) -> None:
    def edit(arrays: dict[str, Any]) -> None:
        arrays["T=norm"] *= 1 + 1e-12

    other = copied(run)
    forging.edit_tensors(other, run.manifest.seeds[0].branch("momentum-reset").outcome, edit)
    assert failures(check_files(other)) == set()
    report = check(other)
    assert failures(report) == {8}
    assert "T=norm" in findings_text(report)


def test_other_declarations_than_the_programs_fail_replay(
    run: Run, copied: Callable[[Run], Run]
) -> None:
    def edit(predicate: dict[str, Any]) -> None:
        predicate["program"]["observed"]["probes"] = ["in", "out", "bare"]

    other = copied(run)
    forging.edit_predicate(other, edit)
    report = check(other)
    assert failures(report) == {8}
    places = [f.where for f in result_of(report, 8).findings if "probes and measures" in f.message]
    assert places == [f"seed {seed}, trunk" for seed in range(3)]


def test_a_number_just_beyond_its_range_is_told_in_full() -> None:
    measure = ak.Measure(lambda _: sum([0.1] * 3), low=0, high=0.3)
    with pytest.raises(ProgramError, match=r"is 0\.30000000000000004, .*0 to 0\.3.*room for round"):
        measure.value("share", None)


def test_probe_and_probes_are_not_given_together(single: Run) -> None:
    with tiny_session() as session:
        program = session.program
        probe: Any = program.probe
        with pytest.raises(ProgramError, match="probe= and probes="):
            replace(program, probes={"in": probe})
        with pytest.raises(ProgramError, match="has the name 'T'"):
            replace(program, probe=None, probes={"T": probe})
        with pytest.raises(ProgramError, match="is no Probe"):
            replace(program, probe=None, probes={"in": 1})  # type: ignore[dict-item]


def test_show_names_them(run: Run, tmp_path: Path) -> None:
    text = Shell(tmp_path)("show", str(run.path)).out
    assert re.search(r"probes +out, in, bare\s", text)
    assert re.search(r"measures +norm; hits \(higher is better, 0 to 1\)\s", text)
