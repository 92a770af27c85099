"""The scripts of ``findings/`` are of one form, and the manual has each of them; none is run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from documents import PAGES, README, ROOT, names, table

SCRIPTS = sorted((ROOT / "findings").iterdir())
TEMPORARY = """
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"""
HEADINGS = ("library", "what happens", "what helps", "script")


def test_the_manual_has_every_script() -> None:
    rows = table(PAGES["libraries"], *HEADINGS)
    assert [names(cells[3]) for cells in rows] == [[script.stem] for script in SCRIPTS]


def test_ci_runs_none() -> None:
    assert "findings/" not in README


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_form(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "\nset -euo pipefail\n" in text
    assert TEMPORARY in text
    assert "auditkit" not in text
    header = text.partition("\nset -euo")[0]
    assert "\n#> " in header, "the output seen, which is what it is compared with"
    assert all(f"\n# {word}: " in header for word in ("Hurt", "Source", "Versions"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_what_is_installed_is_pinned_and_named(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    packages = re.findall(r"pip install --quiet --disable-pip-version-check \\\n  (.+)\n", text)
    assert text.count("pip install") == len(packages) == 1
    versions = text.partition("# Versions: ")[2].partition("\n")[0]
    for package in packages[0].split():
        name, version = package.split("==")
        assert f"{name} {version}" in versions
