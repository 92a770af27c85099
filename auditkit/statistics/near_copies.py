"""Whether the seeds of a study are so near to each other that they are hardly several.

Seeds that are one seed have equal bits, which check 5 sees. Those that differ by a rounding or two
do not; but then their controls are about as near as a nudge leaves a branch, or every treatment is
many times farther from its control than one seed is from another.
"""

from __future__ import annotations

from collections.abc import Iterable

from auditkit.records.estimate import AS_IS, DistanceEstimate
from auditkit.records.metric_names import base_metric
from auditkit.records.plan import as_typed
from auditkit.statistics.outcomes import GROWN

#: Distances between seeds that are so many times the placebos' are no more than a nudge makes.
_NUDGES = 100

#: A treatment whose excess is so many times the distance between seeds says that these are small.
_RHO = 100

#: Distances of which it is known what is small: that which says that no placebo has grown.
_BOUNDED = ("tv", "relative_distance")

#: Which have no such bound: beside a floor that has grown, seeds are about as near, and honest.
_UNBOUNDED = ("rmsd",)


def near_copies(rows: Iterable[DistanceEstimate]) -> str | None:
    """What a reader must know of such seeds; None where they are apart.

    Args:
        rows: Distances of a study; those at T are looked at.
    """
    for row in rows:
        if row.time == "T" and row.variant == AS_IS and _is_near(row):
            beside = [f"{row.seed_distance:.3g} on average"]
            if row.floor is not None:
                beside.append(f"{row.floor:.3g} between a placebo and its control")
            if row.rho is not None and row.rho > _RHO:
                apart = f"{row.mean_distance:.3g} between {as_typed(row.perturbation)}"
                beside.append(f"{apart} and its control")
            return (
                "the controls of different seeds hardly differ at T: "
                f"{row.metric} {', '.join(beside)}; the seeds are near-copies of one, or this "
                "probe does not tell them apart, and tests count each as a training of its own"
            )
    return None


def _is_near(row: DistanceEstimate) -> bool:
    apart, metric = row.seed_distance, base_metric(row.metric)
    if apart is None or metric not in (*_BOUNDED, *_UNBOUNDED):
        return False
    is_small_beside_effects = row.rho is not None and row.rho > _RHO
    if metric in _UNBOUNDED:
        return is_small_beside_effects
    is_small_beside_floor = bool(row.floor) and apart <= _NUDGES * (row.floor or 0.0)
    return apart <= GROWN and (is_small_beside_effects or is_small_beside_floor)
