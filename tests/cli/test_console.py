"""Where reports are printed: how wide, and which numbers are none."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

from auditkit.cli.console import (
    LAYOUTS,
    console,
    fixed,
    interval,
    number,
    print_facts,
    print_table,
    terminal_width,
)
from auditkit.cli.options import wide_option
from auditkit.records.estimate import Interval
from auditkit.records.plan import rounded

TYPED = "adam-reset:moments=mv,step=reset"
BRANCH = "adam-reset--moments-mv--step-reset"

#: As wide as cells get.
CELLS = {
    "#": "10",
    "seed": "123456",
    "rank": "1234",
    "perturbation": BRANCH,
    "branch": BRANCH,
    "trace": f"seed 12, {BRANCH}",
    "where": f"seed 12, {BRANCH}",
    "check": "noise floor",
    "result": "undecided",
    "what": f"seed 12, {BRANCH}, step 123456, optimizer/exp_avg_sq: state drift",
    "metric": "accuracy (recal.)",
    "time": "t0+W",
    "level": "at chance",
    "95 % interval": "[-0.00123, -0.000997]",
    "adjusted": "9.2e-05 Holm",
    "verdict": "exactly 0 (bit-identical)",
    "because": "equal bits for every seed",
    "role": "treatment",
    "version": "2",
    "status": "diverged at step 123456",
    "order sha256": "0123456789abcdef",
    "order": "0123456789abcdef",
    "differs in": "state drift",
    "component": "squared_calibration_error",
    "first": "squared_calibration_error",
    "also": "params, grad, optimizer/exp_avg, optimizer/exp_avg_sq",
    "A": "x" * 300,
    "B": "y" * 300,
}
ROWS = {
    name: [
        tuple(
            "cannot tell"
            if (name, heading) == ("agreement", "verdict")
            else CELLS.get(heading, "-0.00123")
            for heading in layout.headings
        )
    ]
    for name, layout in LAYOUTS.items()
}


def printed(print_it: Callable[[], None], *options: str, columns: int | None = None) -> str:
    """What a command prints that has the option --wide."""

    @click.command()
    @wide_option
    def command() -> None:
        print_it()

    env = {"COLUMNS": None if columns is None else str(columns)}
    return CliRunner().invoke(command, options, env=env, catch_exceptions=False).stdout


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("columns", [60, 80, 130])
def test_every_table_fits_the_terminal_and_names_what_is_left_out(name: str, columns: int) -> None:
    def table() -> None:
        print_table(console(), name, ROWS[name], title="A title", notes=("a note",))

    out = printed(table, columns=columns)
    assert max(map(len, out.splitlines())) <= columns
    named = re.search(rf"Left out at {columns} columns: (.*?); --wide", " ".join(out.split()))
    left_out = named[1].split(", ") if named else []
    shown = out.split("explain WORD")[0]
    for heading in LAYOUTS[name].headings:
        words = heading.split()
        assert (
            heading in left_out
            or all(word in shown for word in words)
            or (heading == LAYOUTS[name].headings[0] and LAYOUTS[name].is_grouped)
        )
    if BRANCH in str(ROWS[name]):
        assert TYPED in re.sub(r"\s|  .*", "", shown) or TYPED in shown


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_pipe_and_wide_get_every_column_on_one_line(name: str) -> None:
    def table() -> None:
        print_table(console(), name, ROWS[name])

    piped = printed(table)
    assert "Left out" not in piped
    lines = piped.splitlines()
    assert [cell for cell in re.split(r"  +", lines[0]) if cell]
    for heading in LAYOUTS[name].headings:
        assert heading in lines[0]
    for heading, cell in zip(LAYOUTS[name].headings, ROWS[name][0], strict=True):
        if heading in (*LAYOUTS[name].numbers, *LAYOUTS[name].whole):
            assert cell.replace(BRANCH, TYPED) in lines[2]
    assert printed(table, "--wide", columns=60).splitlines()[:3] == lines[:3]


def test_the_width_is_the_variable_says_then_the_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    assert terminal_width(is_terminal=False) == terminal_width(is_terminal=True) == 77
    for nothing in ("", "0", "wide", "-3", "\u0663"):
        monkeypatch.setenv("COLUMNS", nothing)
        assert terminal_width(is_terminal=False) is None
    monkeypatch.setenv("COLUMNS", "9" * 40)
    assert terminal_width(is_terminal=False) == 999999


def test_facts_fit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def facts() -> None:
        print_facts(console(), [("name " * 30, "text " * 90), ("x", "y" * 300)], width=30)

    assert max(len(line.rstrip()) for line in printed(facts, columns=60).splitlines()) <= 60
    assert sys.stdout is not None


def test_a_word_is_offered_once_in_a_report() -> None:
    def report() -> None:
        out = console()
        for name in ("distances", "effects", "effects"):
            print_table(out, name, ROWS[name])

    lines = [line for line in printed(report).splitlines() if "explain WORD" in line]
    words = [word for line in lines for word in line.partition(": ")[2].split(", ")]
    assert len(lines) == 2
    assert len(words) == len(set(words))
    assert {"Holm", "q", "ATE", "rho"} <= set(words)


def test_rounding_noise_beside_a_metric_is_0() -> None:
    assert number(rounded(-4.63e-18, "nll")) == "0"
    assert number(rounded(1e-9, "tv")) == "1e-09"
    assert number(rounded(None, "tv")) == "-"
    assert rounded(-4.63e-18, "of a plug-in") == -4.63e-18
    assert interval(Interval(-1e-17, None, 0.95), "accuracy") == "[0, inf]"
    assert [fixed(value) for value in (-0.001, 0.3, None)] == ["0.00", "0.30", "-"]


def test_a_word_of_some_tables_is_offered_where_it_stands_by_itself() -> None:
    def report(metric: str) -> Callable[[], None]:
        row = ("x", metric, "T", *["1"] * 7)
        return lambda: print_table(console(), "distances", [row])

    assert "tv" in printed(report("in/tv")).split(": ")[-1].strip().split(", ")
    assert "tv" not in printed(report("measures/utv")).split(": ")[-1].strip().split(", ")
    assert "cka_distance" in printed(report("cka_distance"))
