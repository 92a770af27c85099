from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_shell import content
from studies import (
    InProcessWorkers,
    Run,
    check,
    failures,
    findings_text,
    study_in_process,
)

from auditkit.errors import PlanError, ProgramError
from auditkit.evidence.reader import RunEvidence
from auditkit.files import store
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.job import Job
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey
from auditkit.verification.own_data import check_consumed

PLAN = StudyPlan(
    fork_at=20,
    window=5,
    horizon=90,
    seeds=[0],
    perturbations=["carry:yoked=yes", "momentum-reset", "momentum-reset:yoked=yes"],
    placebos=1,
)


def yoked(
    out: Path,
    key: PrivateKey,
    plan: StudyPlan = PLAN,
    *,
    resume: bool = False,
    **arguments: str,
) -> Run:
    target = arguments.pop("target", "gathering_study.py:make_program")
    return study_in_process(out / "run", key, plan, target, arguments=arguments, resume=resume)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    return yoked(tmp_path_factory.mktemp("yoked"), key, says="twice")


def test_a_yoked_branch_is_given_the_controls_data_and_its_effect_is_direct(run: Run) -> None:
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    assert report.estimates is not None
    effects = {row.perturbation: row.effect for row in report.estimates.rows}
    assert effects == {
        "carry--yoked-yes": "direct",
        "momentum-reset": "total",
        "momentum-reset--yoked-yes": "direct",
    }
    assert "momentum-reset:yoked=yes is a direct effect" in " ".join(report.estimates.notes)


def test_known_answer_a_yoked_carry_equals_the_control_bit_for_bit(run: Run) -> None:
    evidence = RunEvidence(run.folder, run.manifest)
    seed = run.manifest.seeds[0]
    control, treated, direct = (
        evidence.trace(seed.branch(name).trace)
        for name in ("control", "momentum-reset", "momentum-reset--yoked-yes")
    )
    assert evidence.trace(seed.branch("carry--yoked-yes").trace).first_difference(control) is None
    assert control.first_unequal(treated, "batch", 21, 91) is not None
    for name in ("order", "batch"):
        assert control.first_unequal(direct, name, 21, 91) is None
    assert control.first_unequal(direct, "params", 21, 92) is not None
    # What it gathers is its own all the same: the data are replaced, not the program.
    assert control.first_unequal(direct, "extras/walk", 21, 92) is not None


def test_data_that_the_control_did_not_consume_are_caught_without_replay(
    run: Run, tmp_path: Path
) -> None:
    seed = run.manifest.seeds[0]
    evidence = RunEvidence(run.folder, run.manifest)
    assert list(check_consumed(evidence.seed(seed), PLAN)) == []
    name = seed.branches[0].consumed
    assert name is not None
    folder = tmp_path / "seed-0000"
    store.make_folder(folder)
    for file in (run.folder / "seed-0000").iterdir():
        store.copy_file(file, folder / file.name)
    data = bytearray((run.folder / name).read_bytes())
    data[-3] ^= 1
    (tmp_path / name).write_bytes(data)
    (found,) = check_consumed(RunEvidence(tmp_path, run.manifest).seed(seed), PLAN)
    assert found.message == "data drift: branches were yoked to other data than the control's"


class Killed(BaseException):
    """As a kill, nobody handles it."""


def killed_before(branch: str, out: Path, key: PrivateKey, plan: StudyPlan) -> Path:
    """A study that ends where a branch would begin; what it kept of the control's data."""
    one = InProcessWorkers._one

    def killing(self: InProcessWorkers, job: Job, report: Any) -> list[Any]:
        if job.kind == "branches" and job.branches[0] == branch:
            raise Killed
        return one(self, job, report)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InProcessWorkers, "_one", killing)
        with pytest.raises(Killed):
            yoked(out, key, plan, says="twice")
    return out / "run" / "seed-0000" / f"consumed.safetensors{store.PARTIAL}"


def test_a_yoked_study_that_is_killed_between_branches_is_resumed_with_the_controls_data(
    run: Run, tmp_path: Path, key: PrivateKey
) -> None:
    kept = killed_before("momentum-reset--yoked-yes", tmp_path, key, PLAN)
    assert (kept.parent / f"carry--yoked-yes.json{store.PARTIAL}").exists()
    written = kept.stat().st_mtime_ns
    resumed = yoked(tmp_path, key, resume=True, says="twice")
    assert kept.with_suffix("").stat().st_mtime_ns == written
    assert content(resumed.folder) == content(run.folder)
    report = check(resumed, replay="none")
    assert not failures(report), findings_text(report)


def test_consumed_data_that_were_changed_in_between_are_not_resumed_with(
    tmp_path: Path, key: PrivateKey
) -> None:
    plan = PLAN.changed(horizon=30, perturbations=["momentum-reset:yoked=yes"])
    kept = killed_before("momentum-reset--yoked-yes", tmp_path, key, plan)
    data = bytearray(kept.read_bytes())
    data[-3] ^= 1
    kept.write_bytes(data)
    resumed = yoked(tmp_path, key, plan, resume=True, says="twice")
    assert kept.with_suffix("").read_bytes() != bytes(data)
    report = check(resumed, replay="none")
    assert not failures(report), findings_text(report)


def test_a_record_that_lacks_them_is_not_believed(run: Run) -> None:
    seed = run.manifest.seeds[0]
    control = replace(seed.branches[0], consumed=None)
    forged = replace(seed, branches=(control, *seed.branches[1:]))
    (found,) = check_consumed(RunEvidence(run.folder, run.manifest).seed(forged), PLAN)
    assert found.message == "the record lacks what the control consumed"


def test_a_sampler_that_asks_the_model_delivers_the_controls_samples_where_it_is_yoked(
    tmp_path: Path, key: PrivateKey
) -> None:
    plan = PLAN.changed(horizon=30)
    report = check(yoked(tmp_path, key, plan, target="mining_study.py:make_program"))
    assert report.verdict == "verified", findings_text(report)
    assert report.estimates is not None
    effects = {row.perturbation: row.effect for row in report.estimates.rows}
    assert effects["momentum-reset"] == "total"
    assert effects["momentum-reset--yoked-yes"] == "direct"


def test_where_a_loader_delivers_the_controls_data_there_is_nothing_to_yoke(
    tmp_path: Path, key: PrivateKey
) -> None:
    plan = PLAN.changed(horizon=30, perturbations=["momentum-reset:yoked=yes"])
    with pytest.raises(PlanError, match="yoked=yes says nothing here"):
        yoked(tmp_path, key, plan, target="tiny_study.py:make_program")


def test_a_branch_that_consumes_at_other_steps_than_the_control_cannot_be_yoked(
    tmp_path: Path, key: PrivateKey
) -> None:
    with pytest.raises(ProgramError, match=r"says (more|less) often than the control"):
        yoked(tmp_path, key, says="sometimes")


def test_yoked_is_no_parameter_of_an_order_perturbation() -> None:
    (spec,) = PLAN.changed(perturbations=["order-reverse:yoked=yes"]).perturbations
    with pytest.raises(Exception, match="has no parameter 'yoked'"):
        DECLARATIONS["order-reverse"].resolve(spec)
    (spec,) = PLAN.changed(perturbations=["momentum-reset:yoked=no"]).perturbations
    assert DECLARATIONS["momentum-reset"].resolve(spec).branch_name == "momentum-reset"


def test_nothing_can_be_yoked_to_a_control_that_says_nothing(
    tmp_path: Path, key: PrivateKey
) -> None:
    with pytest.raises(PlanError, match="yoked=yes, and no step said what it consumes") as refused:
        yoked(tmp_path, key, PLAN.changed(perturbations=["carry:yoked=yes"]), says="nothing")
    assert (
        refused.value.where == "seed 0, after 2 steps"
    )  # of the preflight: nothing was spent on it
    assert "batch = ak.consume(indices, batch) in the step" in str(refused.value)


def test_steps_that_say_nothing_are_noted_in_the_estimates(tmp_path: Path, key: PrivateKey) -> None:
    plan = PLAN.changed(perturbations=["carry", "momentum-reset"])
    report = check(yoked(tmp_path, key, plan, says="nothing"))
    assert report.estimates is not None
    assert any("no step said what it consumes" in note for note in report.estimates.notes)


def test_a_control_that_keeps_other_data_in_replay_fails_check_8(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Evidence is no SHA-256: other data of the same evidence can be made.
    monkeypatch.setattr("auditkit.replay.attempts._consumed_sha256", lambda folder: "0" * 64)
    report = check(run)
    assert failures(report) == {8}
    assert "what it consumed" in findings_text(report)
