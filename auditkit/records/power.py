"""How many seeds a study needs, by a pilot or a given standard deviation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Aim of a plan that names none.
POWER: Final = 0.8

#: Seeds up to which studies are simulated: each of some thousands is tested by its relabelings.
MOST_SIMULATED: Final = 200


@dataclass(frozen=True)
class PowerRow:
    """One standard deviation of paired differences, and what it asks for.

    Attributes:
        perturbation: Branch of the pilot that it is of; empty where it was given.
        time: When it was measured there; empty likewise.
        n: Pairs of the pilot; None likewise.
        sd: Of the differences between treatment and control, over seeds (n - 1); of a distance, of
            its excess over the placebo floor. In the metric's unit.
        upper_sd: Its one-sided 80 % upper confidence limit; None where it was given.
        seeds: Pairs with which the paired t test detects the effect, by ``upper_sd`` where there
            is one, and never fewer than the permutation of a distance needs; None where no number
            within reason does.
        seeds_simulated: Pairs with which the test by relabeling does in simulated studies, by the
            same standard deviation: of a distance the permutation that gives its verdict, of a
            signed metric the sign flip. None where more than 200 do, or nothing was simulated.
        power_simulated: Share of the simulated studies that reject with so many.
        seeds_plug_in: The same by ``sd``.
        smallest_effect: What as many pairs as the pilot had would detect, in the metric's unit, by
            ``sd``; None where it was given.
        seeds_equivalence: Pairs with which two one-sided t tests show that the mean is inside the
            margin, where it is 0; None without a margin.
    """

    perturbation: str
    time: str
    n: int | None
    sd: float
    upper_sd: float | None
    seeds: int | None
    seeds_plug_in: int | None
    smallest_effect: float | None
    seeds_equivalence: int | None
    seeds_simulated: int | None = None
    power_simulated: float | None = None


@dataclass(frozen=True)
class PowerPoint:
    """Power of the tests at one number of seeds, by the standard deviation of the curve's row.

    Attributes:
        seeds: Pairs.
        power: Chance that the paired t test rejects.
        power_simulated: Share of simulated studies in which the test by relabeling does, as for
            ``seeds_simulated``; None beyond 200 seeds, or where nothing was simulated.
    """

    seeds: int
    power: float
    power_simulated: float | None = None


@dataclass(frozen=True)
class SeedCost:
    """What one seed of the pilot took.

    Attributes:
        steps: Training steps of trunk and branches.
        seconds: Of the whole run, over its seeds.
        bytes: Of its files.
    """

    steps: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class NoSpread:
    """A perturbation and time of a pilot that says nothing of how far seeds spread.

    Attributes:
        perturbation: Branch of the pilot.
        time: When it was measured.
        why: ``exactly 0``, ``the same in every seed``, ``fewer than two pairs``.
    """

    perturbation: str
    time: str
    why: str


@dataclass(frozen=True)
class PowerReport:
    """An answer to *how many seeds*.

    Attributes:
        metric: The metric.
        effect: Difference that is to be detected, in the metric's unit.
        margin: Of equivalence, in the same unit; None where none was given.
        power: Aimed at.
        alpha: Size of the tests, before the correction.
        n_tests: Tests that Holm's method corrects for: each is planned at ``alpha / n_tests``.
        fewest: Pairs below which no test of the metric can reach that, whatever the data: the
            permutation of a distance, the sign flip of a signed metric.
        rows: One a perturbation and time, the largest standard deviation first.
        curve: Power over the number of seeds, for the first row that has an answer; of none, for
            the first one. It goes on to the answers of both tests.
        cost: Of one seed; None without a pilot.
        pilot_seeds: Seeds that the confirmatory study must not use again.
        left_out: What of the pilot has no row.
    """

    metric: str
    effect: float
    margin: float | None
    power: float
    alpha: float
    n_tests: int
    fewest: int
    rows: tuple[PowerRow, ...]
    curve: tuple[PowerPoint, ...]
    cost: SeedCost | None
    pilot_seeds: tuple[int, ...]
    left_out: tuple[NoSpread, ...] = ()

    @property
    def of_curve(self) -> PowerRow:
        """The row that the curve is of."""
        return next((row for row in self.rows if row.seeds is not None), self.rows[0])
