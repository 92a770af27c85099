from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from studies import Run, check, findings_text, study_in_process

from auditkit.errors import UncapturedState
from auditkit.evidence.reader import RunEvidence
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey
from auditkit.statistics.looks import NO_LABELS

pytest.importorskip("gymnasium", reason="gymnasium is not installed")

CARTPOLE = "cartpole_study.py:make_program"
ADAM_RESET = "adam-reset--moments-mv--step-reset"
PLAN = StudyPlan(
    fork_at=60, window=20, horizon=300, seeds=[0], perturbations=["carry", "adam-reset"], placebos=1
)


def played(tmp_path: Path, key: PrivateKey, plan: StudyPlan = PLAN, **arguments: str) -> Run:
    return study_in_process(tmp_path / "run", key, plan, CARTPOLE, arguments=arguments)


@pytest.mark.slow
def test_dqn_on_cartpole_runs_and_verifies(tmp_path: Path, key: PrivateKey) -> None:
    report = check(played(tmp_path, key))
    assert report.verdict == "verified", findings_text(report)
    assert report.estimates is not None
    effects = {row.perturbation: row.effect for row in report.estimates.rows}
    assert effects == {"carry": "", ADAM_RESET: "total"}


def test_an_environment_that_is_not_registered_is_refused_when_it_draws(
    tmp_path: Path, key: PrivateKey
) -> None:
    with pytest.raises(UncapturedState, match=r"np_random is a numpy.* whose state no snapshot"):
        played(tmp_path, key, PLAN.changed(fork_at=30, window=5, horizon=40), registered="no")


def test_a_policy_is_compared_on_fixed_states_without_right_answers(
    tmp_path: Path, key: PrivateKey
) -> None:
    plan = PLAN.changed(fork_at=30, window=5, horizon=60, placebo_scale=2**16)
    run = played(tmp_path, key, plan, asked="policy")
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    assert report.estimates is not None
    assert (report.estimates.signed, report.estimates.levels) == ((), ())
    assert NO_LABELS in report.estimates.notes
    evidence = RunEvidence(run.folder, run.manifest)
    rows = {row.metric: row for row in report.estimates.distances if row.time == "T"}
    treated = rows["tv"]
    assert treated.perturbation == ADAM_RESET
    for place, record in enumerate(run.manifest.seeds):
        here, there = (
            evidence.outcome(record.branch(name)).tables["T"].astype(float)
            for name in ("control", treated.perturbation)
        )
        assert np.allclose(here.sum(axis=1), 1, atol=1e-6)
        otherwise = (1 - np.minimum(here, there).sum(axis=1)).mean()
        assert treated.per_seed[place] == pytest.approx(otherwise, abs=1e-6)
        other_best = (here.argmax(axis=1) != there.argmax(axis=1)).mean()
        assert rows["churn"].per_seed[place] == other_best
    assert min(treated.per_seed) > 0
