"""Where reports are printed: a console for text that comes from files, and every table.

A table is made from its :data:`LAYOUTS` entry, so that what its columns are called, and which
words a reader may want to look up, stands in one place. A terminal, and whoever sets ``COLUMNS``,
gets what fits its width; a pipe, and ``--wide``, gets every column.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from auditkit.cli.columns import Column, Fitted, fit, least_width, natural_width
from auditkit.cli.options import WIDE
from auditkit.cli.saying import told_columns
from auditkit.cli.spelling import spelt
from auditkit.formats.quote import printable
from auditkit.records.estimate import Interval
from auditkit.records.plan import rounded

#: Columns at which text is broken where nobody says how many there are.
_WIDE = 160

#: The narrowest terminal that is taken at its word.
_NARROWEST = 40


@dataclass(frozen=True)
class Layout:
    """The columns of a table.

    Attributes:
        headings: What stands above the columns.
        numbers: Headings of numbers: right-justified, and never folded, since a number that is
            cut is another one.
        whole: Headings of words that are not folded either.
        widths: Columns at most, by heading.
        words: What ``auditkit explain`` is asked for by somebody who reads the table.
        sometimes: The same, of words that do not stand in every table of this layout.
        first_to_go: Headings that a narrow terminal goes without, the first first.
        is_grouped: Whether the first column may become a line above its rows.
        remark: What cells say besides, in brackets, and a narrow terminal goes without.
    """

    headings: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    sometimes: tuple[str, ...] = ()
    first_to_go: tuple[str, ...] = ()
    is_grouped: bool = False
    remark: str = ""


_ESTIMATE = ("perturbation", "metric", "time")
_TESTS = ("seeds", "t test", "relabeling")

#: Every table with column headings that the command line prints.
LAYOUTS: Mapping[str, Layout] = {
    "checks": Layout(
        ("#", "check", "result", "what"),
        whole=("#", "check", "result"),
        words=("check", "RNG contract", "replay"),
        sometimes=("fork", "noise floor", "placebo", "estimands", "(self)", "trunk", "replica"),
    ),
    "replay distances": Layout(
        ("where", "what", "largest absolute", "largest relative", "total variation"),
        numbers=("largest absolute", "largest relative", "total variation"),
        words=("environment differs", "total variation", "close"),
        whole=("where",),
        first_to_go=("largest relative", "largest absolute"),
        is_grouped=True,
    ),
    "levels": Layout(
        ("metric", "time", "control", "seed SD", "constant guess", "level"),
        numbers=("control", "seed SD", "constant guess"),
        whole=("metric", "time", "level"),
        words=("control", "seed SD", "constant guess"),
        sometimes=("nll", "at chance", "recal.", "mse"),
        first_to_go=("seed SD",),
    ),
    "distances": Layout(
        (*_ESTIMATE, "distance", "floor", "excess", "rho", "p", "adjusted", "verdict"),
        numbers=("distance", "floor", "excess", "rho", "p", "adjusted"),
        whole=_ESTIMATE,
        words=("floor", "developed", "excess", "rho", "p", "Holm", "q", "verdict"),
        sometimes=(
            *("tv", "recal.", "exactly 0", "*", "^"),
            *("scaled_rmsd", "cka_distance", "relative_distance"),
        ),
        first_to_go=("p", "floor", "rho", "distance"),
        is_grouped=True,
        remark=" (bit-identical)",
    ),
    "effects": Layout(
        (*_ESTIMATE, "ATE", "95 % interval", "seed SDs", "p", "adjusted", "verdict"),
        numbers=("ATE", "95 % interval", "seed SDs", "p", "adjusted"),
        whole=_ESTIMATE,
        words=("ATE", "seed SDs", "q", "inconclusive", "sign-flip", "persistence"),
        sometimes=("nll", "Holm", "recal.", "exactly 0", "^", "~", "mse", "r2"),
        first_to_go=("p", "seed SDs", "95 % interval"),
        is_grouped=True,
        remark=" (bit-identical)",
    ),
    "equivalence": Layout(
        (*_ESTIMATE, "margin", "p (mean)", "p (log)", "adjusted", "verdict"),
        numbers=("margin", "p (mean)", "p (log)", "adjusted"),
        whole=_ESTIMATE,
        words=("margin", "p (log)", "equivalent"),
        first_to_go=("p (mean)", "p (log)"),
        is_grouped=True,
        remark=" (bit-identical)",
    ),
    "sign-flip": Layout(
        (*_ESTIMATE, "d_z", "p", "sign-flip"),
        numbers=("d_z", "p", "sign-flip"),
        whole=_ESTIMATE,
        words=("sign-flip", "d_z"),
        first_to_go=("d_z",),
        is_grouped=True,
    ),
    "persistence": Layout(
        ("perturbation", "metric", "persistence", "95 % interval", "note"),
        numbers=("persistence", "95 % interval"),
        whole=("perturbation", "metric"),
        words=("persistence",),
        first_to_go=("note", "95 % interval"),
        is_grouped=True,
    ),
    "spread": Layout(
        (
            *(*_ESTIMATE, "95 % interval", "studentised", "new seed"),
            *("noise SD", "tau", "I2", "p", "adjusted"),
        ),
        numbers=(
            *("95 % interval", "studentised", "new seed"),
            *("noise SD", "tau", "I2", "p", "adjusted"),
        ),
        whole=_ESTIMATE,
        words=("studentised", "new seed", "noise SD", "tau", "I2"),
        first_to_go=("p", "95 % interval", "noise SD", "studentised", "tau"),
        is_grouped=True,
    ),
    "generalised": Layout(
        (*_ESTIMATE, "effect", "this probe", "other examples", "df"),
        numbers=("effect", "this probe", "other examples", "df"),
        whole=_ESTIMATE,
        words=("this probe", "other examples", "df"),
        first_to_go=("df", "effect"),
        is_grouped=True,
    ),
    "profile": Layout(
        (*_ESTIMATE, "part", "examples", "effect", "95 % interval", "p", "adjusted"),
        numbers=("examples", "effect", "95 % interval", "p", "adjusted"),
        whole=(*_ESTIMATE, "part"),
        words=("part", "examples", "q"),
        first_to_go=("p", "examples", "95 % interval"),
        is_grouped=True,
    ),
    "back-flow": Layout(
        (
            *("perturbation", "metric", "arm", "D1", "D2", "D2 - D1", "95 % interval"),
            *("floor", "95 % above floor", "adjusted", "verdict"),
        ),
        numbers=("D1", "D2", "D2 - D1", "95 % interval", "floor", "95 % above floor", "adjusted"),
        whole=("perturbation", "metric", "arm"),
        words=("back-flow", "carried", "broken", "contrast", "D1", "D2", "causal break"),
        sometimes=("amplification", "recal."),
        first_to_go=("D1", "D2", "floor", "95 % interval", "95 % above floor", "adjusted"),
        is_grouped=True,
    ),
    "alignment": Layout(
        ("history", "cosine", "95 % interval", "least", "most", "seeds"),
        numbers=("cosine", "95 % interval", "least", "most", "seeds"),
        whole=("history",),
        words=("cosine", "momentum against gradient"),
        first_to_go=("least", "most", "seeds"),
    ),
    "agreement": Layout(
        (
            *_ESTIMATE,
            *("recorded", "reproduced", "difference", "95 % interval", "p (Holm)", "verdict"),
            "because",
        ),
        numbers=("recorded", "reproduced", "difference", "95 % interval", "p (Holm)"),
        whole=(*_ESTIMATE, "verdict"),
        words=("agree", "disagree", "cannot tell", "Holm", "excess", "ATE"),
        first_to_go=("because", "p (Holm)", "95 % interval", "difference"),
        is_grouped=True,
    ),
    "magnitudes": Layout(
        ("trace", "before step", "component", "largest", "relative", "in tensor", "elements"),
        numbers=("largest", "relative"),
        words=("before step", "component", "relative"),
        first_to_go=("in tensor", "relative"),
        is_grouped=True,
    ),
    "fields": Layout(
        ("section", "name", "A", "B"), words=("section", "RNG contract", "commitments")
    ),
    "outcomes": Layout(
        ("trace", "outcome", "mean total variation"),
        numbers=("mean total variation",),
        words=("outcome", "total variation"),
        is_grouped=True,
    ),
    "power": Layout(
        (
            *("perturbation", "time", "pairs", "SD", "upper SD", "seeds", "by SD", "relabeling"),
            *("smallest effect", "equivalence"),
        ),
        numbers=(
            *("pairs", "SD", "upper SD", "seeds", "by SD", "relabeling", "smallest effect"),
            "equivalence",
        ),
        words=("power", "upper SD", "relabeling", "smallest effect"),
        first_to_go=("equivalence", "pairs", "smallest effect", "by SD"),
        is_grouped=True,
    ),
    "power curve": Layout(_TESTS, numbers=_TESTS, words=("power", "relabeling")),
    "branches": Layout(
        ("seed", "branch", "role", "version", "status", "order sha256"),
        whole=("seed", "branch", "role", "version", "order sha256"),
        words=("branch", "role", "version", "order sha256", "component"),
        first_to_go=("version", "order sha256", "role"),
    ),
    "ranks": Layout(
        ("rank", "steps", "epochs", "checkpoints after", "resumed after", "order"),
        whole=("rank", "steps", "epochs"),
        words=("rank", "checkpoint", "order", "component"),
        first_to_go=("order",),
    ),
    "runs": Layout(
        ("run", "kind", "state", "steps", "when", "verdict"),
        numbers=("steps",),
        whole=("kind", "state"),
        first_to_go=("when", "kind"),
        words=("resumable", "unfinished", "verdict"),
    ),
    "logged": Layout(
        ("rank", "logged", "numbers", "first", "last", "least", "most"),
        numbers=("numbers", "first", "last", "least", "most"),
        whole=("rank",),
        first_to_go=("most", "least", "numbers", "first"),
        words=("logged", "rank"),
    ),
}


class PlainConsole(Console):
    """Takes nothing for markup, and lets no control character of a string reach a terminal."""

    def __init__(self, width: int | None, *, is_wide: bool) -> None:
        super().__init__(
            markup=False,
            highlight=False,
            emoji=False,
            soft_wrap=False,
            width=max(width or _WIDE, _NARROWEST),
        )
        self.is_wide = is_wide or width is None
        self._told: set[str] = set()

    def on_broken_pipe(self) -> None:
        """Leave it to whoever ends the command: rich would end it with 1, *a check failed*."""
        raise BrokenPipeError

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string that is printed comes through here."""
        return super().render_str(spelt(printable(text)), **options)

    def untold(self, words: Iterable[str]) -> list[str]:
        """Those of some words that are offered for the first time."""
        found = [word for word in dict.fromkeys(words) if word not in self._told]
        self._told.update(found)
        return found


def console() -> PlainConsole:
    """A console on stdout for text that comes from files."""
    context = click.get_current_context(silent=True)
    is_wide = context is not None and bool(context.meta.get(WIDE))
    return PlainConsole(terminal_width(sys.stdout.isatty()), is_wide=is_wide)


def terminal_width(is_terminal: bool) -> int | None:
    """Columns of the terminal, or as ``COLUMNS`` says; None where there is neither."""
    if not is_terminal:
        return told_columns()
    import shutil  # noqa: PLC0415 # loads archives' compressors

    return told_columns() or shutil.get_terminal_size().columns


def print_table(
    out: Console,
    name: str,
    rows: Iterable[tuple[str, ...]],
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> None:
    """Print a table of :data:`LAYOUTS`, and which of its words are explained.

    Args:
        out: Where.
        name: Which table.
        rows: Cells under each heading.
        title: A line above the table.
        notes: Lines below it.
    """
    layout = LAYOUTS[name]
    cells = [tuple(spelt(printable(cell)) for cell in row) for row in rows]
    if title:
        out.print(title, style="bold")
    fitted = _fitted(out, layout, cells)
    for line in fitted.lines():
        out.print(Text(line), soft_wrap=True)
    if fitted.left_out:
        left_out = ", ".join(fitted.left_out)
        out.print(f"Left out at {out.width} columns: {left_out}; --wide prints every column")
    for note in notes:
        out.print(note)
    text = " ".join((title, *notes, *(cell for row in cells for cell in row)))
    print_words(out, (*layout.words, *(word for word in layout.sometimes if _has(text, word))))
    out.print()


def _has(text: str, word: str) -> bool:
    """Whether a word stands in a text, and not as a part of another one."""
    return re.search(rf"(?<!\w){re.escape(word)}s?(?!\w)", text) is not None


def _fitted(out: Console, layout: Layout, cells: list[tuple[str, ...]]) -> Fitted:
    columns = _columns(layout, cells)
    if isinstance(out, PlainConsole) and out.is_wide:
        return fit(columns, max(_WIDE, out.width, least_width(columns)))
    if layout.remark and natural_width(columns) > out.width:
        columns = _columns(layout, [tuple(c.replace(layout.remark, "") for c in r) for r in cells])
    return fit(columns, out.width, layout.first_to_go, is_grouped=layout.is_grouped)


def _columns(layout: Layout, cells: list[tuple[str, ...]]) -> list[Column]:
    return [
        Column(
            heading,
            tuple(row[at] for row in cells),
            is_number=heading in layout.numbers,
            is_whole=heading in layout.numbers or heading in layout.whole,
            most=layout.widths.get(heading),
        )
        for at, heading in enumerate(layout.headings)
    ]


def print_facts(out: Console, rows: Iterable[tuple[str, str]], width: int | None = None) -> None:
    """Print a table without headings: what something is called, and what it is."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415 # no other table is one of rich's

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(overflow="fold", max_width=min(width or out.width, out.width // 3))
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, text)
    out.print(table)


def print_words(out: Console, words: Iterable[str]) -> None:
    """Print the line that says where words are explained, each word once in a report."""
    untold = out.untold(words) if isinstance(out, PlainConsole) else list(words)
    if untold:
        out.print(f"`auditkit explain WORD` explains: {', '.join(untold)}")


def number(value: float | None) -> str:
    """Three digits, or a dash for what does not exist."""
    return "-" if value is None else f"{value:.3g}"


def fixed(value: float | None) -> str:
    """Two digits after the point, or a dash; never a 0 with a sign."""
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"


def interval(bounds: Interval | None, metric: str) -> str:
    """Both ends of an interval of a metric's differences; one that is unbounded is infinite."""
    if bounds is None:
        return "-"
    low = "-inf" if bounds.low is None else number(rounded(bounds.low, metric))
    high = "inf" if bounds.high is None else number(rounded(bounds.high, metric))
    return f"[{low}, {high}]"
