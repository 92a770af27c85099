"""The picture of back-flow: carried beside broken, a row for each history A', and the contrast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from auditkit.paper.drawing import Drawn
from auditkit.paper.pictures import legend, name_rows, panels
from auditkit.paper.style import BLUE, GREEN, VERMILION
from auditkit.records.back_flow import BROKEN_ARM, CARRIED, CONTRAST, BackFlow
from auditkit.records.estimate import AS_IS, INCONCLUSIVE, EstimateTable
from auditkit.records.metric_names import base_metric

#: Colour, marker and height of each arm, so that no colour stands alone.
_ARMS = {
    CARRIED: (BLUE, "o", -0.28),
    BROKEN_ARM: (VERMILION, "s", 0.0),
    CONTRAST: (GREEN, "D", 0.28),
}
_GREY, _MAX_ROWS = "#888888", 20


def back_flow_pictures(estimates: EstimateTable) -> Iterator[Drawn]:
    """The picture, of a study with a causal break; of the primary metric, or of tv."""
    rows = _rows(estimates)
    if not any(row.per_seed for row in rows):
        return
    names = list(dict.fromkeys(row.perturbation for row in rows))[:_MAX_ROWS]
    shown = [row for row in rows if row.perturbation in names]
    yield Drawn(
        "back-flow",
        f"Back-flow, carried and broken: {rows[0].metric}",
        "D2 - D1 of each seed (small points), their mean (large) and its "
        f"{100 * estimates.level:g} % interval where there is one: with the memory carried over, "
        "with the causal break, and the first less the second. A stroke: the floor, what placebos "
        "show. A filled marker: the row has a verdict, after correction; a hollow one: it has not. "
        "Right of 0 two histories part further on common data.",
        1.5 + 1.0 * len(names),
        lambda figure: _draw(figure, names, shown),
    )


def _rows(estimates: EstimateTable) -> list[BackFlow]:
    rows = [row for row in estimates.back_flow if row.variant == AS_IS]
    primary = [row for row in rows if row.metric == estimates.primary_metric]
    of_tv = [row for row in rows if base_metric(row.metric) == "tv"]
    found = primary or of_tv or rows
    return [row for row in found if row.metric == found[0].metric]


def _draw(figure: Any, names: Sequence[str], rows: Sequence[BackFlow]) -> None:
    (panel,) = panels(figure, 1)
    panel.axvline(0, color=_GREY, linewidth=1)
    for arm, (colour, marker, _) in _ARMS.items():
        panel.plot([], [], marker, color=colour, label=arm)
    panel.plot([], [], "|", color=_GREY, markersize=10, markeredgewidth=2, label="placebo floor")
    for row in rows:
        colour, marker, offset = _ARMS[row.arm]
        y = names.index(row.perturbation) + offset
        panel.plot(row.per_seed, [y + 0.09] * len(row.per_seed), "o", color=colour, markersize=2.5)
        if row.floor is not None:
            style = {"color": _GREY, "markersize": 10, "markeredgewidth": 2}
            panel.plot([row.floor], [y - 0.04], "|", **style)
        if row.mean is None:
            continue
        bounds = row.interval
        if bounds is not None and bounds.low is not None and bounds.high is not None:
            panel.plot([bounds.low, bounds.high], [y - 0.04] * 2, "-", color=colour, linewidth=1.6)
        is_judged = row.verdict not in ("", INCONCLUSIVE)
        face = colour if is_judged else "none"
        panel.plot([row.mean], [y - 0.04], marker, color=colour, markerfacecolor=face, markersize=6)
    name_rows(panel, names)
    panel.set_xlabel("D2 - D1")
    legend(figure)
