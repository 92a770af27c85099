"""Effects on parts of a probe: examples of one class, and those that the control is unsure of.

Exploratory, all of it, and corrected as one: the parts are many, and nobody named one beforehand.
Parts are made of what no treatment can change: labels or targets, and the control's table at t0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.records.estimate import AS_IS, MIN_PAIRS
from auditkit.records.further_estimates import ProfileRow
from auditkit.records.metric_names import qualified
from auditkit.records.output_kinds import CLASSES, EMBEDDING
from auditkit.records.plan import StudyPlan
from auditkit.statistics import inference, resampling
from auditkit.statistics.embeddings import likeness, relative_examples
from auditkit.statistics.examples import margins, signed_examples, squared_gaps, tv_examples
from auditkit.statistics.multiplicity import q_values
from auditkit.statistics.outcomes import SeedOutcomes, table_key
from auditkit.statistics.positions import PositionTable, Table
from auditkit.statistics.real_tables import RealTable

Values = NDArray[np.float64]

#: What parts are told by: a signed metric and a distance.
OF_CLASSES = ("accuracy", "tv")
OF_REALS = ("mse", "rmsd")
OF_EMBEDDINGS = ("", "relative_distance")

#: Classes up to which there is a part of each.
MAX_CLASSES = 20

#: Parts by the control's margin at t0, or what stands for it.
QUARTERS = 4

#: Labelings that are enumerated, and those that are drawn beyond: rows are many here, and the
#: smallest p need not be as small as that of a test which Holm corrects.
PROFILE_LABELINGS = 70_000
PROFILE_DRAWS = 9_999


@dataclass(frozen=True)
class _Examples:
    """One seed at one time, example by example.

    Attributes:
        seed: The seed.
        parts: Which examples each part has.
        differences: Treatment minus control in being right, by treatment; empty without labels.
        distances: Total variation from the control, by treatment; of predictions the square of
            their difference; of embeddings their part of the relative distance.
        placebos: The same of the placebos that stand.
        metrics: What the differences and the distances are called.
    """

    seed: int
    parts: Mapping[str, NDArray[np.intp]]
    differences: Mapping[str, Values]
    distances: Mapping[str, Values]
    placebos: tuple[Values, ...]
    metrics: tuple[str, str]

    def apart(self, distances: Values, part: str) -> float:
        """The distance on a part of the probe."""
        mean = float(distances[self.parts[part]].mean())
        return mean**0.5 if self.metrics == OF_REALS else mean


def profiles(
    outcomes: Sequence[SeedOutcomes], plan: StudyPlan, level: float
) -> tuple[tuple[ProfileRow, ...], tuple[str, ...]]:
    """Profiles of every treatment at t0+W and T.

    Args:
        outcomes: One a seed.
        plan: Names treatments and times.
        level: Of the intervals.

    Returns:
        The rows, corrected; and why there are none of some parts.
    """
    standing = [outcome for outcome in outcomes if outcome.control.diverged_at is None]
    rows: list[ProfileRow] = []
    notes: list[str] = []
    observed = outcomes[0].observed
    for probe in observed.probes if len(standing) >= MIN_PAIRS else ():
        of_classes = observed.kind_of(probe).name == CLASSES
        labels = [outcome.labels_of(probe) for outcome in standing] if of_classes else []
        classes = sorted({int(label) for each in labels for label in np.unique(each)})
        if 0 < len(classes) < 2 or len(classes) > MAX_CLASSES:
            notes.append(_no_classes(probe, classes))
            classes = []
        parts = {outcome.seed: _parts(outcome, probe, classes) for outcome in standing}
        for time in plan.times:
            seen = [_examples(each, plan, probe, time, parts[each.seed]) for each in standing]
            for name in plan.treatment_names:
                rows += _rows(seen, name, (probe, time), level)
    adjusted = q_values([row.p for row in rows])
    corrected = (replace(row, adjusted_p=q) for row, q in zip(rows, adjusted, strict=True))
    return tuple(corrected), tuple(notes)


def _no_classes(probe: str, classes: Sequence[int]) -> str:
    said = f"{probe}: " if probe else ""
    if len(classes) == 1:
        return (
            f"{said}every example of the probe has the label {classes[0]}: accuracy and the like "
            "say nothing of any other class"
        )
    return f"{said}no profile by class: {len(classes)} classes, more than {MAX_CLASSES}"


def _parts(
    outcome: SeedOutcomes, probe: str, classes: Sequence[int]
) -> dict[str, NDArray[np.intp]]:
    labels = outcome.labels_of(probe)
    found = {f"class {label}": np.flatnonzero(labels == label) for label in classes}
    before = outcome.control.tables.get(table_key("t0", AS_IS, probe))
    ranks: dict[str, Values] = {}
    if isinstance(before, RealTable) and before.kind == EMBEDDING:
        if np.ptp(alike := likeness(before.values)):
            ranks["likeness"] = alike
    elif isinstance(before, RealTable):
        if labels.size:
            ranks["error"] = signed_examples(before, labels)["mse"]
        if labels.size and labels.shape[1] == 1:
            ranks["target"] = labels[:, 0]
    elif isinstance(before, PositionTable):
        ranks["confidence"] = before.column("confidence")
    elif before is not None:
        ranks["margin"] = margins(before)
    for name, values in ranks.items():
        if len(values) >= QUARTERS:
            quarters = np.array_split(np.argsort(values, kind="stable"), QUARTERS)
            found |= {f"{name} {n}/{QUARTERS}": part for n, part in enumerate(quarters, 1)}
    return {name: part for name, part in found.items() if part.size}


def _examples(
    outcome: SeedOutcomes,
    plan: StudyPlan,
    probe: str,
    time: str,
    parts: Mapping[str, NDArray[np.intp]],
) -> _Examples:
    key, labels = table_key(time, AS_IS, probe), outcome.labels_of(probe)
    control = outcome.control.tables[key]
    metrics = _metrics(control)
    treated = {
        name: outcome.treatments[name].tables[key]
        for name in plan.treatment_names
        if outcome.treatments[name].diverged_at is None
    }
    ours = _scores(control, labels, metrics[0])
    return _Examples(
        outcome.seed,
        parts,
        {name: _scores(each, labels, metrics[0]) - ours for name, each in treated.items()}
        if labels.size
        else {},
        {name: _apart(control, table) for name, table in treated.items()},
        tuple(
            _apart(control, placebo.tables[key])
            for placebo in outcome.placebos
            if placebo.diverged_at is None
        ),
        metrics,
    )


def _metrics(control: Table) -> tuple[str, str]:
    if not isinstance(control, RealTable):
        return OF_CLASSES
    return OF_EMBEDDINGS if control.kind == EMBEDDING else OF_REALS


def _scores(table: Table, labels: NDArray[Any], metric: str) -> Values:
    return signed_examples(table, labels)[metric] if labels.size else np.empty(0)


def _apart(control: Table, branch: Table) -> Values:
    if isinstance(control, RealTable) and isinstance(branch, RealTable):
        if control.kind == EMBEDDING:
            return relative_examples(control.values, branch.values)
        return squared_gaps(control, branch)
    if isinstance(branch, PositionTable):
        return branch.column("tv")
    return tv_examples(control, branch)  # type: ignore[arg-type]


def _rows(
    seen: Sequence[_Examples], name: str, place: tuple[str, str], level: float
) -> Iterator[ProfileRow]:
    for part in dict.fromkeys(part for each in seen for part in each.parts):
        there = [each for each in seen if part in each.parts]
        yield from _difference(there, name, part, place, level)
        yield from _excess(there, name, part, place, level)


def _difference(
    seen: Sequence[_Examples], name: str, part: str, place: tuple[str, str], level: float
) -> Iterator[ProfileRow]:
    pairs = [each for each in seen if name in each.differences]
    effects = np.array([each.differences[name][each.parts[part]].mean() for each in pairs])
    if len(effects):
        test = inference.paired_t_test(effects) if len(effects) >= MIN_PAIRS else None
        row = _row(pairs, (name, pairs[0].metrics[0], part), place, effects, level)
        yield replace(row, p=test.p if test else None)


def _excess(
    seen: Sequence[_Examples], name: str, part: str, place: tuple[str, str], level: float
) -> Iterator[ProfileRow]:
    pairs = [each for each in seen if name in each.distances and each.placebos]
    treated = [each.apart(each.distances[name], part) for each in pairs]
    floors = [[each.apart(x, part) for x in each.placebos] for each in pairs]
    if not treated or not any(treated):  # all of them bit-identical
        return
    effects = np.array(treated) - [float(np.mean(each)) for each in floors]
    row = _row(pairs, (name, pairs[0].metrics[1], part), place, effects, level)
    if len(effects) >= MIN_PAIRS:
        test = resampling.within_seed_permutation_test(
            treated, floors, limit=PROFILE_LABELINGS, draws=PROFILE_DRAWS
        )
        row = replace(row, p=test.p)
    yield row


def _row(
    pairs: Sequence[_Examples],
    what: tuple[str, str, str],
    place: tuple[str, str],
    effects: Values,
    level: float,
) -> ProfileRow:
    (name, metric, part), (probe, time) = what, place
    return ProfileRow(
        *(name, qualified(probe, metric), time, part),
        n=len(effects),
        n_examples=float(np.mean([each.parts[part].size for each in pairs])),
        effect=float(effects.mean()),
        interval=inference.t_interval(effects, level) if len(effects) >= MIN_PAIRS else None,
        p=None,
    )
