"""Reports as tables that a person can read. Text from files is never taken for markup."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from auditkit.cli.console import console, number, print_table
from auditkit.cli.spelling import counted
from auditkit.evidence.verdicts import (
    LESS_THAN_REQUIRED,
    NOT_APPLICABLE,
    is_recording_report,
)
from auditkit.records.opened import some_names
from auditkit.records.report import CheckResult, Finding, VerificationReport

#: Distances of a replay that are shown; all of them are in the JSON report.
_MOST_DISTANCES = 20

#: Findings of a check, and warnings, that are shown.
_MOST_FINDINGS = 20

_PROVES = (
    "integrity (these bytes are what that key signed), pairing (control and treatment share their "
    "state up to t0 and differ only in the declared perturbation)"
)
_PROVES_RECORDING = "integrity (these bytes are what that key signed)"
_REPLAYED = (
    "replay-consistency (the recorded states follow from the recorded inputs on this software and "
    "hardware)"
)
_NOT = "that this was the only run (seeds can be shopped), who ran it, when, on which hardware, "
_NOT_OF_RECORDING = f"{_NOT}or that the data are clean"
_NOT_OF_STUDY = (
    f"{_NOT}that the data are clean, or that the listed code treats all branches alike (read it: "
    "code can look at its state, its call stack or the file system)"
)


def print_report(report: VerificationReport, *, everything: bool) -> None:
    """Print checks, estimands and verdict."""
    out = console()
    _print_headline(out, report)
    rows = [
        (str(check.number), check.name, check.status, check.summary)
        for check in report.checks
        if check.summary != NOT_APPLICABLE  # a recording has no branches to check
    ]
    print_table(out, "checks", rows)
    for line in finding_lines(report):
        out.print(line)
    _print_distances(out, report)
    for line in (*opened_lines(report), *plan_lines(report)):
        out.print(line)
    if report.estimates is not None:
        if report.verdict == "sampled":
            out.print(
                f"SAMPLED: most tables below are as recorded, not recomputed. {report.replay}"
            )
        # half of what a verification without estimates would print is imported for them
        from auditkit.cli.estimand_tables import print_estimates  # noqa: PLC0415
        from auditkit.cli.further_tables import print_further  # noqa: PLC0415

        print_estimates(out, report.estimates, everything=everything)
        print_further(out, report.estimates, everything=everything)
    for line in verdict_lines(report):
        out.print(line)


def print_run(manifest: Path | str, fingerprint: str) -> None:
    """Print where the manifest is and what comes next."""
    out = console()
    out.print(f"manifest: {manifest}")
    out.print(f"signed by: {fingerprint}")
    out.print(f"next: auditkit verify {manifest}")


def _print_headline(out: Console, report: VerificationReport) -> None:
    """Print what is wrong, each cause once, before all else."""
    damaged = {finding.where for finding in report.checks[2].findings if finding.where}
    causes = [
        f"{check.name}: {check.summary}"
        for check in report.checks
        if check.findings
        and (check.number == 3 or any(f.where not in damaged for f in check.findings))
    ]
    if causes:
        out.print("; ".join(causes))


def finding_lines(report: VerificationReport) -> Iterator[str]:
    """What the checks found wrong, and their warnings."""
    damaged = {finding.where for finding in report.checks[2].findings if finding.where}
    for check in report.checks:
        yield from _findings(check, damaged if check.number != 3 else set())


def _findings(check: CheckResult, damaged: Set[str]) -> Iterator[str]:
    """Findings; what repeats one cause stands under it.

    Args:
        check: The check.
        damaged: Files of which check 3 has said that they are not what was signed.
    """
    name = f"check {check.number} {check.name}"
    follows = [finding for finding in check.findings if finding.where in damaged]
    groups: dict[Finding, list[str]] = {}
    for finding in check.findings:
        if finding not in follows:
            groups.setdefault(replace(finding, where=None), []).append(finding.where or "")
    for group, places in list(groups.items())[:_MOST_FINDINGS]:
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        where = "; ".join(filter(None, places[:3])) + more
        yield f"{name}: {replace(group, where=where or None)}"
    if len(groups) > _MOST_FINDINGS:
        yield f"{name}: ... and {len(groups) - _MOST_FINDINGS} more"
    if follows and check.status != "could not run":  # the table says it of a whole check
        files = counted(len(follows), "file")
        yield f"{name}: cannot be made of {files} that check 3 names"
    for warning in check.warnings[:_MOST_FINDINGS]:
        yield f"{name}, warning: {warning}"


def verdict_lines(report: VerificationReport) -> Iterator[str]:
    """Trust, replay, what is shown and what is not, and the verdict."""
    yield f"Trust: {report.trust}" + (f" ({report.signed_by})" if report.signed_by else "")
    for stamp in report.timestamps:
        yield f"Signed before {stamp.time}, says {stamp.authority}"
    yield from _countersignatures(report)
    yield from _replays(report)
    if report.settings is not None and report.settings.options:
        yield f"Set by the verifier: {', '.join(report.settings.options)}"
    yield f"Replay: {report.replay}"
    if report.verdict == "close":
        yield (
            "Close: bits differ with the environment, and no probe table by more than the "
            "tolerance. That is not verified: an edit of that size looks the same."
        )
    if report.exit_code in (0, LESS_THAN_REQUIRED):
        of_recording = is_recording_report(report.checks)
        replayed = {
            "verified": f", {_REPLAYED}",
            "sampled": f"; of the branches that were drawn, and no others, {_REPLAYED}",
        }.get(report.verdict, "; that the changes were made as declared was not replayed")
        if of_recording and report.verdict != "verified":
            replayed = "; that the recorded states follow from the recorded inputs was not replayed"
            if any(item.by_author for item in report.replays):
                replayed += " by anybody but, in his own word, the author"
        yield f"Shown: {_PROVES_RECORDING if of_recording else _PROVES}{replayed}."
        yield f"Not shown: {_NOT_OF_RECORDING if of_recording else _NOT_OF_STUDY}."
    if report.settings is not None and report.exit_code == LESS_THAN_REQUIRED:
        yield f"Required: {report.settings.require} or more; this is less"
    yield f"Verdict: {report.verdict} (exit {report.exit_code})"


def _print_distances(out: Console, report: VerificationReport) -> None:
    """Print how the environment differs from the record, and how far the replay is from it."""
    if report.environment_differences:
        out.print("Environment differs from the record (the bits may still be equal):")
        for line in report.environment_differences:
            out.print(f"  {line}")
    if not report.distances:
        return
    rows = [
        (
            item.where,
            item.name,
            number(item.largest_absolute),
            number(item.largest_relative),
            number(item.total_variation),
        )
        for item in report.distances[:_MOST_DISTANCES]
    ]
    print_table(out, "replay distances", rows, title="Distance between record and replay")
    if len(report.distances) > _MOST_DISTANCES:
        out.print(f"... and {len(report.distances) - _MOST_DISTANCES} more, with --json")


def opened_lines(report: VerificationReport) -> Iterator[str]:
    """Which files the program opened while it was built, and which nobody hashed."""
    opened = report.opened
    if opened is None:
        return
    compared = f", {opened.compared} of them opened here and equal" if opened.compared else ""
    hashed = f"{opened.hashed} listed by SHA-256{compared}"
    yield f"Opened files: {hashed}; {opened.n_unhashed} that nobody hashed"
    if opened.n_unhashed:
        yield f"  not hashed: {some_names(opened.unhashed, opened.n_unhashed)}"
    if opened.n_unopened:
        names = some_names(opened.unopened, opened.n_unopened)
        yield f"  listed and not opened here: {names}"


def plan_lines(report: VerificationReport) -> Iterator[str]:
    """What the plan that was signed before the run is worth."""
    if report.plan is None:
        return
    yield f"Plan: {report.plan.status}"
    for remark in report.plan.remarks:
        yield f"  {remark}"
    for line in report.plan.deviations:
        yield f"  deviates: {line}"


def _countersignatures(report: VerificationReport) -> Iterator[str]:
    """Who else verified, and how many of them count."""
    if not report.countersignatures:
        return
    n_counted = sum(item.counts for item in report.countersignatures)
    yield f"Countersigned: {n_counted} by trusted keys other than the author's"
    for item in report.countersignatures:
        who = item.signed_by or "nobody trusted"
        verdict = f"{item.verdict}, " if item.verdict else ""
        yield f"  {item.file}: {who}: {verdict}{item.remark}"


def _replays(report: VerificationReport) -> Iterator[str]:
    """Every signed replay of a recording, contradictions first."""
    if not report.replays:
        return
    n_counted = sum(item.counts for item in report.replays)
    yield f"Replays beside the recording: {len(report.replays)}, of which {n_counted} count"
    for item in report.replays:
        when = f", {item.finished} by its own clock" if item.finished else ""
        who = item.signed_by or "nobody trusted"
        yield f"  {item.file}: {who}: {item.remark}{when}"
