from __future__ import annotations

from collections.abc import Iterator

import pytest

from auditkit.errors import ArtifactMismatch, NotSigned, NotTrusted, SignatureError
from auditkit.evidence.verdicts import (
    MAX_FINDINGS,
    PRECEDENCE,
    CheckResults,
    as_finding,
    exit_code_of,
    required_code,
    verdict_of,
)
from auditkit.records.report import CHECKS, CheckResult, Finding, Status, Verdict
from auditkit.records.settings import Passing


def failed(*codes: int) -> list[CheckResult]:
    findings = tuple(Finding("wrong", exit_code=code) for code in codes)
    return [CheckResult(4, "failed", "", findings), CheckResult(5, "passed", "")]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((), 0),
        ((6,), 6),
        ((3, 6), 3),
        ((3, 4), 4),
        ((4, 1, 3), 1),
        ((1, 5), 5),
        ((6, 3, 4, 1, 5, 2), 2),
    ],
)
def test_where_several_exit_codes_are_asked_for_the_gravest_wins(
    codes: tuple[int, ...], expected: int
) -> None:
    assert exit_code_of(failed(*codes)) == expected


def test_every_exit_code_has_its_place() -> None:
    assert sorted(PRECEDENCE) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("replayed", "expected"),
    [("all", "verified"), ("some", "sampled"), ("none", "integrity-only")],
)
def test_a_clean_report_says_how_much_was_replayed(replayed: str, expected: str) -> None:
    assert verdict_of(0, replayed=replayed) == expected


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
def test_any_failure_is_failed(code: int) -> None:
    assert verdict_of(code, replayed="all") == "failed"


def test_what_cannot_be_decided_is_neither_verified_nor_failed() -> None:
    assert verdict_of(6, replayed="all") == "undecided"


def test_a_check_that_nobody_made_is_not_run() -> None:
    results = CheckResults().results()
    assert [result.number for result in results] == list(CHECKS)
    assert {result.status for result in results} == {"not run"}
    assert not CheckResults().passed(1)


def test_a_check_passes_only_when_it_was_made_and_found_nothing() -> None:
    checks = CheckResults()
    checks.ran(3, "2 files")
    assert checks.passed(3)
    assert not checks.passed(3, 4)
    checks.add(3, [Finding("missing")])
    assert checks.failed(3)
    assert not checks.passed(3)
    result = checks.results()[2]
    assert (result.status, result.summary) == ("failed", "1 finding")


def test_a_check_that_was_skipped_after_all_did_not_pass() -> None:
    checks = CheckResults()
    checks.ran(8, "all")
    checks.skip(8, "no code")
    assert not checks.passed(8)
    assert checks.results()[7].summary == "no code"


def test_a_finding_outweighs_that_the_check_was_cut_short() -> None:
    checks = CheckResults()
    checks.skip(8, "stopped")
    checks.add(8, [Finding("one"), Finding("two")])
    assert (checks.results()[7].status, checks.results()[7].summary) == ("failed", "2 findings")


def test_a_warning_fails_nothing() -> None:
    checks = CheckResults()
    checks.ran(3, "2 files")
    checks.warn(3, "odd")
    assert (checks.results()[2].status, checks.results()[2].warnings) == ("passed", ("odd",))


def test_an_error_while_findings_are_made_becomes_one_and_the_earlier_ones_stay() -> None:
    def findings() -> Iterator[Finding]:
        yield Finding("first")
        raise ArtifactMismatch("another SHA-256", expected="a", found="b", where="x")

    checks = CheckResults()
    checks.add(4, findings())
    assert [str(finding) for finding in checks.results()[3].findings] == [
        "first",
        "x: another SHA-256 (expected a, found b)",
    ]


def test_one_cause_that_many_branches_rest_on_is_one_finding() -> None:
    checks = CheckResults()
    checks.add(4, [Finding("missing", "fork"), Finding("missing", "order")] * 3)
    assert [finding.where for finding in checks.results()[3].findings] == ["fork", "order"]


def test_a_forged_run_cannot_fill_the_memory_with_findings() -> None:
    checks = CheckResults()
    checks.add(6, (Finding(str(n)) for n in range(10 * MAX_FINDINGS)))
    checks.add(6, [Finding("one more")])
    assert len(checks.results()[5].findings) == MAX_FINDINGS


@pytest.mark.parametrize("codes", [(1,), (1, 5, 3), (2, 5, 1, 4, 3)])
def test_findings_that_are_dropped_hide_no_exit_code(codes: tuple[int, ...]) -> None:
    checks = CheckResults()
    checks.add(8, [Finding(f"undecided {n}", exit_code=6) for n in range(3 * MAX_FINDINGS)])
    for code in codes:
        checks.add(8, [Finding(f"of code {code}, {n}", exit_code=code) for n in range(2)])
    results = checks.results()
    kept = [finding.message for finding in results[7].findings]
    assert len(kept) == MAX_FINDINGS
    first = MAX_FINDINGS - len(codes)
    assert kept[:first] == [f"undecided {n}" for n in range(first)]
    assert set(kept) >= {f"of code {code}, 0" for code in codes}
    assert exit_code_of(results) == exit_code_of(failed(*codes, 6))


def test_an_error_behind_too_many_findings_asks_for_its_exit_code_once() -> None:
    def findings() -> Iterator[Finding]:
        yield from (Finding(f"undecided {n}", exit_code=6) for n in range(MAX_FINDINGS))
        raise ArtifactMismatch("another SHA-256")

    checks = CheckResults()
    for _ in range(3):
        checks.add(4, findings())
    codes = [finding.exit_code for finding in checks.results()[3].findings]
    assert (len(codes), codes.count(1)) == (MAX_FINDINGS, 1)
    assert exit_code_of(checks.results()) == 1


@pytest.mark.parametrize(
    ("error", "code"), [(NotSigned("x"), 4), (NotTrusted("x"), 3), (SignatureError("x"), 1)]
)
def test_a_finding_asks_for_the_exit_code_of_its_error(error: SignatureError, code: int) -> None:
    assert as_finding(error).exit_code == code


def test_a_finding_keeps_the_place_and_is_one_line() -> None:
    error = ArtifactMismatch(
        "two\nlines", where="file", step=7, component="params", hint="look there"
    )
    finding = as_finding(error)
    assert str(finding) == "file, step 7, params: two lines; look there"


def test_a_check_that_lacks_only_damaged_files_could_not_run_and_the_exit_code_is_theirs() -> None:
    checks = CheckResults()
    checks.add(3, [Finding("no such file", "a"), Finding("too many files")])
    checks.add(4, [Finding("no such file", "a")])
    checks.add(6, [Finding("no such file", "a"), Finding("another order", "seed 0")])
    checks.add(7, [Finding("no place is named")])
    results = checks.results()
    assert [results[number - 1].status for number in (3, 4, 6, 7)] == [
        *("failed", "could not run", "failed", "failed")
    ]
    assert exit_code_of(results) == 1


@pytest.mark.parametrize("status", ["needs consent", "could not run"])
def test_what_is_open_says_why_unless_something_is_wrong(status: Status) -> None:
    checks = CheckResults()
    checks.add(8, [Finding("not yet", exit_code=6)])
    checks.leave_open(8, status)
    assert checks.results()[7].status == status
    checks.add(8, [Finding("edited")])
    assert checks.results()[7].status == "failed"


@pytest.mark.parametrize(
    ("exit_code", "verdict", "require", "expected"),
    [
        (0, "verified", "verified", 0),
        (0, "sampled", "verified", 7),
        (0, "sampled", "sampled", 0),
        (0, "integrity-only", "sampled", 7),
        (0, "integrity-only", "integrity-only", 0),
        (0, "integrity-only", None, 0),
        (1, "failed", "verified", 1),
        (6, "close", "verified", 6),
        (0, "failed", "verified", 0),  # a report that contradicts itself
    ],
)
def test_less_than_required_is_an_exit_code_where_nothing_is_wrong(
    exit_code: int, verdict: Verdict, require: Passing | None, expected: int
) -> None:
    assert required_code(exit_code, verdict, require) == expected
