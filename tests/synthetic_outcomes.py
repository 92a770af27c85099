"""Outcomes of studies that nobody ran: tables of probabilities made of noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from auditkit.records.plan import StudyPlan
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes

NAME = "momentum-reset"
KEYS = ("t0", "t0+W", "T")


def plan_of(n_seeds: int, **changes: Any) -> StudyPlan:
    """A plan of one treatment."""
    settings: dict[str, Any] = {
        **{"fork_at": 10, "window": 5, "horizon": 50, "placebos": 3},
        "seeds": range(n_seeds),
        "perturbations": [NAME],
    }
    return StudyPlan(**{**settings, **changes})


def probabilities(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    """A table as a branch leaves it."""
    return np.asarray(softmax(logits, axis=1), dtype=np.float32)


def outcome_of(  # one number a choice
    seed: int,
    *,
    noise: float = 1.0,
    placebo_noise: float = 0.3,
    placebos: int = 3,
    examples: int = 48,
    classes: int = 4,
) -> SeedOutcomes:
    """One seed, whose treatment is the control with noise on its logits."""
    rng = np.random.default_rng([23, seed])
    labels = np.arange(examples) % classes
    base = 2 * rng.normal(size=(examples, classes)) + 2 * np.eye(classes)[labels]

    def branch(size: float) -> BranchTables:
        return BranchTables(
            {key: probabilities(base + size * rng.normal(size=base.shape)) for key in KEYS}
        )

    control = BranchTables(dict.fromkeys(KEYS, probabilities(base)))
    nudged = tuple(branch(placebo_noise) for _ in range(placebos))
    return SeedOutcomes(seed, labels, control, nudged, {NAME: branch(noise)})


def study_of(n_seeds: int, **changes: Any) -> list[SeedOutcomes]:
    """So many seeds."""
    return [outcome_of(seed, **changes) for seed in range(n_seeds)]


def diverged(at: int = 20, examples: int = 48, classes: int = 4) -> BranchTables:
    """A branch whose loss became NaN."""
    return BranchTables(dict.fromkeys(KEYS, np.full((examples, classes), np.nan, np.float32)), at)
