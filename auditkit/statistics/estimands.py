"""From the outcomes of branches to estimates; ``auditkit explain estimands`` says how to read them.

Rules kept here, each against a known way to fool oneself:

* The unit is the seed: one number a seed enters a test, never one a probe example.
* A distance is compared with the placebos' distances, never with 0.
* Tables of equal bits are said to be equal and are not tested.
* Fewer than three pairs give values only: no interval, no test.
* Nothing is left out in silence: rows and table count diverged branches and carry notes.

What is left to others: the metrics, the formulas, and how an estimate is printed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from auditkit.formats.outcome_names import measure_name
from auditkit.records.estimate import (
    ALPHA,
    AS_IS,
    EXACTLY_ZERO,
    EXPLORATORY,
    MIN_PAIRS,
    PRIMARY,
    UNDEVELOPED,
    ControlLevel,
    DistanceEstimate,
    EstimateTable,
    FloorDevelopment,
    SignedEstimate,
)
from auditkit.records.metric_names import MEASURES, base_metric, is_measure, qualified
from auditkit.records.observed import Observed
from auditkit.records.plan import DISTANCE_METRICS, StudyPlan
from auditkit.statistics import inference, moments, resampling
from auditkit.statistics.alignment import alignments
from auditkit.statistics.back_flow import back_flows
from auditkit.statistics.equal_treatments import equal_treatments
from auditkit.statistics.generalised import generalised
from auditkit.statistics.levels import control_levels, measure_levels
from auditkit.statistics.looks import Looked, floor_probe, notes_on
from auditkit.statistics.multiplicity import assign_verdicts
from auditkit.statistics.outcomes import (
    SeedOutcomes,
    SeedValues,
    Units,
    check_outcomes,
    count_diverged,
    evaluate_metrics,
    floor_development,
    non_finite_measures,
    seed_distances,
    table_key,
    table_metric,
    units_of,
)
from auditkit.statistics.persistence import persistences
from auditkit.statistics.profiles import profiles
from auditkit.statistics.real_tables import growth_named
from auditkit.statistics.spreads import spreads
from auditkit.statistics.study_notes import study_notes

_Row = TypeVar("_Row", SignedEstimate, DistanceEstimate)

LEVEL = 0.95

#: Pairs from which the sign-flip test can reach .05 (2 / 2**6 = .031).
MIN_SIGN_FLIP = 6

#: Pairs from which distances are tested for equivalence: they are skewed to the right, where
#: a t bound is too low (true size .13 to .24 at a nominal .05 for n = 3 .. 10).
MIN_DISTANCE_EQUIVALENCE = 20

#: What is said where tables differ in bits that no distance sees, such as the sign of a zero.
ZERO_WITH_OTHER_BITS = "a distance of 0 in every seed, although the bits of the tables differ"

#: What is said where equal values would give an interval of width 0.
NO_SPREAD = "a standard deviation of exactly 0 gives no interval"


@dataclass(frozen=True)
class _Estimand:
    """What is estimated, and what the plan says of it: the fields that both kinds of row share."""

    perturbation: str
    metric: str
    variant: str
    time: str
    family: str
    margin: float | None

    @property
    def table_metric(self) -> tuple[str, str]:
        return table_metric(self.metric, self.variant, self.time)

    @property
    def is_distance(self) -> bool:
        return base_metric(self.metric) in DISTANCE_METRICS


def estimate(
    outcomes: Sequence[SeedOutcomes], plan: StudyPlan, *, generalise_probe: bool = False
) -> EstimateTable:
    """Estimate every effect of a study.

    Args:
        outcomes: One a seed, in any order; seeds of the plan that are missing are noted.
        plan: The plan, which names the perturbations, the primary metric and the margins.
        generalise_probe: Whether to add two-way intervals, for other examples, too.

    Returns:
        Rows for every perturbation, metric, variant and time, in this order.

    Raises:
        FormatError: When outcomes and plan do not fit, or a table holds no probabilities.
    """
    check_outcomes(outcomes, plan)
    outcomes = sorted(outcomes, key=lambda outcome: plan.seeds.index(outcome.seed))
    observed = outcomes[0].observed
    looks = [Looked.of(outcomes, plan, probe) for probe in observed.probes]
    tables = [key for looked in looks for key in looked.keys(plan)]
    measured = [measure_name(t, m.name) for t in plan.probed for m in observed.measures]
    units = units_of(outcomes, tables)
    values = evaluate_metrics(outcomes, [*tables, *measured], units)
    between_seeds, why_not = seed_distances(outcomes, tables, units)
    primary = observed.primary(plan)
    floor = floor_development(values, *_grown(outcomes, primary, units))
    estimands = _estimands(plan, primary, looks, observed, units)
    signed = [_signed(each, values, len(outcomes)) for each in estimands if not each.is_distance]
    distances = list(_distances(estimands, values, len(outcomes), between_seeds, floor))
    equal = equal_treatments(outcomes, plan, [*tables, *measured])
    signed, distances = assign_verdicts(signed, distances, ALPHA, equal)
    parts, why_no_parts = profiles(outcomes, plan, LEVEL)
    wider, why_no_wider = generalised(outcomes, plan, LEVEL) if generalise_probe else ((), ())
    flows, why_no_flows = back_flows(outcomes, plan, looks, units, LEVEL)
    why_not += (*why_no_parts, *why_no_wider, *why_no_flows)
    notes = study_notes(values, len(outcomes), plan, primary, equal)
    notes += non_finite_measures(outcomes, plan, observed)
    return EstimateTable(
        alpha=ALPHA,
        level=LEVEL,
        primary_metric=primary,
        n_seeds=len(outcomes),
        n_seeds_left_out=len(outcomes) - len(values),
        placebos=plan.placebos,
        times=plan.probed,
        floor=floor,
        diverged=count_diverged(outcomes, plan),
        signed=tuple(signed),
        distances=tuple(distances),
        persistence=(*persistences(signed, LEVEL), *persistences(distances, LEVEL)),
        notes=(*notes, *why_not, *notes_on(looks, units, outcomes, tables)),
        equal={name: first for name, first in equal.items() if name != first},
        levels=tuple(_levels(outcomes, values, looks, plan)),
        spreads=spreads([*signed, *distances], values, LEVEL),
        generalised=wider,
        profiles=parts,
        back_flow=flows,
        alignments=tuple(alignments(outcomes, plan, LEVEL)),
    )


def _grown(outcomes: Sequence[SeedOutcomes], primary: str, units: Units) -> tuple[str, str]:
    """The probe whose floor is spoken of, and what of it must have grown."""
    observed = outcomes[0].observed
    probe = floor_probe(observed, primary)
    key, controls = table_key("T", AS_IS, probe), [outcome.control for outcome in outcomes]
    tables = [each.tables.get(key) for each in controls if each.diverged_at is None]
    return probe, growth_named(tables, units.scales.get(key), observed.kind_of(probe).growth)


def _distances(
    estimands: Sequence[_Estimand],
    values: Sequence[SeedValues],
    n_seeds: int,
    between_seeds: Mapping[tuple[str, str], float],
    floor: FloorDevelopment,
) -> Iterator[DistanceEstimate]:
    for each in estimands:
        if each.is_distance:
            yield _distance(each, values, n_seeds, between_seeds.get(each.table_metric), floor)


def _levels(
    outcomes: Sequence[SeedOutcomes],
    values: Sequence[SeedValues],
    looks: Sequence[Looked],
    plan: StudyPlan,
) -> Iterator[ControlLevel]:
    """What the controls reach, of probes with labels and of measures."""
    for looked in looks:
        if looked.has_labels:
            yield from control_levels(outcomes, values, looked.variants, plan, looked.probe)
    names = [measure.name for measure in outcomes[0].observed.measures]
    yield from measure_levels(values, names, plan)


def _estimands(
    plan: StudyPlan, primary: str, looks: Sequence[Looked], observed: Observed, units: Units
) -> list[_Estimand]:
    rows = [
        (qualified(looked.probe, metric), variant)
        for looked in looks
        for metric in looked.metrics
        for variant in looked.variants
    ]
    rows += [(f"{MEASURES}/{measure.name}", AS_IS) for measure in observed.measures]
    all_of_them = [
        _Estimand(
            perturbation,
            metric,
            variant,
            time,
            PRIMARY
            if (metric, variant) == (primary, AS_IS) and time in plan.times
            else EXPLORATORY,
            plan.margins.get(metric, plan.margins.get(base_metric(metric))),
        )
        for perturbation in plan.treatment_names
        for metric, variant in rows
        for time in plan.probed
    ]
    return [each for each in all_of_them if each.table_metric not in units.undefined]


def _mean(numbers: Sequence[float]) -> float | None:
    return float(np.mean(numbers)) if numbers else None


def _is_exactly_zero(estimand: _Estimand, pairs: Sequence[SeedValues]) -> bool:
    if is_measure(estimand.metric):  # a number that is the same says nothing of bits behind it
        return False
    key = estimand.table_metric[0]
    return bool(pairs) and all(key in pair.identical[estimand.perturbation] for pair in pairs)


def _signed(estimand: _Estimand, values: Sequence[SeedValues], n_seeds: int) -> SignedEstimate:
    column = estimand.table_metric
    pairs = [value for value in values if estimand.perturbation in value.treatments]
    differences = np.array(
        [p.treatments[estimand.perturbation][column] - p.control[column] for p in pairs]
    )
    controls = np.array([value.control[column] for value in values])
    row = SignedEstimate(
        **vars(estimand),
        seeds=tuple(pair.seed for pair in pairs),
        per_seed=tuple(float(difference) for difference in differences),
        n=len(pairs),
        n_left_out=n_seeds - len(pairs),
        ate=_mean(differences.tolist()),
        control_sd=moments.standard_deviation(controls) if len(controls) >= MIN_PAIRS else None,
    )
    if _is_exactly_zero(estimand, pairs):
        return replace(row, exactly_zero=True, verdict=EXACTLY_ZERO)
    if row.n < MIN_PAIRS:
        return replace(row, notes=(f"values only: fewer than {MIN_PAIRS} pairs",))
    return _signed_inference(row, differences)


def _signed_inference(row: SignedEstimate, differences: NDArray[np.float64]) -> SignedEstimate:
    """Add intervals and tests to a row of at least three pairs."""
    t_test = inference.paired_t_test(differences)
    flips = resampling.sign_flip_test(differences) if row.n >= MIN_SIGN_FLIP else None
    studentised, refused = resampling.beside_t(differences, LEVEL)
    notes = [*refused]
    if t_test is None:
        notes.append(f"every pair gives the same difference: {NO_SPREAD}")
    elif row.n <= 4:
        notes.append(f"{row.n} pairs: the t interval rests on normality")
    elif row.n < MIN_SIGN_FLIP:
        notes.append("5 pairs: the sign-flip test cannot reach .05 and is not shown")
    if t_test and flips and (t_test.p <= ALPHA) != (flips.p <= ALPHA):
        notes.append(f"t test and sign-flip test disagree at {ALPHA:g}")
    if row.control_sd == 0:
        notes.append("the controls do not differ between seeds: no seed SDs")
    return replace(
        row,
        sd=moments.standard_deviation(differences),
        interval=inference.t_interval(differences, LEVEL),
        studentised=studentised,
        d_z=inference.cohens_dz(differences),
        ate_in_control_sd=float(differences.mean()) / row.control_sd if row.control_sd else None,
        t_p=t_test.p if t_test else None,
        sign_flip_p=flips.p if flips else None,
        sign_flip_kind=flips.kind if flips else None,
        equivalence_p=(
            inference.tost_p(differences, row.margin) if row.margin is not None else None
        ),
        notes=tuple(notes),
    )


def _distance(
    estimand: _Estimand,
    values: Sequence[SeedValues],
    n_seeds: int,
    seed_distance: float | None,
    development: FloorDevelopment,
) -> DistanceEstimate:
    pairs = [value for value in values if estimand.perturbation in value.distances]
    distances = [pair.distances[estimand.perturbation][estimand.table_metric] for pair in pairs]
    placebos = [[placebo[estimand.table_metric] for placebo in pair.placebos] for pair in pairs]
    floors = [_mean(each) for each in placebos]
    row = DistanceEstimate(
        **vars(estimand),
        seeds=tuple(pair.seed for pair in pairs),
        per_seed=tuple(distances),
        floor_per_seed=tuple(floors),
        n=len(pairs),
        n_with_floor=sum(floor is not None for floor in floors),
        n_left_out=n_seeds - len(pairs),
        mean_distance=_mean(distances),
        floor=_mean([floor for floor in floors if floor is not None]),
        seed_distance=seed_distance,
    )
    if _is_exactly_zero(estimand, pairs):
        return replace(row, exactly_zero=True, verdict=EXACTLY_ZERO)
    if row.n_with_floor == 0 or row.floor is None:
        missing = "placebo" if row.n else "pair"
        return replace(row, notes=(f"no {missing} stands: floor and excess are undefined",))
    row = _excess(row, row.floor)
    notes = list(row.notes)
    if not any(distances) and base_metric(estimand.metric) != "churn":  # classes say little of bits
        notes.append(ZERO_WITH_OTHER_BITS)
    if row.n_with_floor < row.n:
        notes.append(f"pairs without a placebo that stands: {row.n - row.n_with_floor}")
    if estimand.time == "T" and development.developed is False:
        notes.append(UNDEVELOPED)
    return _distance_tests(replace(row, notes=tuple(notes)), placebos)


def _excess(row: DistanceEstimate, floor: float) -> DistanceEstimate:
    """Add the excess over the floor, its interval, and its share of the seed scale."""
    excesses = np.array(row.effect_per_seed)
    scale = None if row.seed_distance is None else row.seed_distance - floor
    few = len(excesses) < MIN_PAIRS
    interval = None if few else inference.t_interval(excesses, LEVEL)
    studentised, refused = resampling.beside_t(excesses, LEVEL)
    notes = refused
    if few:
        notes = (f"values only: fewer than {MIN_PAIRS} pairs",)
    elif interval is None:
        notes = (f"every pair gives the same excess: {NO_SPREAD}",)
    return replace(
        row,
        excess=float(excesses.mean()),
        rho=float(excesses.mean()) / scale if scale is not None and scale > 0 else None,
        interval=interval,
        studentised=studentised,
        notes=notes,
    )


def _distance_tests(row: DistanceEstimate, placebos: list[list[float]]) -> DistanceEstimate:
    """Add the tests to a row that has a floor, if it has three pairs."""
    if row.n_with_floor < MIN_PAIRS:
        return row
    treated = [d for d, floor in zip(row.per_seed, placebos, strict=True) if floor]
    test = resampling.within_seed_permutation_test(treated, [each for each in placebos if each])
    row = replace(
        row,
        permutation_p=test.p,
        permutation_kind=test.kind,
        n_labelings=test.n_labelings,
        below_p=test.lower_p,
    )
    return row if row.margin is None else _distance_equivalence(row, row.margin)


def _distance_equivalence(row: DistanceEstimate, margin: float) -> DistanceEstimate:
    """Test a distance against its margin: of logarithms, and of the mean where it may be."""
    pairs = zip(row.per_seed, row.floor_per_seed, strict=True)
    p = inference.log_non_inferiority_p([(d, f) for d, f in pairs if f is not None], margin)
    row = replace(row, log_equivalence_p=p)
    if row.n_with_floor >= MIN_DISTANCE_EQUIVALENCE:
        excesses = np.array(row.effect_per_seed)
        return replace(row, equivalence_p=inference.non_inferiority_p(excesses, margin))
    note = f"equivalence below {MIN_DISTANCE_EQUIVALENCE} pairs: of logarithms, the typical seed's"
    if p is None:
        note = "no test of equivalence: a distance is 0, or all are equal"
    return replace(row, notes=(*row.notes, note))
