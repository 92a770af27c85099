"""Many tests at once: corrections, and the verdict of every row.

Rules kept here:

* Holm over the primary metric's as-is rows at t0+W and T (perturbations x times),
  Benjamini-Hochberg over all others, which are exploratory. Metrics are strongly dependent:
  agreement of TV, JS and Hellinger is one confirmation, not three.
* Rows at a plan's further times are corrected among themselves. So they change no number at t0+W
  and T: whoever measures a large effect at a hundred times makes no other row's q smaller.
* A family is what the plan names. A test that could not be made (too few pairs, equal bits)
  keeps its place in the correction as p = 1, so that the data do not choose how many tests
  there are.
* Treatments that gave equal bits in every seed are one treatment: their tests are one test each.
* Equivalence, and being below the floor, is claimed as carefully as effect: its p values
  are corrected in the same way, in a family of their own.
* Never "no effect": without a margin a large p value is inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from auditkit.records.estimate import (
    ALPHA,
    BELOW_FLOOR,
    EFFECT,
    EQUIVALENT,
    EXPLORATORY,
    INCONCLUSIVE,
    MIN_PAIRS,
    NEGLIGIBLE,
    PRIMARY,
    SAME,
    DistanceEstimate,
    SignedEstimate,
)
from auditkit.records.metric_names import base_metric
from auditkit.records.plan import CONFIRMATORY, DISTANCE_METRICS

Row = TypeVar("Row", SignedEstimate, DistanceEstimate)

#: Rows that are corrected together: those of a family, at t0+W and T or at further times.
Family = tuple[str, bool]

_UNTESTED: Family = ("", True)

#: A test: its family, its p, and what it is the test of, by which equal ones are known.
_Test = tuple[Family, float | None, tuple[str, ...]]

#: No two treatments are equal.
NONE_EQUAL: Mapping[str, str] = MappingProxyType({})


def family_of(row: SignedEstimate | DistanceEstimate) -> Family:
    """With which rows a row is corrected."""
    return row.family, row.time in CONFIRMATORY


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down adjusted p values (Holm 1979): they control the family-wise error."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    stepped = np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors)
    return _in_input_order(np.minimum(stepped, 1.0), order)


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Benjamini-Hochberg q values (1995): they control the false discovery rate."""
    m = len(p_values)
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, dtype=np.float64)[order] * m / np.arange(1, m + 1)
    stepped = np.minimum.accumulate(scaled[::-1])[::-1]
    return _in_input_order(np.minimum(stepped, 1.0), order)


def q_values(p_values: Sequence[float | None]) -> list[float | None]:
    """Benjamini-Hochberg of tests some of which were not made: those count as p = 1."""
    corrected = benjamini_hochberg([1.0 if p is None else p for p in p_values])
    return [None if p is None else q for p, q in zip(p_values, corrected, strict=True)]


def _in_input_order(ordered: NDArray[np.float64], order: NDArray[np.intp]) -> tuple[float, ...]:
    result = np.empty_like(ordered)
    result[order] = ordered
    return tuple(float(value) for value in result)


def seeds_needed(n_tests: int, placebos: int, alpha: float) -> int:
    """Seeds from which a label permutation can survive Holm's correction at all.

    The smallest p is (K + 1) ** -n, and the first step multiplies it by the number of tests.
    """
    exact = math.log(n_tests / alpha) / math.log(placebos + 1)
    return math.ceil(exact - 1e-9)  # a power that is hit exactly is enough


def out_of_reach(primary: str, n_seeds: int, placebos: int, n_tests: int) -> str | None:
    """A note where no data whatever could give an effect on the primary metric.

    Args:
        primary: The metric.
        n_seeds: Seeds whose control stands.
        placebos: K, placebos a seed.
        n_tests: Tests that are corrected together, equal ones counted once.
    """
    if base_metric(primary) not in DISTANCE_METRICS or n_seeds < MIN_PAIRS or not placebos:
        return None
    needed = seeds_needed(n_tests, placebos, ALPHA)
    if n_seeds >= needed:
        return None
    k = f"{placebos} placebo{'' if placebos == 1 else 's'}"
    return (
        f"no test of {primary} can reach {ALPHA:g} after Holm's correction: "
        f"{n_tests} tests with {k} a seed need {needed} seeds"
    )


def verdict(
    adjusted_p: float | None,
    adjusted_equivalence_p: float | None,
    alpha: float,
    adjusted_below_p: float | None = None,
) -> str:
    """What may be said of one row; None stands for a test that was not made."""
    effect, inside, below = (
        p is not None and p <= alpha for p in (adjusted_p, adjusted_equivalence_p, adjusted_below_p)
    )
    if effect:
        return NEGLIGIBLE if inside else EFFECT
    if below:
        return BELOW_FLOOR
    return EQUIVALENT if inside else INCONCLUSIVE


def assign_verdicts(
    signed: Sequence[SignedEstimate],
    distances: Sequence[DistanceEstimate],
    alpha: float,
    equal: Mapping[str, str] = NONE_EQUAL,
) -> tuple[list[SignedEstimate], list[DistanceEstimate]]:
    """Correct both kinds of p values within their families and give every row its verdict.

    Args:
        signed: Rows of the signed metrics.
        distances: Rows of the distances; a family spans both.
        alpha: Size of the tests.
        equal: By treatment, the first one that it gave equal bits with; those that are missing are
            equal to no other.

    Returns:
        The same rows with ``adjusted_p``, ``adjusted_equivalence_p`` and ``verdict``; distances
        also with ``adjusted_below_p``.
    """
    rows: list[SignedEstimate | DistanceEstimate] = [*signed, *distances]
    whats = [(equal.get(r.perturbation, r.perturbation), r.metric, r.variant, r.time) for r in rows]
    families = [family_of(row) for row in rows]
    with_margin = [
        family if row.margin is not None else _UNTESTED
        for row, family in zip(rows, families, strict=True)
    ]
    adjusted = _adjusted_within_families(
        list(zip(families, [row.test_p for row in rows], whats, strict=True))
    )
    equivalent = _adjusted_within_families(
        list(zip(with_margin, [row.margin_p for row in rows], whats, strict=True))
    )
    cut = len(signed)
    below = _adjusted_within_families(
        list(
            zip(families[cut:], [row.below_p for row in distances], whats[cut:], strict=True),
        )
    )
    closer = [replace(r, adjusted_below_p=p) for r, p in zip(distances, below, strict=True)]
    judged = _with_verdicts(signed, adjusted[:cut], equivalent[:cut], [None] * cut, alpha)
    return (
        list(map(_same, judged)),
        _with_verdicts(closer, adjusted[cut:], equivalent[cut:], below, alpha),
    )


def _adjusted_within_families(tests: Sequence[_Test]) -> list[float | None]:
    """Correct p within each family.

    A test that was not made counts as p = 1, and equal ones count once.
    """
    result: list[float | None] = [None] * len(tests)
    procedures: dict[Family, Callable[[Sequence[float]], tuple[float, ...]]] = {
        (PRIMARY, True): holm,
        (EXPLORATORY, True): benjamini_hochberg,
        (EXPLORATORY, False): benjamini_hochberg,
    }
    for family, adjust in procedures.items():
        members = [index for index, test in enumerate(tests) if test[0] == family]
        each = {tests[index][2]: tests[index][1] for index in members}
        corrected = adjust([1.0 if p is None else p for p in each.values()])
        by_test = dict(zip(each, corrected, strict=True))
        for index in members:
            _, p, what = tests[index]
            result[index] = None if p is None else by_test[what]
    return result


def _with_verdicts(
    rows: Sequence[Row],
    adjusted: Sequence[float | None],
    equivalent: Sequence[float | None],
    below: Sequence[float | None],
    alpha: float,
) -> list[Row]:
    return [
        replace(
            row,
            adjusted_p=p,
            adjusted_equivalence_p=margin_p,
            verdict=row.verdict if row.exactly_zero else verdict(p, margin_p, alpha, below_p),
        )
        for row, p, margin_p, below_p in zip(rows, adjusted, equivalent, below, strict=True)
    ]


def _same(row: SignedEstimate) -> SignedEstimate:
    """A row that says so where nothing could be otherwise: its difference is 0 in every seed."""
    is_0 = bool(row.per_seed) and not any(row.per_seed)
    return replace(row, verdict=SAME) if is_0 and row.verdict == INCONCLUSIVE else row
