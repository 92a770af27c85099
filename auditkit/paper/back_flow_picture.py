"""Back-flow of every treatment: carried, broken, and what lies between, seed by seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from auditkit.paper.drawing import Drawn, label
from auditkit.paper.style import BLUE, GREEN, GREY, VERMILION
from auditkit.records.back_flow import ARMS, BROKEN_ARM, CARRIED, CONTRAST, BackFlow
from auditkit.records.estimate import (
    AS_IS,
    EQUIVALENT,
    EXACTLY_ZERO,
    INCONCLUSIVE,
    SAME,
    EstimateTable,
)
from auditkit.records.metric_names import base_metric
from auditkit.records.plan import as_typed

#: Colour, marker, and place beside its name, of each arm.
_STYLES = {
    CARRIED: (BLUE, "o", -0.25),
    BROKEN_ARM: (VERMILION, "s", 0.0),
    CONTRAST: (GREEN, "D", 0.25),
}

#: Verdicts of an empty marker.
_NO_DIRECTION = ("", INCONCLUSIVE, EQUIVALENT, EXACTLY_ZERO, SAME)

#: Treatments that are drawn, and inches of one.
_MAX_ROWS, _ROW = 20, 0.95


def back_flow_picture(estimates: EstimateTable) -> Iterator[Drawn]:
    """The picture; none of a study without a causal break."""
    metric = _metric(estimates)
    rows = [
        row
        for row in estimates.back_flow
        if (row.metric, row.variant) == (metric, AS_IS) and row.mean is not None
    ]
    names = list(dict.fromkeys(row.perturbation for row in rows))
    shown = names[:_MAX_ROWS]
    if not shown:
        return
    rest = len(names) - len(shown)
    more = f" {rest} more are not drawn." if rest else ""
    yield Drawn(
        "back-flow",
        f"Back-flow: {metric}",
        "D2 - D1, how much further two histories part on common data: with the memory carried "
        "over, with it reset at t0+W (broken), and the first less the second (contrast). Small "
        f"points: seeds; large: their mean with its {100 * estimates.level:g} % interval, filled "
        "where the verdict is a direction; grey bar: the placebos' mean"
        f"{_margin_words(rows)}. Amplification alone is no memory: "
        f"the contrast is what the break takes away. Exploratory.{more}",
        1.0 + _ROW * len(shown),
        lambda figure: _draw(figure, shown, rows),
    )


def _metric(estimates: EstimateTable) -> str | None:
    """The primary metric; else the first total variation, or whatever there is."""
    metrics = list(dict.fromkeys(row.metric for row in estimates.back_flow))
    if estimates.primary_metric in metrics:
        return estimates.primary_metric
    return next((m for m in metrics if base_metric(m) == "tv"), next(iter(metrics), None))


def _margin_words(rows: Sequence[BackFlow]) -> str:
    return "" if rows[0].margin is None else "; dotted lines: the plan's margin"


def _draw(figure: Any, names: Sequence[str], rows: Sequence[BackFlow]) -> None:
    panel = figure.subplots()
    panel.axvline(0, color=GREY, linewidth=1)
    margin = rows[0].margin
    for place in () if margin is None else (-margin, margin):
        panel.axvline(place, color=GREY, linewidth=1, linestyle=":")
    for arm in ARMS:
        colour, marker, offset = _STYLES[arm]
        panel.plot([], [], marker, color=colour, label=arm)
        for row in rows:
            if row.arm == arm and row.perturbation in names:
                _draw_row(panel, row, names.index(row.perturbation) + offset, colour, marker)
    panel.set_yticks(range(len(names)), [label(as_typed(name)) for name in names])
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.locator_params(axis="x", nbins=6)
    panel.grid(visible=True, axis="x", color=GREY, alpha=0.35, linewidth=0.6)
    panel.set_xlabel("D2 - D1")
    figure.legend(loc="outside upper left", ncols=len(ARMS), frameon=False)


def _draw_row(panel: Any, row: BackFlow, y: float, colour: str, marker: str) -> None:
    values = row.per_seed
    panel.plot(values, [y + 0.09] * len(values), "o", color=colour, markersize=2.5)
    if row.floor is not None:
        panel.plot([row.floor], [y], "|", color=GREY, markersize=9, markeredgewidth=2)
    bounds = row.interval
    if bounds is not None and bounds.low is not None and bounds.high is not None:
        panel.plot([bounds.low, bounds.high], [y, y], "-", color=colour, linewidth=1.6)
    face = "none" if row.verdict in _NO_DIRECTION else colour
    panel.plot([row.mean], [y], marker, color=colour, markerfacecolor=face, markersize=5.5)
