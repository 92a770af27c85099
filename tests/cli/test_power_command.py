from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cli_shell import Shell

from auditkit.cli import power as command
from auditkit.statistics import relabeling_power
from auditkit.statistics.moments import standard_deviation
from auditkit.statistics.power import (
    Aim,
    Spread,
    needs_of,
    seeds_for_t_test,
    t_test_power,
    upper_limit,
)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """With a study in ``a``; one job, for threads of one process see each other open files."""
    shell = Shell.at(tmp_path_factory.mktemp("power") / "home")
    done = shell("run", "tiny_study.py", "--out", "a", "--seeds", "0-2", "--jobs", "1")
    assert done.code == 0, done.err
    return shell


def test_a_pilot_is_read_and_its_spread_is_planned_with(shell: Shell) -> None:
    done = shell("power", "a", "--effect", "0.2", "--metric", "nll", "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    report = verified(shell)
    rows = {
        (row["perturbation"], row["time"]): row
        for row in report["estimates"]["signed"]
        if row["metric"] == "nll" and row["variant"] == "as-is"
    }
    assert found["rows"]
    n_tests = found["n_tests"]
    assert n_tests == len(rows)
    for row in found["rows"]:
        theirs = rows[row["perturbation"], row["time"]]
        sd = standard_deviation_of(theirs["per_seed"])
        assert row["sd"] == pytest.approx(sd, rel=1e-9)
        upper = upper_limit(sd, len(theirs["per_seed"]))
        assert row["upper_sd"] == pytest.approx(upper, rel=1e-9)
        assert row["seeds"] == seeds_for_t_test(0.2 / upper, 0.8, 0.05 / n_tests)
    zero = {place for place, row in rows.items() if row["exactly_zero"]}
    assert ("carry", "T") in zero
    left_out = {(row["perturbation"], row["time"]): row["why"] for row in found["left_out"]}
    assert {place for place, why in left_out.items() if why == "exactly 0"} == zero
    assert len(found["rows"]) + len(left_out) == n_tests
    assert found["rows"] == sorted(found["rows"], key=lambda row: -row["upper_sd"])
    assert found["cost"]["bytes"] > 0
    shown = shell("power", "a", "--effect", "0.2", "--metric", "nll").out
    assert "For the paper:" in shown
    assert re.search(r"seeds +t test +relabeling", shown)
    assert "relabeling: the sign-flip test, simulated; the verdict follows the t test" in shown
    assert "Use other seeds than the pilot's (" in shown


def verified(shell: Shell) -> dict[str, Any]:
    done = shell("verify", "a", "--json", "-", "--jobs", "1")
    assert done.code == 0, done.out + done.err
    report: dict[str, Any] = json.loads(done.out)
    return report


def standard_deviation_of(values: list[float]) -> float:
    found = standard_deviation(np.asarray(values))
    assert found
    return found


def test_of_a_distance_the_excess_over_the_floor_is_planned_with(shell: Shell) -> None:
    found = json.loads(shell("power", "a", "--effect", "0.01", "--metric", "tv", "--json").out)
    report = verified(shell)
    rows = {
        (row["perturbation"], row["time"]): row
        for row in report["estimates"]["distances"]
        if row["metric"] == "tv" and row["variant"] == "as-is"
    }
    assert any(row["seeds_simulated"] for row in found["rows"])
    assert any(point["power_simulated"] for point in found["curve"])
    for row in found["rows"]:
        theirs = rows[row["perturbation"], row["time"]]
        pairs = zip(theirs["per_seed"], theirs["floor_per_seed"], strict=True)
        assert row["sd"] == pytest.approx(standard_deviation_of([a - b for a, b in pairs]))


def test_a_given_spread_needs_no_study(shell: Shell) -> None:
    found = json.loads(shell("power", "--sd", "2", "--effect", "1", "--margin", "2", "--json").out)
    (row,) = found["rows"]
    assert (row["seeds"], row["seeds_plug_in"], row["upper_sd"]) == (34, 34, None)
    assert row["seeds_equivalence"] is not None
    assert found["fewest"] == 6
    for point in found["curve"]:
        assert point["power"] == t_test_power(0.5, point["seeds"])
    assert "34 seeds detect a difference of 1" in " ".join(
        shell("power", "--sd", "2", "--effect", "1").out.split()
    )


def test_no_fewer_seeds_are_said_to_do_than_a_test_needs(shell: Shell) -> None:
    arguments = ("power", "--sd", "0.02", "--effect", "1")
    found = json.loads(shell(*arguments, "--json").out)
    assert (found["rows"][0]["seeds"], found["fewest"]) == (3, 6)
    assert "6 seeds detect a difference of 1" in " ".join(shell(*arguments).out.split())
    assert shell("power", "--sd", "1", "--effect", "5", "--metric", "measures/tv").code == 0
    distance = json.loads(shell(*arguments[:-1], "0.9", "--metric", "tv", "--json").out)
    assert distance["fewest"] == 3  # by the permutation, with the placebos of a plan


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--effect", "1"), "give a pilot study (PILOT), or a standard deviation"),
        (("a", "--sd", "1", "--effect", "1"), "give it, or --sd, not both"),
        (("--sd", "0", "--effect", "1"), "--sd must be a number above 0"),
        (("--sd", "nan", "--effect", "1"), "--sd must be a number above 0"),
        (("--sd", "1", "--effect", "-1"), "--effect must be a number above 0"),
        (("--sd", "1", "--effect", "1", "--power", "1"), "--power must be below 1"),
        (("--sd", "1", "--effect", "1", "--tests", "0"), "--tests must be at least 1"),
        (
            ("--sd", "1", "--effect", "5", "--metric", "tv"),
            "a difference of 5 cannot be: values of",
        ),
        (("--sd", "1", "--effect", "3", "--metric", "in/accuracy"), "lie within 1 of each other"),
        (
            ("--sd", "1", "--effect", "0.1", "--metric", "tv", "--margin", "1"),
            "--margin: a margin of 1 cannot fail",
        ),
        (("a", "--effect", "5"), "a difference of 5 cannot be: values of tv"),
        (("a", "--effect", "1", "--metric", "f1"), "the pilot has no metric 'f1'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    shell: Shell, arguments: tuple[str, ...], words: str
) -> None:
    done = shell("power", *arguments)
    assert done.code == 2
    assert words in done.err


def test_a_pilot_that_was_edited_is_refused(shell: Shell) -> None:
    shutil.copytree(shell.folder / "a", shell.folder / "edited")
    file = next((shell.folder / "edited").glob("seed-*/control.outcome.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    done = shell("power", "edited", "--effect", "1")
    assert done.code == 1
    assert "the pilot does not verify" in done.err


def test_verify_says_which_seeds_of_the_pilot_are_used_again(shell: Shell) -> None:
    done = shell("run", "tiny_study.py", "--out", "b", "--seeds", "2-4", "--jobs", "1")
    assert done.code == 0, done.err
    found = json.loads(shell("verify", "b", "--pilot", "a", "--replay", "none", "--json", "-").out)
    note = "seeds of the pilot are used again: 2 (1 of 3, at equal weights before step 1); "
    (warning,) = found["checks"][9]["warnings"]
    assert warning.startswith(note)
    assert len(found["settings"]["pilot"]) == 64
    done = shell("verify", "b", "--pilot", "a", "--generalise-probe", "--json", "-")
    found = json.loads(done.out)
    assert done.code == 0
    assert found["estimates"]["notes"][0] == warning
    assert found["estimates"]["generalised"]
    assert found["settings"]["generalise_probe"] is True
    shutil.copytree(shell.folder / "a", shell.folder / "c")
    bad = shell("verify", "a", "--pilot", "c", "--replay", "none")
    assert (bad.code, "very study" in bad.err) == (2, True)
    (shell.folder / "c" / "seed-0000" / "fork.safetensors").write_bytes(b"")
    bad = shell("verify", "b", "--pilot", "c", "--replay", "none")
    assert bad.code == 1
    assert "the pilot does not verify" in bad.err
    idle = shell("verify", "b", "--generalise-probe", "--replay", "none")
    assert (idle.code, "--generalise-probe would do nothing" in idle.err) == (2, True)


def test_new_seeds_are_said_to_be_new(shell: Shell) -> None:
    assert shell("run", "tiny_study.py", "--out", "d", "--seeds", "7").code == 0
    out = shell("verify", "d", "--pilot", "a").out
    assert "estimates; no seed of the pilot again" in out


def test_the_curve_says_of_which_test_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relabeling_power, "STUDIES", 40)
    labelled = tuple((0.03 + 0.004 * n, 0.01, 0.012) for n in range(4))
    spread = Spread("a", "T", (0.019, 0.023, 0.027, 0.031), labelled)
    for metric, told, words in (
        ("tv", spread, "relabeling: the permutation, simulated, which judges a distance"),
        ("tv", replace(spread, labelled=()), "by the permutation, which is not simulated here"),
        ("nll", spread, "the sign-flip test, simulated; the verdict follows the t test"),
    ):
        aim = Aim(metric, 0.02, placebos=2 if metric == "tv" else None)
        report = needs_of(aim, [told], None, range(4))
        command._print(report)
        shown = capsys.readouterr().out
        assert words in " ".join(shown.split())
        assert re.search(r"seeds +t test +relabeling", shown)
        last = report.curve[-1]
        simulated = "-" if last.power_simulated is None else f"{last.power_simulated:.2f}"
        assert re.search(rf"\n *{last.seeds} +{last.power:.2f} +{simulated}", shown)


def test_a_row_without_an_answer_does_not_stand_for_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spreads = [Spread("wide", "T", (0.0, 1e4, 2e4)), Spread("narrow", "T", (0.0, 1.0, 2.0))]
    report = needs_of(Aim("tv", 1.0, placebos=3), spreads, None, (0, 1, 2))
    command._print(report)
    out = " ".join(capsys.readouterr().out.split())
    assert "power by number of seeds, for narrow at T" in out
    assert f"{report.rows[1].seeds} seeds detect a difference of 1 in tv" in out
    assert "Not of wide at T: no number of seeds within reason does." in out
    assert "judges a distance by the permutation" in out
    command._print(needs_of(Aim("nll", 1.0), spreads[:1], None, (0, 1, 2)))
    out = " ".join(capsys.readouterr().out.split())
    assert "No number of seeds within reason detects this effect." in out
    assert "fewer seeds than the sign-flip test" in out


def test_a_distance_is_planned_by_the_permutation_where_it_is_simulated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    labelled = tuple((0.2 + gap, 0.1, 0.11, 0.09) for gap in (0.0, 0.1, 0.2))
    spread = Spread("narrow", "T", (0.1, 0.2, 0.3), labelled)
    report = needs_of(Aim("tv", 0.1, placebos=3), [spread], None, (0, 1, 2))
    (row,) = report.rows
    assert row.seeds is not None
    assert row.seeds_simulated not in (None, row.seeds)
    command._print(report)
    out = " ".join(capsys.readouterr().out.split())
    assert f"{row.seeds_simulated} seeds detect a difference of 0.1 in tv" in out
    assert "(permutation of labels within seeds, one-sided, simulated from" in out
    assert "in studies simulated from the pilot's own seeds" in out


def test_a_distance_that_the_permutation_does_not_detect_is_named_in_the_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relabeling_power, "STUDIES", 40)
    monkeypatch.setattr(relabeling_power, "MOST_SEEDS", 20)
    labelled = tuple((0.2 + gap, 0.1, 0.11, 0.09) for gap in (0.0, 3.0, 6.0))
    spreads = [Spread("wide", "T", (0.1, 3.1, 6.1), labelled)]
    report = needs_of(Aim("tv", 0.1, placebos=3), spreads, None, (0, 1, 2))
    assert report.rows[0].seeds is not None
    assert report.rows[0].seeds_simulated is None
    command._print(report)
    out = " ".join(capsys.readouterr().out.split())
    assert "(paired t test, two-sided, " in out
    assert "in simulated studies of up to 200 seeds of wide at T." in out
    assert "in studies simulated from the pilot's own seeds" in out


def test_what_has_no_spread_is_named_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    spreads = [
        Spread("a", "T", (0.0, 1.0, 2.0)),
        Spread("b", "t0+W", (1.0, 1.0, 1.0)),
        Spread("b", "T", (0.0, 0.0, 0.0)),
        Spread("c", "T", (1.0,)),
    ]
    report = needs_of(Aim("nll", 1.0), spreads, None, (0, 1, 2))
    command._print(report)
    out = " ".join(capsys.readouterr().out.split())
    assert "without a spread, the same in every seed: b at t0+W, b at T" in out
    assert "without a spread, fewer than two pairs: c at T" in out
