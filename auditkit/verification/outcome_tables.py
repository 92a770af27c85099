"""Check 4, outcomes: the tables of a branch are of the plan's times, and hold probabilities.

Of a table by position the probabilities themselves are not there; what was kept of every position
must be such as probabilities give, and must fit what was kept of the control's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.evidence.reader import SeedEvidence
from auditkit.formats.outcome_names import (
    DISTANCE_COLUMNS,
    OWN_COLUMNS,
    RECALIBRATED,
    column_name,
    tables_of,
)
from auditkit.formats.run_files import Outcome
from auditkit.records.manifest import BranchRecord
from auditkit.records.plan import StudyPlan
from auditkit.records.report import Finding
from auditkit.statistics.metrics import CLIP, ROW_SUM_TOLERANCE

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
    seed: SeedEvidence, branch: BranchRecord, outcome: Outcome, plan: StudyPlan, where: str
) -> Iterator[Finding]:
    """Findings about the outcome file of one branch."""
    plain = {"t0", *plan.probed}
    both = plain | {f"{time}{RECALIBRATED}" for time in plain}
    control, is_control = seed.control_outcome, branch is seed.record.branches[0]
    found, given = tables_of(outcome.tables), tables_of(control.tables)
    if set(found) not in (plain, both) or set(found) != set(given):
        yield Finding(f"outcome tables are {', '.join(sorted(found))}", where)
        return
    if not np.array_equal(outcome.labels, control.labels):
        yield Finding("the probe's labels are not the control's", where)
        return
    for table, columns in sorted(found.items()):
        if columns or given[table]:
            wanted = _wanted(table, is_control=is_control, has_labels=outcome.labels.size > 0)
            if columns != wanted:
                text = f"outcome {table} has the columns {', '.join(sorted(columns)) or 'of none'}"
                yield Finding(text, where)
            elif branch.diverged_at is None and not is_control:
                yield from _check_columns(table, outcome, where, control.tables)
            elif branch.diverged_at is None:
                yield from _check_columns(table, outcome, where)
        elif outcome.tables[table].shape != control.tables[table].shape:
            yield Finding(f"outcome {table} has shape {outcome.tables[table].shape}", where)
        elif branch.diverged_at is None:
            yield from _check_probabilities(table, outcome, where)


def _wanted(table: str, *, is_control: bool, has_labels: bool) -> set[str]:
    """The columns of a table: nothing is compared at t0, nor in the control."""
    wanted = set(OWN_COLUMNS) if has_labels else set(OWN_COLUMNS) - {"label_probability"}
    is_compared = not is_control and table.partition("/")[0] != "t0"
    return wanted | set(DISTANCE_COLUMNS) if is_compared else wanted


def _check_probabilities(name: str, outcome: Outcome, where: str) -> Iterator[Finding]:
    table = outcome.tables[name]
    finite = np.isfinite(table)
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        yield Finding(f"outcome {name}: row {row} holds a value that is not finite", where)
        return
    sums = np.abs(table.astype(np.float64).sum(axis=1) - 1) > ROW_SUM_TOLERANCE
    if (table < 0).any() or (table > 1).any() or sums.any():
        yield Finding(f"outcome {name} holds no probabilities", where)
    if (
        outcome.labels.size
        and not 0 <= outcome.labels.min() <= outcome.labels.max() < table.shape[1]
    ):
        yield Finding(f"outcome {name}: a label is no class", where)


def _check_columns(
    table: str, outcome: Outcome, where: str, control: Columns | None = None
) -> Iterator[Finding]:
    """Whether there are probabilities that what was kept of them follows from."""
    here = _columns(outcome.tables, table)
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
    texts = [*_contradictions(here, outcome.labels)]
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
