from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
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

from auditkit.errors import OrderDrift, PlanError
from auditkit.evidence.reader import RunEvidence
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.digest import ABSENT
from auditkit.records.evidence import Trace
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.signing.keys import PrivateKey
from auditkit.verification.order import check_branch_order

GATHERING = "gathering_study.py:make_program"
PLAN = StudyPlan(
    fork_at=20,
    window=5,
    horizon=90,
    seeds=[0],
    perturbations=["carry", "momentum-reset"],
    placebos=1,
)


def gathered(
    tmp_path: Path,
    key: PrivateKey,
    plan: StudyPlan = PLAN,
    warn: Callable[[str], None] = lambda _: None,
    **arguments: str,
) -> Run:
    return study_in_process(tmp_path / "run", key, plan, GATHERING, arguments=arguments, warn=warn)


def control_trace(run: Run) -> Trace:
    evidence = RunEvidence(run.folder, run.manifest)
    return evidence.seed(run.manifest.seeds[0]).control


def test_a_study_without_a_loader_verifies_and_its_effects_are_total(
    tmp_path: Path, key: PrivateKey
) -> None:
    run = gathered(tmp_path, key)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    assert run.manifest.seeds[0].data.loader == {"loader": "none"}
    assert run.manifest.seeds[0].data.data_from == "step"
    assert report.estimates is not None
    assert {(row.perturbation, row.effect) for row in report.estimates.rows} == {
        ("carry", ""),
        ("momentum-reset", "total"),
    }
    assert "momentum-reset is a total effect: in 1 of 1 seeds" in report.estimates.notes[0]
    summary = result_of(report, 6).summary
    assert summary.endswith("made other data by their own course: momentum-reset")


@pytest.mark.parametrize("says", ["batch", "twice", "nothing"])
def test_what_a_step_says_is_evidence_and_what_it_does_not_say_is_none(
    tmp_path: Path, key: PrivateKey, says: str
) -> None:
    run = gathered(tmp_path, key, says=says)
    assert check_files(run).verdict == "integrity-only", findings_text(check_files(run))
    control = control_trace(run)
    cells = {name: control.cell(30, name) for name in ("order", "batch")}
    if says == "nothing":
        assert set(cells.values()) == {ABSENT}
    else:
        assert ABSENT not in cells.values()
        assert (cells["order"] == cells["batch"]) is (says == "batch")


def test_state_that_is_not_registered_parts_the_replica_from_the_control(
    tmp_path: Path, key: PrivateKey
) -> None:
    warnings: list[str] = []
    run = gathered(tmp_path, key, warn=warnings.append, registered="no")
    assert "this run will not verify: seed 0, replica is not what the control is" in warnings[0]
    report = check_files(run)
    assert {6, 9} <= failures(report)
    assert first_finding(report, 6).where == "seed 0, replica"
    assert (
        "replica parts from the control: step 22 took another batch"
        in first_finding(report, 9).message
    )


def mined(tmp_path: Path, key: PrivateKey, **arguments: str) -> Run:
    plan = PLAN.changed(horizon=30)
    target = "mining_study.py:make_program"
    return study_in_process(tmp_path / "run", key, plan, target, arguments=arguments)


def test_a_sampler_that_asks_the_model_is_refused_unless_the_program_says_so(
    tmp_path: Path, key: PrivateKey
) -> None:
    with pytest.raises(OrderDrift, match="yielded other samples than for the control"):
        mined(tmp_path / "undeclared", key, data_from="loader")
    run = mined(tmp_path, key)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    assert report.estimates is not None
    effects = {row.perturbation: row.effect for row in report.estimates.rows}
    assert effects == {"carry": "", "momentum-reset": "total"}


def test_order_perturbations_are_refused_where_no_order_is_held(
    tmp_path: Path, key: PrivateKey
) -> None:
    plan = PLAN.with_perturbations([PerturbationSpec("order-reverse")])
    with pytest.raises(PlanError, match="without a loader has no order"):
        gathered(tmp_path, key, plan)


def test_a_forged_order_of_a_branch_of_its_own_is_caught_without_replay(
    tmp_path: Path, key: PrivateKey
) -> None:
    run = gathered(tmp_path, key)
    seed = run.manifest.seeds[0]
    evidence = RunEvidence(run.folder, run.manifest).seed(seed)
    branch = replace(seed.branch("momentum-reset"), order_sha256="0" * 64)
    trace = evidence.run.trace(branch.trace)
    found = list(check_branch_order(evidence, branch, trace, PLAN, DECLARATIONS))
    assert [finding.message for finding in found] == ["the order is not the committed one"]
