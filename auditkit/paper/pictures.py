"""The pictures of a study: effects a seed, distances beside their scales, and all effects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from auditkit.paper.back_flow_picture import back_flow_picture
from auditkit.paper.drawing import Drawn, label
from auditkit.paper.effect_curves import effect_curves
from auditkit.paper.style import BLUE, GREEN, GREY, VERMILION
from auditkit.records.estimate import (
    AS_IS,
    EFFECT,
    MIN_PAIRS,
    NEGLIGIBLE,
    UNDEVELOPED,
    DistanceEstimate,
    EstimateTable,
    SignedEstimate,
)
from auditkit.records.metric_names import qualified, split_metric
from auditkit.records.plan import CONFIRMATORY, as_typed

_Row = SignedEstimate | DistanceEstimate

#: Colour and marker of each time, so that neither stands alone.
_TIMES = dict(zip(CONFIRMATORY, ((VERMILION, "o"), (BLUE, "s")), strict=True))

#: Perturbations of a picture, points of a curve, and curves of a picture that are drawn.
_MAX_ROWS, _MAX_POINTS, _MAX_CURVES = 40, 400, 8

#: Characters beside each other in a legend, what stands before each name counted as eight.
_LEGEND_CHARS = 72


def study_pictures(estimates: EstimateTable) -> Iterator[Drawn]:
    """The pictures that a study's estimates can fill."""
    primary = [row for row in estimates.rows if row.metric == estimates.primary_metric]
    primary = [row for row in primary if row.variant == AS_IS and row.time in CONFIRMATORY]
    names = list(dict.fromkeys(row.perturbation for row in primary))[:_MAX_ROWS]
    metric = estimates.primary_metric
    what = _what(primary)
    caution = "".join(_cautions(primary))
    if any(row.effect_per_seed for row in primary):
        yield Drawn(
            "seeds",
            f"Effect of each seed: {metric}",
            f"{what} of each seed (small points), their mean (large) and its "
            f"{100 * estimates.level:g} % interval where there is one, at t0+W and at T.{caution}",
            1.2 + 0.55 * len(names) * len(CONFIRMATORY),
            lambda figure: _draw_seeds(figure, names, primary, what),
        )
    distances = _distances(estimates)
    if distances:
        shown = list(dict.fromkeys(row.perturbation for row in distances))[:_MAX_ROWS]
        yield Drawn(
            "distances",
            f"Distance beside its scales: {distances[0].metric}",
            "Distance of each treatment from its control (circle), of the placebos (bar: the "
            "floor), and between controls of different seeds (cross), each a mean over seeds."
            f"{''.join(_of_floor(distances))}",
            1.4 + 0.5 * len(shown) * len(CONFIRMATORY),
            lambda figure: _draw_distances(figure, shown, distances),
        )
    if any(_size(row) is not None for row in primary):
        yield Drawn(
            "forest",
            f"All perturbations: {metric}",
            f"{what} with its {100 * estimates.level:g} % interval. A filled marker: the row's "
            "verdict is an effect, after correction; a hollow one: it is not."
            f"{caution}{''.join(_without_size(primary))}",
            1.2 + 0.45 * len(names),
            lambda figure: _draw_forest(figure, names, primary, what),
        )
    yield from effect_curves(estimates, what, "".join(_of_floor(primary)))
    yield from back_flow_picture(estimates)


def loss_pictures(logged: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Iterator[Drawn]:
    """The curves of what a loop logged as its loss.

    Args:
        logged: Steps and finite numbers, by the name of the curve.
    """
    curves = {name: pair for name, pair in list(logged.items())[:_MAX_CURVES] if pair[0]}
    if curves:
        yield Drawn(
            "loss",
            "Loss",
            "The loss that the loop logged, over steps; of a long curve the least and the most of "
            "every stretch are drawn.",
            2.7 + legend_height(curves),
            lambda figure: _draw_curves(figure, curves, "Loss"),
        )


def _cautions(rows: Sequence[_Row]) -> Iterator[str]:
    """What a reader of a picture must know who reads nothing else."""
    if rows and all(row.n < MIN_PAIRS for row in rows):
        yield f" Fewer than {MIN_PAIRS} pairs of seeds: values only, no interval and no test."
    yield from _of_floor(rows)


def _of_floor(rows: Sequence[_Row]) -> Iterator[str]:
    if any(UNDEVELOPED in row.notes for row in rows):
        yield " Floor not developed at T: there the floor is of a nudge that has not grown yet."


def _without_size(rows: Sequence[_Row]) -> Iterator[str]:
    """Which rows of a picture are empty, and why."""
    kinds = (("exactly 0 (bit-identical)", True), ("no pair, or no placebo, that stands", False))
    for words, is_zero in kinds:
        empty = [row for row in rows if _size(row) is None and row.exactly_zero == is_zero]
        if empty:
            named = ", ".join(f"{as_typed(row.perturbation)} at {row.time}" for row in empty)
            yield f" Without a marker: {named}: {words}."


def _what(rows: Sequence[_Row]) -> str:
    is_distance = any(isinstance(row, DistanceEstimate) for row in rows)
    return "Excess over the placebo floor" if is_distance else "Treatment minus control"


def _size(row: _Row) -> float | None:
    return row.ate if isinstance(row, SignedEstimate) else row.excess


def _distances(estimates: EstimateTable) -> list[DistanceEstimate]:
    """Rows of the primary metric, or of total variation where that is no distance."""
    metrics = list(dict.fromkeys(row.metric for row in estimates.distances))
    if not metrics:
        return []
    first = qualified(split_metric(metrics[0])[0], "tv")
    wanted = next((m for m in (estimates.primary_metric, first) if m in metrics), metrics[0])
    return [
        row
        for row in estimates.distances
        if (row.metric, row.variant) == (wanted, AS_IS) and row.time in CONFIRMATORY
    ]


def panels(figure: Any, count: int) -> list[Any]:
    """Panels below each other, with one axis."""
    return [row[0] for row in figure.subplots(count, 1, sharex=True, squeeze=False)]


def name_rows(panel: Any, names: Sequence[str]) -> None:
    """Write the names of branches beside a panel's rows, the first one on top."""
    panel.set_yticks(range(len(names)), [label(as_typed(name)) for name in names])
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.locator_params(axis="x", nbins=6)
    panel.grid(visible=True, axis="x", color=GREY, alpha=0.35, linewidth=0.6)


def _draw_seeds(figure: Any, names: Sequence[str], rows: Sequence[_Row], what: str) -> None:
    below = panels(figure, len(CONFIRMATORY))
    for panel, time in zip(below, CONFIRMATORY, strict=True):
        colour, marker = _TIMES[time]
        panel.axvline(0, color=GREY, linewidth=1)
        for row in rows:
            if row.time != time or row.perturbation not in names:
                continue
            y = names.index(row.perturbation)
            values = row.effect_per_seed
            panel.plot(values, [y + 0.18] * len(values), "o", color=colour, markersize=3)
            _draw_estimate(panel, row, y - 0.12, colour, marker, is_filled=True)
        panel.set_title(time)
        name_rows(panel, names)
    below[-1].set_xlabel(what)


def _draw_forest(figure: Any, names: Sequence[str], rows: Sequence[_Row], what: str) -> None:
    (panel,) = panels(figure, 1)
    panel.axvline(0, color=GREY, linewidth=1)
    for time, offset in zip(CONFIRMATORY, (-0.16, 0.16), strict=True):
        colour, marker = _TIMES[time]
        panel.plot([], [], marker, color=colour, label=time)
        for row in rows:
            if row.time == time and row.perturbation in names:
                y = names.index(row.perturbation) + offset
                is_filled = row.verdict in (EFFECT, NEGLIGIBLE)
                _draw_estimate(panel, row, y, colour, marker, is_filled=is_filled)
    name_rows(panel, names)
    panel.set_xlabel(what)
    legend(figure)


def _draw_estimate(
    panel: Any, row: _Row, y: float, colour: str, marker: str, *, is_filled: bool
) -> None:
    size = _size(row)
    if size is None:
        return
    bounds = row.interval
    if bounds is not None and bounds.low is not None and bounds.high is not None:
        panel.plot([bounds.low, bounds.high], [y, y], "-", color=colour, linewidth=1.6)
    face = colour if is_filled else "none"
    panel.plot([size], [y], marker, color=colour, markerfacecolor=face, markersize=6)


def _draw_distances(figure: Any, names: Sequence[str], rows: Sequence[DistanceEstimate]) -> None:
    kinds = (
        ("treatment", "mean_distance", BLUE, "o"),
        ("placebo floor", "floor", VERMILION, "|"),
        ("another seed", "seed_distance", GREEN, "x"),
    )
    below = panels(figure, len(CONFIRMATORY))
    for panel, time in zip(below, CONFIRMATORY, strict=True):
        for title, field, colour, marker in kinds:
            chosen = [row for row in rows if row.time == time and row.perturbation in names]
            points = [(getattr(row, field), names.index(row.perturbation)) for row in chosen]
            there = [point for point in points if point[0] is not None]
            style = {"color": colour, "markersize": 8, "markeredgewidth": 2}
            named = {"label": title} if panel is below[0] else {}
            panel.plot([x for x, _ in there], [y for _, y in there], marker, **style, **named)
        panel.set_title(time)
        panel.axvline(0, color=GREY, linewidth=1)
        name_rows(panel, names)
    below[-1].set_xlabel(f"Mean {label(rows[0].metric)}")
    legend(figure)


def _draw_curves(
    figure: Any,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    what: str,
) -> None:
    (panel,) = panels(figure, 1)
    colours = (BLUE, VERMILION, GREEN)
    for number, (name, (steps, values)) in enumerate(curves.items()):
        style = ("-", "--", ":")[(number + number // len(colours)) % 3]
        shown = thinned(steps, values)
        colour = colours[number % len(colours)]
        panel.plot(*shown, style, color=colour, linewidth=1.2, label=label(name))
    panel.set_xlabel("Step")
    panel.set_ylabel(what)
    panel.grid(visible=True, color=GREY, alpha=0.35, linewidth=0.6)
    legend(figure)


def thinned(
    steps: Sequence[float], values: Sequence[float]
) -> tuple[Sequence[float], Sequence[float]]:
    """Of every stretch of a long curve the least and the most, in their order."""
    if len(steps) <= 2 * _MAX_POINTS:
        return steps, values
    kept: list[int] = []
    for part in range(_MAX_POINTS):
        start, end = (len(steps) * n // _MAX_POINTS for n in (part, part + 1))
        stretch = range(start, end)
        kept += sorted({min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)})
    return [steps[n] for n in kept], [values[n] for n in kept]


def legend_height(names: Iterable[str]) -> float:
    """Inches that a legend of these names takes at most."""
    return 0.17 * sum(label(name).count("\n") + 1 for name in names)


def legend(figure: Any) -> None:
    """A legend above the panels, in as many columns as its longest line leaves room for."""
    names = [name for panel in figure.axes for name in panel.get_legend_handles_labels()[1]]
    longest = max(len(line) for name in names for line in name.split("\n"))
    n_columns = max(1, min(3, _LEGEND_CHARS // (longest + 8)))
    figure.legend(loc="outside upper left", ncols=n_columns, frameon=False)
