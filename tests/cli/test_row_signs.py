"""Signs behind verdicts, and p values, of rows whose own numbers make one expect something else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from record_examples import DISTANCE, PERSISTENCE, SIGNED, TABLE

from auditkit.cli.console import console
from auditkit.cli.estimand_tables import estimand_tables, print_estimates, shown_rows
from auditkit.cli.further_tables import further_tables, print_further
from auditkit.cli.row_signs import drawn_p, p_value, verdict_of
from auditkit.records.estimate import EstimateTable, Interval

EFFECT = replace(SIGNED, exactly_zero=False, verdict="inconclusive", notes=())
APART = replace(DISTANCE, exactly_zero=False, variant="as-is", verdict="effect", notes=())
HOLDS_0, WITHOUT_0 = Interval(-0.1, 0.2, 0.95), Interval(0.1, 0.2, 0.95)


def shown(table: EstimateTable, name: str) -> tuple[tuple[tuple[str, ...], ...], str]:
    """Rows of a table, and its notes."""
    (found,) = (each for each in estimand_tables(table, everything=True) if each.name == name)
    return found.rows, "\n".join(found.notes)


@pytest.mark.parametrize(
    ("verdict", "interval", "sign", "word"),
    [
        ("effect", HOLDS_0, " ^", "about these seeds"),
        ("effect", WITHOUT_0, "", ""),
        ("inconclusive", WITHOUT_0, "", ""),
        ("inconclusive", HOLDS_0, "", ""),
        ("equivalent", WITHOUT_0, " ^", "inside the margin"),
        ("equivalent", HOLDS_0, "", ""),
        ("effect", None, "", ""),
    ],
)
def test_a_distance_beside_an_interval_of_another_answer_is_marked(
    verdict: str, interval: Interval | None, sign: str, word: str
) -> None:
    row = replace(APART, verdict=verdict, interval=interval)
    rows, notes = shown(replace(TABLE, distances=(row,)), "distances")
    assert rows[0][-1] == verdict + sign
    assert ("^" in notes) == bool(sign)
    assert word in notes


def test_equivalent_beside_an_interval_without_0_is_marked() -> None:
    row = replace(EFFECT, verdict="equivalent", interval=WITHOUT_0)
    rows, notes = shown(replace(TABLE, signed=(row,)), "effects")
    assert rows[0][-1] == "equivalent ^"
    assert "inside the margin" in notes
    assert verdict_of(replace(row, verdict="effect")) == "effect"


def test_two_tests_that_disagree_are_marked() -> None:
    row = replace(EFFECT, notes=("t test and sign-flip test disagree at 0.05",))
    rows, notes = shown(replace(TABLE, signed=(row,)), "effects")
    assert rows[0][-1] == "inconclusive ~"
    assert "~ t test and sign-flip test disagree" in notes
    assert "~" not in shown(replace(TABLE, signed=(EFFECT,)), "effects")[1]


def test_a_number_that_is_the_same_in_every_seed_is_not_inconclusive() -> None:
    same = replace(EFFECT, per_seed=(0.0, 0.0), ate=0.0, sd=0.0, interval=None, margin=1.0)
    table = replace(TABLE, signed=(same,))
    assert shown(table, "effects")[0][0][-1] == "the same in every seed"
    (equivalence,) = (t for t in further_tables(table, everything=True) if t.name == "equivalence")
    assert equivalence.rows[0][-1] == "the same in every seed"
    assert verdict_of(replace(same, per_seed=(0.0, 1e-9))) == "inconclusive"
    assert verdict_of(replace(same, verdict="equivalent")) == "equivalent"


def test_a_metric_with_a_margin_is_shown() -> None:
    row = replace(EFFECT, metric="brier")
    rows = [row, replace(row, variant="recalibrated"), replace(row, time="t0+1")]
    table = replace(TABLE, signed=tuple(rows), distances=(), back_flow=())
    assert shown_rows(rows, table, everything=False) == [row]
    free = tuple(replace(each, margin=None) for each in rows)
    assert shown_rows(free, replace(TABLE, signed=free, distances=()), everything=False) == []
    (equivalence,) = (t for t in further_tables(table, everything=False) if t.name == "equivalence")
    assert [cells[1] for cells in equivalence.rows] == ["brier"]


@pytest.mark.parametrize("everything", [False, True])
def test_all_prints_what_the_footer_promises(
    everything: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    row = replace(EFFECT, metric="nll", sign_flip_p=0.3125)
    table = replace(TABLE, signed=(row,), persistence=(replace(PERSISTENCE, ratio=0.8765),))
    print_estimates(console(), table, everything=everything)
    print_further(console(), table, everything=everything)
    out = capsys.readouterr().out
    assert ("--all" in out) == (not everything)
    assert ("0.876" in out) == everything
    assert bool(re.search("momentum-reset +nll +T .* 0.312$", out, re.MULTILINE)) == everything


def test_p_values_have_the_digits_that_tell() -> None:
    assert [p_value(p) for p in (None, 0.2, 0.04996, 0.05004, 0.0524, 0.044)] == [
        *("-", "0.200", "0.0500", "0.0500", "0.0524", "0.044"),
    ]
    assert drawn_p(1e-5, "monte-carlo") == "<= 1e-05"
    assert drawn_p(2e-5, "monte-carlo") == "2e-05"
    assert drawn_p(1e-5, "exact") == "1e-05"
    row = replace(APART, permutation_p=1e-5, permutation_kind="monte-carlo")
    assert shown(replace(TABLE, distances=(row,)), "distances")[0][0][7] == "<= 1e-05"


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_seeds_are_said_to_be_why_nothing_is_established(n: int) -> None:
    apart = replace(APART, verdict="inconclusive", n=n)
    effect = replace(EFFECT, n=n)
    for table, name in (
        (replace(TABLE, distances=(apart,)), "distances"),
        (replace(TABLE, signed=(effect,)), "effects"),
    ):
        _, notes = shown(table, name)
        assert ("with fewer than 3 seeds nothing is tested" in notes) == (n < 3)
    equal = replace(EFFECT, n=n, exactly_zero=True, verdict="exactly 0")
    assert "nothing is tested" not in shown(replace(TABLE, signed=(equal,)), "effects")[1]
