"""The tables beside those of the estimands: every cell is a number of the report."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from record_examples import BACK_FLOW, DISTANCE, GENERALISED, PROFILE, SIGNED, SPREAD, TABLE
from report_reading import tables

from auditkit.cli import report as command
from auditkit.cli.console import LAYOUTS, console
from auditkit.cli.estimand_tables import EstimandTable
from auditkit.cli.further_tables import further_tables, print_further
from auditkit.cli.report_files import TableFiles
from auditkit.formats import canonical
from auditkit.paper.report_tables import ReportTable, to_html
from auditkit.paper.words import anchor
from auditkit.records.estimate import BELOW_FLOOR, EstimateTable, Interval

NAMES = ("equivalence", "spread", "generalised", "profile")

#: Ends of every interval, and every number, differ.
EXAMPLE: EstimateTable = replace(
    TABLE,
    signed=(replace(SIGNED, metric="nll", exactly_zero=False, verdict="effect but negligible"),),
    distances=(replace(DISTANCE, variant="as-is", time="T", exactly_zero=False),),
    spreads=(
        replace(SPREAD, new_seed=Interval(-0.625, 1.375, 0.95)),
        replace(SPREAD, metric="nll", noise_sd=None, tau=None, i_squared=None, q=None, p=None),
    ),
    generalised=(replace(GENERALISED, interval=Interval(-0.75, 1.75, 0.95)),),
    profiles=(PROFILE, replace(PROFILE, part="class 3", interval=None, p=None, adjusted_p=None)),
)


def three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def p(value: float | None, end: str = "") -> str:
    return "-" if value is None else f"{value:.3f}{end}"


def ends(bounds: dict[str, Any] | None) -> str:
    if bounds is None:
        return "-"
    low = "-inf" if bounds["low"] is None else three(bounds["low"])
    return f"[{low}, {'inf' if bounds['high'] is None else three(bounds['high'])}]"


def of(table: EstimateTable, name: str) -> EstimandTable:
    (found,) = (each for each in further_tables(table, everything=True) if each.name == name)
    return found


@pytest.fixture
def told() -> dict[str, Any]:
    """What the JSON says."""
    found: dict[str, Any] = json.loads(canonical.encode(EXAMPLE))
    return found


def test_every_cell_is_a_number_of_the_json(told: dict[str, Any]) -> None:
    (signed,), (distance,) = told["signed"], told["distances"]
    spread, bare = told["spreads"]
    assert of(EXAMPLE, "spread").rows == (
        (
            *("momentum-reset", "tv", "T", ends(distance["interval"])),
            *(ends(distance["studentised"]), ends(spread["new_seed"])),
            *(three(spread["noise_sd"]), three(spread["tau"]), f"{spread['i_squared']:.2f}"),
            *(p(spread["p"]), p(spread["adjusted_p"], " q")),
        ),
        (
            *("momentum-reset", "nll", "T", ends(signed["interval"]), ends(signed["studentised"])),
            *(ends(bare["new_seed"]), "-", "-", "-", "-", p(bare["adjusted_p"], " q")),
        ),
    )
    (wide,) = told["generalised"]
    assert of(EXAMPLE, "generalised").rows == (
        (
            *("momentum-reset", "nll", "T", three(wide["effect"])),
            *(ends(signed["interval"]), ends(wide["interval"]), three(wide["df"])),
        ),
    )
    part, untested = told["profiles"]
    assert of(EXAMPLE, "profile").rows == tuple(
        (
            *("momentum-reset", "tv", "T", each["part"]),
            *(three(each["n_examples"]), three(each["effect"]), ends(each["interval"])),
            *(p(each["p"]), p(each["adjusted_p"], " q")),
        )
        for each in (part, untested)
    )
    assert of(EXAMPLE, "equivalence").rows == tuple(
        (
            *(row["perturbation"], row["metric"], row["time"], three(row["margin"])),
            *(p(row["equivalence_p"]), p(row.get("log_equivalence_p"))),
            *(p(row["adjusted_equivalence_p"]), row["verdict"]),
        )
        for row in (signed, distance, {**told["back_flow"][0], "time": "D2 - D1, carried"})
    )


def test_noise_that_has_not_grown_is_said_to_say_little() -> None:
    grown = replace(EXAMPLE, floor=replace(EXAMPLE.floor, developed=True))
    note = "floor not developed at T: the placebos' nudge has not grown yet"
    assert any(text.startswith(note) for text in of(EXAMPLE, "spread").notes)
    assert len(of(grown, "spread").notes) == 1


def test_every_heading_is_explained_and_stands_on_the_page() -> None:
    for name in NAMES:
        layout, table = LAYOUTS[name], of(EXAMPLE, name)
        assert not [heading for heading in layout.headings if anchor(heading) is None]
        whole = ReportTable(name, table.title, layout.headings, layout.numbers, table.rows)
        assert tables(f"<!DOCTYPE html><title>x</title>{to_html(whole)}") == {
            table.title: [list(layout.headings), *map(list, table.rows)]
        }


def test_the_page_has_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = command._Found(replace_report(EXAMPLE), object())  # type: ignore[arg-type]
    shown = {table.name: table for table in command._tables(found)}
    everything = {table.name: table for table in command._everything(found)}
    assert set(NAMES) <= set(shown) & set(everything)
    assert everything["spread"].rows == of(EXAMPLE, "spread").rows
    monkeypatch.setattr(command, "_MAX_ROWS", 3)
    many = replace(EXAMPLE, profiles=(PROFILE,) * 50)
    few = command._Found(replace_report(many), object())  # type: ignore[arg-type]
    (profile,) = (table for table in command._everything(few) if table.name == "profile")
    assert len(profile.rows) == 40
    tied = "the 40 rows of 50 with the smallest q, the first of 50 with no larger one; the rest: "
    assert f"{tied}--all, --json" in profile.notes
    apart = tuple(replace(PROFILE, adjusted_p=n / 100) for n in range(50))
    shown_ = further_tables(replace(EXAMPLE, profiles=apart), everything=False)
    (notes,) = (table.notes for table in shown_ if table.name == "profile")
    assert "the 40 rows of 50 with the smallest q; the rest: --all, --json" in notes


@pytest.mark.parametrize(
    ("verdict", "low", "is_marked"),
    [
        ("equivalent", 0.1, True),
        ("inconclusive", 0.1, True),
        ("inconclusive", -0.1, False),
        ("amplification", 0.1, False),
    ],
)
def test_a_back_flow_whose_interval_says_another_thing_is_marked(
    verdict: str, low: float, is_marked: bool
) -> None:
    row = replace(BACK_FLOW, verdict=verdict, interval=Interval(low, 0.9, 0.95))
    found = of(replace(EXAMPLE, back_flow=(row,)), "back-flow")
    assert found.rows[0][-1] == f"{verdict} ^" if is_marked else verdict
    assert any(note.startswith("^ the interval") for note in found.notes) == is_marked


def replace_report(estimates: EstimateTable) -> Any:
    from checklist_example import example_report

    return replace(example_report(), estimates=estimates)


def test_only_what_was_asked_for_is_printed_without_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_further(console(), EXAMPLE, everything=False)
    out = capsys.readouterr().out
    assert "Other examples" in out
    assert "Seeds apart" not in out
    print_further(console(), EXAMPLE, everything=True)
    out = capsys.readouterr().out
    assert "Seeds apart" in out
    assert "Parts of the probe (exploratory)" in out
    assert "nan" not in out
    nothing = replace(EXAMPLE, generalised=(), back_flow=(), alignments=())
    print_further(console(), nothing, everything=False)
    assert capsys.readouterr().out == ""


def test_momentum_against_gradient_has_a_row_for_each_history(
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = replace(EXAMPLE.alignments[0], history="data-change--name-blur")
    table = replace(EXAMPLE, back_flow=(), generalised=(), alignments=(*EXAMPLE.alignments, other))
    print_further(console(), table, everything=False)
    out = capsys.readouterr().out
    assert "Momentum against gradient where B begins: their cosine" in out
    lines = [line.split() for line in out.splitlines()]
    assert lines[3][:4] == ["A,", "the", "control", "0.5"]
    assert lines[4][:3] == ["A',", "data-change:name=blur", "0.5"]
    assert lines[3][-3:] == ["0.25", "0.75", "3"]


def test_a_verdict_below_the_floor_says_which_p_it_rests_on(
    printed: Callable[[EstimateTable], str],
) -> None:
    closer = replace(
        EXAMPLE.distances[0], verdict=BELOW_FLOOR, below_p=0.016, adjusted_below_p=0.03
    )
    out = printed(replace(EXAMPLE, distances=(closer,)))
    assert "momentum-reset, tv, T: below the floor by the permutation's other end" in out
    assert "p 0.016, adjusted 0.030" in out
    assert "other end" not in printed(EXAMPLE)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[[EstimateTable], str]:
    from auditkit.cli.estimand_tables import print_estimates

    def print_it(table: EstimateTable) -> str:
        print_estimates(console(), table, everything=False)
        return capsys.readouterr().out

    return print_it


def test_files_hold_every_number(tmp_path: Path) -> None:
    files = TableFiles(str(tmp_path))
    shown = [
        ReportTable(name, table.title, LAYOUTS[name].headings, (), table.rows)
        for name in NAMES
        for table in (of(EXAMPLE, name),)
    ]
    files.write(shown, EXAMPLE)
    (row, _) = csv.DictReader((tmp_path / "spread.csv").read_text().splitlines())
    assert float(row["new_seed_low"]) == -0.625
    assert float(row["tau"]) == SPREAD.tau
    assert all((tmp_path / f"{name}.tex").is_file() for name in NAMES)
