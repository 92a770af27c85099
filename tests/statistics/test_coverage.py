"""The manual's table of how often intervals hold the truth, and tests reject a true null."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import simulated_coverage

import auditkit

PAGE = Path(auditkit.__file__).parent / "manual" / "estimands.md"

#: What another order of summation may move: some of 2,000 studies.
ROUNDING = 0.11


def printed() -> list[list[str]]:
    """The rows of the page's two tables, side by side."""
    intervals, tests = table("| shape | seeds | t |"), table("| shape | seeds | p |")
    assert [row[:2] for row in intervals] == [row[:2] for row in tests]
    return [[*ours, *theirs[2:]] for ours, theirs in zip(intervals, tests, strict=True)]


def table(begin: str) -> list[list[str]]:
    """The rows of a table of the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    (start,) = (n for n, line in enumerate(lines) if line.startswith(begin))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def numbers(cells: list[str]) -> list[float | None]:
    return [None if cell == "-" else float(cell) for cell in cells]


@pytest.mark.slow
def test_the_page_has_what_is_simulated() -> None:
    cells = simulated_coverage.cells()
    assert len(cells) == len(printed())
    for cell, (shape, seeds, *rest) in zip(cells, printed(), strict=True):
        assert (shape, int(seeds)) == (cell.shape, cell.seeds)
        simulated = [
            *(cell.t, cell.studentised, cell.new_seed, cell.two_way, cell.seeds_only),
            *(cell.permutation, cell.below, cell.equivalence, cell.heterogeneity),
        ]
        for ours, theirs in zip(simulated, numbers(rest), strict=True):
            assert (ours is None) == (theirs is None)
            assert ours == pytest.approx(theirs, abs=ROUNDING)


def test_what_the_page_promises_is_kept() -> None:
    """Of the numbers that the slow test compares with a simulation."""
    shapes = [(row[0], int(row[1])) for row in printed()]
    cells = [(shape, n) for shape in simulated_coverage.SHAPES for n in simulated_coverage.SEEDS]
    assert shapes == cells
    for shape, seeds, *rest in printed():
        t, studentised, new_seed, two_way, _, p, below, log_p, apart = (
            math.nan if number is None else number for number in numbers(rest)
        )
        assert 0 < p <= 6.5
        assert 0 < below <= 6.5
        assert studentised >= 93 or (math.isnan(studentised) and int(seeds) < 5)
        assert two_way >= 93.5
        if shape == "normal":
            assert 93.5 <= t <= 96.5
            assert 93.5 <= new_seed <= 96.5
            assert max(log_p, apart) <= 6.5


def test_a_cell_is_simulated_alike_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_coverage, "STUDIES", 40)
    monkeypatch.setattr(simulated_coverage, "SEEDS", (3,))
    first, second = simulated_coverage.cells()
    assert simulated_coverage.cells() == [first, second]
    assert first.studentised is None
    assert first.t > 80
