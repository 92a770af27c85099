"""Estimates: what a verified study says about its perturbations, alone and beside another study.

The unit is the seed. A row is one perturbation, metric, variant (``as-is`` or
``recalibrated`` BatchNorm statistics) and time (``t0+W``, ``T``, or a further one of the plan,
``t0+N``). A number that does not exist (too few pairs, no spread, no placebo) is None and the row's
notes say why; no field ever holds NaN or an infinity, because JSON has none.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from auditkit.records.back_flow import Alignment, BackFlow
from auditkit.records.further_estimates import Generalised, ProfileRow, Spread
from auditkit.records.interval import Interval
from auditkit.records.plan import LEFT_OUT_IF_DEFAULT

__all__ = [
    "ALPHA",
    "AS_IS",
    "BELOW_FLOOR",
    "DEVELOPED_SHARE",
    "EFFECT",
    "EQUIVALENT",
    "EXACTLY_ZERO",
    "EXPLORATORY",
    "INCONCLUSIVE",
    "MIN_PAIRS",
    "NEGLIGIBLE",
    "PRIMARY",
    "RECALIBRATED",
    "SAME",
    "VERDICTS",
    "ControlLevel",
    "DistanceEstimate",
    "EstimateTable",
    "FloorDevelopment",
    "Interval",
    "Persistence",
    "SignedEstimate",
]

#: Variants: outcomes as the branch left them, and with recalibrated BatchNorm statistics.
AS_IS = "as-is"
RECALIBRATED = "recalibrated"

#: Size of the tests.
ALPHA = 0.05

#: Pairs from which intervals and tests are given; fewer give values only.
MIN_PAIRS = 3

#: Families of tests: Holm over the primary metric's as-is rows at t0+W and T, Benjamini-Hochberg
#: over the rest, further times by themselves.
PRIMARY = "primary"
EXPLORATORY = "exploratory"

#: Verdicts of a row. There is no "no effect": a large p value does not show one.
EFFECT = "effect"
NEGLIGIBLE = "effect but negligible"
EQUIVALENT = "equivalent"
INCONCLUSIVE = "inconclusive"
BELOW_FLOOR = "below the floor"
SAME = "the same in every seed"
EXACTLY_ZERO = "exactly 0 (bit-identical)"
VERDICTS = (EFFECT, NEGLIGIBLE, BELOW_FLOOR, EQUIVALENT, INCONCLUSIVE, SAME, EXACTLY_ZERO)


@dataclass(frozen=True)
class SignedEstimate:
    """Effect on a metric that can go up and down: treatment minus control, paired by seed.

    Attributes:
        perturbation: Branch name of the treatment.
        metric: Name in ``SIGNED_METRICS``.
        variant: ``as-is`` or ``recalibrated``.
        time: ``t0+W``, ``T``, or a further time ``t0+N``.
        family: ``primary`` or ``exploratory``: which correction ``adjusted_p`` had.
        seeds: The seeds of the pairs, in the plan's order.
        per_seed: Difference per seed, in the metric's unit.
        n: Number of pairs.
        n_left_out: Pairs left out because the control or the treatment diverged.
        ate: Mean difference; None without pairs.
        sd: Standard deviation of the differences (n - 1).
        interval: t interval; None for n < 3.
        studentised: Studentised bootstrap interval, beside the t interval where the skewness
            exceeds 1 in size and n >= 5.
        d_z: ATE over ``sd``.
        control_sd: Seed-to-seed standard deviation of the metric over the controls.
        ate_in_control_sd: ATE over ``control_sd``.
        t_p: Two-sided p of the paired t test.
        sign_flip_p: Two-sided p of the sign-flip test; from n = 6.
        sign_flip_kind: ``exact`` or ``monte-carlo``.
        adjusted_p: ``t_p`` after Holm (primary) or the q value (exploratory).
        margin: Equivalence margin from the plan.
        equivalence_p: p of two one-sided t tests (TOST) against the margin.
        adjusted_equivalence_p: The same, corrected within its family.
        exactly_zero: The probability tables of both branches have equal bits for every seed.
        verdict: One of ``VERDICTS``.
        notes: What to know about this row.
        effect: ``total`` where the treatment's own course made other data than the control's, so
            that what these did is part of it; ``direct`` where it was given the control's data in
            place of its own; empty where both consumed the same data by themselves.
    """

    perturbation: str
    metric: str
    variant: str
    time: str
    family: str
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    n: int
    n_left_out: int
    ate: float | None = None
    sd: float | None = None
    interval: Interval | None = None
    studentised: Interval | None = None
    d_z: float | None = None
    control_sd: float | None = None
    ate_in_control_sd: float | None = None
    t_p: float | None = None
    sign_flip_p: float | None = None
    sign_flip_kind: str | None = None
    adjusted_p: float | None = None
    margin: float | None = None
    equivalence_p: float | None = None
    adjusted_equivalence_p: float | None = None
    exactly_zero: bool = False
    verdict: str = INCONCLUSIVE
    notes: tuple[str, ...] = ()
    effect: str = field(default="", metadata=LEFT_OUT_IF_DEFAULT)

    @property
    def test_p(self) -> float | None:
        """The p value that its family corrects."""
        return self.t_p

    @property
    def below_p(self) -> float | None:
        """None: a difference has no floor to be below."""
        return None

    @property
    def margin_p(self) -> float | None:
        """The p value of equivalence that its family corrects."""
        return self.equivalence_p

    @property
    def effect_per_seed(self) -> tuple[float, ...]:
        """What the estimate is the mean of: the differences."""
        return self.per_seed


@dataclass(frozen=True)
class DistanceEstimate:
    """Distance of a treatment from its control, against the floor that placebos give.

    A distance is never negative, so its mean is never 0; the estimate is the excess over the
    floor, and its test permutes the label *treatment* within each seed.

    Attributes:
        perturbation: Branch name of the treatment.
        metric: Name in ``DISTANCE_METRICS``.
        variant: ``as-is`` or ``recalibrated``.
        time: ``t0+W``, ``T``, or a further time ``t0+N``.
        family: ``primary`` or ``exploratory``: which correction ``adjusted_p`` had.
        seeds: The seeds of the pairs, in the plan's order.
        per_seed: Distance between treatment and control per seed.
        floor_per_seed: Mean distance between placebos and control per seed; None where the
            seed has no placebo that stands.
        n: Number of pairs.
        n_with_floor: Pairs with a floor: the ones that ``floor``, ``excess`` and the test use.
        n_left_out: Pairs left out because the control or the treatment diverged.
        mean_distance: Mean of ``per_seed``; None without pairs.
        floor: Mean of ``floor_per_seed``.
        excess: Mean over the pairs with a floor of distance minus floor.
        permutation_p: One-sided p (excess greater) of the within-seed label permutation.
        permutation_kind: ``exact`` or ``monte-carlo``.
        n_labelings: Labelings enumerated, or drawn for ``monte-carlo``.
        interval: t interval of the per-seed excess. Secondary: the test is the permutation;
            excesses are skewed, so the interval covers less than it says.
        studentised: Studentised bootstrap interval of the excess, beside the t interval where the
            skewness exceeds 1 in size and n >= 5.
        below_p: One-sided p (excess less) of the same permutation.
        adjusted_below_p: The same after Holm or as a q value, in a family of its own.
        seed_distance: Mean distance between the controls of different seeds.
        rho: excess / (seed_distance - floor): 0 is the floor, 1 another seed.
        adjusted_p: ``permutation_p`` after Holm (primary) or the q value (exploratory).
        margin: Equivalence margin from the plan.
        equivalence_p: p of the one-sided t test of excess < margin; from n = 20.
        log_equivalence_p: p of the one-sided t test that the mean of log(distance) - log(floor +
            margin) is below 0: of the typical seed; what counts below n = 20.
        adjusted_equivalence_p: The one that counts, corrected within its family.
        exactly_zero: The probability tables of both branches have equal bits for every seed.
            Then nothing is tested.
        verdict: One of ``VERDICTS``.
        notes: What to know about this row.
        effect: ``total`` where the treatment's own course made other data than the control's, so
            that what these did is part of it; ``direct`` where it was given the control's data in
            place of its own; empty where both consumed the same data by themselves.
    """

    perturbation: str
    metric: str
    variant: str
    time: str
    family: str
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    floor_per_seed: tuple[float | None, ...]
    n: int
    n_with_floor: int
    n_left_out: int
    mean_distance: float | None = None
    floor: float | None = None
    excess: float | None = None
    permutation_p: float | None = None
    permutation_kind: str | None = None
    n_labelings: int | None = None
    interval: Interval | None = None
    seed_distance: float | None = None
    rho: float | None = None
    adjusted_p: float | None = None
    margin: float | None = None
    equivalence_p: float | None = None
    adjusted_equivalence_p: float | None = None
    exactly_zero: bool = False
    verdict: str = INCONCLUSIVE
    notes: tuple[str, ...] = ()
    effect: str = field(default="", metadata=LEFT_OUT_IF_DEFAULT)
    studentised: Interval | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)
    below_p: float | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)
    adjusted_below_p: float | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)
    log_equivalence_p: float | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)

    @property
    def test_p(self) -> float | None:
        """The p value that its family corrects."""
        return self.permutation_p

    @property
    def margin_p(self) -> float | None:
        """The p value of equivalence that its family corrects: of the mean, else of logarithms."""
        return self.log_equivalence_p if self.equivalence_p is None else self.equivalence_p

    @property
    def effect_per_seed(self) -> tuple[float, ...]:
        """What the estimate is the mean of: distance minus floor, of the pairs with a floor."""
        return tuple(
            distance - floor
            for distance, floor in zip(self.per_seed, self.floor_per_seed, strict=True)
            if floor is not None
        )


@dataclass(frozen=True)
class Persistence:
    """Effect at T over effect at t0+W: the ATE's, or for distances the excess's.

    Attributes:
        perturbation: Branch name of the treatment.
        metric: A signed metric or a distance.
        variant: ``as-is`` or ``recalibrated``.
        ratio: None where it is undefined.
        interval: Fieller interval; bounded wherever the ratio is defined.
        reason: Why the ratio is undefined, or how it came about without an interval.
        ruled_out: Where the effect at t0+W is not established, the only ratios that Fieller's
            unbounded set leaves out; None where it leaves out none.
    """

    perturbation: str
    metric: str
    variant: str
    ratio: float | None
    interval: Interval | None
    reason: str | None = None
    ruled_out: Interval | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)


@dataclass(frozen=True)
class ControlLevel:
    """What the controls reach by themselves, beside what a constant guess would.

    The constant guess says of every example the same: how often each class is the label of an
    example of this probe. No other constant table does better on these labels.

    Attributes:
        metric: ``accuracy``, ``nll`` or ``brier``; of real numbers ``mse`` or ``mae``; or
            ``measures/NAME``.
        variant: ``as-is`` or ``recalibrated``.
        time: ``t0+W``, ``T``, or a further time ``t0+N``.
        per_seed: The metric of each seed's control, in the plan's order.
        mean: Mean of ``per_seed``.
        constant_guess: The same metric of the constant guess, averaged over the seeds; None of a
            measure, which only the program can take.
        at_chance: Whether the controls are not shown to be better than it: the lower end of the
            one-sided 95 % t interval of what they are better by is not above 0; with fewer than
            three seeds, or no spread, the mean is not. None without a guess.
    """

    metric: str
    variant: str
    time: str
    per_seed: tuple[float, ...]
    mean: float
    constant_guess: float | None
    at_chance: bool | None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for a single one."""
        return statistics.stdev(self.per_seed) if len(self.per_seed) > 1 else None


#: Note of a row whose placebos have not grown by T.
UNDEVELOPED = "floor not developed at T"

#: The floor has developed when this share of the placebos has grown.
DEVELOPED_SHARE = 0.8


@dataclass(frozen=True)
class FloorDevelopment:
    """Whether the placebos' nudge has grown by T.

    Attributes:
        threshold: Total variation (see ``of``) above which a placebo counts as grown.
        n_above: Placebos above the threshold at T, over all seeds.
        n_placebos: Placebos that stand, over all seeds.
        developed: At least 80 % are above (:data:`DEVELOPED_SHARE`); None without placebos, or
            where controls predict 0 only. Where False, the nudge has not grown by T.
        of: What has to exceed the threshold, for people: ``TV``, or what stands for it where there
            are no probabilities.
    """

    threshold: float
    n_above: int
    n_placebos: int
    developed: bool | None
    of: str = field(default="TV", metadata=LEFT_OUT_IF_DEFAULT)


@dataclass(frozen=True)
class EstimateTable:
    """Every estimate of a study.

    Attributes:
        alpha: Size of the tests.
        level: Level of the intervals.
        primary_metric: The metric of the primary family.
        n_seeds: Seeds with outcomes.
        n_seeds_left_out: Seeds left out altogether because their control diverged.
        placebos: K, placebos a seed.
        times: Step of each time.
        floor: Whether the floor has developed at T.
        diverged: Number of seeds in which a branch diverged, by branch; all branches.
        signed: Rows of the signed metrics.
        distances: Rows of the distances.
        persistence: One per perturbation, metric and variant.
        notes: What to know about the study as a whole.
        levels: What the controls reach by themselves; empty in reports of earlier builds.
        forks: Steps after which the state was forked, where there are several: rows are then named
            ``momentum-reset/t0=40``, levels by time and fork; ``times`` are the first fork's.
        equal: By treatment, an earlier one that gave equal bits in every seed, with which its
            tests are counted once.
        spreads: How far seeds lie apart, of every row of at least three pairs with a spread.
        generalised: Effects for other examples, too, where that was asked for.
        profiles: Effects on parts of a probe, exploratory.
        back_flow: Of a study with a causal break, exploratory.
        alignments: Momentum against gradient where segment B begins, where the plan asks for it.
    """

    alpha: float
    level: float
    primary_metric: str
    n_seeds: int
    n_seeds_left_out: int
    placebos: int
    times: dict[str, int]
    floor: FloorDevelopment
    diverged: dict[str, int]
    signed: tuple[SignedEstimate, ...]
    distances: tuple[DistanceEstimate, ...]
    persistence: tuple[Persistence, ...]
    notes: tuple[str, ...] = field(default=())
    levels: tuple[ControlLevel, ...] = field(default=())
    forks: tuple[int, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    equal: dict[str, str] = field(default_factory=dict, metadata=LEFT_OUT_IF_DEFAULT)
    spreads: tuple[Spread, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    generalised: tuple[Generalised, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    profiles: tuple[ProfileRow, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    back_flow: tuple[BackFlow, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    alignments: tuple[Alignment, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)

    @property
    def rows(self) -> tuple[SignedEstimate | DistanceEstimate, ...]:
        """All rows, the signed metrics first."""
        return (*self.signed, *self.distances)
