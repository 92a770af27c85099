"""Check 4, outcomes: the tables of a branch are of the plan's times, and hold probabilities.

Of a table by position the probabilities themselves are not there; what was kept of every position
must be such as probabilities give, and must fit what was kept of the control's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.evidence.reader import RunEvidence, SeedEvidence
from auditkit.formats.outcome_names import (
    ALIGNMENT,
    DISTANCE_COLUMNS,
    OWN_COLUMNS,
    RECALIBRATED,
    column_name,
    measure_name,
    probe_of,
    split_measure,
    table_name,
    tables_of,
    targets_name,
    time_of,
)
from auditkit.formats.run_files import Outcome
from auditkit.records.manifest import BranchRecord
from auditkit.records.metric_ranges import CLIP, FEWEST_EXAMPLES, ROW_SUM_TOLERANCE
from auditkit.records.observed import Observed
from auditkit.records.output_kinds import CLASSES, EMBEDDING, REGRESSION
from auditkit.records.report import Finding
from auditkit.verification.segments import check_alignment

Columns = Mapping[str, NDArray[Any]]

#: Largest value of each column whose least is 0.
_LARGEST = {
    "label_probability": 1.0,
    "confidence": 1.0,
    "sum_of_squares": 1.0 + ROW_SUM_TOLERANCE,
    "tv": 1.0 + ROW_SUM_TOLERANCE,
    "js": 1.0 + ROW_SUM_TOLERANCE,
    "hellinger": 1.0 + ROW_SUM_TOLERANCE,
    "kl": -float(np.log(CLIP)) + ROW_SUM_TOLERANCE,
}

#: Columns that are one class's probability, or the largest of all: neither moves by more than tv.
_PROBABILITIES = ("label_probability", "confidence")

#: Rounding of a sum of float32 probabilities.
_SLACK = 1e-6


def check_outcome(
    run: RunEvidence, seed: SeedEvidence, branch: BranchRecord, outcome: Outcome
) -> Iterator[Finding]:
    """Findings about the outcome file of one branch."""
    observed, where = run.manifest.program.observed, seed.place(branch)
    times = ("t0", *run.manifest.plan.probed)
    control = seed.control_outcome
    found, given = tables_of(outcome.tables), tables_of(control.tables)
    if len(observed.outputs) not in {0, len(observed.probes)}:
        yield Finding("not every probe is said what it gives", where)
        return
    if not _are_planned(set(found), times, observed.probes) or set(found) != set(given):
        yield Finding(f"outcome tables are {', '.join(sorted(found)) or 'not there'}", where)
        return
    for probe in observed.probes:
        if not np.array_equal(outcome.labels_of(probe), control.labels_of(probe)):
            yield Finding(f"the {_probe(probe)}'s labels are not the control's", where)
            return
        kind = observed.kind_of(probe).name
        if (targets_name(probe) in outcome.tables) and kind != REGRESSION:
            yield Finding(f"the {_probe(probe)} has targets and gives {kind}", where)
            return
    for table in sorted(found):
        yield from _check_table(seed, branch, outcome, table)
    yield from _check_measures(observed, times, branch, outcome, where)
    yield from check_alignment(outcome, run.manifest.plan, where)


def _probe(name: str) -> str:
    return f"probe {name}" if name else "probe"


def _are_planned(found: set[str], times: Sequence[str], probes: Sequence[str]) -> bool:
    """Whether there is a table of every probe and time, and recalibrated ones of all or none."""
    for probe in probes:
        plain = {table_name(time, probe) for time in times}
        both = plain | {table_name(time, probe, RECALIBRATED) for time in times}
        own = {table for table in found if probe_of(table) == probe}
        if own not in (plain, both):
            return False
    return all(probe_of(table) in probes for table in found)


def _check_table(
    seed: SeedEvidence, branch: BranchRecord, outcome: Outcome, table: str
) -> Iterator[Finding]:
    where, control = seed.place(branch), seed.control_outcome
    is_control = branch is seed.record.branches[0]
    columns, theirs = (tables_of(each.tables)[table] for each in (outcome, control))
    labels = outcome.labels_of(probe_of(table))
    kind = seed.run.manifest.program.observed.kind_of(probe_of(table)).name
    if kind != CLASSES:
        yield from _check_real(kind, table, outcome, control, where)
    elif not columns and not theirs:
        if outcome.tables[table].shape != control.tables[table].shape:
            yield Finding(f"outcome {table} has shape {outcome.tables[table].shape}", where)
        elif branch.diverged_at is None:
            yield from _check_probabilities(table, outcome.tables[table], labels, where)
    elif columns != _wanted(table, is_control=is_control, has_labels=labels.size > 0):
        text = f"outcome {table} has the columns {', '.join(sorted(columns)) or 'of none'}"
        yield Finding(text, where)
    elif branch.diverged_at is None:
        beside = seed.record.branches[0].diverged_at is None and not is_control
        yield from _check_columns(
            table, outcome.tables, labels, where, control.tables if beside else None
        )


def _check_real(
    kind: str, table: str, outcome: Outcome, control: Outcome, where: str
) -> Iterator[Finding]:
    """A table that holds no probabilities; what is not finite is for check 4's divergence."""
    name, targets = column_name(table, kind), outcome.labels_of(probe_of(table))
    is_that = tables_of(outcome.tables)[table] == {kind} and table not in outcome.tables
    if not is_that or name not in control.tables:
        yield Finding(f"outcome {table} holds no {kind}", where)
        return
    shape = outcome.tables[name].shape
    if shape != control.tables[name].shape:
        yield Finding(f"outcome {table} has shape {shape}", where)
    elif kind == REGRESSION and targets.size and targets.shape != shape:
        yield Finding(f"outcome {table} has shape {shape}, its targets {targets.shape}", where)
    elif not np.isfinite(targets).all():
        yield Finding(f"outcome {table}: a target is not finite", where)
    elif kind == EMBEDDING and shape[0] < FEWEST_EXAMPLES:
        yield Finding(f"outcome {table} has fewer than {FEWEST_EXAMPLES} examples", where)


def _check_measures(
    observed: Observed,
    times: Sequence[str],
    branch: BranchRecord,
    outcome: Outcome,
    where: str,
) -> Iterator[Finding]:
    """Every measure at every time, within its range."""
    planned = {measure_name(time, measure.name) for time in times for measure in observed.measures}
    there = {name for name in outcome.tables if split_measure(name)[1]} - {ALIGNMENT}
    if there != planned:
        yield Finding(f"measures are {', '.join(sorted(there)) or 'not there'}", where)
        return
    for name in sorted(planned) if branch.diverged_at is None else ():
        measure, value = observed.measure(split_measure(name)[1]), float(outcome.tables[name][0])
        if measure is not None and not (np.isfinite(value) and measure.allows(value)):
            yield Finding(f"measure {name} is {value!r}, beyond {measure.told}", where)


def _wanted(table: str, *, is_control: bool, has_labels: bool) -> set[str]:
    """The columns of a table: nothing is compared at t0, nor in the control."""
    wanted = set(OWN_COLUMNS) if has_labels else set(OWN_COLUMNS) - {"label_probability"}
    is_compared = not is_control and time_of(table) != "t0"
    return wanted | set(DISTANCE_COLUMNS) if is_compared else wanted


def _check_probabilities(
    name: str, table: NDArray[Any], labels: NDArray[np.int64], where: str
) -> Iterator[Finding]:
    least, largest = float(table.min()), float(table.max())  # of which a NaN is one
    if not (np.isfinite(least) and np.isfinite(largest)):
        row = int(np.argwhere(~np.isfinite(table))[0][0])
        yield Finding(f"outcome {name}: row {row} holds a value that is not finite", where)
        return
    # the sums of rows, in half the time of sum(axis=1)
    sums = np.abs(np.einsum("ij->i", table.astype(np.float64)) - 1) > ROW_SUM_TOLERANCE
    if least < 0 or largest > 1 or sums.any():
        yield Finding(f"outcome {name} holds no probabilities", where)
    if labels.size and not 0 <= labels.min() <= labels.max() < table.shape[1]:
        yield Finding(f"outcome {name}: a label is no class", where)


def _check_columns(
    table: str,
    tables: Columns,
    labels: NDArray[np.int64],
    where: str,
    control: Columns | None,
) -> Iterator[Finding]:
    """Whether there are probabilities that what was kept of them follows from."""
    here = _columns(tables, table)
    if control is None:  # there is none, or it diverged: distances from it may be anything
        here = {name: column for name, column in here.items() if name in OWN_COLUMNS}
    there = None if control is None else _columns(control, table)
    if there is not None and len(there["predicted"]) != len(here["predicted"]):
        yield Finding(f"outcome {table} is not of as many positions as the control's", where)
        return
    for name, column in here.items():
        largest = _LARGEST.get(name, np.inf)
        if not np.isfinite(column).all():
            yield Finding(f"outcome {table}: column {name} is not finite", where)
        elif not ((column >= 0) & (column <= largest)).all():
            yield Finding(f"outcome {table}: column {name} is beyond 0 to {largest:.3g}", where)
    texts = [*_contradictions(here, labels)]
    if there is not None and "tv" in here:
        texts += _contradicted_by_control(here, there)
    yield from (Finding(f"outcome {table}: {text}", where) for text in texts)


def _columns(tables: Columns, table: str) -> dict[str, NDArray[np.float64]]:
    names = {column_name(table, column): column for column in (*OWN_COLUMNS, *DISTANCE_COLUMNS)}
    return {
        column: tables[name].astype(np.float64) for name, column in names.items() if name in tables
    }


def _contradictions(here: Columns, labels: NDArray[np.int64]) -> Iterator[str]:
    """What no table of probabilities gives."""
    confidence, squares = here["confidence"], here["sum_of_squares"]
    if (squares > confidence + _SLACK).any() or (squares < np.square(confidence) - _SLACK).any():
        yield "sums of squares that no probabilities have"
    if "label_probability" in here:
        of_label, is_right = here["label_probability"], here["predicted"] == labels
        if (of_label > confidence).any() or (of_label[is_right] != confidence[is_right]).any():
            yield "label_probability and predicted contradict each other"


def _contradicted_by_control(here: Columns, there: Columns) -> Iterator[str]:
    """Distances from the control that the two branches' own columns do not allow."""
    gaps = [np.abs(here[name] - there[name]) for name in _PROBABILITIES if name in here]
    least = np.max(gaps, axis=0)
    if (here["tv"] < least - _SLACK).any():
        yield "tv is less than the difference of one class alone"
    if ((here["predicted"] != there["predicted"]) & (here["tv"] == 0)).any():
        yield "tv is 0 where another class is predicted"
    squared = np.square(here["hellinger"])
    if (squared > here["tv"] + _SLACK).any() or (here["tv"] ** 2 > 2 * squared + _SLACK).any():
        yield "tv and hellinger contradict each other"
