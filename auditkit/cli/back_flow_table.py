"""Back-flow as a table: carried, broken, and the contrast; and the momentum where B begins."""

from __future__ import annotations

from auditkit.cli.console import interval, number
from auditkit.cli.estimand_tables import EstimandTable
from auditkit.cli.row_signs import p_value
from auditkit.records.back_flow import BackFlow
from auditkit.records.estimate import AS_IS, EstimateTable
from auditkit.records.metric_names import base_metric
from auditkit.records.plan import as_typed, rounded

#: Names of their layouts.
BACK_FLOW, ALIGNMENT = "back-flow", "alignment"

_NOTES = (
    "D1: distance of the histories at t0+W; D2: at T, after the same steps; the floor is the "
    "placebos' D2 - D1; exploratory",
    "amplification alone shows no memory: what the break takes away does (contrast)",
)


def back_flow_table(estimates: EstimateTable, *, everything: bool) -> EstimandTable | None:
    """All rows, or those of tv and of the primary metric; None where there are none."""
    shown = [
        row for row in estimates.back_flow if everything or _is_shown(row, estimates.primary_metric)
    ]
    if not shown:
        return None
    title = "Back-flow: do two histories part further on common data? D2 - D1"
    return EstimandTable("back-flow", title, tuple(map(_cells, shown)), _NOTES)


def alignment_table(estimates: EstimateTable) -> EstimandTable | None:
    """Momentum against gradient, a row a history; None where it was not measured."""
    cells = tuple(
        (
            "A, the control" if row.history == "control" else f"A', {as_typed(row.history)}",
            number(row.mean),
            interval(row.interval, "cosine"),
            number(min(row.per_seed, default=None)),
            number(max(row.per_seed, default=None)),
            str(row.n),
        )
        for row in estimates.alignments
    )
    title = "Momentum against gradient where B begins: their cosine"
    notes = ("1: the history goes where B goes, 0: at right angles; exploratory",)
    return EstimandTable("alignment", title, cells, notes) if cells else None


def _is_shown(row: BackFlow, primary: str) -> bool:
    return row.metric == primary or (base_metric(row.metric) == "tv" and row.variant == AS_IS)


def _cells(row: BackFlow) -> tuple[str, ...]:
    q = "-" if row.adjusted_p is None else f"{p_value(row.adjusted_p)} q"
    return (
        as_typed(row.perturbation),
        row.metric if row.variant == AS_IS else f"{row.metric} (recal.)",
        row.arm,
        number(row.d1),
        number(row.d2),
        "0" if row.exactly_zero else number(_plain(row.mean, row)),
        interval(row.interval, row.metric),
        number(_plain(row.floor, row)),
        interval(row.excess_interval, row.metric),
        q,
        row.verdict or "-",
    )


def _plain(value: float | None, row: BackFlow) -> float | None:
    return rounded(value, row.metric)
