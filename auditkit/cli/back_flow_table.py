"""Back-flow as a table: carried, broken, and the contrast, below each other."""

from __future__ import annotations

from auditkit.cli.console import interval, number
from auditkit.cli.estimand_tables import EstimandTable
from auditkit.cli.row_signs import p_value
from auditkit.records.back_flow import BackFlow
from auditkit.records.estimate import AS_IS, EstimateTable
from auditkit.records.metric_names import base_metric
from auditkit.records.plan import as_typed, rounded

#: Name of its layout.
BACK_FLOW = "back-flow"

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
