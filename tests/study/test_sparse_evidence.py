"""A study whose state is in evidence every few steps only."""

from __future__ import annotations

from pathlib import Path

import pytest
from studies import PLAN, Run, check, check_files, findings_text, result_of
from studies import study_in_process as run_study

from auditkit.errors import PlanError
from auditkit.evidence.reader import RunEvidence
from auditkit.records.digest import ABSENT, EVIDENCE_BYTES
from auditkit.records.evidence import CONSUMED, Trace
from auditkit.signing.keys import generate_key
from auditkit.study.request import script_source
from auditkit.verification.consistency import check_trunk

SPARSE = PLAN.changed(fork_at=8, horizon=18, probe_at=[15], evidence_every=5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    folder, key = tmp_path_factory.mktemp("sparse"), generate_key()
    return {
        every: run_study(folder / str(every), key, SPARSE.changed(evidence_every=every))
        for every in (1, 5)
    }


def traces(run: Run) -> dict[str, Trace]:
    evidence = RunEvidence(run.folder, run.manifest)
    (seed,) = run.manifest.seeds
    names = [seed.trunk, *(branch.trace for branch in seed.branches)]
    return {name: evidence.trace(name) for name in names}


def test_it_is_verified_and_says_so(runs: dict[int, Run]) -> None:
    report = check(runs[5])
    assert report.verdict == "verified", findings_text(report)
    note = "the state is in evidence every 5 steps and at the plan's times"
    assert all(note in result_of(report, number).summary for number in (4, 8, 9))
    whole = check_files(runs[1])
    assert all("in evidence" not in result.summary for result in whole.checks)


def test_its_rows_are_those_of_a_whole_trace_or_hold_what_was_consumed(
    runs: dict[int, Run],
) -> None:
    sparse, whole = traces(runs[5]), traces(runs[1])
    assert list(sparse) == list(whole)
    for name, trace in sparse.items():
        assert trace.loss_bits == whole[name].loss_bits
        assert trace.columns.keys() == whole[name].columns.keys()
        for step in range(trace.first_step, trace.last_step + 2):
            kept = {*trace.columns} if SPARSE.has_state(step) else {*CONSUMED}
            for column in trace.columns:
                expected = whole[name].cell(step, column) if column in kept else ABSENT
                assert trace.cell(step, column) == expected, (name, step, column)


@pytest.mark.parametrize(("step", "is_wanted"), [(6, True), (7, False)])
def test_a_row_that_should_hold_the_state_does(
    runs: dict[int, Run], step: int, *, is_wanted: bool
) -> None:
    evidence = RunEvidence(runs[5].folder, runs[5].manifest)
    seed = evidence.seed(runs[5].manifest.seeds[0])
    assert not list(check_trunk(seed, SPARSE))
    params, at = seed.trunk.columns["params"], (step - 1) * EVIDENCE_BYTES
    emptied = params[:at] + ABSENT + params[at + EVIDENCE_BYTES :]
    seed.trunk.columns["params"] = emptied  # type: ignore[index]
    found = [(finding.step, finding.component) for finding in check_trunk(seed, SPARSE)]
    assert found == ([(step, "params")] if is_wanted else [])


def test_a_script_has_evidence_of_every_step() -> None:
    with pytest.raises(PlanError, match="a script has evidence of every step"):
        script_source(["python", "train.py"], SPARSE, Path())
