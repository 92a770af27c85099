"""Pictures of what the files of a study hold: losses step by step, and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.paper.drawing import Drawn, label
from auditkit.paper.pictures import legend, legend_height, thinned
from auditkit.paper.run_curves import CONTROL, PLACEBOS, Course
from auditkit.paper.style import BLUE, GREEN, GREY, VERMILION
from auditkit.records.fork_points import marked
from auditkit.records.plan import as_typed

Floats = NDArray[np.float64]

#: Treatments of a picture of curves, each with a colour and a dash of its own; and of panels.
_STYLES = tuple(product(("-", "--", ":", "-."), (BLUE, GREEN)))
_MAX_PANELS = 12

_TICKS = (0, 0.25, 0.5, 0.75, 1)

#: By name, mean confidence and accuracy of bins.
Curves = Mapping[str, tuple[Floats, Floats]]

#: The course of what a fork does not have.
_NONE: Floats = np.zeros(0)


@dataclass(frozen=True)
class Panel:
    """Part of a reliability diagram.

    Attributes:
        name: Of the treatment, with its fork where there are several.
        control: Mean confidence and accuracy of bins.
        treatment: The same of the treatment.
    """

    name: str
    control: tuple[Floats, Floats]
    treatment: tuple[Floats, Floats]


def divergence_picture(*courses: Course) -> Drawn | None:
    """How far losses are from the control's, over steps; None where none ever is.

    Args:
        courses: One a fork; each has a panel.
    """
    known = list(dict.fromkeys(name for course in courses for name in course.differences))
    parted = [n for n in known if any(np.any(c.differences.get(n, _NONE) > 0) for c in courses)]
    if not parted:
        return None
    treatments = [name for name in parted if name != PLACEBOS][: len(_STYLES)]
    styles = dict(zip(treatments, _STYLES, strict=False))
    if PLACEBOS in parted:
        styles = {PLACEBOS: ("-", VERMILION), **styles}
    same = "".join(_never_parted(known, parted, courses))
    rest = len(parted) - len(styles)
    more = f" {rest} more are not drawn." if rest else ""
    forks = ", ".join(str(course.steps[0] - 1) for course in courses)
    panels = f" One panel a fork, after steps {forks}." if len(courses) > 1 else ""
    return Drawn(
        "divergence",
        f"Divergence over steps{', of each fork' if panels else ''}",
        "Absolute difference of the training loss from the control's, mean over seeds, in a "
        "logarithmic scale; a step at which it is 0 is left out, and of a long curve the least and "
        "the most of every stretch are drawn; a seed is left out where its loss is no number. "
        "Placebos are where noise alone leads."
        f"{panels}{same}{more}",
        0.4 + 2.4 * len(courses) + legend_height(styles),
        lambda figure: _draw_divergence(figure, courses, styles),
    )


def reliability_picture(*forks: tuple[int | None, Curves]) -> Drawn | None:
    """Accuracy over confidence, each treatment beside the control; None where there is none.

    Args:
        forks: The curves of each fork, by name, with t0 where a name does not say it.
    """
    panels = [
        Panel(name if t0 is None else as_typed(marked(name, t0)), curves[CONTROL], curve)
        for t0, curves in forks
        for name, curve in curves.items()
        if name != CONTROL and CONTROL in curves
    ]
    if not panels:
        return None
    shown = panels[:_MAX_PANELS]
    n_rows, n_columns = _grid(len(shown))
    more = f" {len(panels) - len(shown)} more are not drawn." if len(panels) > len(shown) else ""
    return Drawn(
        "reliability",
        "Reliability at T",
        "Accuracy over confidence in the top label, in bins of equal mass, of the probe's examples "
        "of all seeds together: to be looked at, not tested. On the line a model is as often right "
        f"as it is confident; below it, it is overconfident.{more}",
        0.7 + (2.6 if n_columns > 1 else 3.4) * n_rows,
        lambda figure: _draw_reliability(figure, shown),
    )


def _never_parted(
    known: Sequence[str], parted: Sequence[str], courses: Sequence[Course]
) -> Iterator[str]:
    """What has no line: the control's own course, and what has no loss that is a number."""
    every = {
        name: np.concatenate([c.differences.get(name, _NONE) for c in courses])
        for name in known
        if name not in parted
    }
    kinds: dict[str, list[str]] = {}
    for name, values in every.items():
        is_0 = values == 0
        if not is_0.any():
            kind = "Without a loss that is a number"
        elif is_0.all():
            kind = "Equal to the control's at every step"
        else:
            kind = "Equal to the control's as long as the loss is a number"
        kinds.setdefault(kind, []).append(name)
    for kind, names in kinds.items():
        yield f" {kind}: {', '.join(names)}."


def _draw_divergence(
    figure: Any, courses: Sequence[Course], styles: Mapping[str, tuple[str, str]]
) -> None:
    panels = figure.subplots(len(courses), 1, sharex=True, squeeze=False)[:, 0]
    unnamed = dict.fromkeys(styles)
    for panel, course in zip(panels, courses, strict=True):
        for name, (dash, colour) in styles.items():
            y = course.differences.get(name, _NONE)
            is_drawn = y > 0  # false for NaN, too
            if not is_drawn.any():
                continue
            points = thinned(course.steps[is_drawn].tolist(), y[is_drawn].tolist())
            width = 2.2 if name == PLACEBOS else 1.2
            named = {"label": label(name)} if name in unnamed else {}
            panel.plot(*points, dash, color=colour, linewidth=width, **named)
            unnamed.pop(name, None)
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # no mathematics in a page
        panel.yaxis.set_minor_formatter(lambda value, _: "")
        panel.set_ylabel("Loss: distance from control")
        panel.grid(visible=True, color=GREY, alpha=0.35, linewidth=0.6)
        if len(courses) > 1:
            panel.set_title(f"t0 = {course.steps[0] - 1}")
    panels[-1].set_xlabel("Step")
    legend(figure)


def _draw_reliability(figure: Any, shown: Sequence[Panel]) -> None:
    panels = figure.subplots(*_grid(len(shown)), squeeze=False).ravel()
    for number, (panel, item) in enumerate(zip(panels, shown, strict=False)):
        named = (CONTROL, "treatment") if number == 0 else (None, None)
        panel.plot([0, 1], [0, 1], "-", color=GREY, linewidth=1)
        panel.plot(*item.control, "o-", color=GREEN, markersize=4, linewidth=1, label=named[0])
        panel.plot(*item.treatment, "s--", color=BLUE, markersize=4, linewidth=1, label=named[1])
        panel.set(title=label(item.name), xlabel="Confidence", ylabel="Accuracy", aspect="equal")
        panel.set(xticks=_TICKS, yticks=_TICKS)
        panel.grid(visible=True, color=GREY, alpha=0.35, linewidth=0.6)
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    legend(figure)


def _grid(n_panels: int) -> tuple[int, int]:
    """Rows and columns of so many panels."""
    return (n_panels + 1) // 2, min(n_panels, 2)
