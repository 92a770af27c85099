"""Estimates in sentences, for the checklist."""

from __future__ import annotations

from auditkit.paper.citations import MAX_LISTED, count, number, value
from auditkit.records.estimate import (
    AS_IS,
    MIN_PAIRS,
    PRIMARY,
    DistanceEstimate,
    EstimateTable,
    Interval,
    SignedEstimate,
)

Row = SignedEstimate | DistanceEstimate


def primary_rows(estimates: EstimateTable) -> list[Row]:
    """The rows that the plan's primary metric is judged by."""
    return [row for row in estimates.rows if row.family == PRIMARY]


def has_tests(estimates: EstimateTable) -> bool:
    """Whether a row of the primary metric says how certain it is."""
    return any(
        row.exactly_zero or row.interval is not None or row.test_p is not None
        for row in primary_rows(estimates)
    )


def uncertainty(estimates: EstimateTable) -> str:
    """How the estimates are made and how many pairs they rest on."""
    rows = primary_rows(estimates)
    is_distance = any(isinstance(row, DistanceEstimate) for row in rows)
    level = f"{100 * estimates.level:g} % t interval"
    method = (
        "excess over the placebo floor, tested by permuting the label treatment within each seed; "
        f"{level} of the per-seed excess beside it"
        if is_distance
        else f"treatment minus control paired by seed, with a paired t test and a {level}"
    )
    text = (
        f"The unit is the seed ({count(estimates.n_seeds, 'seed')}); probe examples are never "
        f"pooled. Primary metric {value(estimates.primary_metric)}: {method}. Holm's correction "
        f"over {count(len(rows), 'primary estimate')} at alpha {estimates.alpha:g}; "
        f"{count(len(estimates.rows) - len(rows), 'other estimate')} exploratory, with "
        f"Benjamini-Hochberg q values. Intervals and tests need at least {MIN_PAIRS} pairs."
    )
    diverged = {name: n for name, n in estimates.diverged.items() if n}
    if diverged:
        shown = ", ".join(f"{value(name)} in {count(n, 'seed')}" for name, n in diverged.items())
        text += f" Diverged and left out: {shown}."
    return text


def primary_lines(estimates: EstimateTable) -> list[str]:
    """A line for each estimate of the primary metric."""
    rows = primary_rows(estimates)
    lines = [_row(row) + _undeveloped(row, estimates) for row in rows[: 2 * MAX_LISTED]]
    rest = len(rows) - len(lines)
    return [*lines, f"{count(rest, 'more primary estimate')}"] if rest > 0 else lines


def floor_summary(estimates: EstimateTable) -> str:
    """Whether the floor has developed."""
    floor = estimates.floor
    if floor.developed is None:
        return "No placebo stands, so there is no floor."
    state = "has developed" if floor.developed else "has not developed"
    text = (
        f"The floor {state} at T: {floor.n_above} of {count(floor.n_placebos, 'placebo')} exceed "
        f"TV {floor.threshold:g}"
    )
    return text + (
        "." if floor.developed else "; an excess at T is over a nudge that has not grown yet."
    )


def floor_lines(estimates: EstimateTable) -> list[str]:
    """The floor of the primary distance (of TV where the primary metric is none) at each time."""
    metrics = {row.metric for row in estimates.distances}
    metric = estimates.primary_metric if estimates.primary_metric in metrics else "tv"
    lines = []
    for time, _ in sorted(estimates.times.items(), key=lambda item: item[1]):
        for row in estimates.distances:
            if (row.metric, row.time, row.variant) == (metric, time, AS_IS) and row.n_with_floor:
                lines.append(
                    f"floor of {value(metric)} at {value(time)}: {number(row.floor)} over "
                    f"{count(row.n_with_floor, 'seed')}"
                    f" (other controls are {number(row.seed_distance)} apart)"
                )
                break
    return lines


def _row(row: Row) -> str:
    name = f"{value(row.perturbation)}, {value(row.metric)} at {value(row.time)}"
    pairs = f"n = {row.n}" + (f", {row.n_left_out} left out" if row.n_left_out else "")
    if isinstance(row, DistanceEstimate):
        kind = f"{row.permutation_kind} permutation " if row.permutation_kind else ""
        what = f"excess {number(row.excess)} over the floor {number(row.floor)}"
    else:
        kind, what = "paired t ", f"ATE {number(row.ate)}"
    p = "" if row.test_p is None else f", {kind}p = {row.test_p:.2g}"
    holm = "" if row.adjusted_p is None else f", Holm {row.adjusted_p:.2g}"
    return f"{name}: {what}{_interval(row.interval)} ({pairs}{p}{holm}): {value(row.verdict)}"


def _undeveloped(row: Row, estimates: EstimateTable) -> str:
    is_late = isinstance(row, DistanceEstimate) and row.time == "T" and not row.exactly_zero
    return "; floor not developed at T" if is_late and estimates.floor.developed is False else ""


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    low = "-inf" if interval.low is None else number(interval.low)
    high = "inf" if interval.high is None else number(interval.high)
    return f", {100 * interval.level:g} % interval [{low}, {high}]"
