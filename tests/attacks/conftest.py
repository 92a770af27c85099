"""Counts the honest runs at the end of a session that had any."""

from __future__ import annotations

from collections import Counter
from typing import Any

_HONEST = "test_honest.py::test_an_honest_"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many were verified and how many rejected, of each kind."""
    counts: Counter[tuple[str, str]] = Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            if _HONEST in report.nodeid and (report.when == "call" or report.failed):
                kind = report.nodeid.split(_HONEST)[1].split("_")[0]
                counts[kind, outcome] += 1
    kinds = sorted({kind for kind, _ in counts})
    for kind in kinds:
        good = counts[kind, "passed"]
        bad = counts[kind, "failed"] + counts[kind, "error"]
        terminalreporter.write_line(f"honest, {kind}: {good} verified, {bad} rejected")
