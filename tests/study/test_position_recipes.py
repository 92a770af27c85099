"""Studies of a probe by position that an earlier build has made, or begun."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forging
import pytest
import torch
from studies import (
    PLAN,
    PROGRAMS,
    InProcessWorkers,
    Run,
    check,
    failures,
    findings_text,
    study_in_process,
)
from torch import Tensor, nn

from auditkit.errors import ProgramFailed
from auditkit.evidence.reader import RunEvidence
from auditkit.program.probe import Probe
from auditkit.program.reference import Reference
from auditkit.program.streamed_probe import Beside, look_by_position
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.job import Job, ProgramSource, Progress
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.keys import PrivateKey, fingerprint
from auditkit.signing.trust import SigningKey
from auditkit.study.request import StudyRequest, resolve
from auditkit.study.runner import run_study

TARGET = "token_study.py:make_program"
STUDY = PLAN.changed(seeds=[0], perturbations=["momentum-reset"], placebos=1)
ARGUMENTS = {"view": "tokens", "rows": "5"}


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    out = tmp_path_factory.mktemp("recipes") / "run"
    return study_in_process(out, key, STUDY, TARGET, arguments=ARGUMENTS)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    out = tmp_path_factory.mktemp("recipes") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auditkit.study.worker.callbacks.POSITION_RECIPE", 1)
        return study_in_process(out, key, STUDY, TARGET, arguments=ARGUMENTS)


def observed_of(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = forging.statement_of(run)["predicate"]["program"].get("observed", {})
    return found


def columns_of(run: Run, branch: str = "momentum-reset") -> dict[str, Any]:
    seed = run.manifest.seeds[0]
    return dict(RunEvidence(run.folder, run.manifest).outcome(seed.branch(branch)).tables)


def test_a_study_of_an_earlier_build_is_replayed_by_its_own_recipe(before: Run, now: Run) -> None:
    assert "position_recipe" not in json.dumps(observed_of(before))
    assert observed_of(now)["position_recipe"] == 2
    for run in (before, now):
        report = check(run)
        assert report.verdict == "verified", findings_text(report)
    here, there = columns_of(now), columns_of(before)
    assert here.keys() == there.keys()
    assert any(here[name].tobytes() != there[name].tobytes() for name in here)
    for name in here:
        assert here[name] == pytest.approx(there[name], rel=1e-12, abs=1e-12), name


def test_numbers_of_another_recipe_than_the_manifest_says_fail_replay(
    now: Run, copied: Callable[[Run], Run]
) -> None:
    run = copied(now)

    def lower(predicate: dict[str, Any]) -> None:
        del predicate["program"]["observed"]["position_recipe"]

    forging.edit_predicate(run, lower)
    report = check(run)
    assert failures(report) == {8}, findings_text(report)


@pytest.mark.parametrize("recipe", [0, 3, "2", None])
def test_a_recipe_that_there_is_not_is_malformed(
    now: Run, copied: Callable[[Run], Run], recipe: Any
) -> None:
    run = copied(now)

    def change(predicate: dict[str, Any]) -> None:
        predicate["program"]["observed"]["position_recipe"] = recipe

    forging.edit_predicate(run, change)
    report = check(run)
    assert report.exit_code == 5, findings_text(report)
    assert "position_recipe" in findings_text(report)


class Stopping(InProcessWorkers):
    """Dies at a branch of the second seed, and before the third."""

    def _one(self, job: Job, report: Callable[[Progress], None]) -> list[Any]:
        if job.seed == 2 or (job.seed == 1 and job.branches[:1] == ("momentum-reset",)):
            raise ProgramFailed("stopped")
        return super()._one(job, report)


def test_a_study_that_an_earlier_build_began_goes_on_by_its_recipe(
    tmp_path: Path, key: PrivateKey
) -> None:
    source = ProgramSource(TARGET, str(PROGRAMS), ARGUMENTS)
    plan = resolve(STUDY.changed(seeds=range(3)), DECLARATIONS)
    request = StudyRequest(source, plan, tmp_path / "run", resume=True)
    signed_by = SigningKey(key, fingerprint(key), "test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auditkit.study.worker.callbacks.POSITION_RECIPE", 1)
        with pytest.raises(ProgramFailed, match="stopped"):
            run_study(request, signed_by, workers=Stopping())  # type: ignore[arg-type]
    workers = InProcessWorkers()
    run_study(request, signed_by, workers=workers)  # type: ignore[arg-type]
    jobs = [job for job in workers.jobs if job.kind in ("trunk", "branches", "seed")]
    assert {job.seed for job in jobs} == {1, 2}
    assert {job.position_recipe for job in jobs} == {1}
    envelope = open_envelope((request.out / "manifest.json").read_bytes(), what="manifest.json")
    assert b"position_recipe" not in envelope.payload


# What need not be asked twice


class Counting(nn.Module):
    """Says how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 6)
        self.asked = 0

    def forward(self, ids: Tensor) -> Tensor:
        self.asked += 1
        return self.words(ids)  # type: ignore[no-any-return]


@pytest.mark.parametrize("change", ["none", "weight", "sign of zero"])
def test_a_branch_with_the_control_s_weights_is_asked_once(change: str) -> None:
    model, ids = Counting().eval(), torch.arange(5)[None]
    with torch.no_grad():
        model.words.weight[0, 0] = 0.0
    probe, reference = Probe(ids, ids), Reference()
    given = look_by_position(model, probe, "T", Beside(0, reference))
    reference.complete, model.asked = True, 0
    with torch.no_grad():
        if change != "none":
            model.words.weight[0, 0] = 1.0 if change == "weight" else -0.0
    found = look_by_position(model, probe, "T", Beside(0, reference))
    assert model.asked == (1 if change == "none" else 2)
    assert found["T:tv"].any() == (change == "weight")
    assert all(
        change == "weight" or found[name].tobytes() == given[name].tobytes() for name in given
    )
