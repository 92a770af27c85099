"""Collect findings by check, and turn them into a verdict and an exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

from auditkit.errors import ArtifactError, AuditError, StoreError
from auditkit.records.report import CHECKS, OPEN, UNDECIDED, CheckResult, Finding, Status, Verdict
from auditkit.records.settings import Passing

#: Where several exit codes are asked for, the first of these wins.
PRECEDENCE = (2, 5, 1, 4, 3, 6)

#: Exit code where nothing is wrong, and less was shown than is required.
LESS_THAN_REQUIRED = 7

#: Why checks 6, 7, 9 and 10 of a recording are not made: it has no branches.
NOT_APPLICABLE = "not applicable to a recording"

#: The check whether the files are those that were signed.
ARTIFACTS = 3

#: Findings of one check that are kept, a forged run could produce millions; the first of every
#: exit code is always among them.
MAX_FINDINGS = 100


class CheckResults:
    """Results of the numbered checks, while they are being made."""

    def __init__(self) -> None:
        self._findings: dict[int, list[Finding]] = {}
        self._codes: dict[int, set[int]] = {}
        self._warnings: dict[int, list[str]] = {}
        self._summaries: dict[int, str] = {}
        self._not_run: dict[int, str] = {}
        self._failed_as: dict[int, str] = {}
        self._open_as: dict[int, Status] = {}

    def ran(self, number: int, summary: str) -> None:
        """Note that a check was made, and what it looked at."""
        self._summaries[number] = summary

    def sum_up(self, number: int, text: str) -> None:
        """Say what is wrong as a whole, where a check finds anything; empty for a mere count."""
        self._failed_as[number] = text

    def leave_open(self, number: int, status: Status) -> None:
        """Say why a check cannot be decided, where nothing that it finds is wrong."""
        self._open_as[number] = status

    def add(self, number: int, findings: Iterable[Finding]) -> None:
        """Add findings; an error raised while they are made becomes one."""
        try:
            for finding in findings:
                self._keep(number, finding)
        except AuditError as error:
            self._keep(number, as_finding(error))

    def _keep(self, number: int, finding: Finding) -> None:
        kept = self._findings.setdefault(number, [])
        if finding in kept:
            return  # one file that many branches rest on is one finding
        codes = self._codes.setdefault(number, set())
        if len(kept) >= MAX_FINDINGS:
            if finding.exit_code in codes:
                return
            # What is dropped must not hide a code: a hundred undecided ones, no failure.
            del kept[_last_repeated(kept)]
        kept.append(finding)
        codes.add(finding.exit_code)

    def warn(self, number: int, text: str) -> None:
        """Note what is odd but no failure."""
        self._warnings.setdefault(number, []).append(text)

    def skip(self, number: int, reason: str) -> None:
        """Note why a check was not made."""
        self._not_run[number] = reason

    def failed(self, *numbers: int) -> bool:
        """Whether any of these checks failed."""
        return any(self._findings.get(number) for number in numbers)

    def passed(self, *numbers: int) -> bool:
        """Whether all of these checks were made and found nothing."""
        return all(
            number in self._summaries
            and not self._findings.get(number)
            and number not in self._not_run
            for number in numbers
        )

    def results(self) -> tuple[CheckResult, ...]:
        """All ten checks."""
        return tuple(self._result(number) for number in CHECKS)

    def _follows(self, number: int) -> bool:
        """Whether all that a check found is that it had not the files that were signed."""
        places = {finding.where for finding in self._findings.get(number, ())}
        damaged = {finding.where for finding in self._findings.get(ARTIFACTS, ())} - {None}
        return number != ARTIFACTS and bool(places) and places <= damaged

    def _result(self, number: int) -> CheckResult:
        findings = tuple(self._findings.get(number, ()))
        warnings = tuple(self._warnings.get(number, ()))
        if self._follows(number):
            files = len({finding.where for finding in findings})
            summary = f"without {files} file{'s' if files > 1 else ''} that check {ARTIFACTS} names"
            return CheckResult(number, "could not run", summary, findings, warnings)
        if findings:
            count = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}"
            summary = self._failed_as.get(number) or count
            # What cannot be decided has not failed: nothing was found to be wrong.
            is_open = self._codes[number] == {UNDECIDED}
            status = self._open_as.get(number, OPEN[0]) if is_open else "failed"
            return CheckResult(number, status, summary, findings, warnings)
        if number in self._not_run or number not in self._summaries:
            reason = self._not_run.get(number, "an earlier check failed")
            return CheckResult(number, "not run", reason, (), warnings)
        return CheckResult(number, "passed", self._summaries[number], (), warnings)


def _last_repeated(findings: list[Finding]) -> int:
    """Position of the last finding whose exit code an earlier one asks for too.

    There is one, since there are far fewer codes than findings are kept.
    """
    codes = [finding.exit_code for finding in findings]
    return max(n for n, code in enumerate(codes) if codes.index(code) < n)


def as_finding(error: AuditError) -> Finding:
    """An error as a finding that asks for its exit code.

    A file of the run that cannot be read is no wrong use: it could be read when it was signed.
    """
    text = " ".join(f"{error.message}{error.details()}".split())
    exit_code = 1 if isinstance(error, StoreError) else error.exit_code
    return Finding(text, error.where, error.step, error.component, exit_code)


def as_change(error: ArtifactError) -> Finding:
    """The same of a file that passed check 3 and is another one now."""
    finding = as_finding(error)
    return replace(finding, message=f"changed since check 3 read it: {finding.message}")


def exit_code_of(results: Iterable[CheckResult]) -> int:
    """The exit code that the findings ask for; 0 where there are none."""
    requested = {finding.exit_code for result in results for finding in result.findings}
    return next((code for code in PRECEDENCE if code in requested), 0)


def required_code(exit_code: int, verdict: Verdict, require: Passing | None) -> int:
    """The exit code once it is asked whether a verdict is as much as is required."""
    ranks = get_args(Passing)
    is_less = require in ranks and verdict in ranks[: ranks.index(require)]
    return LESS_THAN_REQUIRED if is_less and not exit_code else exit_code


def is_recording_report(results: Iterable[CheckResult]) -> bool:
    """Whether the checks of a report are those of a recording."""
    return any(result.summary == NOT_APPLICABLE for result in results)


def verdict_of(exit_code: int, *, replayed: str, close: bool = False) -> Verdict:
    """The verdict.

    Args:
        exit_code: From :func:`exit_code_of`.
        replayed: ``all``, ``some`` or ``none``.
        close: Whether all that cannot be decided is within a tolerance.
    """
    if exit_code == 0:
        verdicts: dict[str, Verdict] = {
            "all": "verified",
            "some": "sampled",
            "none": "integrity-only",
        }
        return verdicts[replayed]
    if exit_code == 6:
        return "close" if close else "undecided"
    return "failed"
