from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forging import (
    branch_in,
    edit_order,
    edit_predicate,
    edit_tensors,
    edit_trace,
    statement_of,
)
from studies import (
    Run,
    check,
    check_files,
    failures,
    findings_text,
    first_finding,
    result_of,
    study_in_process,
)

from auditkit.cli.study_plans import script_plan
from auditkit.errors import NothingToPerturb, PlanError, ProgramError
from auditkit.evidence.reader import RunEvidence
from auditkit.formats.outcome_names import ALIGNMENT
from auditkit.formats.structure import to_dict
from auditkit.records.plan import StudyPlan
from auditkit.records.segments import SegmentPlan
from auditkit.signing.keys import PrivateKey
from auditkit.study.request import script_source

DIRECTIONS = "segments_study.py:of_directions"
BATCHNORM = "segments_study.py:with_batchnorm"
PLAN = StudyPlan(
    fork_at=3,
    window=2,
    horizon=7,
    seeds=[0],
    perturbations=["data-change:name=shift"],
    placebos=1,
    causal_break="optimizer-reset",
    segments=SegmentPlan(overlap=0.5, same_classes=True, hold_batchnorm=True),
)
TURN = PLAN.changed(
    perturbations=["data-change:name=turn"],
    causal_break=None,
    segments=SegmentPlan(alignment=True),
)
TURNED, SHIFTED = "data-change--name-turn", "data-change--name-shift"


def cosines(run: Run) -> dict[str, float]:
    """The alignment of every branch that has one."""
    evidence = RunEvidence(run.folder, run.manifest)
    tables = {one.name: evidence.outcome(one).tables for one in run.manifest.seeds[0].branches}
    return {name: float(t[ALIGNMENT][0]) for name, t in tables.items() if ALIGNMENT in t}


# Momentum against gradient


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("second", "control"), [("x", 1.0), ("y", 0.0), ("-x", -1.0)])
def test_the_cosine_of_momentum_and_gradient_is_the_known_one(
    tmp_path: Path, key: PrivateKey, second: str, control: float, optimizer: str
) -> None:
    given = {"second": second, "optimizer": optimizer}
    is_broken = (second, optimizer) == ("y", "sgd")
    plan = TURN.changed(causal_break="optimizer-reset") if is_broken else TURN
    run = study_in_process(tmp_path / "run", key, plan, DIRECTIONS, arguments=given)
    found = cosines(run)
    assert found["control"] == found["replica"] == pytest.approx(control, abs=1e-7)
    # History A' saw the axis turned into y inside the window, and x before it.
    x, y = 0.9**4 + 0.9**3 + 0.9**2, 0.9 + 1
    wanted = {"x": x, "y": y, "-x": -x}[second] / np.hypot(x, y)
    assert found[TURNED] == pytest.approx(wanted, rel=1e-6)
    assert {name for name in found if name.endswith("~broken")} == set()
    if is_broken:
        report = check(run)
        assert report.verdict == "verified", findings_text(report)


def test_without_momentum_there_is_no_cosine(tmp_path: Path, key: PrivateKey) -> None:
    given = {"optimizer": "plain"}
    run = study_in_process(tmp_path / "run", key, TURN, DIRECTIONS, arguments=given)
    assert cosines(run) == {}
    assert check_files(run).verdict == "integrity-only"


def test_a_forged_cosine_is_seen(tmp_path: Path, key: PrivateKey) -> None:
    run = study_in_process(tmp_path / "run", key, TURN, DIRECTIONS)
    copy = Run(tmp_path / "copy", run.key)
    shutil.copytree(run.folder, copy.folder)
    name = branch_in(statement_of(run), TURNED)["outcome"]
    edit_tensors(copy, name, lambda a: a.update({ALIGNMENT: np.array([0.25])}))
    assert failures(check_files(copy)) == set()
    report = check(copy)
    assert failures(report) == {8}
    assert ALIGNMENT in findings_text(report)
    edit_tensors(copy, name, lambda a: a.update({ALIGNMENT: np.array([1.25])}))
    assert "cosine of momentum and gradient is 1.25" in findings_text(check_files(copy))
    edit_predicate(run, lambda told: told["plan"].pop("segments"))
    assert "the plan does not ask it" in findings_text(check_files(run))


# Statistics that are held, and the indices and classes of B


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    return study_in_process(tmp_path_factory.mktemp("segments") / "run", key, PLAN, BATCHNORM)


@pytest.fixture
def forged(study: Run, tmp_path: Path) -> Run:
    shutil.copytree(study.folder, tmp_path / "run")
    return Run(tmp_path / "run", study.key)


def test_a_study_of_segments_verifies(study: Run) -> None:
    report = check(study)
    assert report.verdict == "verified", findings_text(report)
    assert "segment B has a share of 0.5 of A's indices" in result_of(report, 6).summary


def test_statistics_are_held_from_t0_on_and_move_before(study: Run) -> None:
    evidence, seed = RunEvidence(study.folder, study.manifest), study.manifest.seeds[0]
    trunk = evidence.trace(seed.trunk)
    assert len({trunk.cell(step, "batchnorm") for step in range(1, 5)}) == 4
    flags = {trunk.cell(1, "modules")}
    for one in seed.branches:
        trace = evidence.trace(one.trace)
        rows = range(trace.first_step, trace.last_step + 1)
        assert {trace.cell(step, "batchnorm") for step in rows} == {trunk.cell(4, "batchnorm")}
        assert len({trace.cell(step, "params") for step in rows}) == len(rows)
        flags |= {trace.cell(step, "modules") for step in rows}
    assert len(flags) == 1


def test_where_it_is_not_asked_statistics_move(tmp_path: Path, key: PrivateKey) -> None:
    plan = PLAN.changed(segments=SegmentPlan(overlap=0.5))
    run = study_in_process(tmp_path / "run", key, plan, BATCHNORM)
    edit_predicate(run, lambda told: told["plan"]["segments"].update(hold_batchnorm=True))
    report = check_files(run)
    assert failures(report) == {7}
    finding = first_finding(report, 7)
    assert "BatchNorm's statistics are not held" in finding.message
    assert (finding.step, finding.component) == (5, "batchnorm")


@pytest.mark.parametrize(
    "changes",
    [
        {"causal_break": "batchnorm-reset"},
        {"causal_break": None, "perturbations": ["batchnorm-reset"]},
        {"evidence_every": 3},
    ],
    ids=["a causal break resets them", "a treatment at t0 does", "sparse evidence"],
)
def test_what_is_held_is_what_a_branch_began_with(
    tmp_path: Path, key: PrivateKey, changes: dict[str, Any]
) -> None:
    run = study_in_process(tmp_path / "run", key, PLAN.changed(**changes), BATCHNORM)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        (dict.fromkeys(("same_classes", "hold_batchnorm", "alignment"), False), "nothing is said"),
        ({"overlap": 2}, "overlap"),
        ({"overlap": "0.5"}, "overlap"),
        ({"held": True}, "held"),
    ],
)
def test_a_forged_plan_of_segments_is_malformed(
    forged: Run, segments: dict[str, Any], said: str
) -> None:
    nothing = {"overlap": None} if len(segments) > 1 else {}
    edit_predicate(forged, lambda told: told["plan"]["segments"].update({**nothing, **segments}))
    report = check_files(forged)
    assert failures(report) == {1}
    assert said in findings_text(report)


@pytest.mark.parametrize("name", ["control", SHIFTED, f"{SHIFTED}~broken"])
def test_statistics_that_moved_in_a_row_fail_check_7(forged: Run, name: str) -> None:
    edit_trace(forged, name, 7, "batchnorm")
    report = check_files(forged)
    assert 7 in failures(report)
    assert "BatchNorm's statistics are not held" in findings_text(report)


def test_a_step_that_moves_them_is_refused(tmp_path: Path, key: PrivateKey) -> None:
    with pytest.raises(ProgramError, match="changed BatchNorm's running statistics") as failed:
        study_in_process(tmp_path / "run", key, PLAN, BATCHNORM, arguments={"mode": "forced"})
    assert failed.value.step == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"overlap": "0.25"}, "segment B has 2 of A's 8 indices, and the plan says 4"),
        ({"same_classes": "no"}, "segment A has . samples of class ., and B "),
    ],
)
def test_segments_that_are_not_as_planned_are_refused(
    tmp_path: Path, key: PrivateKey, given: dict[str, str], said: str
) -> None:
    with pytest.raises(PlanError, match=said) as refused:
        study_in_process(tmp_path / "run", key, PLAN, BATCHNORM, arguments=given)
    assert "fork_at=3, steps=2" in str(refused.value.hint)


def test_an_order_of_another_overlap_fails_check_6(forged: Run) -> None:
    def disjoint(batches: list[Any]) -> None:
        free = sorted(set(range(60)) - {int(n) for batch in batches[3:] for n in batch[:, 1]})
        for batch in batches[5:]:
            batch[:, 1] = free[: len(batch)]

    edit_order(forged, disjoint)
    report = check_files(forged)
    assert 6 in failures(report)
    assert "segment B has 0 of A's 8 indices, and the plan says 4" in findings_text(report)


def test_classes_that_are_not_a_s_are_seen_in_replay(tmp_path: Path, key: PrivateKey) -> None:
    plan = PLAN.changed(segments=SegmentPlan(overlap=0.5))
    given = {"same_classes": "no"}
    run = study_in_process(tmp_path / "run", key, plan, BATCHNORM, arguments=given)
    edit_predicate(run, lambda told: told["plan"]["segments"].update(same_classes=True))
    assert failures(check_files(run)) == set()
    report = check(run)
    assert failures(report) == {8}
    assert "samples of class" in findings_text(report)


# The two segments in the other order

SWAP = PLAN.changed(
    window=4,
    horizon=8,
    perturbations=["order-swap:unit=batch", "order-swap:unit=batch,augment=kept"],
    causal_break=None,
    segments=None,
)


def test_segments_that_are_swapped_take_their_augmentation_along(
    tmp_path: Path, key: PrivateKey
) -> None:
    run = study_in_process(tmp_path / "run", key, SWAP, DIRECTIONS)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    evidence, seed = RunEvidence(run.folder, run.manifest), run.manifest.seeds[0]
    names = ("control", *SWAP.treatment_names)
    control, by_step, kept = (evidence.trace(seed.branch(name).trace) for name in names)
    for step, source in [(4, 6), (5, 7), (6, 4), (7, 5), (8, 8)]:
        assert kept.cell(step, "batch") == control.cell(source, "batch")
        assert by_step.cell(step, "batch") == control.cell(step, "batch")
        assert kept.cell(step, "order") == by_step.cell(step, "order")
    # All of the batch is made by the augmentation, so that only what is kept is another course.
    assert by_step.cell(8, "params") == control.cell(8, "params") != kept.cell(8, "params")


@pytest.mark.parametrize(
    ("target", "swap", "said"),
    [
        (DIRECTIONS, "order-swap:augment=kept", "augment=kept is of whole batches"),
        (BATCHNORM, "order-swap:unit=batch,augment=kept", "the program augments no batches"),
    ],
)
def test_augmentation_that_cannot_be_kept_is_refused(
    tmp_path: Path, key: PrivateKey, target: str, swap: str, said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        study_in_process(tmp_path / "run", key, SWAP.changed(perturbations=[swap]), target)


# What a plan can say


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"horizon": 5}, "B begins after step 5, and no step comes after it"),
        ({"fork_at": [3, 4], "causal_break": None}, "a study with several forks has none"),
        ({"segments": SegmentPlan()}, "nothing is said of them"),
        ({"segments": {"overlap": 0.5}}, "not a SegmentPlan"),
    ],
)
def test_segments_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        TURN.changed(**{"causal_break": None, **changes})


@pytest.mark.parametrize("given", [{"overlap": 1.5}, {"overlap": "1"}, {"overlap": float("nan")}])
def test_an_overlap_that_is_none_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="overlap is 0 to 1"):
        SegmentPlan(**given)


def test_a_script_has_no_segments() -> None:
    given = {"fork_at": 7, "window": 4, "horizon": 14, "perturbations": ["momentum-reset"]}
    plan = script_plan({**given, "segments": SegmentPlan(alignment=True)})
    with pytest.raises(PlanError, match="in a script's own loop nothing is held"):
        script_source(["python", "train.py"], plan, Path())


def test_classes_need_labels_and_indices(tmp_path: Path, key: PrivateKey) -> None:
    plan = TURN.changed(segments=SegmentPlan(same_classes=True))
    with pytest.raises(NothingToPerturb, match="no whole-number labels"):
        study_in_process(tmp_path / "run", key, plan, DIRECTIONS)


def test_a_plan_without_segments_has_the_bytes_that_it_had() -> None:
    assert "segments" not in to_dict(PLAN.changed(segments=None))
