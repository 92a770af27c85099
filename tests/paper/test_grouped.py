from __future__ import annotations

from report_reading import named, parsed, tables, words

from auditkit.paper.report_tables import ReportTable, to_html
from auditkit.paper.style import style_sheet

TABLE = ReportTable(
    "effects",
    "Effects",
    ("perturbation", "time", "ATE"),
    ("ATE",),
    (("a", "t0+W", "0.1"), ("a", "T", "<b>"), ("b", "T", "0.3"), ("a", "T", "0.4")),
)


def test_a_row_that_follows_one_of_the_same_name_is_marked_and_every_cell_named() -> None:
    page = f"<!DOCTYPE html><title>x</title>{to_html(TABLE)}"
    assert tables(page)["Effects"] == [list(TABLE.headings), *map(list, TABLE.rows)]
    rows = list(named(parsed(page), "tr"))[1:]
    assert [row.get("class") for row in rows] == [None, "again", None, None]
    for row in rows:
        assert [cell.get("scope") for cell in named(row, "th")] == ["row"]
        assert [cell.get("data-label") for cell in named(row, "td")] == ["time", "ATE"]
        assert [cell.get("class") for cell in named(row, "td")] == [None, "number"]
    (place,) = (node for node in named(parsed(page), "div") if node.get("class") == "wide")
    assert place.get("tabindex") == "0"
    assert words(place).startswith("Effects")


def test_groups_are_for_narrow_screens_alone() -> None:
    before, rule, after = style_sheet().partition("@media screen and (max-width: 48rem)")
    assert rule
    assert ".grouped" not in before
    narrow, _, printed = after.partition("@media print")
    assert 'content: attr(data-label) " "' in narrow
    assert ".grouped" not in printed
    assert "figure svg { max-width: 14cm; max-height: 20cm; }" in printed  # one sheet, and whole
