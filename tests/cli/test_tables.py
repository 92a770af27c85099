"""A report as text: the causes first, and each once."""

from __future__ import annotations

import pytest

from auditkit.cli.tables import print_report
from auditkit.evidence.verdicts import NOT_APPLICABLE, CheckResults, exit_code_of, verdict_of
from auditkit.records.report import Finding, VerificationReport


def printed(checks: CheckResults, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed of a report with these checks."""
    results = checks.results()
    code = exit_code_of(results)
    verdict = verdict_of(code, replayed="none")
    report = VerificationReport(verdict, code, "0" * 64, None, None, "none", "none", results)
    print_report(report, everything=False)
    return capsys.readouterr().out


def test_damaged_files_are_the_first_line_and_what_rests_on_them_is_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    checks = CheckResults()
    checks.add(3, [Finding("sha256 is other", "a"), Finding("no such file", "b")])
    checks.sum_up(3, "1 file edited, 1 missing")
    checks.add(4, [Finding("another SHA-256", "a")] * 5 + [Finding("no such file", "b")])
    checks.add(6, [Finding("another SHA-256", "a"), Finding("another order", "seed 0")])
    lines = printed(checks, capsys).splitlines()
    assert lines[0] == "artifacts: 1 file edited, 1 missing; order: 2 findings"
    (row,) = (line for line in lines if "consistency" in line)
    assert row.split(maxsplit=2)[2] == "could not run  without 2 files that check 3 names"
    assert not [line for line in lines if line.startswith("check 4")]
    assert [line for line in lines if line.startswith("check 6")] == [
        "check 6 order: seed 0: another order",
        "check 6 order: cannot be made of 1 file that check 3 names",
    ]


def test_findings_that_differ_in_their_place_only_stand_on_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    checks = CheckResults()
    for number in range(6):
        checks.add(8, [Finding("state drift", f"seed {number}", 7, "params")])
    checks.add(8, [Finding("state drift", "seed 9", 8, "params")])
    found = [line for line in printed(checks, capsys).splitlines() if line.startswith("check 8")]
    assert found == [
        "check 8 replay: seed 0; seed 1; seed 2 and 3 more, step 7, params: state drift",
        "check 8 replay: seed 9, step 8, params: state drift",
    ]


def test_what_cannot_be_decided_is_not_called_failed(capsys: pytest.CaptureFixture[str]) -> None:
    checks = CheckResults()
    checks.add(8, [Finding("environment differs", exit_code=6)])
    assert checks.results()[7].status == "undecided"
    assert "failed" not in printed(checks, capsys).replace("an earlier check failed", "")
    checks.add(8, [Finding("edited")])
    assert checks.results()[7].status == "failed"


def test_a_recording_has_no_rows_for_what_it_cannot_have(
    capsys: pytest.CaptureFixture[str],
) -> None:
    checks = CheckResults()
    for number in (1, 2, 3, 4, 5):
        checks.ran(number, "looked at")
    for number in (6, 7, 9, 10):
        checks.skip(number, NOT_APPLICABLE)
    out = printed(checks, capsys)
    rows = [line.split()[0] for line in out.splitlines() if line[:1].isdigit()]
    assert rows == ["1", "2", "3", "4", "5", "8"]
    assert NOT_APPLICABLE not in out
    assert "noise floor" not in out
    assert "on which hardware, or that the data are clean." in " ".join(out.split())
    assert "branches" not in out
