"""Reports as tables that a person can read. Text from files is never taken for markup."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from auditkit.cli.trusttables import print_countersignatures, print_distances, print_plan
from auditkit.evidence.verdicts import is_recording_report
from auditkit.formats.quote import printable
from auditkit.records.estimate import (
    AS_IS,
    PRIMARY,
    DistanceEstimate,
    EstimateTable,
    Interval,
    SignedEstimate,
)
from auditkit.records.job import Description
from auditkit.records.plan import StudyPlan
from auditkit.records.report import CheckResult, VerificationReport

#: Columns that the estimand tables need; in a narrower terminal lines wrap, but none is cut.
_WIDTH = 130

#: Metrics that are shown without ``--all``.
_SHOWN = ("tv", "accuracy", "nll")

_PROVES = (
    "integrity (these bytes are what that key signed), pairing (control and treatment share their "
    "state up to t0 and differ only in the declared perturbation)"
)
_PROVES_RECORDING = "integrity (these bytes are what that key signed)"
_REPLAYED = (
    "replay-consistency (the recorded states follow from the recorded inputs on this software and "
    "hardware)"
)
_NOT = (
    "that this was the only run (seeds can be shopped), who ran it, when, on which hardware, or "
    "that the data are clean"
)


class _PlainConsole(Console):
    """Takes nothing for markup, and lets no control character of a string reach a terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def console() -> Console:
    """A console on stdout for text that comes from files."""
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    return _PlainConsole(
        markup=False, highlight=False, emoji=False, width=max(_WIDTH, wide), soft_wrap=False
    )


def print_report(report: VerificationReport, *, everything: bool) -> None:
    """Print checks, estimands and verdict."""
    out = console()
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("#", "check", "result", "what"):
        table.add_column(heading, overflow="fold")
    for check in report.checks:
        table.add_row(str(check.number), check.name, check.status, check.summary)
    out.print(table)
    for check in report.checks:
        _print_findings(out, check)
    print_distances(out, report)
    print_plan(out, report)
    if report.estimates is not None:
        if report.verdict == "sampled":
            out.print(
                f"SAMPLED: most tables below are as recorded, not recomputed. {report.replay}"
            )
        print_estimates(out, report.estimates, everything=everything)
    _print_verdict(out, report)


def print_estimates(out: Console, estimates: EstimateTable, *, everything: bool) -> None:
    """Print the estimand tables."""
    times = ", ".join(f"{name} = step {step}" for name, step in estimates.times.items())
    out.print(
        f"Estimands over {estimates.n_seeds} seeds, {estimates.placebos} placebos each; {times}; "
        f"primary metric {estimates.primary_metric}"
    )
    floor = estimates.floor
    if floor.developed is not None:
        state = "developed" if floor.developed else "not developed"
        out.print(
            f"Floor {state} at T: {floor.n_above} of {floor.n_placebos} placebos exceed TV "
            f"{floor.threshold:g}"
        )
    diverged = {name: count for name, count in estimates.diverged.items() if count}
    if diverged:
        shown = ", ".join(f"{name} in {count}" for name, count in diverged.items())
        out.print(f"Diverged and left out, by number of seeds: {shown}")
    rows = [row for row in estimates.distances if everything or _is_shown(row, estimates)]
    out.print(_distances(rows, estimates))
    signed = [row for row in estimates.signed if everything or _is_shown(row, estimates)]
    out.print(_signed(signed))
    for note in estimates.notes:
        out.print(f"Note: {note}")


def print_cost(description: Description, plan: StudyPlan, jobs: int) -> None:
    """Print what a study will cost, from a few timed steps."""
    cost = description.cost
    if cost is None:
        return
    n_branches, n_seeds = len(plan.branch_names), len(plan.seeds)
    held = plan.horizon - plan.fork_at
    steps = n_seeds * (plan.horizon + held * (n_branches - 1))
    seconds = steps * cost.step_seconds + n_seeds * n_branches * cost.branch_seconds
    seconds += 2 * n_seeds * cost.start_seconds  # a trunk and a branches process each
    rows = steps * cost.row_bytes
    probes = n_seeds * n_branches * 6 * 4 * 10 * cost.n_probe
    size = n_seeds * cost.snapshot_bytes + rows + probes
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=False)
    for heading, text in (
        ("seeds x branches", f"{n_seeds} x {n_branches}"),
        ("training steps", f"{steps:,}"),
        ("one step", f"{cost.step_seconds * 1000:.2f} ms with its evidence"),
        ("processor time", _duration(seconds)),
        ("wall time", f"{_duration(seconds / jobs)} with --jobs {jobs}"),
        ("disk", f"{size / 1e9:.3f} GB, of which evidence {rows / 1e9:.3f} GB"),
    ):
        table.add_row(heading, text)
    console().print(table)


def print_run(manifest: Path, plan: StudyPlan, fingerprint: str) -> None:
    """Print where the manifest is and what comes next."""
    out = console()
    n_branches = len(plan.branch_names)
    out.print(f"{len(plan.seeds)} seeds, {n_branches} branches each, to step {plan.horizon}")
    out.print(f"manifest: {manifest}")
    out.print(f"signed by: {fingerprint}")
    out.print(f"next: auditkit verify {manifest}")


def _print_findings(out: Console, check: CheckResult) -> None:
    for finding in check.findings[:20]:
        out.print(f"check {check.number} {check.name}: {finding}")
    if len(check.findings) > 20:
        out.print(f"check {check.number} {check.name}: ... and {len(check.findings) - 20} more")
    for warning in check.warnings[:20]:
        out.print(f"check {check.number} {check.name}, warning: {warning}")


def _print_verdict(out: Console, report: VerificationReport) -> None:
    out.print(f"Trust: {report.trust}" + (f" ({report.signed_by})" if report.signed_by else ""))
    for stamp in report.timestamps:
        out.print(f"Signed before {stamp.time}, says {stamp.authority}")
    print_countersignatures(out, report)
    out.print(f"Replay: {report.replay}")
    if report.verdict == "close":
        out.print(
            "Close: bits differ with the environment, and no probe table by more than the "
            "tolerance. That is not verified: an edit of that size looks the same."
        )
    if report.exit_code == 0:
        of_recording = is_recording_report(report.checks)
        replayed = {
            "verified": f", {_REPLAYED}",
            "sampled": f"; of the branches that were drawn, and no others, {_REPLAYED}",
        }.get(report.verdict, "; that the changes were made as declared was not replayed")
        if of_recording and report.verdict != "verified":
            replayed = "; that the recorded states follow from the recorded inputs was not replayed"
        out.print(f"Shown: {_PROVES_RECORDING if of_recording else _PROVES}{replayed}.")
        out.print(f"Not shown: {_NOT}.")
    out.print(f"Verdict: {report.verdict} (exit {report.exit_code})")


def _is_shown(row: SignedEstimate | DistanceEstimate, estimates: EstimateTable) -> bool:
    if row.metric == estimates.primary_metric:
        return True
    return row.metric in _SHOWN and row.variant == AS_IS


def _distances(rows: Iterable[DistanceEstimate], estimates: EstimateTable) -> Table:
    headings = ("perturbation", "metric", "time", "distance", "floor", "excess")
    table = _table((*headings, "rho", "p", "adjusted", "verdict"), text_columns=3)
    for row in rows:
        table.add_row(
            *_names(row),
            row.time,
            *(_number(value) for value in (row.mean_distance, row.floor, row.excess)),
            "-" if row.rho is None else f"{row.rho:.2f}",
            _p(row.permutation_p),
            _adjusted(row),
            row.verdict + _undeveloped(row, estimates),
        )
    table.title = "Distance from the control, and its excess over the placebo floor"
    notes = ["rho: 0 = floor, 1 = as different as another seed; p: within-seed permutation"]
    if estimates.floor.developed is False:
        notes.append("* floor not developed at T: compared with a nudge that has not grown yet")
    table.caption = Text("\n".join(notes), style="table.caption")
    return table


def _signed(rows: Iterable[SignedEstimate]) -> Table:
    headings = ("perturbation", "metric", "time", "ATE", "95 % interval")
    table = _table((*headings, "seed SDs", "p", "adjusted", "verdict"), text_columns=3)
    for row in rows:
        table.add_row(
            *_names(row),
            row.time,
            _number(row.ate),
            _interval(row.interval),
            "-" if row.ate_in_control_sd is None else f"{row.ate_in_control_sd:.2f}",
            _p(row.t_p),
            _adjusted(row),
            row.verdict,
        )
    table.title = "Treatment minus control, paired by seed"
    table.caption = "p: paired t; the sign-flip test, other metrics and persistence: --all, --json"
    return table


def _table(headings: tuple[str, ...], text_columns: int) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title_justify="left", caption_justify="left")
    for position, heading in enumerate(headings):
        is_text = position < text_columns or heading == "verdict"
        justify: Literal["left", "right"] = "left" if is_text else "right"
        # A number that is cut is another one: only words are folded.
        folds = heading in ("perturbation", "verdict")
        width = {"perturbation": 24, "verdict": 15}.get(heading)
        table.add_column(
            heading, justify=justify, overflow="fold", no_wrap=not folds, max_width=width
        )
    return table


def _undeveloped(row: DistanceEstimate, estimates: EstimateTable) -> str:
    is_late = row.time == "T" and not row.exactly_zero
    return " *" if is_late and estimates.floor.developed is False else ""


def _names(row: SignedEstimate | DistanceEstimate) -> tuple[str, str]:
    """Perturbation, which may be folded between its parameters, and metric."""
    metric = row.metric if row.variant == AS_IS else f"{row.metric} (recal.)"
    return row.perturbation.replace("--", " --"), metric


def _adjusted(row: SignedEstimate | DistanceEstimate) -> str:
    if row.adjusted_p is None:
        return "-"
    return f"{_p(row.adjusted_p)} {'Holm' if row.family == PRIMARY else 'q'}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}" if value < 0.001 else f"{value:.3f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 3600:.2f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    low = "-inf" if interval.low is None else f"{interval.low:.3g}"
    high = "inf" if interval.high is None else f"{interval.high:.3g}"
    return f"[{low}, {high}]"
