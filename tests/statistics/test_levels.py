"""What the controls reach, and whether that is more than a guess that looks at nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from auditkit.records.estimate import ControlLevel
from auditkit.records.plan import StudyPlan
from auditkit.statistics.estimands import estimate
from auditkit.statistics.levels import constant_guess
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes

LABELS = np.array([0, 0, 0, 1])


def levels_of(
    rates: Sequence[float], labels: object = LABELS
) -> dict[tuple[str, str], ControlLevel]:
    """Levels of controls that give each label this probability, one a seed."""
    plan = StudyPlan(1, 1, 2, range(len(rates)), ["carry"], placebos=1)
    outcomes = []
    truth = np.asarray(labels)
    for seed, rate in enumerate(rates):
        table = np.full((len(truth), 2), 1 - rate, dtype=np.float32)
        table[np.arange(len(truth)), truth] = rate
        branch = BranchTables({"t0+W": table, "T": table})
        outcomes.append(SeedOutcomes(seed, truth, branch, (branch,), {"carry": branch}))
    return {(level.metric, level.time): level for level in estimate(outcomes, plan).levels}


def test_a_constant_guess_is_the_share_of_each_class() -> None:
    assert constant_guess("accuracy", LABELS) == 0.75
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert constant_guess("nll", LABELS) == pytest.approx(entropy)
    assert constant_guess("brier", LABELS) == pytest.approx(1 - 0.75**2 - 0.25**2)
    assert constant_guess("accuracy", np.array([1, 1])) == 1.0


def test_controls_that_learned_are_better_than_it() -> None:
    levels = levels_of([0.9, 0.92, 0.88])
    assert sorted(levels) == sorted(
        (metric, time) for metric in ("accuracy", "brier", "nll") for time in ("t0+W", "T")
    )
    assert not any(level.at_chance for level in levels.values())
    level = levels["accuracy", "T"]
    assert (level.mean, level.constant_guess, level.per_seed) == (1.0, 0.75, (1.0, 1.0, 1.0))
    assert levels["nll", "T"].mean == pytest.approx(-np.mean(np.log([0.9, 0.92, 0.88])), rel=1e-6)


def test_controls_that_learned_nothing_are_at_chance() -> None:
    assert all(level.at_chance for level in levels_of([0.4, 0.45, 0.3]).values())
    assert levels_of([0.5])["nll", "T"].at_chance
    assert not levels_of([0.9])["nll", "T"].at_chance


def test_a_mean_that_is_better_by_luck_is_at_chance() -> None:
    lucky = levels_of([0.99, 0.3, 0.95])["accuracy", "T"]
    assert lucky.mean > 0.5
    labels = np.array([0, 1])
    level = levels_of([0.99, 0.3, 0.95], labels)["accuracy", "T"]
    assert (level.constant_guess, level.at_chance) == (0.5, True)
    assert level.mean == pytest.approx(2 / 3)


def test_spread_is_over_the_seeds() -> None:
    level = ControlLevel("nll", "as-is", "T", (1.0, 2.0, 3.0), 2.0, 0.7, at_chance=True)
    assert level.spread == 1.0
    assert ControlLevel("nll", "as-is", "T", (1.0,), 1.0, 0.7, at_chance=True).spread is None
