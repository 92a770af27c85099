from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from auditkit.statistics import power, relabeling_power
from auditkit.statistics.relabeling_power import (
    fewest_seeds,
    permutation_power,
    sign_flip_power,
)
from auditkit.statistics.resampling import sign_flip_test, within_seed_permutation_test


def pilot(n: int, placebos: int = 3) -> list[list[float]]:
    rng = np.random.default_rng(5)
    return [rng.uniform(0.5, 1.5, placebos + 1).tolist() for _ in range(n)]


@pytest.mark.parametrize("n", [3, 4])
def test_a_simulated_study_is_tested_as_a_study_is(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(relabeling_power, "STUDIES", 60)
    table, sd, effect = np.array(pilot(5)), 0.4, 0.6
    floors = table[:, 1:].mean(axis=1)
    excess = table[:, 0] - floors
    factor = sd / excess.std(ddof=1) * math.sqrt(5 / 4)
    treated = floors + effect + (excess - excess.mean()) * factor
    # as a sample that is the whole of what there is, the deviations have the SD asked for
    assert ((excess - excess.mean()) * factor).std() == pytest.approx(sd)
    tests = [
        within_seed_permutation_test(treated[chosen].tolist(), table[chosen, 1:].tolist()).p
        for chosen in relabeling_power._indices(5, n)
    ]
    for alpha in (0.05, 0.02):
        found = permutation_power(table.tolist(), effect, sd, n, alpha)
        assert found == np.mean(np.array(tests) <= alpha)
        assert 0.05 < found < 0.95


def test_sign_flips_are_those_of_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relabeling_power, "STUDIES", 60)
    differences = np.array([0.1, 0.9, -0.4, 0.6])
    factor = 0.5 / differences.std(ddof=1) * math.sqrt(4 / 3)
    drawn = 0.4 + (differences - differences.mean()) * factor
    tests = [sign_flip_test(drawn[chosen]).p for chosen in relabeling_power._indices(4, 8)]
    found = sign_flip_power(differences.tolist(), 0.4, 0.5, 8, 0.05)
    assert found == np.mean(np.array(tests) <= 0.05)
    assert 0.05 < found < 0.95


def test_many_labelings_are_drawn_and_give_nearly_what_all_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = pilot(6)
    drawn = permutation_power(table, 0.3, 0.4, 6, 0.05)  # of 4,096
    monkeypatch.setattr(relabeling_power, "_ENUMERATED", 5_000)
    assert drawn == pytest.approx(permutation_power(table, 0.3, 0.4, 6, 0.05), abs=0.02)


def test_without_an_effect_power_is_the_size() -> None:
    rng = np.random.default_rng(2)
    table = rng.normal(1, 0.3, size=(200, 4))
    sd = float((table[:, 0] - table[:, 1:].mean(axis=1)).std(ddof=1))
    for n in (3, 6, 12):
        assert permutation_power(table.tolist(), 0.0, sd, n, 0.05) < 0.075
        assert sign_flip_power(None, 0.0, 1.0, n, 0.05) < 0.075


@pytest.mark.parametrize(("d_z", "n"), [(0.5, 34), (0.8, 16), (0.3, 100)])
def test_of_normal_differences_the_sign_flip_is_nearly_the_t_test(d_z: float, n: int) -> None:
    assert sign_flip_power(None, d_z, 1.0, n, 0.05) == pytest.approx(
        power.t_test_power(d_z, n), abs=0.03
    )


def test_a_wide_floor_within_seeds_costs_seeds_that_the_t_test_does_not_see() -> None:
    """The spread of placebos within a seed is noise to the permutation."""
    deviations = (-0.1, 0.0, 0.1)
    narrow = [(1 + d, 0.99, 1.0, 1.01) for d in deviations]
    wide = [(1 + d, 0.2, 1.0, 1.8) for d in deviations]
    assert permutation_power(narrow, 0.2, 0.1, 5, 0.05) > 0.95
    assert permutation_power(wide, 0.2, 0.1, 5, 0.05) < 0.2


def test_the_fewest_are_found_from_above_and_from_below() -> None:
    def power_of(n: int, _: float) -> float:
        return 1 - 1 / n

    for guess in (3, 40, 150, 1000):
        found = fewest_seeds(power_of, 0.05, 0.975, 3, guess)
        assert found is not None
        assert (found.seeds, found.power) == (40, 0.975)
    assert fewest_seeds(lambda n, _: 0.5, 0.05, 0.8, 3, 9) is None
    assert fewest_seeds(power_of, 0.05, 0.1, 3, 9) == relabeling_power.Simulated(3, 1 - 1 / 3)
    assert fewest_seeds(power_of, 1e-6, 0.1, 3, 9) is None  # beyond what drawing can tell


def test_more_seeds_have_more_power() -> None:
    found = [sign_flip_power(None, 0.5, 1.0, n, 0.05) for n in (6, 10, 20, 40, 80)]
    assert all(less < more for less, more in pairwise(found))


def test_a_report_plans_a_distance_by_the_permutation() -> None:
    labelled = tuple(tuple(row) for row in pilot(5))
    excess = tuple(row[0] - float(np.mean(row[1:])) for row in labelled)
    aim = power.Aim("rmsd", 0.5, n_tests=2, placebos=3)
    spread = power.Spread("a", "T", excess, labelled)
    (row,) = power.needs_of(aim, [spread], None, range(5)).rows
    assert row.seeds_simulated is not None
    assert row.upper_sd is not None
    planned = (labelled, 0.5, row.upper_sd)
    assert permutation_power(*planned, row.seeds_simulated, 0.025) == row.power_simulated
    assert permutation_power(*planned, row.seeds_simulated - 1, 0.025) < 0.8
    # what diverged leaves seeds of other lengths, and two whole ones are too few
    for cut in (labelled[:2], (*labelled[:2], labelled[2][:2]), ()):
        (row,) = power.needs_of(aim, [power.Spread("a", "T", excess, cut)], None, (0,)).rows
        assert (row.seeds_simulated, row.power_simulated) == (None, None)
    (row,) = power.needs_of_sd(power.Aim("nll", 1.0), 2.0).rows
    assert row.seeds_simulated == pytest.approx(34, abs=2)
    assert power.needs_of_sd(power.Aim("tv", 0.5, placebos=3), 1.0).rows[0].seeds_simulated is None
