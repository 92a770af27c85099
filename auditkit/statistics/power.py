"""How many seeds a study needs: power of the paired t test and of equivalence, before it is run.

Effects are in units of the standard deviation of the paired differences, d_z = effect / SD. Power
is integrated over the distribution of the sample's standard deviation: the non-central t functions
of the usual libraries give NaN where power is near 1. A pilot's standard deviation is itself
uncertain, and a plan from it alone misses its power in more than half of all cases; from the
upper confidence limit of :func:`upper_limit` (80 %) it reaches it in four of five. Tests by
relabeling have no such formula and are simulated, see :mod:`auditkit.statistics.relabeling_power`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from auditkit.errors import PlanError
from auditkit.records.estimate import ALPHA, MIN_PAIRS
from auditkit.records.metric_names import base_metric
from auditkit.records.plan import DISTANCE_METRICS, RANGES
from auditkit.records.power import POWER, NoSpread, PowerPoint, PowerReport, PowerRow, SeedCost
from auditkit.statistics.moments import standard_deviation
from auditkit.statistics.multiplicity import seeds_needed
from auditkit.statistics.relabeling_power import (
    can_be_simulated,
    fewest_seeds,
    permutation_power,
    sign_flip_power,
)

#: Confidence of the upper limit of a pilot's SD.
CONFIDENCE: Final = 0.8

#: Numbers of seeds at which power is told.
CURVE: Final = (3, 4, 5, 6, 8, 10, 12, 16, 20, 30, 50, 100)

#: No plan of more seeds is looked for.
MOST_SEEDS: Final = 100_000

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_TAIL = 1e-15  # of the distribution of the standard deviation, left out on both sides


def t_test_power(d_z: float, n: int, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test.

    Args:
        d_z: True mean of the differences over their standard deviation.
        n: Pairs, at least 2.
        alpha: Size of the test.

    Returns:
        The chance that the test rejects, exact for normal differences (error below 1e-9).
    """
    critical = float(special.stdtrit(n - 1, 1 - alpha / 2))
    shift = d_z * math.sqrt(n)

    def rejects(s: NDArray[np.float64]) -> NDArray[np.float64]:
        upper = special.ndtr(shift - critical * s)
        return np.asarray(upper + special.ndtr(-shift - critical * s))

    return _mean_over_sd(rejects, n - 1)


def equivalence_power(margin_z: float, n: int, true_z: float = 0.0, alpha: float = 0.05) -> float:
    """Power of two one-sided t tests (TOST) that the mean lies inside a margin.

    Args:
        margin_z: The margin over the standard deviation of the differences, more than 0.
        n: Pairs, at least 2.
        true_z: True mean over the standard deviation.
        alpha: Size of each of the two tests.
    """
    critical = float(special.stdtrit(n - 1, 1 - alpha))
    low, high = math.sqrt(n) * (true_z - margin_z), math.sqrt(n) * (true_z + margin_z)

    def rejects(s: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = special.ndtr(high - critical * s) - special.ndtr(low + critical * s)
        return np.asarray(np.maximum(inside, 0.0))

    # beyond this the interval is wider than the margin: a kink, over which nodes err by 1e-5
    return _mean_over_sd(rejects, n - 1, math.sqrt(n) * margin_z / critical)


def seeds_for_t_test(d_z: float, power: float = POWER, alpha: float = 0.05) -> int | None:
    """The fewest pairs with which the t test has that power; None beyond :data:`MOST_SEEDS`."""
    return _fewest(lambda n: t_test_power(d_z, n, alpha), power) if d_z else None


def seeds_for_equivalence(
    margin_z: float, power: float = POWER, true_z: float = 0.0, alpha: float = 0.05
) -> int | None:
    """The fewest pairs with which TOST has that power; None where none have."""
    if abs(true_z) >= margin_z:
        return None
    return _fewest(lambda n: equivalence_power(margin_z, n, true_z, alpha), power)


def smallest_effect(n: int, power: float = POWER, alpha: float = 0.05) -> float:
    """The smallest d_z that the t test of n pairs detects with that power."""
    low, high = 0.0, 1.0
    while t_test_power(high, n, alpha) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if t_test_power(middle, n, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def seeds_for_sign_flip(n_tests: int = 1, alpha: float = 0.05) -> int:
    """Pairs from which a two-sided sign-flip test can reach alpha after Holm's correction.

    Its smallest p is 2 ** (1 - n), whatever the data.
    """
    return math.ceil(math.log2(2 * n_tests / alpha) - 1e-12)


def upper_limit(sd: float, n: int, confidence: float = CONFIDENCE) -> float:
    """One-sided upper confidence limit of a standard deviation, of n normal values.

    Args:
        sd: Of the sample (n - 1).
        n: Its size, at least 2.
        confidence: That the true one is not larger.
    """
    return sd * math.sqrt((n - 1) / float(special.chdtri(n - 1, confidence)))


@dataclass(frozen=True)
class Spread:
    """Differences of a pilot.

    Attributes:
        perturbation: Branch name.
        time: When they were measured.
        differences: Treatment minus control a seed; of a distance, its excess over the floor.
        labelled: Of a distance, those of the treatment and of every placebo from the control, by
            seed; without them no permutation is simulated.
    """

    perturbation: str
    time: str
    differences: tuple[float, ...]
    labelled: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Aim:
    """What a study shall be able to show.

    Attributes:
        metric: The metric.
        effect: Difference to detect, in its unit.
        margin: Of equivalence; None for none.
        power: Chance to detect it.
        n_tests: Tests that Holm's method corrects for.
        placebos: K, for a distance, whose test permutes labels; None for a signed metric.

    Raises:
        PlanError: When no two values of the metric lie as far apart as the effect, or the margin.
    """

    metric: str
    effect: float
    margin: float | None = None
    power: float = POWER
    n_tests: int = 1
    placebos: int | None = None

    def __post_init__(self) -> None:
        largest = RANGES.get(base_metric(self.metric))
        if largest is None:
            return  # the program knows its range; or there is none
        lie = f"values of {self.metric} lie within {largest:g} of each other"
        if self.effect > largest:
            raise PlanError(f"--effect: a difference of {self.effect:g} cannot be: {lie}")
        if self.margin is not None and self.margin >= largest:
            raise PlanError(f"--margin: a margin of {self.margin:g} cannot fail: {lie}")

    @property
    def alpha(self) -> float:
        """Size of one test."""
        return ALPHA / self.n_tests

    @property
    def is_distance(self) -> bool:
        """Whether the metric is a distance."""
        return base_metric(self.metric) in DISTANCE_METRICS


def needs_of(
    aim: Aim, spreads: Sequence[Spread], cost: SeedCost | None, pilot_seeds: Sequence[int]
) -> PowerReport:
    """How many seeds a study needs, by a pilot.

    Args:
        aim: What it shall show.
        spreads: Of the pilot; those without a spread are named as left out.
        cost: Of one of its seeds.
        pilot_seeds: Its seeds.

    Raises:
        PlanError: When no differences of the pilot have a spread.
    """
    planned, left_out = [], []
    for spread in spreads:
        sd, n = standard_deviation(np.asarray(spread.differences)), len(spread.differences)
        if sd:
            row = _row(aim, sd, upper_limit(sd, n), spread.perturbation, spread.time, n)
            planned.append(_simulated(aim, row, spread))
        else:
            why = "the same in every seed" if n > 1 else "fewer than two pairs"
            left_out.append(NoSpread(spread.perturbation, spread.time, why))
    if not spreads:
        raise PlanError(
            f"no spread to plan {aim.metric} by: every effect of the pilot is exactly 0",
            hint="another perturbation, metric or a later horizon",
        )
    if not any(spread.differences for spread in spreads):
        raise PlanError("no pair of the pilot is left: every control or treatment diverged")
    if not planned:
        raise PlanError(
            f"the pilot's differences of {aim.metric} have no spread",
            expected="two seeds at least, and differences that are not equal",
        )
    report = _report(aim, planned, cost, pilot_seeds)
    return replace(report, left_out=tuple(left_out))


def needs_of_sd(aim: Aim, sd: float) -> PowerReport:
    """How many seeds a study needs, by a standard deviation that is taken for the true one."""
    planned = _simulated(aim, _row(aim, sd, None, "", "", None), Spread("", "", ()))
    return _report(aim, [planned], None, ())


def _row(
    aim: Aim, sd: float, upper: float | None, perturbation: str, time: str, n: int | None
) -> PowerRow:
    planned = sd if upper is None else upper
    margin = aim.margin
    return PowerRow(
        perturbation=perturbation,
        time=time,
        n=n,
        sd=sd,
        upper_sd=upper,
        seeds=_of_test(aim, seeds_for_t_test(aim.effect / planned, aim.power, aim.alpha)),
        seeds_plug_in=seeds_for_t_test(aim.effect / sd, aim.power, aim.alpha),
        smallest_effect=None if n is None else sd * smallest_effect(n, aim.power, aim.alpha),
        seeds_equivalence=None
        if margin is None
        else seeds_for_equivalence(margin / planned, aim.power, alpha=aim.alpha),
    )


#: Power by the number of seeds and alpha; None where there is nothing to simulate it from.
_PowerOf = Callable[[int, float], float] | None


def _simulated(aim: Aim, row: PowerRow, spread: Spread) -> tuple[PowerRow, _PowerOf]:
    """Add what the test by relabeling needs, where there is what to simulate it from."""
    sd = row.sd if row.upper_sd is None else row.upper_sd

    def power_of(n: int, alpha: float) -> float:
        if aim.is_distance:
            return permutation_power(_complete(spread.labelled), aim.effect, sd, n, alpha)
        return sign_flip_power(spread.differences or None, aim.effect, sd, n, alpha)

    if row.seeds is None or (aim.is_distance and len(_complete(spread.labelled)) < MIN_PAIRS):
        return row, None
    least = max(MIN_PAIRS, _fewest_of_any(aim))
    found = fewest_seeds(power_of, aim.alpha, aim.power, least, row.seeds)
    if found is None:
        return row, power_of
    return replace(row, seeds_simulated=found.seeds, power_simulated=found.power), power_of


def _complete(labelled: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Seeds of a pilot of which no placebo diverged, if others have more."""
    most = max(map(len, labelled), default=0)
    return [each for each in labelled if len(each) == most > 1]


def _report(
    aim: Aim,
    planned: list[tuple[PowerRow, _PowerOf]],
    cost: SeedCost | None,
    pilot_seeds: Sequence[int],
) -> PowerReport:
    planned.sort(key=lambda each: -(each[0].upper_sd or each[0].sd))
    rows = [row for row, _ in planned]
    report = PowerReport(
        metric=aim.metric,
        effect=aim.effect,
        margin=aim.margin,
        power=aim.power,
        alpha=ALPHA,
        n_tests=aim.n_tests,
        fewest=_fewest_of_any(aim),
        rows=tuple(rows),
        curve=(),
        cost=cost,
        pilot_seeds=tuple(pilot_seeds),
    )
    power_of = planned[rows.index(report.of_curve)][1]
    return replace(report, curve=tuple(_curve(aim, report.of_curve, power_of)))


def _curve(aim: Aim, row: PowerRow, power_of: _PowerOf) -> Iterator[PowerPoint]:
    d_z = aim.effect / (row.upper_sd or row.sd)
    for n in _numbers(row.seeds, row.seeds_simulated):
        simulated = None
        if power_of is not None and can_be_simulated(n, aim.alpha):
            simulated = power_of(n, aim.alpha)
        yield PowerPoint(n, t_test_power(d_z, n, aim.alpha), simulated)


def _numbers(*answers: int | None) -> list[int]:
    """Numbers of seeds of a curve, which goes on to the answers."""
    known = [answer for answer in answers if answer is not None]
    further = [n * 10**k for k in range(2, 6) for n in (2, 5, 10)]
    return sorted({*CURVE, *(n for n in further if n < max(known, default=0)), *known})


def _of_test(aim: Aim, seeds: int | None) -> int | None:
    """Seeds for a row: a distance is judged by a permutation, which needs its own number."""
    if seeds is None or aim.placebos is None:
        return seeds
    return max(seeds, _fewest_of_any(aim))


def _fewest_of_any(aim: Aim) -> int:
    if aim.placebos is None:
        return seeds_for_sign_flip(aim.n_tests)
    return max(MIN_PAIRS, seeds_needed(aim.n_tests, aim.placebos, ALPHA))


def _mean_over_sd(
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]], df: int, most: float = math.inf
) -> float:
    """Mean of a function of the sample's SD over the true one, chi(df) / sqrt(df).

    Args:
        value: The function.
        df: Degrees of freedom.
        most: Beyond it the function is 0.
    """
    low = math.sqrt(float(special.chdtri(df, 1 - _TAIL)) / df)
    high = min(math.sqrt(float(special.chdtri(df, _TAIL)) / df), most)
    if high <= low:
        return 0.0
    s = (high - low) / 2 * _NODES + (high + low) / 2
    log_density = (
        math.log(2.0)
        + df / 2 * math.log(df / 2)
        - math.lgamma(df / 2)
        + (df - 1) * np.log(s)
        - df * s**2 / 2
    )
    mean = (high - low) / 2 * float(np.sum(_WEIGHTS * np.exp(log_density) * value(s)))
    return min(max(mean, 0.0), 1.0)


def _fewest(power_of: Callable[[int], float], power: float) -> int | None:
    """The least n that is tested at all whose power suffices, for power that grows with n."""
    low, high = MIN_PAIRS - 1, MIN_PAIRS
    while power_of(high) < power:
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(middle) < power:
            low = middle
        else:
            high = middle
    return high
