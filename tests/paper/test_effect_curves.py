from __future__ import annotations

import json
from dataclasses import replace

from checklist_example import example_estimates
from matplotlib.figure import Figure

from auditkit.formats import canonical
from auditkit.paper.drawing import Drawn, to_bytes, to_svg
from auditkit.paper.effect_curves import effect_curves
from auditkit.records.estimate import EXACTLY_ZERO, EstimateTable, Interval

WHAT = "Excess over the placebo floor"


def further(*times: int) -> EstimateTable:
    """The example's estimates, measured at further steps after t0, too."""
    estimates = example_estimates()
    late = [row for row in estimates.distances if row.time == "T"]
    early = [
        replace(row, time=f"t0+{n}", excess=n / 1000, interval=Interval(-n / 500, n / 200, 0.95))
        for row in late
        for n in times
    ]
    fork = estimates.times["T"] - 200
    added = {f"t0+{n}": fork + n for n in times}
    distances = (*early, *estimates.distances)
    return replace(estimates, times={**estimates.times, **added}, distances=distances)


def drawn_of(estimates: EstimateTable) -> tuple[Drawn, list[object]]:
    (drawn,) = effect_curves(estimates, WHAT)
    figure = Figure()
    drawn.draw(figure)
    return drawn, [panel for panel in figure.axes if panel.get_visible()]


def test_points_and_bands_are_the_numbers_of_the_json_report() -> None:
    estimates = further(5, 60)
    rows = json.loads(canonical.encode(estimates))["distances"]
    _, panels = drawn_of(estimates)
    names = list(dict.fromkeys(row["perturbation"] for row in rows))
    assert [panel.get_title() for panel in panels] == names  # type: ignore[attr-defined]
    for name, panel in zip(names, panels, strict=True):
        own = [row for row in rows if row["perturbation"] == name and row["metric"] == "tv"]
        own = sorted(own, key=lambda row: estimates.times[row["time"]])
        assert len(own) == 4
        _, line, tested = panel.lines  # type: ignore[attr-defined]
        points = [[estimates.times[row["time"]], row["excess"]] for row in own]
        assert line.get_xydata().tolist() == points
        planned = [p for p, row in zip(points, own, strict=True) if row["time"] in ("t0+W", "T")]
        assert tested.get_xydata().tolist() == planned
        (band,) = panel.collections  # type: ignore[attr-defined]
        corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
        for (step, size), row in zip(points, own, strict=True):
            bounds = row["interval"] or {"low": size, "high": size}
            assert {(step, bounds["low"]), (step, bounds["high"])} <= corners


def test_what_has_no_point_or_no_band_is_named() -> None:
    estimates = further(5)
    name = estimates.distances[0].perturbation
    changed = [
        replace(row, excess=None, interval=None, exactly_zero=True, verdict=EXACTLY_ZERO)
        if row.perturbation == name and row.time == "t0+5"
        else replace(row, interval=None)
        for row in estimates.distances
    ]
    drawn, panels = drawn_of(replace(estimates, distances=tuple(changed)))
    assert f"No point where all bits equal the control's: {name} (t0+5)." in drawn.caption
    assert "Without an interval: " in drawn.caption
    assert not any(panel.collections for panel in panels)  # type: ignore[attr-defined]
    assert to_bytes(drawn, "png").startswith(b"\x89PNG")


def test_many_treatments_are_counted() -> None:
    estimates = further(5)
    many = tuple(
        replace(row, perturbation=f"treatment-{n}")
        for n in range(11)
        for row in estimates.distances
        if row.perturbation == estimates.distances[0].perturbation
    )
    drawn, panels = drawn_of(replace(estimates, distances=many))
    assert len(panels) == 8
    assert "3 more are not drawn." in drawn.caption
    assert to_svg(drawn).count(">treatment-") == 8


def test_without_further_times_there_is_none() -> None:
    assert not list(effect_curves(example_estimates(), WHAT))
    estimates = further(5)
    bare = tuple(replace(row, excess=None) for row in estimates.distances)
    assert not list(effect_curves(replace(estimates, distances=bare), WHAT))
