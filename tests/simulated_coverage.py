"""How often intervals hold what they should, over simulated studies: the table of the manual.

Numbers come from the raw stream of PCG64 by inverse distribution functions, so that the table is
the same with every NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from auditkit.records.interval import Interval
from auditkit.statistics.generalised import two_way_interval
from auditkit.statistics.inference import log_non_inferiority_p, t_interval
from auditkit.statistics.resampling import (
    studentised_bootstrap_interval,
    within_seed_permutation_test,
)
from auditkit.statistics.spreads import heterogeneity, prediction_interval

STUDIES = 2_000
SEEDS = (3, 5, 8, 20)
PLACEBOS = 3

#: Labelings that are enumerated or drawn here: fewer than in a study, for the test's time.
LABELINGS, DRAWS = 70_000, 4_999

#: Examples of the probe, and standard deviations of seeds, examples and the rest.
EXAMPLES, CROSSED = 100, (0.01, 0.2, 0.1)

Values = NDArray[np.float64]


def uniform(seed: int, *shape: int) -> Values:
    """Numbers between 0 and 1, neither included."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape))) >> np.uint64(12)
    return ((raw.astype(np.float64) + 0.5) / 2.0**52).reshape(shape)


def normal(u: Values) -> Values:
    """Mean 0, standard deviation 1."""
    return np.asarray(special.ndtri(u))


def skewed(u: Values) -> Values:
    """Exponential, mean 0, standard deviation 1: skewness 2."""
    return -np.log(u) - 1


SHAPES: dict[str, Callable[[Values], Values]] = {"normal": normal, "skewed": skewed}


@dataclass(frozen=True)
class Cell:
    """Shares of the studies, in percent.

    Attributes:
        shape: Of the differences, and of the logarithms of distances.
        seeds: Seeds a study.
        t: t intervals that hold the true mean.
        studentised: The same of the studentised bootstrap; None where it does not exist.
        permutation: Treatments that are no more than a placebo, called an effect at 5 %.
        below: The same, called below the floor.
        equivalence: Distances typically at floor and margin, called equivalent at 5 %.
        heterogeneity: Seeds of one effect, told apart at 5 %.
        new_seed: Prediction intervals that hold the effect of one more seed.
        two_way: Two-way intervals that hold the mean over all seeds and examples.
        seeds_only: t intervals over seeds that do.
    """

    shape: str
    seeds: int
    t: float
    studentised: float | None
    permutation: float
    below: float
    equivalence: float
    heterogeneity: float
    new_seed: float
    two_way: float
    seeds_only: float


def cells() -> list[Cell]:
    """The whole table."""
    return [_cell(shape, n, at) for at, shape in enumerate(SHAPES) for n in SEEDS]


def _cell(shape: str, n: int, at: int) -> Cell:
    differences = SHAPES[shape](uniform(100 * at + n, STUDIES, n))
    intervals = [t_interval(row) for row in differences]
    boot = [studentised_bootstrap_interval(row) for row in differences]
    # distances of K placebos and a treatment that is one more of them, around a level of the seed
    level = uniform(100 * at + n + 30, STUDIES, n, 1)
    logs = SHAPES[shape](uniform(100 * at + n + 60, STUDIES, n, PLACEBOS + 1)) / 2
    distances = np.exp(level + logs)
    tests = [
        within_seed_permutation_test(
            d[:, 0].tolist(), d[:, 1:].tolist(), limit=LABELINGS, draws=DRAWS, seed=number
        )
        for number, d in enumerate(distances)
    ]
    margin = 0.5
    floors = distances[:, :, 1:].mean(axis=2)
    typical = np.exp(logs[:, :, 0]) * (floors + margin)  # the mean of the logarithms is 0
    equivalence = [
        log_non_inferiority_p(list(zip(d.tolist(), f.tolist(), strict=True)), margin)
        for d, f in zip(typical, floors, strict=True)
    ]
    predicted = SHAPES[shape](uniform(100 * at + n + 1_000, STUDIES, n + 1))
    tables = _crossed(SHAPES[shape], n, 100 * at + n + 2_000)
    return Cell(
        shape=shape,
        seeds=n,
        t=_share(_holds(found) for found in intervals),
        studentised=None if n < 5 else _share(_holds(found) for found in boot),
        permutation=_share(test.p <= 0.05 for test in tests),
        below=_share((test.lower_p or 1) <= 0.05 for test in tests),
        equivalence=_share((p or 1) <= 0.05 for p in equivalence),
        heterogeneity=_share(
            (found.p or 1) <= 0.05
            for d in logs
            if (found := heterogeneity(d[:, 0].tolist(), d[:, 1:].tolist())) is not None
        ),
        new_seed=_share(
            _holds(prediction_interval(row[:n], 0.95), float(row[n])) for row in predicted
        ),
        two_way=_share(
            _holds(None if found is None else found.interval)
            for found in map(two_way_interval, tables)
        ),
        seeds_only=_share(_holds(t_interval(table.mean(axis=1))) for table in tables),
    )


def _crossed(shape: Callable[[Values], Values], n: int, seed: int) -> Values:
    """Effects by seed and example ``(studies, n, examples)``, all of mean 0."""
    seeds, examples, rest = CROSSED
    return (
        seeds * shape(uniform(seed, STUDIES, n, 1))
        + examples * shape(uniform(seed + 300, STUDIES, 1, EXAMPLES))
        + rest * shape(uniform(seed + 600, STUDIES, n, EXAMPLES))
    )


def _share(flags: object) -> float:
    return round(100 * float(np.mean(list(flags))), 1)  # type: ignore[call-overload]


def _holds(found: Interval | None, value: float = 0.0) -> bool:
    if found is None:
        return False
    above = found.low is None or found.low < value
    return above and (found.high is None or found.high > value)
