"""Where reports are printed: a console for text that comes from files, and every table.

A table is made from its :data:`LAYOUTS` entry, so that what its columns are called, and which
words a reader may want to look up, stands in one place.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from auditkit.formats.quote import printable
from auditkit.records.estimate import Interval

#: Columns that the estimand tables need; in a narrower terminal lines wrap, but none is cut.
_WIDTH = 130


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
    """

    headings: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    words: tuple[str, ...] = ()


_ESTIMATE = ("perturbation", "metric", "time")
_NAMED = {"perturbation": 24, "verdict": 15}

#: Every table with column headings that the command line prints.
LAYOUTS: Mapping[str, Layout] = {
    "checks": Layout(
        ("#", "check", "result", "what"),
        words=("RNG contract", "fork", "replay", "noise floor", "placebo", "estimands"),
    ),
    "replay distances": Layout(
        ("where", "what", "largest absolute", "largest relative", "total variation"),
        numbers=("largest absolute", "largest relative", "total variation"),
        words=("environment differs", "total variation", "close"),
    ),
    "distances": Layout(
        (*_ESTIMATE, "distance", "floor", "excess", "rho", "p", "adjusted", "verdict"),
        numbers=("distance", "floor", "excess", "rho", "p", "adjusted"),
        whole=("metric", "time"),
        widths=_NAMED,
        words=("floor", "excess", "rho", "Holm", "q", "tv", "floor developed", "verdict"),
    ),
    "effects": Layout(
        (*_ESTIMATE, "ATE", "95 % interval", "seed SDs", "p", "adjusted", "verdict"),
        numbers=("ATE", "95 % interval", "seed SDs", "p", "adjusted"),
        whole=("metric", "time"),
        widths=_NAMED,
        words=("ATE", "seed SDs", "nll", "recal.", "q", "inconclusive"),
    ),
    "agreement": Layout(
        (
            *_ESTIMATE,
            *("recorded", "reproduced", "difference", "95 % interval", "p (Holm)", "verdict"),
        ),
        numbers=("recorded", "reproduced", "difference", "95 % interval", "p (Holm)"),
        widths=dict.fromkeys(_ESTIMATE, 28),
        words=("agree", "disagree", "cannot tell", "Holm", "excess", "ATE"),
    ),
    "magnitudes": Layout(
        ("trace", "before step", "component", "largest", "relative", "in tensor", "elements"),
        words=("before step", "component", "relative"),
    ),
    "fields": Layout(
        ("section", "name", "A", "B"), words=("section", "RNG contract", "commitments")
    ),
    "outcomes": Layout(
        ("trace", "outcome", "mean total variation"), words=("outcome", "total variation")
    ),
    "branches": Layout(
        ("seed", "branch", "role", "version", "status", "order sha256"),
        words=("branch", "role", "version", "order sha256", "component"),
    ),
    "ranks": Layout(
        ("rank", "steps", "epochs", "checkpoints after", "resumed after", "order"),
        words=("rank", "checkpoint", "order", "component"),
    ),
    "runs": Layout(
        ("run", "kind", "state", "steps", "when", "verdict"),
        numbers=("steps",),
        words=("resumable", "unfinished", "verdict"),
    ),
    "logged": Layout(
        ("rank", "logged", "numbers", "first", "last", "least", "most"),
        numbers=("numbers", "first", "last", "least", "most"),
        words=("logged", "rank"),
    ),
}


class _PlainConsole(Console):
    """Takes nothing for markup, and lets no control character of a string reach a terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def console() -> Console:
    """A console on stdout for text that comes from files."""
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    return _PlainConsole(
        markup=False, highlight=False, emoji=False, width=max(_WIDTH, wide), soft_wrap=False
    )


def print_table(out: Console, name: str, rows: Iterable[tuple[str, ...]], **looks: Any) -> None:
    """Print a table of :data:`LAYOUTS`, and which of its words are explained.

    Args:
        out: Where.
        name: Which table.
        rows: Cells under each heading.
        looks: Title, caption and whatever else :class:`rich.table.Table` takes.
    """
    layout = LAYOUTS[name]
    given = {"title_justify": "left", "caption_justify": "left", **looks}
    table = Table(box=SIMPLE_HEAD, pad_edge=False, **given)
    for heading in layout.headings:
        is_number = heading in layout.numbers
        table.add_column(
            heading,
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=is_number or heading in layout.whole,
            max_width=layout.widths.get(heading),
        )
    for row in rows:
        table.add_row(*row)
    out.print(table)
    print_words(out, layout.words)


def print_facts(out: Console, rows: Iterable[tuple[str, str]], width: int | None = None) -> None:
    """Print a table without headings: what something is called, and what it is."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(overflow="fold", max_width=width)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, text)
    out.print(table)


def print_words(out: Console, words: Iterable[str]) -> None:
    """Print the line that says where words are explained."""
    out.print(f"`auditkit explain WORD` explains: {', '.join(words)}")


def number(value: float | None) -> str:
    """Three digits, or a dash for what does not exist."""
    return "-" if value is None else f"{value:.3g}"


def interval(bounds: Interval | None) -> str:
    """Both ends of an interval; one that is unbounded is infinite."""
    if bounds is None:
        return "-"
    low = "-inf" if bounds.low is None else number(bounds.low)
    high = "inf" if bounds.high is None else number(bounds.high)
    return f"[{low}, {high}]"
