"""Two sets of estimands side by side, as a table."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from auditkit.cli.tables import console
from auditkit.records.agreement import Agreement, ReproductionReport
from auditkit.records.estimate import AS_IS, PRIMARY, Interval


def print_agreement(report: ReproductionReport, *, everything: bool) -> None:
    """Print the comparison: by default the primary metric, and whatever disagrees."""
    out = console()
    for line in report.environment_differences:
        out.print(f"environment: {line}")
    if report.bit_identical:
        out.print("Every branch ended in the very bits of the record.")
    for line in report.edited:
        out.print(f"mismatch: {line}")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.title = "Estimands: recorded, and reproduced here"
    for heading in ("perturbation", "metric", "time"):
        table.add_column(heading, overflow="fold", max_width=28)
    for heading in ("recorded", "reproduced", "difference", "95 % interval", "p (Holm)"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for row in report.rows:
        if everything or row.family == PRIMARY or row.verdict == "disagree":
            table.add_row(*_cells(row))
    out.print(table)
    counts = ", ".join(
        f"{report.count(verdict)} {verdict}" for verdict in ("agree", "disagree", "cannot tell")
    )
    n_seeds = max((row.n for row in report.rows), default=0)
    out.print(f"Of {len(report.rows)} estimands over {n_seeds} seeds: {counts}.")


def _cells(row: Agreement) -> tuple[str, ...]:
    return (
        row.perturbation,
        row.metric if row.variant == AS_IS else f"{row.metric} (recal.)",
        row.time,
        _number(row.recorded),
        _number(row.reproduced),
        _number(row.difference),
        _interval(row.interval),
        _number(row.adjusted_p),
        f"{row.verdict}: {row.reason}",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"[{_number(interval.low)}, {_number(interval.high)}]"
