"""The estimand tables: what they say of themselves, and nothing that a number does not mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from record_examples import DISTANCE, LEVEL, SIGNED, TABLE

from auditkit.cli.console import console
from auditkit.cli.estimand_tables import print_estimates
from auditkit.records.estimate import (
    EXACTLY_ZERO,
    INCONCLUSIVE,
    EstimateTable,
    FloorDevelopment,
    Interval,
)
from auditkit.records.plan import as_typed

BRANCH = "adam-reset--moments-v--step-keep"

Printed = Callable[..., str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    def print_it(table: EstimateTable, *, everything: bool = False) -> str:
        print_estimates(console(), table, everything=everything)
        return capsys.readouterr().out

    return print_it


def floor(n_above: int, n_placebos: int) -> FloorDevelopment:
    return FloorDevelopment(1e-3, n_above, n_placebos, n_above >= 0.8 * n_placebos)


def row(out: str, *cells: str) -> list[str]:
    """The cells of the row that begins with some."""
    (line,) = (
        parts
        for line in out.splitlines()
        if (parts := re.split(r"  +", line.strip()))[: len(cells)] == list(cells)
    )
    return line


def test_a_floor_that_has_not_developed_says_the_rule_and_what_to_do(printed: Printed) -> None:
    out = printed(replace(TABLE, floor=floor(8, 12)))
    assert "8 of 12 placebos exceed TV 0.001; at least 80 % have to\n" in out
    for what_to_do in ("--placebo-scale", "placebo_scale=", "T later", "--horizon"):
        assert what_to_do in out
    developed = printed(replace(TABLE, floor=floor(10, 12)))
    assert "Floor developed at T: 10 of 12 placebos exceed TV 0.001" in developed
    assert "--placebo-scale" not in developed


def test_one_is_not_many(printed: Printed) -> None:
    one = replace(TABLE, n_seeds=1, placebos=1, floor=floor(0, 1))
    assert "Estimands over 1 seed, 1 placebo each; " in printed(one)
    assert "0 of 1 placebo exceed" in printed(one)


def test_the_controls_level_stands_above_the_estimands(printed: Printed) -> None:
    better = replace(LEVEL, metric="nll", at_chance=False, mean=0.4, constant_guess=0.69)
    brier = replace(LEVEL, metric="brier")
    table = replace(TABLE, levels=(LEVEL, better, brier))
    out = printed(table)
    assert out.index("What the control reaches") < out.index("Distance from the control")
    assert row(out, "accuracy", "T", "0.625") == [
        *("accuracy", "T", "0.625", "0.177", "0.5", "at chance"),
    ]
    assert row(out, "nll", "T", "0.4")[-2:] == ["0.69", "better"]
    assert "brier" not in out
    assert row(printed(table, everything=True), "brier", "T", "0.625")
    assert "What the control reaches" not in printed(replace(TABLE, levels=()))


def test_a_table_without_rows_is_not_printed(printed: Printed) -> None:
    distances, effects = "Distance from the control", "Treatment minus control"
    text = printed(replace(TABLE, signed=()))
    assert (distances in text, effects in text) == (True, False)
    assert "permutation; other metrics and persistence: --all" in text
    text = printed(replace(TABLE, distances=()))
    assert (distances in text, effects in text) == (False, True)
    assert "the sign-flip test, other metrics" in text


def test_inconclusive_beside_an_interval_without_0_says_why(printed: Printed) -> None:
    effect = replace(SIGNED, ate=-0.0105, adjusted_p=0.108, verdict=INCONCLUSIVE)
    apart = replace(effect, interval=Interval(-0.02, -0.000997, 0.95))
    around = replace(effect, interval=Interval(-0.02, 0.001, 0.95), time="t0+W")
    out = printed(replace(TABLE, signed=(apart, around)))
    assert row(out, "momentum-reset", "accuracy", "T")[-1] == "inconclusive ^"
    assert row(out, "momentum-reset", "accuracy", "t0+W")[-1] == "inconclusive"
    assert "the verdict follows the adjusted p" in out
    assert "^" not in printed(replace(TABLE, signed=(around,), distances=()))


def test_a_difference_that_every_seed_shares_says_why_it_has_no_test(printed: Printed) -> None:
    note = "- for interval and p: the same in every seed: no spread, no test"
    same = replace(SIGNED, interval=None, t_p=None, sd=0.0)
    assert note in printed(replace(TABLE, signed=(SIGNED, same)))
    few = replace(same, sd=None)
    assert note not in printed(replace(TABLE, signed=(SIGNED, few)))


def test_rounding_is_0_and_a_perturbation_is_spelt_as_typed(printed: Printed) -> None:
    noise = replace(SIGNED, perturbation=BRANCH, ate=-4.63e-18, ate_in_control_sd=-1e-9)
    out = printed(replace(TABLE, signed=(noise,), diverged={BRANCH: 1}))
    cells = row(out, "adam-reset:moments=v,step=keep", "accuracy", "T", "0")
    assert "0.00" in cells
    assert "e-18" not in out
    assert BRANCH not in out
    assert "by number of seeds: adam-reset:moments=v,step=keep in 1" in out


def curved() -> EstimateTable:
    """An effect at two further times and at T."""
    row = replace(DISTANCE, variant="as-is", exactly_zero=False, excess=0.25, verdict="effect")
    rows = (
        replace(row, time="t0+1", exactly_zero=True, excess=None),
        replace(row, time="t0+20", excess=1.5e-18),
        replace(row, time="t0+40", metric="js"),
        replace(row, time="T", perturbation=BRANCH),
    )
    levels = (LEVEL, replace(LEVEL, time="t0+1", mean=0.1254), replace(LEVEL, metric="nll"))
    times = {"t0+1": 4, "t0+W": 5, "t0+20": 23, "t0+40": 43, "T": 99}
    return replace(TABLE, times=times, distances=rows, levels=levels)


def test_the_margins_that_verdicts_speak_of_stand_above_the_tables(printed: Printed) -> None:
    rows = (replace(DISTANCE, margin=0.01), replace(DISTANCE, metric="nll", margin=0.5))
    out = printed(replace(TABLE, distances=rows, signed=()))
    assert "Margins of the plan, within which an effect is negligible: tv 0.01, nll 0.5\n" in out
    bare = replace(TABLE, distances=(replace(DISTANCE, margin=None),), signed=())
    assert "Margins" not in printed(bare)


def test_further_times_are_a_line_for_each_perturbation(printed: Printed) -> None:
    out = printed(curved())
    assert "t0+W = step 5, T = step 99, 3 further times; primary metric tv\n" in out
    assert "tv over time: excess over the floor\n" in out
    assert "momentum-reset: t0+1 exactly 0, t0+20 0\n" in out
    assert "adam-reset:moments=v,step=keep: T 0.25\n" in out
    assert "accuracy of the control: T 0.625, t0+1 0.125\n" in out
    shown = [line.split()[:3] for line in out.splitlines()]
    assert not [cells for cells in shown if "t0+20" in cells[1:] and "tv" in cells[:2]]
    everything = printed(curved(), everything=True)
    assert row(everything, "momentum-reset", "tv", "t0+20")
    assert row(everything, "momentum-reset", "js", "t0+40")
    assert row(everything, "accuracy", "t0+1", "0.125")


def test_a_curve_is_of_the_primary_metric_and_none_is_shown_without_further_times(
    printed: Printed,
) -> None:
    effects = (replace(SIGNED, time="t0+1", exactly_zero=False), replace(SIGNED, ate=None))
    out = printed(replace(curved(), primary_metric="accuracy", signed=effects))
    assert "accuracy over time: ATE\n" in out
    assert "momentum-reset: t0+1 -0.075, T exactly 0\n" in out
    assert "over time" not in printed(replace(curved(), times={"t0+W": 5, "T": 99}))


def test_no_point_of_a_curve_is_cut_in_two(
    printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    table = curved()
    times = [f"t0+{n}" for n in range(10, 60)]
    rows = [replace(table.distances[1], time=time, excess=0.1234) for time in times]
    lines = printed(replace(table, distances=tuple(rows))).splitlines()
    at = lines.index("tv over time: excess over the floor")
    curve = [line for line in lines[at + 1 :] if "0.123" in line]
    assert max(map(len, curve)) <= 60
    points = [point.strip() for line in curve for point in line.split(",") if point.strip()]
    assert points == ["momentum-reset: t0+10 0.123", *(f"{time} 0.123" for time in times[1:])]


def test_exactly_0_says_bit_identical_wherever_there_is_room(
    printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = replace(DISTANCE, variant="as-is", verdict=EXACTLY_ZERO)
    table = replace(TABLE, distances=(same,))
    assert EXACTLY_ZERO in printed(table)
    monkeypatch.setenv("COLUMNS", "60")
    narrow = printed(table)
    assert "exactly 0" in narrow
    assert max(map(len, narrow.splitlines())) <= 60


def test_a_total_effect_is_called_that_in_both_tables(printed: Printed) -> None:
    signed, distance = replace(SIGNED, effect="total"), replace(DISTANCE, effect="direct")
    out = printed(replace(TABLE, signed=(signed,), distances=(distance,)))
    assert f"{as_typed(SIGNED.perturbation)} (total effect)" in out
    assert f"{as_typed(DISTANCE.perturbation)} (direct effect)" in out
    assert "effect)" not in printed(TABLE)
