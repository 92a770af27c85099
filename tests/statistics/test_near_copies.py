from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from auditkit.records.estimate import EstimateTable
from auditkit.records.plan import StudyPlan
from auditkit.statistics.estimands import estimate
from auditkit.statistics.near_copies import near_copies
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes

PLAN = StudyPlan(6, 3, 14, range(4), ["momentum-reset"], placebos=1)

LABELS = np.arange(8) % 3


def probabilities(rng: np.random.Generator, base: NDArray[np.float64], by: float) -> BranchTables:
    """Class probabilities of logits that are so far from others."""
    scores = np.exp(base + by * rng.standard_normal(base.shape))
    table = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return BranchTables(dict.fromkeys(PLAN.probed, table))


def study(seeds: float, nudge: float, treatment: float) -> EstimateTable:
    """Estimates where seeds, placebos and treatments are so far apart."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((8, 3))
    outcomes = []
    for seed in PLAN.seeds:
        own = base + seeds * rng.standard_normal(base.shape)
        control, placebo = probabilities(rng, own, 0.0), probabilities(rng, own, nudge)
        treated = {"momentum-reset": probabilities(rng, own, treatment)}
        outcomes.append(SeedOutcomes(seed, LABELS, control, (placebo,), treated))
    return estimate(outcomes, PLAN)


@pytest.mark.parametrize(
    ("seeds", "nudge", "treatment"),
    [
        (1e-4, 1e-5, 1e-5),  # a few roundings apart, and no treatment that does anything
        (1e-4, 0.0, 0.5),  # many times nearer than a treatment
        (1e-4, 1e-7, 0.5),
    ],
)
def test_seeds_that_hardly_differ_are_told(seeds: float, nudge: float, treatment: float) -> None:
    found = near_copies(study(seeds, nudge, treatment).distances)
    assert found is not None
    assert found.startswith("the controls of different seeds hardly differ at T: tv ")
    assert ("between momentum-reset and its control" in found) == (treatment > 0.1)


@pytest.mark.parametrize(
    ("seeds", "nudge", "treatment"),
    [
        (0.5, 1e-7, 0.5),  # a nudge that has not grown
        (0.5, 0.5, 0.5),  # one that has
        (0.02, 0.02, 2.0),  # a destructive treatment of a task that all seeds solve alike
        (1e-4, 1e-8, 1e-4),  # a probe that is hard to move at all
    ],
)
def test_seeds_that_are_apart_are_not(seeds: float, nudge: float, treatment: float) -> None:
    assert near_copies(study(seeds, nudge, treatment).distances) is None


def test_of_real_numbers_the_distance_of_seeds_is_judged_beside_effects_only() -> None:
    near = study(1e-4, 1e-7, 0.5).distances
    far = study(1e-4, 1e-5, 1e-5).distances
    assert near_copies(replace(row, metric="rmsd") for row in near if row.metric == "tv")
    assert near_copies(replace(row, metric="rmsd") for row in far if row.metric == "tv") is None
