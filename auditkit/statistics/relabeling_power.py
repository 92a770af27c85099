"""Power of the tests that relabel, by simulated studies: there is no formula for it.

A simulated study draws its seeds from those of a pilot, with replacement. Of a distance every seed
brings its own placebos, whose spread within the seed the permutation looks at and a t test does
not. The treatment has the placebos' mean, the effect that is to be detected, and what the pilot's
seed deviated by from the pilot's mean effect, widened to the standard deviation that is planned
with. So the effect is what was asked for and never the pilot's own. Without a pilot the
differences are normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from auditkit.records.power import MOST_SIMULATED
from auditkit.statistics.moments import standard_deviation

Values = NDArray[np.float64]

#: Studies that are simulated: the error of a power near 0.8 is then 0.9 percentage points.
STUDIES = 2_000

#: No plan of more seeds is simulated.
MOST_SEEDS = MOST_SIMULATED

#: Labelings that are all counted, and how many are drawn where there are more; as many are drawn
#: as make the smallest p a tenth of alpha, within these limits.
_ENUMERATED = 1_024
_FEWEST_DRAWS, _MOST_DRAWS = 999, 4_999

#: Sums closer than this, relative to their size, are ties.
_TIE = 1e-9


@dataclass(frozen=True)
class Simulated:
    """The fewest seeds with which enough simulated studies reject, and the share that does."""

    seeds: int
    power: float


def permutation_power(
    labelled: Sequence[Sequence[float]], effect: float, sd: float, n: int, alpha: float
) -> float:
    """Power of the permutation of labels within seeds, one-sided, as a study tests a distance.

    Args:
        labelled: Of each seed of the pilot the treatment's distance from the control, and the same
            number of placebos' distances after it.
        effect: Excess over the floor that is to be detected.
        sd: Standard deviation of the excess that is planned with.
        n: Seeds of a study.
        alpha: Size of the test.
    """
    table = np.asarray(labelled, dtype=np.float64)
    placebos = table[:, 1:]
    floors = placebos.mean(axis=1)
    treated = floors + effect + _widened(table[:, 0] - floors, sd)
    chosen = _indices(len(table), n)
    studies = np.concatenate([treated[chosen][..., None], placebos[chosen]], axis=2)
    labels = _labels(n, table.shape[1], alpha)
    picked = np.zeros((len(labels), n, table.shape[1]))  # one-hot: sums of all studies at once
    np.put_along_axis(picked, labels[..., None], 1.0, axis=2)
    sums = picked.reshape(len(labels), -1) @ studies.reshape(STUDIES, -1).T
    return _rejecting(sums, np.abs(studies).max(axis=(1, 2)) * n, labels, alpha)


def sign_flip_power(
    differences: Sequence[float] | None, effect: float, sd: float, n: int, alpha: float
) -> float:
    """Power of the two-sided sign-flip test.

    Args:
        differences: Of a pilot, treatment minus control by seed; None for normal ones.
        effect: Mean difference that is to be detected.
        sd: Standard deviation of the differences that is planned with.
        n: Seeds of a study.
        alpha: Size of the test.
    """
    if differences is None:
        normal = np.random.default_rng(0).normal(size=(STUDIES, MOST_SEEDS))[:, :n]
        studies = effect + sd * normal
    else:
        studies = effect + _widened(np.asarray(differences), sd)[_indices(len(differences), n)]
    labels = _labels(n, 2, alpha)
    sums = np.abs((1.0 - 2 * labels) @ studies.T)
    return _rejecting(sums, np.abs(studies).max(axis=1) * n, labels, alpha)


def fewest_seeds(
    power_of: Callable[[int, float], float], alpha: float, aimed: float, least: int, guess: int
) -> Simulated | None:
    """The fewest seeds whose simulated power is enough.

    Args:
        power_of: By the number of seeds and alpha.
        alpha: Size of the test.
        aimed: How much is enough.
        least: Below it no study is tested, or can reject.
        guess: Where to begin.

    Returns:
        None beyond :data:`MOST_SEEDS`, and where alpha is less than what is drawn can tell.
    """
    if not can_be_simulated(least, alpha):
        return None
    high = min(max(least, guess), MOST_SEEDS)
    low, found = least - 1, power_of(high, alpha)
    while found < aimed:
        if high == MOST_SEEDS:
            return None
        low, high = high, min(high + max(high // 3, 1), MOST_SEEDS)
        found = power_of(high, alpha)
    while high - low > 1:
        middle = (low + high) // 2
        power = power_of(middle, alpha)
        if power < aimed:
            low = middle
        else:
            high, found = middle, power
    return Simulated(high, found)


def can_be_simulated(seeds: int, alpha: float) -> bool:
    """Whether so many seeds are simulated, and what is drawn can tell alpha."""
    return seeds <= MOST_SEEDS and alpha * _MOST_DRAWS >= 1


def _widened(effects: Values, sd: float) -> Values:
    """What seeds deviate by, with this standard deviation of the whole: they are all there is."""
    own = standard_deviation(effects)
    deviations = effects - effects.mean()
    n = len(effects)
    factor = sd / own * math.sqrt(n / (n - 1)) if own else 1.0
    return np.asarray(deviations * factor)


def _indices(n_pilot: int, n: int) -> NDArray[np.intp]:
    """Seeds of every study; the first n of those that a larger study has."""
    return np.random.default_rng(1).integers(n_pilot, size=(STUDIES, MOST_SEEDS))[:, :n]


def _labels(n: int, width: int, alpha: float) -> NDArray[np.int64]:
    """Labelings, what was observed first: all of them, or as many as tell alpha."""
    if width**n <= _ENUMERATED:
        return np.array(list(product(range(width), repeat=n)))
    draws = int(min(max(10 / alpha, _FEWEST_DRAWS), _MOST_DRAWS))
    drawn = np.random.default_rng(2).integers(width, size=(draws, MOST_SEEDS))[:, :n]
    return np.concatenate([np.zeros((1, n), np.int64), drawn])


def _rejecting(sums: Values, scale: Values, labels: NDArray[np.int64], alpha: float) -> float:
    """The share of studies whose p is at most alpha; what was observed is the first row.

    It is counted in where labelings are drawn, and is one of them where they are all there.
    """
    extreme = (sums >= sums[0] - _TIE * scale).sum(axis=0)
    return float((extreme / len(labels) <= alpha * (1 + _TIE)).mean())
