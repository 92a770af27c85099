"""A verifier's report as JSON, read back, and compared with what is verified here.

Such a report is signed by nobody. It is read like any other file from outside, and its word counts
only for what needs a replay; the other checks are made again and must agree.
"""

from __future__ import annotations

from typing import get_args

from auditkit.errors import AuditError, SchemaError
from auditkit.evidence.verdicts import ARTIFACTS, exit_code_of, required_code, verdict_of
from auditkit.formats import canonical, schema, structure
from auditkit.records.fork_points import level_times, treatments
from auditkit.records.manifest import StudyManifest
from auditkit.records.report import CHECKS, OPEN, UNDECIDED, CheckResult, VerificationReport
from auditkit.records.settings import Passing

#: Checks that execute the program or rest on that; all others are made wherever there is a file.
NEED_REPLAY = (8, 10)


def report_from_json(data: bytes, *, what: str) -> VerificationReport:
    """Read what ``auditkit verify --json`` wrote.

    Args:
        data: The file's bytes.
        what: The file, for messages.

    Raises:
        JsonError: When it is no strict JSON.
        SchemaError: When it is no report, or one that contradicts itself.
    """
    plain = canonical.loads(data, what=what)
    schema.check(plain, "report", what=what)
    report = structure.from_dict(VerificationReport, plain, what=what)
    problem = _contradiction(report)
    if problem:
        raise SchemaError(problem, where=what)
    return report


def check_agreement(
    given: VerificationReport, here: VerificationReport, manifest: StudyManifest, *, what: str
) -> None:
    """Compare a report from a file with a verification made here without replay.

    Args:
        given: From the file.
        here: Made here, of the same manifest.
        manifest: That manifest.
        what: The file, for messages.

    A replay looks further in checks 4 to 9, too: where it found something that does not verify, the
    two have to agree only on who signed and that the files are those that were signed.

    Raises:
        AuditError: When it is about another manifest, or the two differ in a check that both
            made, or its estimates are of another plan.
    """
    for name in ("statement_sha256", "signed_by"):
        expected, found = getattr(here, name), getattr(given, name)
        if expected != found:
            raise AuditError(
                f"the report's {name} is another; give the one that auditkit verify wrote of "
                "this manifest, or make one",
                expected=expected,
                found=found,
                where=what,
            )
    numbers = set(range(1, ARTIFACTS + 1)) if went_wrong(given) else {*CHECKS} - {*NEED_REPLAY}
    for ours, theirs in zip(here.checks, given.checks, strict=True):
        if ours.number in numbers and ours.status != theirs.status:
            raise AuditError(
                f"the report does not agree with check {ours.number} ({ours.name}) made here",
                expected=ours.status,
                found=theirs.status,
                where=what,
            )
    table, plan = given.estimates, manifest.plan
    if table is None:
        return
    found = (table.placebos, table.times)
    branches = {row.perturbation for row in (*table.rows, *table.persistence)}
    seeds = {seed for row in table.rows for seed in row.seeds}
    times = {row.time for row in (*table.rows, *table.levels)}
    is_same = found == (plan.placebos, plan.probed)
    is_same &= table.primary_metric == manifest.program.observed.primary(plan)
    is_same &= branches <= set(treatments(plan)) and table.forks == plan.forks[: len(table.forks)]
    is_same &= times <= {*plan.probed, *level_times(plan)}
    is_same &= bool(table.forks) == bool(plan.further_forks)
    if not is_same or not seeds <= set(plan.seeds):
        raise AuditError("the report's estimates are of another plan", where=what)


def went_wrong(report: VerificationReport) -> bool:
    """Whether something was executed for a report, and what it is about does not verify."""
    return report.environment is not None and report.verdict not in get_args(Passing)


def _contradiction(report: VerificationReport) -> str:
    if tuple(check.number for check in report.checks) != tuple(CHECKS):
        return "the checks are not 1 to 10 in this order"
    damaged = {finding.where for finding in report.checks[ARTIFACTS - 1].findings} - {None}
    for check in report.checks:
        has_findings = check.status in ("failed", *OPEN)
        is_open = all(finding.exit_code == UNDECIDED for finding in check.findings)
        is_open |= all(finding.where in damaged for finding in check.findings)
        if has_findings != bool(check.findings) or (check.status in OPEN and not is_open):
            return f"check {check.number} is {check.status} with {len(check.findings)} findings"
    exit_code = exit_code_of(report.checks)
    require = None if report.settings is None else report.settings.require
    if report.exit_code != required_code(exit_code, report.verdict, require):
        return f"exit_code is {report.exit_code}, the findings ask for {exit_code}"
    is_close = report.verdict == "close"
    replayed = {"verified": "all", "sampled": "some"}.get(report.verdict, "none")
    if report.verdict != verdict_of(exit_code, replayed=replayed, close=is_close):
        return f"the verdict is {report.verdict}, the exit code {exit_code}"
    by_number = {check.number: check for check in report.checks}
    if exit_code == 0 and (by_number[8].status == "passed") != (replayed != "none"):
        return f"the verdict is {report.verdict}, check 8 is {by_number[8].status}"
    return _estimates_contradict(report, by_number)


def _estimates_contradict(report: VerificationReport, by_number: dict[int, CheckResult]) -> str:
    is_passed = by_number[10].status == "passed"
    if is_passed != (report.estimates is not None):
        return f"check 10 is {by_number[10].status}, estimates are " + (
            "missing" if report.estimates is None else "given"
        )
    if is_passed and any(by_number[n].status != "passed" for n in range(1, 10)):
        return "there are estimates, though not all of checks 1 to 9 passed"
    return ""
