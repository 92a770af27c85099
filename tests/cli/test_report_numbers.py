"""Every number of a report page, its pictures and its CSV files is the one of the JSON report."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import pytest
from checklist_example import example_report
from matplotlib.figure import Figure
from record_examples import (
    BACK_FLOW,
    DISTANCE,
    GENERALISED,
    LEVEL,
    PERSISTENCE,
    PROFILE,
    SIGNED,
    SPREAD,
    TABLE,
)
from report_reading import tables

from auditkit.cli import report as command
from auditkit.cli.report_files import RECORDS
from auditkit.formats import canonical
from auditkit.paper.pictures import study_pictures
from auditkit.paper.report_tables import to_csv, to_html
from auditkit.records.estimate import EstimateTable, Interval

Row = TypeVar("Row")
Cells = Sequence[Any]

#: One, with parameters; and what several forks make of the names.
NAMES = ("momentum-reset", "adam-reset--moments-v", "momentum-reset/t0=40")
TYPED = {
    "momentum-reset": "momentum-reset",
    "adam-reset--moments-v": "adam-reset:moments=v",
    "momentum-reset/t0=40": "momentum-reset at t0=40",
}


def numbered(row: Row, draw: random.Random) -> Row:
    """The row with another number wherever one stands, or may stand."""
    found: dict[str, Any] = {}
    for item in fields(row):  # type: ignore[arg-type]
        value = getattr(row, item.name)
        if "float" not in str(item.type) and "Interval" not in str(item.type):
            continue
        if "Interval" in str(item.type):
            low, high = sorted((size(draw), size(draw)))
            found[item.name] = Interval(low, high, 0.95)
        elif isinstance(value, tuple):
            found[item.name] = tuple(size(draw) for _ in value)
        elif re.search(r"(^|_)p$", item.name):
            found[item.name] = draw.uniform(0.0005, 1)
        else:
            found[item.name] = size(draw)
    return replace(row, **found)  # type: ignore[type-var]


def size(draw: random.Random) -> float:
    return draw.choice((-1, 1)) * 10 ** draw.uniform(-6, 2)


def rows_of(row: Row, draw: random.Random, **varied: Sequence[str]) -> tuple[Row, ...]:
    """Rows of all names, varied otherwise, too."""
    names = {"perturbation": NAMES, **varied}
    rows: list[dict[str, str]] = [{}]
    for field, values in names.items():
        rows = [{**each, field: value} for each in rows for value in values]
    return tuple(replace(numbered(row, draw), **each) for each in rows)  # type: ignore[type-var]


@pytest.fixture(scope="module")
def estimates() -> EstimateTable:
    """A number of its own in every place."""
    draw = random.Random(5)
    both = ("t0+W", "T")
    plain: dict[str, Any] = {"exactly_zero": False, "verdict": "inconclusive"}
    signed = replace(SIGNED, **plain, variant="as-is", seeds=(0, 1, 2), per_seed=(0.0,) * 3, n=3)
    distance = replace(DISTANCE, **plain, variant="as-is", seeds=(0, 1, 2), n=3)
    distance = replace(distance, per_seed=(0.0,) * 3, floor_per_seed=(0.0,) * 3)
    kinds = ("tv", "js")
    return replace(
        TABLE,
        primary_metric="tv",
        times={"t0+W": 15, "T": 40, "t0+5": 25},
        forks=(10, 40),
        signed=rows_of(signed, draw, metric=("accuracy", "brier"), time=both),
        distances=rows_of(distance, draw, metric=kinds, time=(*both, "t0+5")),
        levels=tuple(numbered(replace(LEVEL, time=time), draw) for time in both),
        persistence=rows_of(PERSISTENCE, draw, metric=("tv", "accuracy")),
        spreads=rows_of(SPREAD, draw, metric=("tv", "accuracy"), time=both),
        generalised=rows_of(GENERALISED, draw, metric=("brier",), time=both),
        profiles=rows_of(PROFILE, draw, part=("class 0", "margin 1/4"), time=both),
        back_flow=rows_of(
            replace(BACK_FLOW, exactly_zero=False), draw, arm=("carried", "broken", "contrast")
        ),
    )


@pytest.fixture(scope="module")
def told(estimates: EstimateTable) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(canonical.encode(estimates))
    return found


#: Of each table, what its rows are in the JSON, and its cells behind the names.
TABLES: Mapping[str, tuple[str, Callable[[dict[str, Any], dict[Any, Any]], Cells]]] = {
    "levels": ("levels", lambda r, _: (r["mean"], ..., r["constant_guess"], ...)),
    "distances": (
        "distances",
        lambda r, _: (
            *(r["mean_distance"], r["floor"], r["excess"], r["rho"]),
            *(r["permutation_p"], r["adjusted_p"], ...),
        ),
    ),
    "effects": (
        "signed",
        lambda r, _: (
            *(r["ate"], r["interval"], r["ate_in_control_sd"], r["t_p"], r["adjusted_p"], ...),
        ),
    ),
    "equivalence": (
        "rows",
        lambda r, _: (
            *(r["margin"], r["equivalence_p"], r.get("log_equivalence_p")),
            *(r["adjusted_equivalence_p"], ...),
        ),
    ),
    "sign-flip": ("signed", lambda r, _: (r["d_z"], r["t_p"], r["sign_flip_p"])),
    "persistence": ("persistence", lambda r, _: (r["ratio"], r["interval"], ...)),
    "spread": (
        "spreads",
        lambda r, rows: (
            *(rows[key(r)]["interval"], rows[key(r)]["studentised"], r["new_seed"]),
            *(r["noise_sd"], r["tau"], r["i_squared"], r["p"], r["adjusted_p"]),
        ),
    ),
    "generalised": (
        "generalised",
        lambda r, rows: (r["effect"], rows[key(r)]["interval"], r["interval"], r["df"]),
    ),
    "profile": (
        "profiles",
        lambda r, _: (..., r["n_examples"], r["effect"], r["interval"], r["p"], r["adjusted_p"]),
    ),
    "back-flow": (
        "back_flow",
        lambda r, _: (
            *(r["d1"], r["d2"], r["mean"], r["interval"], r["floor"], r["excess_interval"]),
            *(r["adjusted_p"], ...),
        ),
    ),
}

#: Columns in front of those cells.
NAMED = {"persistence": 2, "levels": 2}


def key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("perturbation", "metric", "variant", "time"))


def is_said(cell: str, value: Any) -> bool:
    """Whether a cell is a number of the JSON, as far as its digits go."""
    if value is ...:
        return True
    if value is None:
        return cell == "-"
    found = re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", cell)
    wanted = [value["low"], value["high"]] if isinstance(value, dict) else [value]
    return len(found) == len(wanted) and all(
        float(text) in roundings(text, number) for text, number in zip(found, wanted, strict=True)
    )


def roundings(text: str, number: float) -> Iterator[float]:
    """What a number may be shown as: with three digits, or with as many places as there are."""
    yield float(f"{number:.3g}")
    if abs(number) < 0.001:
        yield float(f"{number:.2g}")
    if "e" not in text and len(text.partition(".")[2]) >= 2:
        yield round(number, len(text.partition(".")[2]))


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_of_every_table(
    name: str, estimates: EstimateTable, told: dict[str, Any]
) -> None:
    found = command._Found(replace(example_report(), estimates=estimates), object())  # type: ignore[arg-type]
    (whole,) = (table for table in command._everything(found) if table.name == name)
    rows = {key(row): row for row in (*told["signed"], *told["distances"])}
    field, of = TABLES[name]
    wanted = [*rows.values(), *told["back_flow"]] if field == "rows" else told[field]
    named = NAMED.get(name, 3)
    html = to_html(whole)
    (shown,) = tables(f"<!DOCTYPE html><title>x</title>{html}").values()
    assert len(shown) == len(wanted) + 1
    for cells, row in zip(shown[1:], wanted, strict=True):
        if "perturbation" in row:
            assert cells[0] == TYPED[row["perturbation"]]
        values = of(row, rows)
        assert len(cells) - len(values) in (named, 3)
        for cell, value in zip(cells[-len(values) :], values, strict=True):
            assert is_said(cell, value), (name, row, cell, value)


def test_the_comparison_itself_sees_a_digit() -> None:
    assert is_said("0.123", 0.12345)
    assert not is_said("0.124", 0.12245)
    assert not is_said("-", 0.1)
    assert not is_said("[0.1, 0.2]", {"low": 0.1, "high": 0.3})
    assert is_said("1.23e-05", 1.2345e-05)
    assert not is_said("1.24e-05", 1.2245e-05)
    assert is_said("0.0501 q", 0.050123)
    assert not is_said("0.05 q", 0.0551)


@pytest.mark.parametrize("name", RECORDS)
def test_every_number_of_every_csv_file(
    name: str, estimates: EstimateTable, told: dict[str, Any]
) -> None:
    fields_ = {
        **{"effects": "signed", "spread": "spreads", "profile": "profiles"},
        "alignment": "alignments",
    }
    field = fields_.get(name, name.replace("-", "_"))
    lines = list(csv.DictReader(to_csv(RECORDS[name], getattr(estimates, field)).splitlines()))
    assert len(lines) == len(told[field])
    for line, row in zip(lines, told[field], strict=True):
        for column, value in flat(row):
            cell = line[column]
            if isinstance(value, float) and not isinstance(value, bool):
                assert float(cell) == value, (name, column)
            elif isinstance(value, list) and value and isinstance(value[0], float):
                assert [float(part) for part in cell.split("; ")] == value


def flat(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from ((f"{name}_{part}", end) for part, end in value.items())
        else:
            yield name, value


def drawn_points(estimates: EstimateTable, name: str) -> list[float]:
    """All that lies along the horizontal axis of a picture, without the line at 0."""
    (picture,) = (each for each in study_pictures(estimates) if each.name == name)
    figure = Figure()
    picture.draw(figure)
    return sorted(
        x
        for panel in figure.axes
        for line in panel.lines
        if line.get_transform() == panel.transData  # not the line at 0
        for x in np.asarray(line.get_xdata()).tolist()
    )


def test_every_point_of_every_picture(estimates: EstimateTable, told: dict[str, Any]) -> None:
    rows = [r for r in told["distances"] if r["metric"] == "tv" and r["time"] in ("t0+W", "T")]
    assert len(rows) == 2 * len(NAMES)
    excesses = [
        [d - f for d, f in zip(r["per_seed"], r["floor_per_seed"], strict=True)] for r in rows
    ]
    means = [[r["excess"], r["interval"]["low"], r["interval"]["high"]] for r in rows]
    scales = [[r["mean_distance"], r["floor"], r["seed_distance"]] for r in rows]
    flows = [
        [*r["per_seed"], r["floor"], r["mean"], r["interval"]["low"], r["interval"]["high"]]
        for r in told["back_flow"]
    ]
    assert drawn_points(estimates, "back-flow") == sorted(chain(*flows))
    assert drawn_points(estimates, "seeds") == sorted(chain(*excesses, *means))
    assert drawn_points(estimates, "forest") == sorted(chain(*means))
    assert drawn_points(estimates, "distances") == sorted(chain(*scales))
