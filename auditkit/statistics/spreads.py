"""Seeds that differ in an effect: beyond noise or not, and what another one would show.

The placebos of a seed are replicates of a branch to which nothing but rounding noise happened. So
their variance within seeds, pooled, is that of an effect by noise alone, and the variance of the
effects over seeds beyond it is heterogeneity. Both are independent for normal noise, and Q / (n-1)
is then distributed as F: no weight is taken from a variance of three numbers as if it were known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from auditkit.records.estimate import MIN_PAIRS, DistanceEstimate, Interval, SignedEstimate
from auditkit.records.further_estimates import Spread
from auditkit.statistics.moments import RELATIVE_ZERO, standard_deviation
from auditkit.statistics.multiplicity import q_values
from auditkit.statistics.outcomes import SeedValues, table_metric

Values = NDArray[np.float64]


#: Least variance, of effects of about 1, whose inverse can still be reckoned with.
_LEAST = 1e-120


@dataclass(frozen=True)
class Heterogeneity:
    """Spread of effects over seeds beyond noise; the fields are those of :class:`Spread`."""

    noise_sd: float
    noise_df: int
    tau: float
    i_squared: float
    q: float | None
    p: float | None


def prediction_interval(values: Values, level: float) -> Interval | None:
    """Where the next of normal values ``(n,)`` is expected; None for n < 2 and without spread."""
    sd, n = standard_deviation(values), len(values)
    if not sd:
        return None
    half = float(special.stdtrit(n - 1, (1 + level) / 2)) * sd * math.sqrt(1 + 1 / n)
    return Interval(float(values.mean()) - half, float(values.mean()) + half, level)


def heterogeneity(
    treated: Sequence[float], replicates: Sequence[Sequence[float]]
) -> Heterogeneity | None:
    """Whether effects ``treated - mean(replicates)`` differ between seeds by more than noise.

    DerSimonian and Laird 1986, with the within-seed variance pooled over the seeds.

    Args:
        treated: One number a seed, n >= 2.
        replicates: Of each seed one number or more of branches to which nothing happened.

    Returns:
        None where no seed has two replicates.
    """
    n, df = len(treated), sum(len(each) - 1 for each in replicates)
    if n < 2 or df < 1:
        return None
    scale = max(abs(x) for each in (treated, *replicates) for x in each) or 1.0
    groups = [np.asarray(each, dtype=np.float64) / scale for each in replicates]
    effects = np.asarray(treated) / scale - np.array([each.mean() for each in groups])
    noise = sum(float(np.square(each - each.mean()).sum()) for each in groups) / df
    # Placebos are as exact as they are large: of distances much smaller ones than the treated.
    largest = max(float(np.abs(each).max()) for each in groups)
    if noise <= max((RELATIVE_ZERO * largest) ** 2, _LEAST):
        apart = standard_deviation(effects) or 0.0
        return Heterogeneity(0.0, df, apart * scale, float(apart > 0), None, None)
    variances = noise * np.array([1 + 1 / len(each) for each in groups])
    weights = 1 / variances
    mean = float((weights * effects).sum() / weights.sum())
    q = float((weights * np.square(effects - mean)).sum())
    denominator = float(weights.sum() - np.square(weights).sum() / weights.sum())
    return Heterogeneity(
        noise_sd=math.sqrt(float(variances.mean())) * scale,
        noise_df=df,
        tau=math.sqrt(max(q - (n - 1), 0.0) / denominator) * scale,
        i_squared=max(1 - (n - 1) / q, 0.0) if q > 0 else 0.0,
        q=q,
        p=float(special.fdtrc(n - 1, df, q / (n - 1))),
    )


def spreads(
    rows: Sequence[SignedEstimate | DistanceEstimate], values: Sequence[SeedValues], level: float
) -> tuple[Spread, ...]:
    """The spread of every row of at least three pairs that do not all show the same.

    Args:
        rows: Rows of both kinds.
        values: The numbers of the seeds whose control stands.
        level: Of the prediction intervals.
    """
    found = [spread for row in rows if (spread := _spread(row, values, level)) is not None]
    adjusted = q_values([spread.p for spread in found])
    return tuple(replace(x, adjusted_p=q) for x, q in zip(found, adjusted, strict=True))


def _spread(
    row: SignedEstimate | DistanceEstimate, values: Sequence[SeedValues], level: float
) -> Spread | None:
    effects = np.array(row.effect_per_seed)
    if row.exactly_zero or len(effects) < MIN_PAIRS:
        return None
    new_seed = prediction_interval(effects, level)
    if new_seed is None:
        return None
    spread = Spread(row.perturbation, row.metric, row.variant, row.time, len(effects), new_seed)
    column = table_metric(row.metric, row.variant, row.time)
    treated, replicates = [], []
    for value in values:
        if isinstance(row, DistanceEstimate):
            ours, theirs = value.distances, [placebo[column] for placebo in value.placebos]
        else:
            ours = value.treatments
            theirs = [value.control[column], *(p[column] for p in value.placebo_scores)]
        if row.perturbation in ours and theirs:
            treated.append(ours[row.perturbation][column])
            replicates.append(theirs)
    beyond = heterogeneity(treated, replicates)
    return spread if beyond is None else replace(spread, **vars(beyond))
