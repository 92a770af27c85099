"""Probes of real numbers, embeddings and policies, and metrics of one's own on their outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import numpy as np
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
    study_in_process,
)

from auditkit.cli.estimand_tables import print_estimates
from auditkit.errors import PlanError, ProgramError, ProgramFailed
from auditkit.evidence.reader import RunEvidence
from auditkit.paper.citations import floor_lines, floor_summary
from auditkit.paper.report_page import Said, Shown, page
from auditkit.records.estimate import DistanceEstimate, EstimateTable, SignedEstimate
from auditkit.records.observed import MeasureRecord, Observed
from auditkit.records.output_kinds import KINDS
from auditkit.records.plan import StudyPlan
from auditkit.records.report import VerificationReport
from auditkit.signing.keys import PrivateKey
from auditkit.statistics.estimands import estimate
from auditkit.statistics.looks import NO_TARGETS
from auditkit.statistics.real_outputs import CONSTANT_TARGETS
from auditkit.verification.branch_tables import branch_tables

TARGET = "real_study.py:make_program"
STUDY = PLAN.changed(
    seeds=range(3), perturbations=["momentum-reset", "carry"], primary_metric="real/scaled_rmsd"
)
ONE = STUDY.changed(seeds=[0])


def run_of(out: Path, key: PrivateKey, plan: StudyPlan = STUDY, **arguments: str) -> Run:
    return study_in_process(out, key, plan, TARGET, arguments=arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    folder = tmp_path_factory.mktemp("real") / "run"
    return run_of(folder, key, probes="real+emb+policy+constant+bare", measures="worst")


@pytest.fixture(scope="module")
def report(run: Run) -> VerificationReport:
    return check(run)


@pytest.fixture(scope="module")
def found(report: VerificationReport) -> EstimateTable:
    assert report.estimates is not None
    return report.estimates


def row_of(found: EstimateTable, metric: str, name: str = "momentum-reset", time: str = "T") -> Any:
    return next(
        row
        for row in found.rows
        if (row.metric, row.perturbation, row.time, row.variant) == (metric, name, time, "as-is")
    )


def table(run: Run, seed: int, branch: str, name: str) -> Any:
    record = run.manifest.seeds[seed].branch(branch)
    return RunEvidence(run.folder, run.manifest).outcome(record).tables[name].astype(float)


def test_they_are_verified_with_every_branch_replayed(report: VerificationReport) -> None:
    assert (report.verdict, report.exit_code) == ("verified", 0), findings_text(report)


def test_every_kind_has_rows_of_its_own_metrics(found: EstimateTable) -> None:
    metrics = dict.fromkeys(row.metric for row in found.rows)
    expected = [f"real/{name}" for name in KINDS["regression"].metrics]
    expected += [f"emb/{name}" for name in KINDS["embedding"].metrics]
    expected += [f"policy/{name}" for name in KINDS["classes"].distances]
    expected += [f"constant/{name}" for name in KINDS["regression"].metrics if name != "r2"]
    expected += [f"bare/{name}" for name in KINDS["regression"].distances]
    assert set(metrics) == {*expected, "measures/worst"}
    assert {row.metric for row in found.rows if row.family == "primary"} == {"real/scaled_rmsd"}
    assert any(CONSTANT_TARGETS in note for note in found.notes)
    assert f"bare: {NO_TARGETS}" in found.notes
    assert not any("emb" in note for note in found.notes)


def test_errors_are_those_of_the_recorded_tables(run: Run, found: EstimateTable) -> None:
    for seed in range(3):
        targets = table(run, seed, "control", "targets@real")
        errors = {
            name: table(run, seed, name, "T@real:regression") - targets
            for name in ("control", "momentum-reset")
        }
        spread = np.square(targets - targets.mean(axis=0)).sum(axis=0)
        by_hand: dict[str, Callable[[Any], float]] = {
            "mse": lambda e: float((e**2).mean()),
            "rmse": lambda e: float((e**2).mean() ** 0.5),
            "mae": lambda e: float(abs(e).mean()),
            "r2": lambda e: float((1 - (e**2).sum(axis=0) / spread).mean()),  # noqa: B023
        }
        for metric, of in by_hand.items():
            expected = of(errors["momentum-reset"]) - of(errors["control"])
            row: SignedEstimate = row_of(found, f"real/{metric}")
            assert row.per_seed[seed] == pytest.approx(expected, rel=1e-9)
        worst = abs(errors["momentum-reset"]).max() - abs(errors["control"]).max()
        assert row_of(found, "measures/worst").per_seed[seed] == pytest.approx(worst, rel=1e-5)


def test_scaled_distances_are_in_units_of_the_seeds_spread(run: Run, found: EstimateTable) -> None:
    name = "T@real:regression"
    controls = np.stack([table(run, seed, "control", name) for seed in range(3)])
    spread = np.sqrt(controls.var(axis=0, ddof=1).mean(axis=0))
    row: DistanceEstimate = row_of(found, "real/scaled_rmsd")
    plain: DistanceEstimate = row_of(found, "real/rmsd")
    for seed in range(3):
        gaps = controls[seed] - table(run, seed, "momentum-reset", name)
        nudges = controls[seed] - table(run, seed, "placebo-0", name)
        assert row.per_seed[seed] == pytest.approx(((gaps / spread) ** 2).mean() ** 0.5, rel=1e-9)
        floor = ((nudges / spread) ** 2).mean() ** 0.5
        assert row.floor_per_seed[seed] == pytest.approx(floor, rel=1e-9)
        assert plain.per_seed[seed] == pytest.approx((gaps**2).mean() ** 0.5, rel=1e-9)
    assert row.permutation_p is not None
    assert row.seed_distance == pytest.approx(2**0.5, rel=0.3)  # two draws of one spread


def test_what_changes_nothing_is_exactly_0(found: EstimateTable) -> None:
    for metric in ("real/mse", "real/scaled_rmsd", "emb/cka_distance", "policy/tv"):
        row = row_of(found, metric, "carry")
        assert row.exactly_zero
        assert set(row.per_seed) == {0.0}


def test_no_number_is_missing_without_a_word(found: EstimateTable) -> None:
    for row in found.rows:
        assert all(np.isfinite(row.per_seed))
        assert row.n == 3
    assert {level.metric for level in found.levels if "real" in level.metric} == {
        "real/mse",
        "real/mae",
    }


def test_tables_say_which_way_is_better(
    found: EstimateTable, capsys: pytest.CaptureFixture[str]
) -> None:
    print_estimates(Console(width=200), found, everything=True)
    text = capsys.readouterr().out
    assert "mse, rmse, mae: lower is better; r2: higher is better" in text
    assert "exceed an RMSD over the predictions' own SD of 0.001" in text


def test_a_page_explains_their_metrics_and_names_their_floor(
    run: Run, report: VerificationReport, found: EstimateTable
) -> None:
    whole = page("a study", report, run.manifest, Said(), Shown())
    assert '<dt id="word-estimands-metrics-of-real-numbers">' in whole
    assert floor_lines(found)[0].startswith("floor of real/scaled_rmsd at t0+W: ")
    other = replace(found, primary_metric="real/mse")
    assert floor_lines(other)[0].startswith("floor of real/rmsd at t0+W: ")
    assert "exceed an RMSD over the predictions' own SD of 0.001" in floor_summary(found)


def test_show_says_what_probes_give(run: Run, tmp_path: Path) -> None:
    shown = " ".join(Shell(tmp_path)("show", str(run.path)).out.split())
    assert "probes real (regression), emb (embedding), policy, constant (regression)" in shown
    assert "measures worst (lower is better, 0 to inf, of probe real)" in shown
    assert Observed(outputs=("embedding",)).told == "embedding"
    assert MeasureRecord("f1", on="").told == "f1 (of the probe)"


def test_an_unnamed_probe_has_the_same_numbers(
    found: EstimateTable, tmp_path: Path, key: PrivateKey
) -> None:
    plan = STUDY.changed(primary_metric="r2", perturbations=["momentum-reset"])
    run = run_of(tmp_path / "run", key, plan, probes="real", measures="worst")
    alone = check(run).estimates
    assert alone is not None
    for row in alone.rows:
        named = row.metric if row.metric.startswith("measures/") else f"real/{row.metric}"
        there = next(
            each
            for each in found.rows
            if (each.metric, each.time, each.variant, each.perturbation)
            == (named, row.time, row.variant, row.perturbation)
        )
        assert there.per_seed == row.per_seed
    said = forging.statement_of(run)["predicate"]["program"]["observed"]
    assert said["outputs"] == ["regression"]
    assert said["measures"][0]["on"] == ""


@pytest.mark.parametrize(
    ("probes", "primary", "note"),
    [
        ("still", "rmsd", "the controls of all seeds predict the same in 2 of 2 outputs"),
        ("one", "mse", CONSTANT_TARGETS),
        ("point", "relative_distance", "every example has the same embedding"),
    ],
)
def test_what_cannot_be_told_is_said(
    tmp_path: Path, key: PrivateKey, probes: str, primary: str, note: str
) -> None:
    plan = STUDY.changed(primary_metric=primary, perturbations=["momentum-reset"])
    run = run_of(tmp_path / "run", key, plan, probes=probes)
    found = estimate(branch_tables(RunEvidence(run.folder, run.manifest), {}), plan)
    assert any(note in each for each in found.notes)
    assert all(np.isfinite(row.per_seed).all() and row.n == 3 for row in found.rows)
    assert {row.metric for row in found.rows if row.family == "primary"} == {primary}


@pytest.mark.parametrize(
    ("arguments", "plan", "error", "says"),
    [
        ({"probes": "softmax"}, "rmsd", ProgramError, "sums to 1, as class probabilities do"),
        ({"probes": "narrow"}, "rmsd", ProgramError, "one number a target"),
        ({"probes": "huge"}, "rmsd", ProgramError, "beyond float32"),
        ({"probes": "whole"}, "rmsd", ProgramError, "found torch.int64"),
        ({"probes": "empty"}, "cka_distance", ProgramError, "width 0"),
        ({"probes": "pair"}, "cka_distance", ProgramError, "too few examples"),
        ({"probes": "real"}, "tv", PlanError, "one of them, with --primary or primary_metric="),
        ({"probes": "emb"}, "mse", PlanError, "mse is no metric of these"),
        ({"measures": "worst"}, "tv", PlanError, "scaled_rmsd or measures/worst"),
        ({"probes": "classes"}, "rmsd", PlanError, "rmsd is no metric of these"),
        ({"probes": "bare"}, "mse", PlanError, "needs targets"),
        ({"probes": "constant"}, "r2", PlanError, "r2 does not exist"),
        ({"probes": "real"}, "scaled_rmsd", PlanError, "there is one seed"),
        ({"measures": "beyond"}, "rmsd", ProgramError, "beyond its range"),
        ({"measures": "undefined"}, "rmsd", ProgramError, "is nan where all outputs"),
        ({"measures": "elsewhere"}, "rmsd", ProgramError, "a probe that there is not"),
        ({"measures": "raises"}, "rmsd", ProgramFailed, "measure raises raised"),
        ({"probes": "tokens", "measures": "worst"}, "tv", ProgramError, "by position"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    tmp_path: Path,
    key: PrivateKey,
    arguments: dict[str, str],
    plan: str,
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error) as caught:
        run_of(tmp_path / "run", key, ONE.changed(primary_metric=plan), **arguments)
    assert says in str(caught.value)
    assert not list(tmp_path.glob("run/seed-*/fork*"))


def test_a_margin_of_no_probe_is_refused(tmp_path: Path, key: PrivateKey) -> None:
    plan = ONE.changed(primary_metric="rmsd", margins={"tv": 0.1})
    with pytest.raises(PlanError, match="margins: the probe gives real numbers"):
        run_of(tmp_path / "run", key, plan, probes="real")


def test_predictions_that_are_nan_are_a_divergence(tmp_path: Path, key: PrivateKey) -> None:
    plan = ONE.changed(primary_metric="rmsd", perturbations=["carry"])
    run = run_of(tmp_path / "run", key, plan, probes="nan", measures="worst")
    assert run.manifest.seeds[0].branches[0].diverged_at == plan.fork_at
    report = check_files(run)
    assert failures(report) == set(), findings_text(report)


def test_a_measure_on_class_probabilities(tmp_path: Path, key: PrivateKey) -> None:
    plan = STUDY.changed(primary_metric="measures/hits", perturbations=["momentum-reset"])
    found = check(run_of(tmp_path / "run", key, plan, probes="classes", measures="hits")).estimates
    assert found is not None
    ours, theirs = row_of(found, "measures/hits"), row_of(found, "accuracy")
    assert ours.per_seed == pytest.approx(theirs.per_seed, abs=1e-7)


def _other_kind(arrays: dict[str, Any]) -> None:
    arrays["T@emb:regression"] = arrays.pop("T@emb:embedding")


def _fewer(arrays: dict[str, Any]) -> None:
    arrays["T@real:regression"] = arrays["T@real:regression"][:, :1]


def _other_targets(arrays: dict[str, Any]) -> None:
    arrays["targets@real"][0] += 1


def _targets_of_classes(arrays: dict[str, Any]) -> None:
    arrays["targets@policy"] = np.zeros((9, 3))


def _not_finite(arrays: dict[str, Any]) -> None:
    arrays["T@emb:embedding"][0, 0] = np.nan


def _probabilities(arrays: dict[str, Any]) -> None:
    arrays["T@real"] = np.full((9, 2), 0.5, dtype=np.float32)


@pytest.mark.parametrize(
    "change",
    [_other_kind, _fewer, _other_targets, _targets_of_classes, _not_finite, _probabilities],
)
def test_files_without_what_the_program_declares_fail_check_4(
    run: Run, copied: Callable[[Run], Run], change: Callable[[dict[str, Any]], None]
) -> None:
    other = copied(run)
    forging.edit_tensors(other, run.manifest.seeds[0].branch("momentum-reset").outcome, change)
    assert 4 in failures(check_files(other))


@pytest.mark.parametrize("name", ["T@real:regression", "T@emb:embedding", "T=worst"])
def test_what_was_edited_fails_replay(run: Run, copied: Callable[[Run], Run], name: str) -> None:
    def edit(arrays: dict[str, Any]) -> None:
        arrays[name] *= 1 + 1e-6

    other = copied(run)
    forging.edit_tensors(other, run.manifest.seeds[0].branch("momentum-reset").outcome, edit)
    assert failures(check_files(other)) == set()
    report = check(other)
    assert failures(report) == {8}
    assert name in findings_text(report)


def test_another_kind_than_the_programs_fails(run: Run, copied: Callable[[Run], Run]) -> None:
    def edit(predicate: dict[str, Any]) -> None:
        predicate["program"]["observed"]["outputs"][1] = "classes"

    other = copied(run)
    forging.edit_predicate(other, edit)
    assert 4 in failures(check_files(other))
