"""A report in a program and in a notebook."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from checklist_example import example_estimates, example_report

from auditkit.api.report import as_report
from auditkit.errors import UsageError
from auditkit.records.perturbation_spec import as_typed
from auditkit.records.report import Finding

REPORT = as_report(example_report())


def test_it_is_the_report_with_more_to_ask() -> None:
    assert REPORT.verdict == example_report().verdict
    assert REPORT.estimates == example_estimates()
    assert as_report(REPORT) == REPORT


def test_a_row_of_the_table_is_an_estimate() -> None:
    pandas = pytest.importorskip("pandas")
    table, estimates = REPORT.to_dataframe(), example_estimates()
    assert isinstance(table, pandas.DataFrame)
    assert len(table) == len(estimates.rows)
    assert list(table.kind.unique()) == ["signed", "distance"]
    assert [as_typed(name) for name in table.perturbation] == list(table.typed)
    first = estimates.rows[0]
    assert (table.perturbation[0], table.metric[0], table.n[0]) == (
        *(first.perturbation, first.metric),
        first.n,
    )
    with_interval = [n for n, row in enumerate(estimates.rows) if row.interval is not None]
    for n in with_interval:
        interval = estimates.rows[n].interval
        assert interval is not None
        assert table.interval_low[n] == interval.low
    assert {"interval_low", "interval_high", "interval_level"} <= set(table.columns)
    assert "interval" not in table.columns


def test_or_a_seed_of_one() -> None:
    pytest.importorskip("pandas")
    table, estimates = REPORT.to_dataframe(per_seed=True), example_estimates()
    assert len(table) == sum(row.n for row in estimates.rows)
    row = estimates.distances[0]
    mine = table[(table.perturbation == row.perturbation) & (table.metric == row.metric)]
    mine = mine[(mine.variant == row.variant) & (mine.time == row.time)]
    assert tuple(mine.seed) == row.seeds
    assert tuple(mine.value) == row.per_seed
    assert tuple(mine.seed_floor) == row.floor_per_seed
    assert "per_seed" not in table.columns


@pytest.mark.parametrize("per_seed", [False, True])
def test_withheld_estimates_are_an_empty_table_and_a_warning_that_says_why(per_seed: bool) -> None:
    pytest.importorskip("pandas")
    *others, last = REPORT.checks
    others[7] = replace(others[7], status="not run", summary="nothing was replayed")
    last = replace(last, status="not run", summary="withheld: nothing was replayed")
    withheld = replace(REPORT, estimates=None, checks=(*others, last))
    with pytest.warns(
        UserWarning, match="the table is empty: check 10 estimands not run: "
    ) as told:
        table = withheld.to_dataframe(per_seed=per_seed)
    assert str(told[0].message).endswith("; check 8 replay not run: nothing was replayed")
    assert told[0].filename == __file__
    whole = REPORT.to_dataframe(per_seed=per_seed)
    assert (len(table), list(table.columns)) == (0, list(whole.columns))
    assert table[table.excess > 0].empty  # asked as any other


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(
        UsageError, match="needs pandas, which is not installed; pip install pandas"
    ):
        REPORT.to_dataframe()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert attrs == []
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_notebook_shows_it_and_nothing_in_it_is_taken_for_html() -> None:
    evil = "<script>alert('&')</script>"
    check = replace(
        REPORT.checks[3], status="failed", summary=evil, findings=(Finding(evil, evil),)
    )
    checks = tuple(check if check.number == old.number else old for old in REPORT.checks)
    shown = replace(REPORT, trust=evil, checks=checks)._repr_html_()
    parser = _Tags()
    parser.feed(shown)
    assert parser.open == []
    assert parser.tags == {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in shown
    assert re.search(r"<td>verdict</td><td>verified \(exit 0\)</td>", shown)
    assert "<th>ATE</th>" in shown
