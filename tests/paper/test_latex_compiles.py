"""The tables that are written as LaTeX compile."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from checklist_example import example_report
from record_examples import TABLE

from auditkit.cli.console import LAYOUTS
from auditkit.cli.estimand_tables import EstimandTable, estimand_tables
from auditkit.cli.further_tables import further_tables
from auditkit.paper.report_tables import ReportTable, to_latex

PDFLATEX, TECTONIC = shutil.which("pdflatex"), shutil.which("tectonic")

pytestmark = pytest.mark.skipif(
    PDFLATEX is None and TECTONIC is None, reason="neither pdflatex nor tectonic is installed"
)

#: Everything that means something to LaTeX, and what it has no glyph of.
HOSTILE = (
    r"\input{x} $a_b$ %c &d #e ~f ^g {h} [i] \end{tabular} ``j'' --- <k> |l| \u03b2 " + "\u03b2"
)


def compiled(folder: Path, body: str, *packages: str) -> str:
    """The log of a document with this body; an error of LaTeX is one."""
    used = ",".join(("booktabs", *packages))
    lines = (r"\documentclass{article}", rf"\usepackage{{{used}}}", r"\begin{document}")
    source = "\n".join((*lines, body, r"\end{document}", ""))
    (folder / "paper.tex").write_text(source, encoding="utf-8")
    options = ("-interaction=nonstopmode", "-halt-on-error") if PDFLATEX else ()
    command = [str(PDFLATEX or TECTONIC), *options, "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)
    said = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, said[-2000:]
    assert (folder / "paper.pdf").exists()
    return said


def latex(item: EstimandTable) -> str:
    layout = LAYOUTS[item.name]
    return to_latex(
        ReportTable(item.name, item.title, layout.headings, layout.numbers, item.rows, item.notes)
    )


def test_no_table_is_wider_than_a_line_and_a_narrow_one_stays_as_it_is(tmp_path: Path) -> None:
    given = [*estimand_tables(TABLE, everything=True), *further_tables(TABLE, everything=True)]
    bodies = []
    for item in given:
        (tmp_path / f"{item.name}.tex").write_text(latex(item), encoding="utf-8")
        bodies.append(rf"\par\noindent\input{{{item.name}.tex}}")
    narrow = to_latex(ReportTable("x", "x", ("name", "n"), ("n",), (("a", "1"),)))
    measured = rf"\setbox0=\hbox{{{narrow}}}\typeout{{WIDTH \the\wd0}}"
    wide = compiled(tmp_path, "\n".join([*bodies, measured]), "graphicx")
    assert "Overfull" not in wide
    bare = compiled(tmp_path, "\n".join([*bodies, measured]))
    assert "Overfull" in bare
    scaled, plain = (float(re.findall(r"WIDTH ([\d.]+)pt", log)[0]) for log in (wide, bare))
    assert scaled == pytest.approx(plain, abs=0.01)


def test_tables_compile(tmp_path: Path) -> None:
    estimates = example_report().estimates
    assert estimates is not None
    bodies = [latex(item) for item in estimand_tables(estimates, everything=True)]
    assert bodies
    hostile = ReportTable(
        "x", HOSTILE, ("name", HOSTILE), (HOSTILE,), ((HOSTILE,) * 2,), (HOSTILE,)
    )
    for body in (*bodies, to_latex(hostile)):
        log = compiled(tmp_path, body)
        assert "Missing" not in log
