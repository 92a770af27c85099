from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from record_examples import BACK_FLOW, TABLE

from auditkit.paper.back_flow_picture import back_flow_picture
from auditkit.paper.drawing import to_svg
from auditkit.records.estimate import EQUIVALENT, EXACTLY_ZERO, INCONCLUSIVE


def test_a_marker_is_filled_where_the_verdict_is_a_direction() -> None:
    verdicts = {"carried": "amplification", "broken": INCONCLUSIVE, "contrast": EQUIVALENT}
    rows = tuple(
        replace(BACK_FLOW, arm=arm, verdict=verdict, mean=0.5, interval=None, floor=None)
        for arm, verdict in verdicts.items()
    )
    (drawn,) = back_flow_picture(replace(TABLE, back_flow=rows))
    figure = Figure()
    drawn.draw(figure)
    large = [line for line in figure.axes[0].lines if line.get_markersize() == 5.5]
    assert [line.get_markerfacecolor() == "none" for line in large] == [False, True, True]
    assert ">momentum-reset</text>" in to_svg(drawn)
    lines = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert [list(np.asarray(line.get_xdata())) for line in lines] == [[-0.6, -0.6], [0.6, 0.6]]
    assert "dotted lines: the plan's margin" in drawn.caption
    (other,) = back_flow_picture(replace(TABLE, back_flow=(replace(BACK_FLOW, margin=None),)))
    assert "dotted" not in other.caption


def test_it_is_of_the_primary_metric_or_of_what_there_is() -> None:
    other = replace(BACK_FLOW, metric="js")
    for primary, rows, metric in (
        ("js", (BACK_FLOW, other), "js"),
        ("accuracy", (other, replace(BACK_FLOW, metric="tv")), "tv"),
        ("accuracy", (other,), "js"),
    ):
        (drawn,) = back_flow_picture(replace(TABLE, primary_metric=primary, back_flow=rows))
        assert drawn.title == f"Back-flow: {metric}"


def test_nothing_is_drawn_of_nothing_and_many_are_counted() -> None:
    assert not list(back_flow_picture(replace(TABLE, back_flow=())))
    lost = replace(BACK_FLOW, mean=None, verdict="")
    assert not list(back_flow_picture(replace(TABLE, back_flow=(lost,))))
    zero = replace(BACK_FLOW, mean=0.0, interval=None, verdict=EXACTLY_ZERO, exactly_zero=True)
    many = tuple(replace(zero, perturbation=f"treatment-{n}") for n in range(23))
    (drawn,) = back_flow_picture(replace(TABLE, back_flow=many))
    assert "3 more are not drawn." in drawn.caption
    assert to_svg(drawn).count(">treatment-") == 20
