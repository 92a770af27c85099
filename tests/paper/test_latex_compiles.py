"""The tables that are written as LaTeX compile."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from checklist_example import example_report

from auditkit.cli.console import LAYOUTS
from auditkit.cli.estimand_tables import estimand_tables
from auditkit.paper.report_tables import ReportTable, to_latex

PDFLATEX, TECTONIC = shutil.which("pdflatex"), shutil.which("tectonic")

pytestmark = pytest.mark.skipif(
    PDFLATEX is None and TECTONIC is None, reason="neither pdflatex nor tectonic is installed"
)

#: Everything that means something to LaTeX, and what it has no glyph of.
HOSTILE = (
    r"\input{x} $a_b$ %c &d #e ~f ^g {h} [i] \end{tabular} ``j'' --- <k> |l| \u03b2 " + "\u03b2"
)


def compiled(folder: Path, body: str) -> str:
    """The log of a document with this body; an error of LaTeX is one."""
    lines = (r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}")
    source = "\n".join((*lines, body, r"\end{document}", ""))
    (folder / "paper.tex").write_text(source, encoding="utf-8")
    options = ("-interaction=nonstopmode", "-halt-on-error") if PDFLATEX else ()
    command = [str(PDFLATEX or TECTONIC), *options, "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)
    said = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, said[-2000:]
    assert (folder / "paper.pdf").exists()
    return said


def test_tables_compile(tmp_path: Path) -> None:
    estimates = example_report().estimates
    assert estimates is not None
    bodies = [
        to_latex(
            ReportTable(
                item.name,
                item.title,
                LAYOUTS[item.name].headings,
                LAYOUTS[item.name].numbers,
                tuple(item.rows),
                tuple(item.notes),
            )
        )
        for item in estimand_tables(estimates, everything=True)
    ]
    assert bodies
    hostile = ReportTable(
        "x", HOSTILE, ("name", HOSTILE), (HOSTILE,), ((HOSTILE,) * 2,), (HOSTILE,)
    )
    for body in (*bodies, to_latex(hostile)):
        log = compiled(tmp_path, body)
        assert "Missing" not in log
