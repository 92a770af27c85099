"""Back-flow (arXiv 2601.16563): whether two histories part further, or less, on common data.

The control and a branch have other histories up to t0+W and the same steps from there to T. D1 is
their distance at t0+W, D2 at T, and back-flow is D2 - D1. Where it is positive that is an
*amplification*, and no proof of memory: plain gradient descent can amplify. What rests on the
memory is what a causal break takes away.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from auditkit.records.interval import Interval
from auditkit.records.plan import LEFT_OUT_IF_DEFAULT

#: The memory is carried over from the histories; it is reset in both; the first less the second.
CARRIED, BROKEN_ARM, CONTRAST = ARMS = ("carried", "broken", "contrast")

AMPLIFICATION = "amplification"
CONTRACTION = "contraction"
LOWERS, RAISES = "the break lowers it", "the break raises it"

#: Behind one of these where it is shown to be inside the plan's margin all the same.
WITHIN_MARGIN = "{} (negligible)"


@dataclass(frozen=True)
class BackFlow:
    """Back-flow of one branch against the control, carried, broken, or what lies between.

    Attributes:
        perturbation: Branch name of the treatment that is the other history.
        metric: A distance.
        variant: ``as-is`` or ``recalibrated``.
        arm: ``carried``: the memory is carried over; ``broken``: it is reset at t0+W in both;
            ``contrast``: carried less broken.
        seeds: Seeds whose branches stand, in the plan's order.
        per_seed: D2 - D1 of each; of the contrast the difference of the two.
        floor_per_seed: The same of the placebos, whose history is the control's but for rounding
            noise: the mean over those that stand; None where none does.
        n: Seeds.
        n_left_out: Seeds in which a branch diverged.
        d1: Mean distance at t0+W; None of the contrast, where it falls out.
        d2: Mean distance at T; None of the contrast.
        mean: Mean of ``per_seed``; None without a seed.
        interval: t interval; None for n < 3 and without spread.
        p: t test against 0, two-sided.
        floor: Mean of ``floor_per_seed``.
        excess: Mean over the seeds of what lies above the floor.
        excess_interval: Its t interval.
        excess_p: Its t test.
        adjusted_p: q value of the larger of the two p values, over all rows
            (Benjamini-Hochberg).
        exactly_zero: Whether the tables of all seeds have equal bits, so that it is 0.
        verdict: In words; only where both tests say so, on the same side.
        margin: Equivalence margin from the plan, of the metric.
        equivalence_p: The larger p of two one-sided t tests (TOST) that ``per_seed``, and that what
            lies above the floor, is inside the margin.
        adjusted_equivalence_p: Its q value, over all rows with a margin.
    """

    perturbation: str
    metric: str
    variant: str
    arm: str
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    floor_per_seed: tuple[float | None, ...]
    n: int
    n_left_out: int
    d1: float | None = None
    d2: float | None = None
    mean: float | None = None
    interval: Interval | None = None
    p: float | None = None
    floor: float | None = None
    excess: float | None = None
    excess_interval: Interval | None = None
    excess_p: float | None = None
    adjusted_p: float | None = None
    exactly_zero: bool = False
    verdict: str = ""
    margin: float | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)
    equivalence_p: float | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)
    adjusted_equivalence_p: float | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)


@dataclass(frozen=True)
class Alignment:
    """The cosine of momentum and gradient where segment B begins, over the seeds.

    Attributes:
        history: ``control`` for history A, or the branch name of the treatment that is A'.
        seeds: Seeds of which there is one, in the plan's order.
        per_seed: The cosine of each: 1 where the history goes where B goes.
        n: Seeds.
        n_left_out: Seeds in which the branch diverged, or there was no momentum.
        mean: Mean of ``per_seed``; None without a seed.
        interval: t interval; None for n < 3 and without spread.
        p: t test against 0, two-sided.
    """

    history: str
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    n: int
    n_left_out: int
    mean: float | None = None
    interval: Interval | None = None
    p: float | None = None
