from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forging import branch_in, edit_statement, edit_tensors, edit_trace, statement_of
from studies import (
    PROGRAMS,
    InProcessWorkers,
    Run,
    check,
    check_files,
    failures,
    findings_text,
    first_finding,
    result_of,
    study_in_process,
)

from auditkit.cli.study_plans import program_plan, script_plan
from auditkit.errors import PlanError, UnknownPerturbation
from auditkit.evidence.reader import RunEvidence
from auditkit.formats.structure import to_dict
from auditkit.records.back_flow import ARMS
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.estimate import EXACTLY_ZERO
from auditkit.records.job import ProgramSource
from auditkit.records.plan import StudyPlan, as_typed
from auditkit.records.report import VerificationReport
from auditkit.signing.keys import PrivateKey
from auditkit.study.request import resolve, script_source

TARGET = "histories_study.py:make_program"
PLAN = StudyPlan(
    fork_at=4,
    window=3,
    horizon=11,
    seeds=[0, 1, 2],
    perturbations=["data-change:name=shift"],
    placebos=1,
    causal_break="optimizer-reset",
)
SHIFT = "data-change--name-shift"
BUFFER = "optimizer/momentum_buffer"


def broken_study(out: Path, key: PrivateKey, plan: StudyPlan = PLAN, **arguments: str) -> Run:
    return study_in_process(out / "run", key, plan, TARGET, arguments=arguments)


def rows_of(report: VerificationReport) -> dict[str, Any]:
    """Rows of tv by arm."""
    assert report.estimates is not None
    return {row.arm: row for row in report.estimates.back_flow if row.metric == "tv"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    return broken_study(tmp_path_factory.mktemp("histories"), key, PLAN.changed(seeds=[0]))


@pytest.fixture
def forged(study: Run, tmp_path: Path) -> Run:
    shutil.copytree(study.folder, tmp_path / "run")
    return Run(tmp_path / "run", study.key)


def test_the_break_takes_away_what_momentum_carries(tmp_path: Path, key: PrivateKey) -> None:
    run = broken_study(tmp_path, key)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    assert "broken ones against their counterpart up to step 7" in result_of(report, 7).summary
    evidence, found = RunEvidence(run.folder, run.manifest), rows_of(report)
    by_hand = []
    for seed in run.manifest.seeds:
        assert [one.name for one in seed.branches[4:]] == [
            f"{name}~broken" for name in ("control", "placebo-0", SHIFT)
        ]
        tables = {one.name: evidence.outcome(one).tables for one in seed.branches}

        def tv(name: str, other: str, time: str, tables: Any = tables) -> float:
            here, there = (tables[each][time].astype(np.float64) for each in (name, other))
            return float((np.abs(here - there).sum(axis=1) / 2).mean())

        d1 = tv(SHIFT, "control", "t0+W")
        d2 = tv(SHIFT, "control", "T"), tv(f"{SHIFT}~broken", "control~broken", "T")
        by_hand.append((d2[0] - d1, d2[1] - d1, d2[0] - d2[1]))
    for arm, values in zip(ARMS, zip(*by_hand, strict=True), strict=True):
        assert found[arm].per_seed == pytest.approx(values, rel=1e-9)
        assert not found[arm].exactly_zero
    assert found["carried"].d1 == found["broken"].d1


def test_a_learner_without_memory_has_the_same_bits_with_and_without_the_break(
    tmp_path: Path, key: PrivateKey
) -> None:
    report = check(broken_study(tmp_path, key, momentum="0"))
    assert report.verdict == "verified", findings_text(report)
    found = rows_of(report)
    assert found["carried"].per_seed == found["broken"].per_seed
    assert found["carried"].mean != 0
    assert found["contrast"].exactly_zero
    assert found["contrast"].verdict == EXACTLY_ZERO
    assert set(found["contrast"].per_seed) == {0.0}


def test_the_break_is_between_the_window_and_what_follows(study: Run) -> None:
    seed, evidence = study.manifest.seeds[0], RunEvidence(study.folder, study.manifest)
    for name in ("control", "placebo-0", SHIFT):
        here, there = seed.branch(name), seed.branch(f"{name}~broken")
        difference = evidence.trace(here.trace).first_difference(evidence.trace(there.trace))
        assert difference is not None
        assert (difference.step, difference.components[:1]) == (8, (BUFFER,))
        assert there.broken is not None
        assert there.broken.version == 2
        assert set(there.digests["t0+W"]) - set(there.broken.digests) == {BUFFER}
        assert {n for n, v in there.broken.digests.items() if here.digests["t0+W"][n] != v} == set()
    assert as_typed(f"{SHIFT}~broken") == "data-change:name=shift, broken"


@pytest.mark.parametrize(
    "changes",
    [{"window": 6, "horizon": 13}, {"evidence_every": 4}, {"perturbations": ["order-reverse"]}],
    ids=["the window ends with an epoch", "sparse evidence", "histories of another order"],
)
def test_whatever_the_window_is_the_break_is_behind_it(
    tmp_path: Path, key: PrivateKey, changes: dict[str, Any]
) -> None:
    report = check(broken_study(tmp_path, key, PLAN.changed(seeds=[0], **changes)))
    assert report.verdict == "verified", findings_text(report)


@pytest.mark.parametrize("target", ["tiny_study.py:make_program", "own_study.py:make_program"])
def test_a_break_may_be_composed_or_the_programs_own(
    tmp_path: Path, key: PrivateKey, target: str
) -> None:
    plan = PLAN.changed(causal_break="momentum-reset+batchnorm-reset")
    if target.startswith("own"):
        source, given = ProgramSource(target, str(PROGRAMS), {}), {"causal_break": "queue-blur"}
        plan = program_plan(InProcessWorkers(), source, given)  # type: ignore[arg-type]
    plan = plan.changed(seeds=[0], perturbations=["carry"])
    run = study_in_process(tmp_path / "run", key, plan, target)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    assert [own.name for own in run.manifest.plan.own_perturbations] in ([], ["queue-blur"])
    evidence, seed = RunEvidence(run.folder, run.manifest), run.manifest.seeds[0]
    traces = [evidence.trace(seed.branch(f"{n}~broken").trace) for n in ("control", "carry")]
    assert traces[0].first_difference(traces[1]) is None


def _digest(time: str, component: str) -> Callable[[dict[str, Any]], object]:
    return lambda branch: branch["digests"][time].__setitem__(component, "0" * 64)


@pytest.mark.parametrize(
    ("edit", "number", "said"),
    [
        (_digest("t0+W", "params"), 7, "parts from data-change--name-shift before"),
        (
            lambda branch: branch["broken"]["digests"].__setitem__("params", "0" * 64),
            7,
            "changed by the causal break but not declared",
        ),
        (
            lambda branch: branch["broken"]["digests"].update(branch["digests"]["t0+W"]),
            7,
            "evidence and commitment disagree on whether the causal break changed it",
        ),
        (lambda branch: branch.pop("broken"), 4, "the record lacks a causal break"),
        (lambda branch: branch["broken"].update(version=9), 4, "causal break: version 9"),
        (lambda branch: branch.update(role="treatment"), 4, "role or perturbation is not"),
    ],
)
def test_a_forged_record_of_the_break_is_seen_without_replay(
    forged: Run, edit: Callable[[dict[str, Any]], object], number: int, said: str
) -> None:
    def edited(told: dict[str, Any]) -> None:
        edit(branch_in(told, f"{SHIFT}~broken"))

    edit_statement(forged, edited)
    report = check_files(forged)
    assert number in failures(report)
    assert said in findings_text(report)


def test_a_history_that_is_another_before_the_break_fails_check_7(forged: Run) -> None:
    edit_trace(forged, f"{SHIFT}~broken", 6, "params")
    report = check_files(forged)
    assert failures(report) == {7}
    finding = first_finding(report, 7)
    assert (finding.step, finding.component) == (6, "params")
    assert "before the causal break" in finding.message


def test_an_order_file_that_ends_before_the_break_is_a_finding(forged: Run) -> None:
    name = forged.manifest.seeds[0].order
    edit_tensors(forged, name, lambda arrays: arrays.update(order=arrays["order"][:6]))
    assert {4, 6} <= failures(check_files(forged))


def test_a_branch_that_has_a_break_without_being_broken(forged: Run) -> None:
    def edit(told: dict[str, Any]) -> None:
        branch_in(told, SHIFT)["broken"] = branch_in(told, f"{SHIFT}~broken")["broken"]

    edit_statement(forged, edit)
    assert "the record has a causal break" in findings_text(check_files(forged))


def test_a_plan_of_another_break_is_not_what_was_run(forged: Run) -> None:
    def edit(told: dict[str, Any]) -> None:
        told["predicate"]["plan"]["causal_break"] = {"name": "batchnorm-reset", "parameters": {}}
        for branch in told["predicate"]["seeds"][0]["branches"]:
            if "broken" in branch:
                branch["broken"]["version"] = 1

    edit_statement(forged, edit)
    report = check_files(forged)
    assert failures(report) == {7}
    assert "declared but not changed by the causal break" in findings_text(report)


def test_what_a_break_did_is_replayed(forged: Run) -> None:
    def edit(told: dict[str, Any]) -> None:
        branch_in(told, f"{SHIFT}~broken")["broken"]["reset"] = ["param_groups[0].lr"]

    edit_statement(forged, edit)
    report = check(forged)
    assert failures(report) == {8}
    assert "causal break" in findings_text(report)


def test_a_plan_without_a_break_has_the_bytes_that_it_had(study: Run) -> None:
    assert "causal_break" not in to_dict(PLAN.changed(causal_break=None))
    told = statement_of(study)["predicate"]["seeds"][0]["branches"]
    assert [one["name"] for one in told if "broken" in one] == list(
        study.manifest.plan.broken_names
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"horizon": 7}, "after step 7, and no step comes after it"),
        ({"fork_at": [4, 5]}, "a study with several forks has none"),
        ({"causal_break": "order-reverse"}, "order-reverse is of kind order"),
        ({"causal_break": "carry"}, "carry is of kind none"),
        ({"causal_break": "momentum-reset:yoked=yes"}, "yoked= is for a whole branch"),
        ({"causal_break": 3}, "causal_break: 3 is no perturbation"),
    ],
)
def test_a_break_that_cannot_be_is_refused_with_the_plan(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        resolve(PLAN.changed(**changes), DECLARATIONS)


def test_an_unknown_break_names_the_one_that_is_most_like_it() -> None:
    with pytest.raises(UnknownPerturbation, match="did you mean optimizer-reset"):
        resolve(PLAN.changed(causal_break="optimiser-reset"), DECLARATIONS)


def test_a_script_has_no_break() -> None:
    given = {"fork_at": 7, "window": 4, "horizon": 14, "perturbations": ["momentum-reset"]}
    plan = script_plan({**given, "causal_break": "optimizer-reset"})
    with pytest.raises(PlanError, match="a script's own loop is not stopped"):
        script_source(["python", "train.py"], plan, Path())


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({"causal_break": "momentum-reset"}, {"momentum": "0"}, "causal_break momentum-reset: "),
        ({"causal_break": "batchnorm-reset"}, {}, "causal_break batchnorm-reset: "),
    ],
)
def test_a_break_that_finds_nothing_is_refused_before_it_trains(
    tmp_path: Path, key: PrivateKey, changes: dict[str, Any], arguments: dict[str, str], said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        broken_study(tmp_path, key, PLAN.changed(**changes), **arguments)


def test_a_program_that_makes_its_own_data_has_no_common_second_segment(
    tmp_path: Path, key: PrivateKey
) -> None:
    plan = PLAN.changed(perturbations=["momentum-reset"])
    with pytest.raises(PlanError, match="the second segment must be the same for all"):
        broken_study(tmp_path, key, plan, data_from="model")
