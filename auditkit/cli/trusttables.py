"""What a report says beside its checks: the environment, the plan, who else verified."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from auditkit.records.report import VerificationReport

#: Distances that are shown; all of them are in the JSON report.
_SHOWN = 20


def print_distances(out: Console, report: VerificationReport) -> None:
    """Print how the environment differs from the record, and how far the replay is from it."""
    if report.environment_differences:
        out.print("Environment differs from the record (the bits may still be equal):")
        for line in report.environment_differences:
            out.print(f"  {line}")
    if not report.distances:
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.title = "Distance between record and replay"
    for heading in ("where", "what"):
        table.add_column(heading, overflow="fold")
    for heading in ("largest absolute", "largest relative", "total variation"):
        table.add_column(heading, justify="right")
    for item in report.distances[:_SHOWN]:
        numbers = (item.largest_absolute, item.largest_relative, item.total_variation)
        shown = ("-" if number is None else f"{number:.3g}" for number in numbers)
        table.add_row(item.where, item.name, *shown)
    out.print(table)
    if len(report.distances) > _SHOWN:
        out.print(f"... and {len(report.distances) - _SHOWN} more, with --json")


def print_plan(out: Console, report: VerificationReport) -> None:
    """Print what the plan that was signed before the run is worth."""
    if report.plan is None:
        return
    out.print(f"Plan: {report.plan.status}")
    for remark in report.plan.remarks:
        out.print(f"  {remark}")
    for line in report.plan.deviations:
        out.print(f"  deviates: {line}")


def print_countersignatures(out: Console, report: VerificationReport) -> None:
    """Print who else verified, and how many of them count."""
    if not report.countersignatures:
        return
    n_counted = sum(item.counts for item in report.countersignatures)
    out.print(f"Countersigned: {n_counted} by trusted keys other than the author's")
    for item in report.countersignatures:
        who = item.signed_by or "nobody trusted"
        verdict = f"{item.verdict}, " if item.verdict else ""
        out.print(f"  {item.file}: {who}: {verdict}{item.remark}")
