"""A plan as a line for the trunk and one for each branch."""

from __future__ import annotations

from auditkit.paper.markup import Html, element, text
from auditkit.paper.style import BLUE, GREEN, VERMILION
from auditkit.records.plan import StudyPlan, as_typed

#: In units of the drawing: it is as wide as a phone.
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 420.0, 12.0, 400.0, 34.0, 30.0

#: How far below a branch its broken copy runs.
_BELOW = 6.0

#: The branch that has none.
_REPLICA = "replica"

#: Characters of a branch's name, and branches, that are drawn.
_MAX_NAME, _MAX_BRANCHES = 38, 24

#: The trunk's share of the drawing at least and at most: names stand above the branches.
_LEAST, _MOST = 0.12, 0.3


def timeline(plan: StudyPlan) -> Html:
    """The trunk up to t0, and the branches with the times at which they are compared."""
    names = _branches(plan)
    fork = _LEFT + (_RIGHT - _LEFT) * min(max(plan.fork_at / plan.horizon, _LEAST), _MOST)
    bottom = _TOP + _ROW * len(names)

    def at(step: int) -> float:
        return fork + (_RIGHT - fork) * (step - plan.fork_at) / (plan.horizon - plan.fork_at)

    parts = [_line(_LEFT, _TOP + _ROW, fork, _TOP + _ROW), _text("trunk", _LEFT, _TOP + _ROW - 6)]
    parts.append(_line(fork, _TOP + _ROW, fork, bottom))
    for row, (name, colour) in enumerate(names, start=1):
        y = _TOP + _ROW * row
        parts += [_line(fork, y, _RIGHT, y, colour), _text(name, fork + 6, y - 6)]
        parts += [_dot(at(step), y, colour) for step in plan.probed.values()]
        if plan.causal_break is not None and name != _REPLICA:
            start = at(plan.window_end)
            parts += [
                _line(start, y, start + _BELOW, y + _BELOW, colour),
                _line(start + _BELOW, y + _BELOW, _RIGHT, y + _BELOW, colour, dashes="5 3"),
                _dot(_RIGHT, y + _BELOW, colour),
            ]
    parts += [
        _text(f"t0 = {plan.fork_at}", fork, 14, "middle"),
        _text(f"t0+W = {plan.window_end}", max(at(plan.window_end), fork + 62), 27, "middle"),
        _text(f"T = {plan.horizon}", _RIGHT + 12, 14, "end"),
    ]
    said = (
        f"Timeline: the trunk runs to step {plan.fork_at}; {len(names)} lines of branches run from "
        f"there to step {plan.horizon} and are compared at t0+W, step {plan.window_end}, and at T"
    )
    drawn = element(
        "svg",
        element("title", text(said)),
        *parts,
        viewBox=f"0 0 {_WIDTH:g} {bottom + 14:g}",
        role="img",
        aria_label=said,
    )
    caption = "One seed: steps from left to right, not to scale before t0; dots: where branches "
    caption += "are compared with the control."
    if plan.causal_break is not None:
        reset = as_typed(plan.causal_break.branch_name)
        caption += f" Dashed: the second copy of each, with {reset} at t0+W, the causal break."
    return element("figure", drawn, element("figcaption", text(caption)))


def _branches(plan: StudyPlan) -> list[tuple[str, str]]:
    """Name and colour of the lines; placebos are one."""
    treatments = [(as_typed(name), BLUE) for name in plan.treatment_names]
    rest = len(treatments) - _MAX_BRANCHES
    if rest > 0:
        treatments = [*treatments[:_MAX_BRANCHES], (f"and {rest} more", BLUE)]
    placebos = "placebo" if plan.placebos == 1 else f"{plan.placebos} placebos"
    return [("control", GREEN), (_REPLICA, GREEN), (placebos, VERMILION), *treatments]


def _line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    colour: str = "currentColor",
    *,
    dashes: str | None = None,
) -> Html:
    where = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    ends = {name: f"{value:.1f}" for name, value in where.items()}
    return element("line", **ends, stroke=colour, stroke_width="2", stroke_dasharray=dashes)


def _dot(x: float, y: float, colour: str) -> Html:
    return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="3.5", fill=colour)


def _text(words: str, x: float, y: float, anchor: str = "start") -> Html:
    short = words if len(words) <= _MAX_NAME else f"{words[: _MAX_NAME - 3]}..."
    return element(
        "text",
        text(short),
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        font_size="11",
        fill="currentColor",
        text_anchor=anchor,
    )
