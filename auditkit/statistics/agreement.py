"""Compare the estimands of two studies of one plan, seed by seed.

A study and its reproduction on another machine have the same seeds, so their difference is
paired. The verdicts, in this order:

* *agree*, where the values of every seed are equal, bit for bit, or where treatment and control
  have equal bits in both studies;
* *disagree*, where both studies establish an effect of opposite sign, or where the paired t test
  of the difference, after Holm over the family (further times by themselves), rejects at the plan's
  level;
* *agree*, where the interval of the difference lies within the margin that the plan declares for
  the metric, or where both establish an effect of the same sign. A plan's margin is smaller than
  the metric's range (``auditkit.records.plan.RANGES``); where the record establishes an effect that
  is not negligible, the difference must also be smaller than that effect: a margin alone cannot
  make a study agree in which the effect is gone;
* *cannot tell* at this n, in every other case: that no difference was found is no agreement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from auditkit.records.agreement import Agreement, AgreementVerdict
from auditkit.records.estimate import (
    BELOW_FLOOR,
    EFFECT,
    NEGLIGIBLE,
    DistanceEstimate,
    EstimateTable,
    Interval,
    SignedEstimate,
)
from auditkit.statistics.inference import paired_t_test, t_interval
from auditkit.statistics.multiplicity import family_of, holm

Row = SignedEstimate | DistanceEstimate


@dataclass(frozen=True)
class _Pair:
    """One estimand of both studies, before its verdict.

    Attributes:
        recorded: Of the study that is reproduced.
        reproduced: Of the one that was run here.
        before: Values per seed that both have, recorded.
        after: The same, reproduced.
    """

    recorded: Row
    reproduced: Row
    recorded_values: NDArray[np.float64]
    reproduced_values: NDArray[np.float64]

    @property
    def differences(self) -> NDArray[np.float64]:
        return self.reproduced_values - self.recorded_values


def compare(
    recorded: EstimateTable, reproduced: EstimateTable, margins: Mapping[str, float]
) -> tuple[Agreement, ...]:
    """Compare every estimand that both studies have.

    Args:
        recorded: Estimates of the study that is reproduced.
        reproduced: Estimates of the one that was run here, of the same plan.
        margins: Equivalence margin by metric, from the plan.
    """
    reproduced_rows: list[Row] = [*reproduced.signed, *reproduced.distances]
    others = {_key(row): row for row in reproduced_rows}
    recorded_rows: list[Row] = [*recorded.signed, *recorded.distances]
    pairs = [_pair(row, others[_key(row)]) for row in recorded_rows if _key(row) in others]
    adjusted = _adjusted(pairs)
    return tuple(
        _agreement(pair, p, margins.get(pair.recorded.metric), recorded)
        for pair, p in zip(pairs, adjusted, strict=True)
    )


def _key(row: Row) -> tuple[str, str, str, str]:
    return (row.perturbation, row.metric, row.variant, row.time)


def _pair(recorded: Row, reproduced: Row) -> _Pair:
    recorded_values, reproduced_values = _values(recorded), _values(reproduced)
    shared = [seed for seed in recorded_values if seed in reproduced_values]
    return _Pair(
        recorded,
        reproduced,
        np.array([recorded_values[seed] for seed in shared], dtype=np.float64),
        np.array([reproduced_values[seed] for seed in shared], dtype=np.float64),
    )


def _values(row: Row) -> dict[int, float]:
    """What is compared, by seed: a difference from the control, or an excess over the floor."""
    if isinstance(row, SignedEstimate):
        return dict(zip(row.seeds, row.per_seed, strict=True))
    return {
        seed: value - floor
        for seed, value, floor in zip(row.seeds, row.per_seed, row.floor_per_seed, strict=True)
        if floor is not None
    }


def _adjusted(pairs: Sequence[_Pair]) -> list[float | None]:
    """P of the paired t test of every difference, after Holm within its family."""
    found: list[float | None] = [None] * len(pairs)
    for family in {family_of(pair.recorded) for pair in pairs}:
        tests = [
            (position, test.p)
            for position, pair in enumerate(pairs)
            if family_of(pair.recorded) == family
            and (test := paired_t_test(pair.differences)) is not None
        ]
        corrected = holm([p for _, p in tests])
        for (position, _), p in zip(tests, corrected, strict=True):
            found[position] = p
    return found


def _agreement(
    pair: _Pair, p: float | None, margin: float | None, table: EstimateTable
) -> Agreement:
    recorded, differences = pair.recorded, pair.differences
    interval = t_interval(differences, table.level)
    agreement = Agreement(
        perturbation=recorded.perturbation,
        metric=recorded.metric,
        variant=recorded.variant,
        time=recorded.time,
        family=recorded.family,
        recorded=_estimate(recorded),
        reproduced=_estimate(pair.reproduced),
        n=len(differences),
        difference=float(differences.mean()) if len(differences) else None,
        interval=interval,
        adjusted_p=p,
        recorded_verdict=recorded.verdict,
        reproduced_verdict=pair.reproduced.verdict,
        verdict="cannot tell",
        reason="neither a difference nor agreement is established",
    )
    if not len(differences):
        return replace(agreement, reason="no seed stands in both")
    verdict, reason = _verdict(pair, agreement, margin, table.alpha)
    return replace(agreement, verdict=verdict, reason=reason)


def _verdict(
    pair: _Pair, found: Agreement, margin: float | None, alpha: float
) -> tuple[AgreementVerdict, str]:
    if pair.recorded_values.tobytes() == pair.reproduced_values.tobytes():
        return "agree", "equal bits for every seed"
    if pair.recorded.exactly_zero and pair.reproduced.exactly_zero:
        return "agree", "exactly 0 in both"
    signs = _established_signs(pair)
    rejected = found.adjusted_p is not None and found.adjusted_p < alpha
    if rejected or signs == {-1, 1}:
        return "disagree", (
            "the paired difference is not 0"
            if rejected
            else "both establish an effect, of opposite sign"
        )
    if margin is not None and _lies_within(found.interval, _capped_margin(pair.recorded, margin)):
        return "agree", f"the difference lies within the plan's margin {margin:g}"
    if len(signs) == 1 and None not in signs:
        return "agree", "both establish an effect of the same sign"
    return found.verdict, found.reason


def _established_signs(pair: _Pair) -> set[int | None]:
    """Signs of the two effects; None for one that is not established."""
    signs: set[int | None] = set()
    for row in (pair.recorded, pair.reproduced):
        value = _estimate(row)
        established = row.verdict in (EFFECT, NEGLIGIBLE, BELOW_FLOOR) and bool(value)
        signs.add((1 if value and value > 0 else -1) if established else None)
    return signs


def _estimate(row: Row) -> float | None:
    return row.ate if isinstance(row, SignedEstimate) else row.excess


def _capped_margin(recorded: Row, margin: float) -> float:
    """The margin, at most the size of an effect that the record claims."""
    value = _estimate(recorded)
    return min(margin, abs(value)) if recorded.verdict == EFFECT and value else margin


def _lies_within(interval: Interval | None, margin: float) -> bool:
    if interval is None or interval.low is None or interval.high is None:
        return False
    return -margin < interval.low and interval.high < margin
