"""Effects over steps, where a plan has times beside those that are tested: a panel a treatment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from auditkit.paper.drawing import Drawn, label
from auditkit.paper.style import BLUE, GREY
from auditkit.records.estimate import AS_IS, DistanceEstimate, EstimateTable, SignedEstimate
from auditkit.records.plan import CONFIRMATORY, as_typed

#: Panels of a picture, and of a row.
_MAX_PANELS, _COLUMNS = 8, 2

#: Inches of a row of panels.
_ROW = 2.1


@dataclass(frozen=True)
class Point:
    """The effect at one time.

    Attributes:
        step: When.
        size: The mean over seeds.
        low: Lower end of its interval; None where there is none.
        high: Upper end.
        is_tested: Whether the plan tests it: t0+W and T.
    """

    step: int
    size: float
    low: float | None
    high: float | None
    is_tested: bool


def effect_curves(estimates: EstimateTable, what: str, caution: str = "") -> Iterator[Drawn]:
    """The picture; none where the plan has no further times, or no effect is known.

    Args:
        estimates: The study's.
        what: What is drawn, for people.
        caution: What else its reader must know.
    """
    curves = effect_points(estimates)
    if not curves or len(estimates.times) <= len(CONFIRMATORY):
        return
    shown = dict(list(curves.items())[:_MAX_PANELS])
    rest = len(curves) - len(shown)
    more = f" {rest} more are not drawn." if rest else ""
    lone = [name for name, points in shown.items() if all(p.low is None for p in points)]
    bare = f" Without an interval: {', '.join(lone)}." if lone else ""
    equal = ", ".join(_equal(estimates))
    bare += f" No point where all bits equal the control's: {equal}." if equal else ""
    yield Drawn(
        "curves",
        f"Effect over steps: {estimates.primary_metric}",
        f"{what}, mean over seeds (line), at every time at which branches are compared, with its "
        f"{100 * estimates.level:g} % interval (band): each of its own time alone, not of the "
        "curve as a whole. Large squares: t0+W and T; all other times are exploratory."
        f"{bare}{more}{caution}",
        0.5 + _ROW * _rows(len(shown)),
        lambda figure: _draw(figure, shown, what),
    )


def effect_points(estimates: EstimateTable) -> dict[str, list[Point]]:
    """Points of the primary metric by treatment, in the order of steps."""
    found: dict[str, list[Point]] = {}
    for row in estimates.rows:
        size = _size(row)
        if size is None or not _is_drawn(row, estimates):
            continue
        bounds = row.interval
        low, high = (None, None) if bounds is None else (bounds.low, bounds.high)
        if low is None or high is None:
            low = high = None
        point = Point(estimates.times[row.time], size, low, high, row.time in CONFIRMATORY)
        found.setdefault(as_typed(row.perturbation), []).append(point)
    return {name: sorted(points, key=lambda p: p.step) for name, points in found.items()}


def _is_drawn(row: SignedEstimate | DistanceEstimate, estimates: EstimateTable) -> bool:
    return (row.metric, row.variant) == (estimates.primary_metric, AS_IS)


def _equal(estimates: EstimateTable) -> Iterator[str]:
    """Treatments, and when, that have no excess since their distance is exactly 0."""
    times: dict[str, list[str]] = {}
    for row in estimates.rows:
        if _is_drawn(row, estimates) and row.exactly_zero and _size(row) is None:
            times.setdefault(as_typed(row.perturbation), []).append(row.time)
    for name, found in times.items():
        is_always = len(found) == len(estimates.times)
        yield f"{name} ({'always' if is_always else ', '.join(found)})"


def _size(row: SignedEstimate | DistanceEstimate) -> float | None:
    return row.excess if isinstance(row, DistanceEstimate) else row.ate


def _rows(n_panels: int) -> int:
    return -(-n_panels // _COLUMNS)


def _draw(figure: Any, curves: Mapping[str, Sequence[Point]], what: str) -> None:
    n_columns = min(len(curves), _COLUMNS)
    grid = figure.subplots(_rows(len(curves)), n_columns, sharex=True, sharey=True, squeeze=False)
    panels = grid.ravel()
    for panel, (name, points) in zip(panels, curves.items(), strict=False):
        _draw_panel(panel, points)
        panel.set_title(label(name))
    for panel in panels[len(curves) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(curves) - n_columns) : len(curves)]:
        panel.tick_params(labelbottom=True)
    figure.supxlabel("Step", fontsize="medium")
    figure.supylabel(what, fontsize="medium")


def _draw_panel(panel: Any, points: Sequence[Point]) -> None:
    panel.axhline(0, color=GREY, linewidth=1)  # how far an effect is from none
    steps, sizes = [p.step for p in points], [p.size for p in points]
    bounds = [(p.size, p.size) if p.low is None else (p.low, p.high) for p in points]
    if any(p.low is not None for p in points):
        low, high = zip(*bounds, strict=True)
        panel.fill_between(steps, low, high, color=BLUE, alpha=0.25, linewidth=0)
    panel.plot(steps, sizes, ".-", color=BLUE, linewidth=1.2, markersize=4)
    tested = [p for p in points if p.is_tested]
    panel.plot([p.step for p in tested], [p.size for p in tested], "s", color=BLUE, markersize=5)
    panel.locator_params(nbins=5)
    panel.grid(visible=True, color=GREY, alpha=0.35, linewidth=0.6)
