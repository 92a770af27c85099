r"""Tables of estimands for a page, a spreadsheet and a paper: HTML, CSV and LaTeX.

HTML and LaTeX hold the cells that ``auditkit verify`` prints; CSV holds every number in full.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

from auditkit.paper.escaping import latex_text
from auditkit.paper.grouped import grouped_table
from auditkit.paper.markup import Html, bullets, joined
from auditkit.paper.words import heading
from auditkit.records.back_flow import Alignment, BackFlow
from auditkit.records.estimate import (
    ControlLevel,
    DistanceEstimate,
    Interval,
    Persistence,
    SignedEstimate,
)
from auditkit.records.further_estimates import Generalised, ProfileRow, Spread
from auditkit.records.perturbation_spec import as_typed

#: What a LaTeX table of this module begins with.
LATEX_HEAD = "% Written by auditkit report; needs \\usepackage{booktabs}\n"

#: Makes what is wider than a line as wide as one, where the document has graphicx.
_FITTED = (
    "\\providecommand{\\resizebox}[3]{#3}% without \\usepackage{graphicx} as wide as it is",
    r"\noindent\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
)

#: A column of sentences in LaTeX: they are broken.
_PROSE = r"p{0.3\linewidth}"

#: What a table in full is made of.
Row = (
    SignedEstimate
    | DistanceEstimate
    | ControlLevel
    | Persistence
    | Spread
    | Generalised
    | ProfileRow
    | BackFlow
    | Alignment
)

#: Fields that hold an interval, or None.
_INTERVALS = ("interval", "studentised", "ruled_out", "new_seed", "excess_interval")

#: The last column: ``perturbation`` holds the name of a branch, which files have, and this what is
#: typed, as tables show it.
TYPED = "typed"

#: Characters that a spreadsheet takes for the begin of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class ReportTable:
    """A table, formatted.

    Attributes:
        name: What it is called in files.
        title: What it shows.
        headings: What stands above the columns.
        numbers: Those of them that stand above numbers.
        rows: Cells.
        notes: Lines below it.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def number_columns(self) -> frozenset[int]:
        """Positions of the columns of numbers."""
        return frozenset(n for n, name in enumerate(self.headings) if name in self.numbers)


def to_html(shown: ReportTable) -> Html:
    """The table with its notes; every heading says what it means.

    On a narrow screen it has rows in groups in place of columns, so that nothing is cut off.
    """
    headings = [heading(name) for name in shown.headings]
    numbers = shown.number_columns
    whole = grouped_table(shown.title, headings, shown.headings, shown.rows, numbers)
    return joined((whole, bullets(shown.notes)))


def to_latex(shown: ReportTable) -> str:
    r"""The table as a ``tabular`` of booktabs, for ``\input``, no wider than a line."""
    kinds = dict.fromkeys(shown.numbers, "r") | {"note": _PROSE}
    columns = "".join(kinds.get(name, "l") for name in shown.headings)
    lines = [
        r"{\footnotesize\setlength{\tabcolsep}{3pt}%",
        *_FITTED,
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        _latex_row(shown.headings),
        r"\midrule",
        *map(_latex_row, shown.rows),
        r"\bottomrule",
        r"\end{tabular}}}%",  # a space behind it would not fit
    ]
    notes = [f"% {latex_text(note)}" for note in (shown.title, *shown.notes)]
    return LATEX_HEAD + "\n".join([*notes, *lines]) + "\n"


def csv_head(kind: type[Row]) -> tuple[str, ...]:
    """What the CSV of a kind of rows begins with: fields of the record, intervals by their ends."""
    return tuple(name for name, _ in _columns(kind, None))


def to_csv(kind: type[Row], rows: Iterable[Row]) -> str:
    """All numbers of the rows in full: the fields of the JSON report, and the plan's names."""
    has_typed = any(item.name == "perturbation" for item in fields(kind))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*csv_head(kind), *([TYPED] if has_typed else [])))
    for row in rows:
        typed = [as_typed(getattr(row, "perturbation", ""))] if has_typed else []
        writer.writerow([*(_cell(value) for _, value in _columns(kind, row)), *map(_cell, typed)])
    return out.getvalue()


def _columns(kind: type[Row], row: Row | None) -> Iterator[tuple[str, object]]:
    for item in fields(kind):
        value = None if row is None else getattr(row, item.name)
        if item.name in _INTERVALS:
            for part in fields(Interval):
                yield f"{item.name}_{part.name}", getattr(value, part.name, None)
        else:
            yield item.name, value


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, tuple):  # of seeds, of numbers a seed, of notes
        return "; ".join(map(_plain, value))
    return _plain(value)


def _plain(value: object) -> str:
    words = str(value)
    return f"'{words}" if isinstance(value, str) and words.startswith(_FORMULA) else words


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(latex_text, cells)) + r" \\"
