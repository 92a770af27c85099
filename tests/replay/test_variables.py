"""A variable of the verifier's reaches the replay by name only, and is then in the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_shell import PATIENCE, Shell
from studies import Run, check, failures, findings_text, first_finding, study_in_process

from auditkit.formats.statements import record_from_statement
from auditkit.records.plan import StudyPlan
from auditkit.records.report import SignedReport
from auditkit.records.settings import VariableSetting
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.keys import PrivateKey, public_line

VARIABLE = "SECRET_SCALE"
PROGRAM = "variable_study.py:make_program"
PLAN = StudyPlan(3, 2, 5, [0], ["carry"], placebos=1)


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    """A study that was run while the variable was 3."""
    folder = tmp_path_factory.mktemp("scaled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "3")
        return study_in_process(folder / "run", key, PLAN, PROGRAM, fresh=True)


@pytest.mark.slow
def test_a_variable_that_no_report_names_does_not_reach_a_replay(
    scaled: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "3")
    report = check(scaled, fresh=True)
    found = (report.exit_code, failures(report), report.estimates)
    assert found == (1, {8}, None), findings_text(report)
    assert "or a variable," in first_finding(report, 8).message


def test_one_that_is_let_through_is_in_report_json_and_countersignature(
    scaled: Run, tmp_path: Path
) -> None:
    shell = Shell.at(tmp_path / "user")
    author = shell.write("author.pub", public_line(scaled.key) + "\n")
    trust = ("--key", str(author), "--allow-code")
    mine = shell.folder / "config" / "auditkit" / "key"
    process = shell.start(
        *("verify", str(scaled.path), *trust, "--env", VARIABLE),
        *("--json", "report.json", "--countersign", str(mine)),
        env={VARIABLE: "3", "COLUMNS": "200"},
    )
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    assert "Verdict: verified" in out
    assert f"--env {VARIABLE}=3" in out
    report = json.loads((shell.folder / "report.json").read_text())
    assert report["settings"]["variables"] == [{"name": VARIABLE, "value": "3"}]
    (signed,) = scaled.folder.glob("*countersign*")
    payload = open_envelope(signed.read_bytes()).payload
    settings = record_from_statement(SignedReport, payload, what="c").report.settings
    assert settings is not None
    assert settings.variables == (VariableSetting(VARIABLE, "3"),)
