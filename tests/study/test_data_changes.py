from __future__ import annotations

from pathlib import Path

import pytest
from studies import (
    Run,
    check,
    check_files,
    failures,
    findings_text,
    first_finding,
    study_in_process,
)

from auditkit.cli.study_plans import script_plan
from auditkit.errors import NothingToPerturb, PlanError, ProbeDisturbance
from auditkit.evidence.reader import RunEvidence
from auditkit.program.untouched import MACHINERY
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.evidence import DELIVERED
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey
from auditkit.study.replicas import refuse_unchanged_data
from auditkit.study.request import resolve

CHANGES = ("label-noise:fraction=0.5", "augmentation-off", "stage-shift:steps=9")
PLAN = StudyPlan(
    fork_at=7,
    window=4,
    horizon=14,
    seeds=[0],
    perturbations=["carry", *CHANGES, "data-change:name=blur", "order-reverse"],
    placebos=1,
)
BLUR = PLAN.changed(perturbations=["data-change:name=blur"])


def changed(out: Path, key: PrivateKey, plan: StudyPlan, **arguments: str) -> Run:
    target = "changing_study.py:make_program"
    return study_in_process(out / "run", key, plan, target, arguments=arguments)


@pytest.mark.parametrize("augment", ["yes", "no"])
def test_same_samples_other_bytes_inside_the_window_and_nowhere_else(
    tmp_path: Path, key: PrivateKey, augment: str
) -> None:
    plan = PLAN
    if augment == "no":
        plan = PLAN.changed(perturbations=["carry", CHANGES[0], "data-change:name=blur"])
    run = changed(tmp_path, key, plan, augment=augment)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    seed, evidence = run.manifest.seeds[0], RunEvidence(run.folder, run.manifest)
    control = evidence.trace(seed.branches[0].trace)
    assert (DELIVERED in control.columns) is (augment == "yes")
    for branch in seed.branches[3:]:
        trace = evidence.trace(branch.trace)
        if branch.name in ("carry", "order-reverse"):
            continue
        differing = [t for t in range(8, 15) if trace.cell(t, "batch") != control.cell(t, "batch")]
        assert differing == [8, 9, 10, 11], branch.name
        assert control.first_unequal(trace, "order", 8, 15) is None


def test_augmentation_off_is_what_the_loader_delivers(tmp_path: Path, key: PrivateKey) -> None:
    run = changed(tmp_path, key, PLAN.changed(perturbations=["augmentation-off"]))
    seed = run.manifest.seeds[0]
    trace = RunEvidence(run.folder, run.manifest).trace(seed.branch("augmentation-off").trace)
    assert [trace.cell(t, "batch") == trace.cell(t, DELIVERED) for t in range(8, 15)] == [
        *[True] * 4,
        *[False] * 3,
    ]


@pytest.mark.parametrize("augment", ["yes", "no"])
def test_a_byte_that_is_touched_outside_the_window_fails_check_6(
    tmp_path: Path, key: PrivateKey, augment: str
) -> None:
    run = changed(tmp_path, key, BLUR, augment=augment, change="leak")
    report = check_files(run)
    assert failures(report) == {6}
    assert "what was changed is not what the control was delivered" in findings_text(report)
    assert "the control's samples with other bytes, outside the window" in findings_text(report)
    assert first_finding(report, 6).component == "batch"


def test_a_change_that_changes_nothing_fails_check_7(tmp_path: Path, key: PrivateKey) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auditkit.study.runner.refuse_unchanged_data", lambda *_: None)
        run = changed(tmp_path, key, BLUR, augment="no", change="nothing")
    with pytest.raises(NothingToPerturb, match=r"data-change:name=blur changed no byte .* 8 to 11"):
        refuse_unchanged_data(run.folder, run.manifest)
    report = check_files(run)
    assert failures(report) == {7}
    assert first_finding(report, 7).message == "the data inside the window are the control's"


@pytest.mark.parametrize(
    ("perturbation", "arguments", "said"),
    [
        ("data-change:name=sharpen", {}, "the program has no data change 'sharpen'; it has blur"),
        ("stage-shift", {"augment": "no"}, "the program augments no batches"),
        ("augmentation-off", {"augment": "no"}, "the program augments no batches"),
        ("data-change:name=blur", {"change": "raise"}, "no blur today"),
    ],
)
def test_what_a_program_cannot_change_is_refused_before_it_trains(
    tmp_path: Path, key: PrivateKey, perturbation: str, arguments: dict[str, str], said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        changed(tmp_path, key, PLAN.changed(perturbations=[perturbation]), **arguments)


def test_samples_without_indices_have_nothing_but_their_bytes(
    tmp_path: Path, key: PrivateKey
) -> None:
    plan = PLAN.changed(perturbations=["label-noise"])
    with pytest.raises(PlanError, match="are known by their bytes alone"):
        study_in_process(tmp_path / "run", key, plan, arguments={"data": "iterable"})


def test_without_a_loader_there_is_no_batch_to_change(tmp_path: Path, key: PrivateKey) -> None:
    plan = PLAN.changed(perturbations=["label-noise"])
    with pytest.raises(PlanError, match="no loader delivers them to a branch"):
        study_in_process(tmp_path / "run", key, plan, "gathering_study.py:make_program")


def test_a_script_that_trains_by_itself_has_no_changes_of_data() -> None:
    given = {"fork_at": 7, "window": 4, "horizon": 14, "perturbations": ["carry", "label-noise"]}
    with pytest.raises(PlanError, match="as in a script, nothing tells"):
        script_plan(given)
    assert script_plan({**given, "perturbations": ["order-reverse"]}).seeds == (0,)


@pytest.mark.parametrize(("change", "component"), [("weights", "params"), ("hook", MACHINERY)])
def test_a_change_of_the_data_may_touch_nothing_else(
    tmp_path: Path, key: PrivateKey, change: str, component: str
) -> None:
    with pytest.raises(ProbeDisturbance, match="changing the data of step") as caught:
        changed(tmp_path, key, BLUR, augment="no", change=change)
    assert caught.value.component == component


def test_a_change_that_changed_no_byte_is_said_by_the_run(tmp_path: Path, key: PrivateKey) -> None:
    with pytest.raises(NothingToPerturb, match="this run will not verify"):
        changed(tmp_path, key, BLUR, augment="no", change="nothing")


def test_inherited_streams_and_changes_of_data_exclude_each_other() -> None:
    with pytest.raises(PlanError, match="under augmentation_rng='inherit', as in a script"):
        resolve(BLUR.changed(augmentation_rng="inherit"), DECLARATIONS)
