from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from record_examples import BACK_FLOW, PLAN, TABLE
from report_reading import named, parsed, words

from auditkit.paper.back_flow_picture import back_flow_pictures
from auditkit.paper.drawing import to_svg
from auditkit.paper.style import BLUE, GREEN, VERMILION
from auditkit.paper.timeline import timeline
from auditkit.records.back_flow import BackFlow
from auditkit.records.estimate import EstimateTable
from auditkit.records.interval import Interval

ROWS = tuple(
    replace(BACK_FLOW, arm=arm, mean=mean, floor=floor, verdict=verdict, per_seed=(mean, mean + 1))
    for arm, mean, floor, verdict in [
        ("carried", 0.5, 0.125, "amplification"),
        ("broken", -0.25, 0.0625, "inconclusive"),
        ("contrast", 0.75, 0.03125, "the break lowers it"),
    ]
)


def with_rows(*rows: BackFlow) -> EstimateTable:
    return replace(TABLE, primary_metric="tv", back_flow=rows)


def lines(table: EstimateTable) -> list[Any]:
    """What is drawn on the panel of the picture, without its legend."""
    (drawn,) = back_flow_pictures(table)
    figure = Figure()
    drawn.draw(figure)
    (panel,) = figure.axes
    return [line for line in panel.lines if np.size(line.get_xdata())]


def means(table: EstimateTable) -> list[Any]:
    """The large markers."""
    found = lines(table)
    return [line for line in found if line.get_markersize() == 6 and line.get_marker() != "None"]


def test_means_intervals_floors_and_seeds_stand_where_their_numbers_are() -> None:
    bounds = Interval(0.25, 0.75, 0.95)
    found = lines(with_rows(*(replace(row, interval=bounds) for row in ROWS)))
    at = [(line.get_color(), line.get_marker(), list(line.get_xdata())) for line in found]
    for colour, marker, mean, floor in [
        (BLUE, "o", 0.5, 0.125),
        (VERMILION, "s", -0.25, 0.0625),
        (GREEN, "D", 0.75, 0.03125),
    ]:
        assert (colour, marker, [mean]) in at
        assert (colour, "o", [mean, mean + 1]) in at
        assert (colour, "None", [0.25, 0.75]) in at
        assert ("#888888", "|", [floor]) in at


def test_what_has_no_verdict_is_hollow() -> None:
    found = means(with_rows(*ROWS))
    faces = {line.get_color(): line.get_markerfacecolor() for line in found}
    assert faces == {BLUE: BLUE, VERMILION: "none", GREEN: GREEN}


def test_only_one_metric_is_drawn_and_names_are_said_as_typed() -> None:
    name = "data-change--name-blur"
    rows = [replace(row, perturbation=name, metric="classes/tv") for row in ROWS]
    others = [replace(row, metric="penultimate/cka_distance", mean=9.0) for row in rows]
    recalibrated = [replace(row, variant="recalibrated", mean=8.0) for row in rows]
    table = with_rows(*others, *rows, *recalibrated)
    (drawn,) = back_flow_pictures(table)
    assert drawn.title.endswith("classes/tv")
    assert not any({8.0, 9.0} & {*map(float, line.get_xdata())} for line in lines(table))
    page = parsed(f"<!DOCTYPE html><title>x</title>{to_svg(drawn)}")
    texts = {words(node) for node in named(page, "text")}
    assert {"carried", "broken", "contrast", "placebo floor", "data-change:name=blur"} <= texts


@pytest.mark.parametrize(
    "rows", [(), tuple(replace(row, per_seed=(), mean=None, floor=None) for row in ROWS)]
)
def test_without_a_number_there_is_no_picture(rows: tuple[BackFlow, ...]) -> None:
    assert list(back_flow_pictures(with_rows(*rows))) == []


def test_a_seed_without_spread_or_floor_is_drawn_all_the_same() -> None:
    rows = [replace(row, interval=None, floor=None, exactly_zero=True, mean=0.0) for row in ROWS]
    assert len(means(with_rows(*rows))) == 3


def test_the_break_stands_on_the_timeline_of_each_branch_but_the_replica() -> None:
    plan = PLAN.changed(perturbations=["carry", "order-reverse"], placebos=3)
    tree = parsed(f"<!DOCTYPE html><title>x</title>{timeline(plan)}")
    dashed = [node for node in named(tree, "line") if node.get("stroke-dasharray")]
    assert len(dashed) == 2 * 4  # control, placebos, two treatments
    caption = words(next(iter(named(tree, "figcaption"))))
    assert "the causal break, adam-reset:moments=mv,step=reset, is applied at t0+W" in caption
    without = timeline(plan.changed(causal_break=None))
    assert "dash" not in without
    assert "causal" not in without
