from __future__ import annotations

from pathlib import Path

import pytest
from studies import Run, check, findings_text, study_in_process

from auditkit.errors import UncapturedState
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey

pytest.importorskip("gymnasium", reason="gymnasium is not installed")

CARTPOLE = "cartpole_study.py:make_program"
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
    assert effects == {"carry": "", "adam-reset--moments-mv--step-reset": "total"}


def test_an_environment_that_is_not_registered_is_refused_when_it_draws(
    tmp_path: Path, key: PrivateKey
) -> None:
    with pytest.raises(UncapturedState, match=r"np_random is a numpy.* whose state no snapshot"):
        played(tmp_path, key, PLAN.changed(fork_at=30, window=5, horizon=40), registered="no")
