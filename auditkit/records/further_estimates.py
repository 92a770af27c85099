"""Estimates beside the rows of the tables: of another seed, of other examples, of some examples."""

from __future__ import annotations

from dataclasses import dataclass

from auditkit.records.interval import Interval


@dataclass(frozen=True)
class Spread:
    """How far seeds lie apart in an effect, beside what rounding noise does within a seed.

    The placebos are replicates: what they differ by within a seed is noise of the size that every
    branch has. An effect is taken here against the mean of the replicates (of a signed metric the
    control is one of them), so that its own noise and the noise they show are independent.

    Attributes:
        perturbation: Branch name of the treatment.
        metric: A signed metric or a distance.
        variant: ``as-is`` or ``recalibrated``.
        time: ``t0+W``, ``T``, or a further time ``t0+N``.
        n: Seeds.
        new_seed: Prediction interval of the effect (of a distance the excess) that another seed
            would show: mean +- t SD sqrt(1 + 1/n).
        noise_sd: Standard deviation of a seed's effect by noise alone, pooled over the seeds; None
            without replicates.
        noise_df: Its degrees of freedom.
        tau: Standard deviation of the effect between seeds beyond noise (DerSimonian-Laird).
        i_squared: Share of the variance of the effects that is not noise, 0 to 1.
        q: Cochran's Q; None where the noise is 0.
        p: Of the F test of Q / (n - 1), whose null is that all seeds have one effect.
        adjusted_p: Its q value over all spreads (Benjamini-Hochberg).
    """

    perturbation: str
    metric: str
    variant: str
    time: str
    n: int
    new_seed: Interval
    noise_sd: float | None = None
    noise_df: int = 0
    tau: float | None = None
    i_squared: float | None = None
    q: float | None = None
    p: float | None = None
    adjusted_p: float | None = None


@dataclass(frozen=True)
class Generalised:
    """An effect for other seeds and other examples: seeds x examples, two-way.

    Attributes:
        perturbation: Branch name of the treatment.
        metric: A metric that is a mean over examples.
        variant: ``as-is`` or ``recalibrated``.
        time: ``t0+W`` or ``T``.
        n_seeds: Seeds with a pair (of a distance: with a floor).
        n_examples: Examples of the probe; of scores by position, runs of successive positions.
        effect: Mean difference; of a distance the excess over the floor.
        interval: Two-way t interval; never narrower than that over the seeds alone.
        df: Its degrees of freedom (Satterthwaite).
    """

    perturbation: str
    metric: str
    variant: str
    time: str
    n_seeds: int
    n_examples: int
    effect: float
    interval: Interval
    df: float


@dataclass(frozen=True)
class ProfileRow:
    """An effect on some of the probe's examples.

    Attributes:
        perturbation: Branch name of the treatment.
        metric: ``accuracy`` or ``tv``, of real numbers ``mse`` or ``rmsd``; perhaps of a named
            probe.
        time: ``t0+W`` or ``T``.
        part: ``class 3`` (label), or ``margin 1/4``: by what the most likely class was ahead of
            the second one in the control at t0, the quarter with the least. Of scores by position
            ``confidence 1/4``, by the probability of the most likely class. Of real numbers
            ``error 1/4``, by the control's error at t0, and of a single output ``target 1/4``. Of
            embeddings ``likeness 1/4``, by the control's mean cosine similarity to all others.
        n: Seeds with a pair (of a distance: with a floor) and an example in this part.
        n_examples: Examples in this part, mean over these seeds.
        effect: Difference of ``accuracy`` or ``mse``, or excess of ``tv`` or ``rmsd`` over the
            floor, mean over the seeds.
        interval: t interval; None for n < 3 and without spread.
        p: Paired t, two-sided; of a distance the permutation within seeds, one-sided.
        adjusted_p: Its q value over the whole profile (Benjamini-Hochberg).
    """

    perturbation: str
    metric: str
    time: str
    part: str
    n: int
    n_examples: float
    effect: float
    interval: Interval | None
    p: float | None
    adjusted_p: float | None = None
