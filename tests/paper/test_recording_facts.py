"""Checklists of a recording: facts for lists about papers, and none for what it has not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from checklist_example import example_report
from synthetic_recordings import Loop, write_recording

from auditkit.evidence.verdicts import NOT_APPLICABLE
from auditkit.formats.statements import to_statement
from auditkit.paper.checklist import RECORDING_LISTS, fill
from auditkit.paper.lists import ABOUT_PAPERS
from auditkit.paper.questions import ChecklistItem
from auditkit.paper.recording_facts import RECORDING_FACTS
from auditkit.records.recording import RecordingManifest
from auditkit.records.report import CheckResult, StatedReplay, VerificationReport
from auditkit.signing.keys import PrivateKey


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> RecordingManifest:
    folder = tmp_path_factory.mktemp("recorded") / "run"
    return write_recording(folder, key, Loop(ranks=2, loader="validation")).recorded


def report_of(*, replayed: bool) -> VerificationReport:
    checks = [
        CheckResult(check.number, "not run", NOT_APPLICABLE)
        if check.number in (6, 7, 9, 10)
        else check
        for check in example_report().checks
    ]
    if not replayed:
        checks[7] = CheckResult(8, "not run", "auditkit replay re-executes a recording")
    replay = StatedReplay("replay-1.json", "SHA256:R", False, "equal", "now", True, "all steps")
    return replace(
        example_report(),
        verdict="verified" if replayed else "integrity-only",
        replay="steps 1..9" if replayed else "nothing was replayed",
        checks=tuple(checks),
        estimates=None,
        replays=(replay,) if replayed else (),
    )


def items_of(recorded: RecordingManifest, report: VerificationReport) -> dict[str, ChecklistItem]:
    return {item.key: item for item in fill(recorded, report, lists=RECORDING_LISTS).items}


def test_every_key_is_a_question_s() -> None:
    assert set(RECORDING_FACTS) <= set(ABOUT_PAPERS)


@pytest.mark.parametrize("replayed", [True, False])
def test_a_fact_cites_a_check_and_a_digest_and_nothing_is_answered(
    recorded: RecordingManifest, replayed: bool
) -> None:
    report = report_of(replayed=replayed)
    told = f"{to_statement(recorded).decode()} {report.statement_sha256} {report.manifest_sha256}"
    unfilled = set()
    for item in items_of(recorded, report).values():
        assert item.answer == "todo"
        assert all(re.match(r"check \d", line) for line in item.evidence)
        assert replayed or not any(line.startswith("check 8") for line in item.evidence)
        cited = re.findall(r"\b[0-9a-f]{16}(?=\.\.\.)", " ".join(item.evidence))
        assert all(digits in told for digits in cited)
        unfilled |= set() if cited else {item.justification.partition(" (")[0]}
    expected = {
        "No manifest shows anything of this.",
        "No countersignature of a trusted key other than the author's lies there.",
        "No checkpoint is among the files; of the weights there are digests only.",
    }
    assert unfilled - {"No signed replay of somebody else lies there"} <= expected


def test_what_is_recorded_is_told(recorded: RecordingManifest) -> None:
    items = items_of(recorded, report_of(replayed=False))
    steps = recorded.ranks[0].steps
    assert items["aaai-4.10"].justification.startswith(f"One run: {steps} steps in ")
    assert "2 processes" in items["aaai-4.10"].justification
    assert "validation loader" in items["neurips-6"].justification
    assert recorded.environment.python in items["pineau-4.1"].justification
    assert "auditkit replay manifest.json" in items["mlsys-a.5"].justification
    assert items["neurips-7"].justification == "No manifest shows anything of this."
    assert "No signed replay of somebody else" in items["acm-functional-exercisable"].justification


def test_a_replay_of_somebody_else_is_cited(recorded: RecordingManifest) -> None:
    report = report_of(replayed=True)
    item = items_of(recorded, report)["acm-functional-exercisable"]
    assert item.justification == "Replayed and found equal by others: steps 1..9."
    assert item.evidence[0] == "check 8; replay-1.json, signed by SHA256:R: all steps"
    notes = fill(recorded, report).notes
    assert "replay (somebody else's run" in notes[0]
    assert "A recording has no branches" in notes[1]
    assert "pairing" not in notes[0]


def test_checkpoints_are_the_models(tmp_path: Path, key: PrivateKey) -> None:
    loop = Loop(steps=5)
    recorded = write_recording(tmp_path / "run", key, loop).recorded
    item = items_of(recorded, report_of(replayed=False))["pineau-4.4"]
    points = recorded.ranks[0].checkpoints
    assert len(item.evidence) == len(points)
    assert ("Checkpoints" if points else "No checkpoint") in item.justification
