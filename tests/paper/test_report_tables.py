from __future__ import annotations

import csv
import io

from checklist_example import example_estimates
from report_reading import tables

from auditkit.paper.report_tables import (
    LATEX_HEAD,
    ReportTable,
    csv_head,
    to_csv,
    to_html,
    to_latex,
)
from auditkit.records.estimate import ControlLevel, DistanceEstimate, SignedEstimate

TABLE = ReportTable(
    "distances",
    "Distance_of 100 %",
    ("perturbation", "excess"),
    ("excess",),
    (("a_b & {c}", "1e-05"), ("<b>", "-0.1")),
    ("* note $1$",),
)


def test_latex_is_escaped_and_its_numbers_stand_right() -> None:
    lines = to_latex(TABLE).removeprefix(LATEX_HEAD).splitlines()
    assert lines == [
        r"% Distance\_of 100 \%",
        r"% * note \$1\$",
        r"{\footnotesize\setlength{\tabcolsep}{3pt}%",
        r"\providecommand{\resizebox}[3]{#3}% without \usepackage{graphicx} as wide as it is",
        r"\noindent\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{@{}lr@{}}",
        r"\toprule",
        r"perturbation & excess \\",
        r"\midrule",
        r"a\_b \& \{c\} & 1e-05 \\",
        r"\textless{}b\textgreater{} & -0.1 \\",
        r"\bottomrule",
        r"\end{tabular}}}%",
    ]


def test_html_holds_the_same_cells() -> None:
    page = f"<!DOCTYPE html><title>x</title>{to_html(TABLE)}"
    assert tables(page)["Distance_of 100 %"] == [list(TABLE.headings), *map(list, TABLE.rows)]


def test_csv_holds_every_number_in_full() -> None:
    estimates = example_estimates()
    rows = list(csv.DictReader(io.StringIO(to_csv(DistanceEstimate, estimates.distances))))
    assert len(rows) == len(estimates.distances)
    for told, row in zip(rows, estimates.distances, strict=True):
        assert float(told["excess"]) == row.excess
        assert row.interval is not None
        assert float(told["interval_low"]) == row.interval.low
        assert [float(n) for n in told["per_seed"].split("; ")] == list(row.per_seed)
        assert told["margin"] == ""


def test_the_last_column_is_the_perturbation_as_it_is_typed() -> None:
    (row, *_) = example_estimates().signed
    names = {
        "adam-reset--moments-v--step-keep": "adam-reset:moments=v,step=keep",
        "carry": "carry",
        "=1+1": "'=1+1",
    }
    odd = [SignedEstimate(**{**vars(row), "perturbation": name}) for name in names]
    text = to_csv(SignedEstimate, odd)
    assert text.splitlines()[0] == ",".join((*csv_head(SignedEstimate), "typed"))
    assert [told["typed"] for told in csv.DictReader(io.StringIO(text))] == [*names.values()]
    assert "typed" not in to_csv(ControlLevel, [])


def test_no_cell_of_a_csv_is_a_formula() -> None:
    (row, *_) = example_estimates().signed
    odd = SignedEstimate(**{**vars(row), "perturbation": "=1+1", "ate": -0.5})
    (told,) = csv.DictReader(io.StringIO(to_csv(SignedEstimate, [odd])))
    assert told["perturbation"] == "'=1+1"
    assert told["ate"] == "-0.5"
