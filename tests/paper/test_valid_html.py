"""The page by the W3C's own checker, where it is at hand; html5lib parses every page strictly."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from checklist_example import example_manifest, example_report
from self_checking import GOLDEN, signed_of

from auditkit.paper.drawing import to_svg
from auditkit.paper.pictures import study_pictures
from auditkit.paper.report_page import Picture, Said, Shown, page
from auditkit.paper.report_tables import ReportTable

JAR, JAVA = os.environ.get("AUDITKIT_VNU"), shutil.which("java")


@pytest.mark.skipif(
    JAR is None or JAVA is None,
    reason="no Nu Html Checker: npm install vnu-jar, and name its .jar in AUDITKIT_VNU",
)
def test_the_checker_of_the_w3c_finds_no_error(tmp_path: Path) -> None:
    report = example_report()
    assert report.estimates is not None
    pictures = tuple(
        Picture(drawn.title, drawn.caption, to_svg(drawn))
        for drawn in study_pictures(report.estimates)
    )
    signed = signed_of(GOLDEN / "study")
    cells = (("a", "t0+W", "0.1", "effect"), ("a", "T", "-", "inconclusive"))
    headings = ("perturbation", "time", "ATE", "verdict")
    table = ReportTable("effects", "Effects", headings, ("ATE",), cells, ("a note",))
    shown = Shown((table,), (replace(table, title="Effects: all rows"),), pictures)
    text = page("example", report, example_manifest(), Said(), shown, signed)
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    command = [str(JAVA), "-jar", str(JAR), "--errors-only", "--format", "text", "report.html"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
