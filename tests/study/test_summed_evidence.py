"""A study whose evidence is made of sums where the state lies."""

from __future__ import annotations

import pytest
from studies import PLAN, Run, check, findings_text, result_of
from studies import study_in_process as run_study

from auditkit.evidence.reader import RunEvidence
from auditkit.records.digest import EVIDENCE_RECIPE, MIX_RECIPE
from auditkit.signing.keys import generate_key
from auditkit.verification.fork import check_fork

SUMMED = PLAN.changed(evidence_digest=MIX_RECIPE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_study(tmp_path_factory.mktemp("summed") / "run", generate_key(), SUMMED)


def test_it_is_verified_and_says_so(run: Run) -> None:
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    note = "the state is in evidence by int64-mix/1"
    assert all(note in result_of(report, number).summary for number in (4, 8, 9))


def test_its_rows_are_of_that_recipe_and_of_no_other(run: Run) -> None:
    evidence = RunEvidence(run.folder, run.manifest)
    assert run.manifest.plan.evidence_digest == MIX_RECIPE
    seed = evidence.seed(run.manifest.seeds[0])
    assert not list(check_fork(seed, SUMMED))
    other = list(check_fork(seed, SUMMED.changed(evidence_digest=EVIDENCE_RECIPE)))
    found = {finding.component for finding in other}
    assert {"params", "optimizer/momentum_buffer"} <= found
    assert {finding.message for finding in other} == {"the control's first row is of another state"}
    sections = evidence.sections(seed.record.fork, MIX_RECIPE)
    step = SUMMED.fork_at + 1
    assert seed.trunk.cell(step, "params") == sections["params"].evidence
