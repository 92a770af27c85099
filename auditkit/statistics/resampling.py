"""Tests and intervals that resample: sign flips, label permutations, the bootstrap.

Rules kept here: a test that can be enumerated is enumerated; one that cannot draws with a
fixed seed and counts the observed labeling in, p = (b + 1) / (B + 1), so that it is valid at
any B; and the result says which of the two it was. Random numbers come from the raw output of
PCG64, because NumPy promises its stream (NEP 19) and not that of ``Generator``: a verifier with
another NumPy must find the same p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from auditkit.records.estimate import Interval
from auditkit.statistics import moments

Values = NDArray[np.float64]

EXACT = "exact"
MONTE_CARLO = "monte-carlo"

#: Labelings up to which a test is enumerated (4**10 fits: 10 seeds, 3 placebos).
ENUMERATION_LIMIT = 2_000_000

#: Pairs up to which sign flips are enumerated: 2**20 labelings.
SIGN_FLIP_LIMIT = 20

#: Labelings drawn where they are too many; the smallest p is then 1e-5.
DRAWS = 99_999

#: Bootstrap resamples. With B + 1 = 2000 the 2.5 % points are order statistics.
RESAMPLES = 1_999

#: Pairs from which there is a studentised interval: of fewer, too many resamples have no spread.
MIN_STUDENTISED = 5

#: Skewness beyond which the studentised bootstrap interval stands beside the t interval.
SKEWNESS_THRESHOLD = 1.0

#: Statistics closer than this, relative to their size, are ties. Sums over the seeds taken in
#: another order differ by 1e-16 or so, and a tie that is missed makes p too small.
TIE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class RandomisationTest:
    """Result of a test by relabeling.

    Attributes:
        p: The p value.
        kind: ``exact`` (every labeling was counted) or ``monte-carlo``.
        n_labelings: How many labelings were counted or drawn.
        lower_p: Of a one-sided test, the p value of the other side.
    """

    p: float
    kind: str
    n_labelings: int
    lower_p: float | None = None


class _Draws:
    """Random indices from a stream that does not change between NumPy versions."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def indices(self, below: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Indices in 0 .. below - 1, of ``shape``.

        The upper 32 bits times ``below``, over 2**32: off uniform by less than
        ``below`` / 2**32, far under anything that the draws could resolve.
        """
        raw = self._bits.random_raw(math.prod(shape)) >> np.uint64(32)
        return ((raw * np.uint64(below)) >> np.uint64(32)).astype(np.int64).reshape(shape)


def _all_sums(choices: Sequence[Values]) -> Values:
    """Every sum that takes one value from each array: ``(product of their lengths,)``."""
    sums = np.zeros(1)
    for values in choices:
        sums = np.add.outer(sums, values).ravel()
    return sums


def _drawn_sums(choices: Sequence[Values], draws: int, seed: int) -> Values:
    """``draws`` sums that take one value at random from each array."""
    source = _Draws(seed)
    sums = np.zeros(draws)
    for values in choices:
        sums += values[source.indices(len(values), (draws,))]
    return sums


def sign_flip_test(differences: Values, *, draws: int = DRAWS, seed: int = 0) -> RandomisationTest:
    """Two-sided sign-flip test that paired differences are symmetric about 0.

    Fisher 1935; labels of a pair are exchangeable when the perturbation does nothing. Exact
    up to 20 pairs. The smallest p is 2 / 2**n: with five pairs .0625.

    Args:
        differences: ``(n,)``, n >= 1, one a seed.
        draws: Labelings drawn above 20 pairs.
        seed: Seed of those draws.
    """
    observed = abs(float(differences.sum()))
    least = observed - TIE_TOLERANCE * float(np.abs(differences).sum())
    signs = [np.array([value, -value]) for value in differences]
    if len(differences) <= SIGN_FLIP_LIMIT:
        # Flipping all signs leaves |sum| alone, so the first sign may stay.
        sums = float(differences[0]) + _all_sums(signs[1:])
        return RandomisationTest(
            float(np.mean(np.abs(sums) >= least)), EXACT, 2 ** len(differences)
        )
    extreme = int((np.abs(_drawn_sums(signs, draws, seed)) >= least).sum())
    return RandomisationTest((extreme + 1) / (draws + 1), MONTE_CARLO, draws)


def within_seed_permutation_test(
    treatments: Sequence[float],
    placebos: Sequence[Sequence[float]],
    *,
    limit: int = ENUMERATION_LIMIT,
    draws: int = DRAWS,
    seed: int = 0,
) -> RandomisationTest:
    """One-sided permutation test that treatments lie farther from the control than placebos do.

    Treatment and placebos are each one change away from the control, so if the treatment is
    no more than a nudge, the label *treatment* could be on any of a seed's K + 1 branches. The
    statistic is the sum over seeds of the labelled distance minus the mean of the others; the
    null is its distribution over all labelings, permuted within each seed. ``lower_p`` is of the
    opposite question: whether treatments lie closer.

    Args:
        treatments: ``(n,)``, distance of the treatment from the control, per seed.
        placebos: ``n`` sequences of K_s >= 1 distances of the placebos; K_s may differ.
        limit: Most labelings that are enumerated; above it, they are drawn.
        draws: Labelings drawn.
        seed: Seed of those draws.
    """
    choices, scale = [], 0.0
    for treatment, others in zip(treatments, placebos, strict=True):
        distances = np.array([treatment, *others], dtype=np.float64)
        # labelled - mean of the others; where K_s differs, so does the weight of a seed
        choices.append(distances - (distances.sum() - distances) / len(others))
        scale += float(distances.max())
    observed = sum(float(statistic[0]) for statistic in choices)
    least, most = observed - TIE_TOLERANCE * scale, observed + TIE_TOLERANCE * scale
    total = math.prod(len(statistic) for statistic in choices)
    if total <= limit:
        sums = _all_sums(choices)
        above, below = float(np.mean(sums >= least)), float(np.mean(sums <= most))
        return RandomisationTest(above, EXACT, total, below)
    sums = _drawn_sums(choices, draws, seed)
    above, below = (
        (int(extreme.sum()) + 1) / (draws + 1) for extreme in (sums >= least, sums <= most)
    )
    return RandomisationTest(above, MONTE_CARLO, draws, below)


def beside_t(values: Values, level: float) -> tuple[Interval | None, tuple[str, ...]]:
    """The studentised interval where skewness makes the t interval doubtful.

    Returns:
        It, or None; and what is said where it is wanted and cannot be had.
    """
    skewness = moments.skewness(values)
    if skewness is None or abs(skewness) <= SKEWNESS_THRESHOLD:
        return None, ()
    if len(values) < MIN_STUDENTISED:
        return None, (f"skewed, and no studentised interval below {MIN_STUDENTISED} pairs",)
    return studentised_bootstrap_interval(values, level), ()


def studentised_bootstrap_interval(
    values: Values, level: float = 0.95, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Studentised bootstrap (bootstrap-t) interval for the mean of values ``(n,)``.

    Efron and Tibshirani 1993, section 12.5. For skewed differences it covers better than the
    t interval (at skewness 2 and n = 5, .93 against .88). A resample without spread counts as
    infinitely far out, which can leave an end unbounded: None in the interval.

    Returns:
        None for n < 5, where it does not exist in practice, or for values without spread.
    """
    n = len(values)
    if n < MIN_STUDENTISED or np.ptp(values) == 0:
        return None
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n)
    sample = values[_Draws(seed).indices(n, (resamples, n))]  # (B, n)
    shift = sample.mean(axis=1) - mean
    errors = sample.std(axis=1, ddof=1) / math.sqrt(n)
    flat = np.ptp(sample, axis=1) == 0
    t = np.where(flat, np.copysign(np.inf, shift), shift / np.where(flat, 1.0, errors))
    t.sort()
    tail = max(round((1 - level) / 2 * (resamples + 1)), 1)
    return Interval(
        _finite(mean - float(t[resamples - tail]) * error),
        _finite(mean - float(t[tail - 1]) * error),
        level,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
