"""Back-flow as a table: carried, broken, and the contrast; and the momentum where B begins."""

from __future__ import annotations

from auditkit.cli.console import interval, number
from auditkit.cli.estimand_tables import EstimandTable
from auditkit.cli.row_signs import INTERVAL_SIGN, excludes_0, p_value
from auditkit.records.back_flow import BackFlow
from auditkit.records.estimate import AS_IS, EQUIVALENT, INCONCLUSIVE, EstimateTable
from auditkit.records.metric_names import base_metric
from auditkit.records.plan import as_typed, rounded

#: Names of their layouts.
BACK_FLOW, ALIGNMENT = "back-flow", "alignment"

_NOTES = (
    "D1: distance of the histories at t0+W; D2: at T, after the same steps; the floor is the "
    "placebos' D2 - D1; exploratory",
    "amplification alone shows no memory: what the break takes away does (contrast)",
)

_WITHIN = (
    "equivalent, or negligible: D2 - D1, and what of it lies above the floor, is shown to be "
    "inside the plan's margin"
)

_APART = (
    f"{INTERVAL_SIGN} the interval is of this row alone, and without 0; the verdict follows both "
    "tests and the adjusted p"
)


def back_flow_table(estimates: EstimateTable, *, everything: bool) -> EstimandTable | None:
    """All rows, or those of tv and of the primary metric; None where there are none."""
    shown = shown_back_flow(estimates, everything=everything)
    if not shown:
        return None
    title = "Back-flow: do two histories part further on common data? D2 - D1"
    notes = [*_NOTES, *([_WITHIN] if any(row.margin is not None for row in shown) else ())]
    notes += [_APART] if any(map(_is_beside_another_interval, shown)) else []
    return EstimandTable("back-flow", title, tuple(map(_cells, shown)), tuple(notes))


def shown_back_flow(estimates: EstimateTable, *, everything: bool) -> list[BackFlow]:
    """Rows that are shown: all, or those of tv, of the primary metric, and with a margin."""
    return [
        row for row in estimates.back_flow if everything or _is_shown(row, estimates.primary_metric)
    ]


def equivalence_cells(row: BackFlow) -> tuple[str, ...]:
    """A row of the table of equivalence."""
    return (
        *(as_typed(row.perturbation), _metric(row), f"D2 - D1, {row.arm}"),
        *(number(row.margin), p_value(row.equivalence_p), "-", p_value(row.adjusted_equivalence_p)),
        row.verdict or "-",
    )


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
    asked = base_metric(row.metric) == "tv" or row.margin is not None
    return row.metric == primary or (asked and row.variant == AS_IS)


def _cells(row: BackFlow) -> tuple[str, ...]:
    q = "-" if row.adjusted_p is None else f"{p_value(row.adjusted_p)} q"
    return (
        as_typed(row.perturbation),
        _metric(row),
        row.arm,
        number(row.d1),
        number(row.d2),
        "0" if row.exactly_zero else number(_plain(row.mean, row)),
        interval(row.interval, row.metric),
        number(_plain(row.floor, row)),
        interval(row.excess_interval, row.metric),
        q,
        (row.verdict or "-") + (f" {INTERVAL_SIGN}" if _is_beside_another_interval(row) else ""),
    )


def _is_beside_another_interval(row: BackFlow) -> bool:
    return row.verdict in {INCONCLUSIVE, EQUIVALENT} and excludes_0(row.interval)


def _metric(row: BackFlow) -> str:
    return row.metric if row.variant == AS_IS else f"{row.metric} (recal.)"


def _plain(value: float | None, row: BackFlow) -> float | None:
    return rounded(value, row.metric)
