"""Names of the tensors of an outcome file.

``TIME[@PROBE][/recalibrated]`` is a table of class probabilities. The tables of a probe with scores
by position have a tensor a column instead, ``TIME[@PROBE][/recalibrated]:COLUMN``; a table that
holds something else than probabilities is called by what that is, ``:regression`` or
``:embedding``. ``labels`` and ``labels@PROBE`` are what is right, of real numbers ``targets`` and
``targets@PROBE``; ``TIME=MEASURE`` is a number of the program's own, and ``B=alignment`` what was
measured where segment B begins.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from auditkit.records.output_kinds import CLASSES, KINDS

RECALIBRATED = "/recalibrated"

#: The cosine of momentum and gradient at the first optimizer step of segment B.
ALIGNMENT = "B=alignment"

LABELS, TARGETS = "labels", "targets"

#: What stands in a column's place where a table holds no probabilities.
REAL = tuple(kind for kind in KINDS if kind != CLASSES)

#: Columns of a table by position that look at one branch alone.
OWN_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "label_probability": "float32",
        "predicted": "int32",
        "confidence": "float32",
        "sum_of_squares": "float64",
    }
)

#: Columns that compare a branch with its control; the control has none of them.
DISTANCE_COLUMNS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("tv", "js", "hellinger", "kl"), "float64")
)

#: Every column with its dtype.
COLUMNS: Mapping[str, str] = MappingProxyType({**OWN_COLUMNS, **DISTANCE_COLUMNS})


def table_name(time: str, probe: str = "", variant: str = "") -> str:
    """Name of a table; a probe that has no name is empty, the variant empty or RECALIBRATED."""
    return f"{time}@{probe}{variant}" if probe else f"{time}{variant}"


def labels_name(probe: str) -> str:
    """Name of a probe's labels."""
    return table_name(LABELS, probe)


def targets_name(probe: str) -> str:
    """Name of what is right for a probe of real numbers."""
    return table_name(TARGETS, probe)


def measure_name(time: str, measure: str) -> str:
    """Name of a measure's number."""
    return f"{time}={measure}"


def column_name(table: str, column: str) -> str:
    """Name of a column's tensor."""
    return f"{table}:{column}"


def split_column(name: str) -> tuple[str, str]:
    """Table and column of a tensor's name; no column where it is a whole table."""
    table, _, column = name.partition(":")
    return table, column


def split_measure(name: str) -> tuple[str, str]:
    """Time and measure of a tensor's name; no measure where it is something else."""
    time, _, measure = name.partition("=")
    return time, measure


def probe_of(name: str) -> str:
    """The probe that a table, column or labels are of."""
    return split_column(name)[0].partition("/")[0].partition("@")[2]


@functools.lru_cache(maxsize=1024)  # a study has few names, and asks for each again and again
def time_of(name: str) -> str:
    """The time at which a table or a measure was made; ``labels`` of labels."""
    return split_measure(split_column(name)[0])[0].partition("/")[0].partition("@")[0]


def is_recalibrated(name: str) -> bool:
    """Whether a table rests on recalibration batches, too."""
    return split_column(name)[0].endswith(RECALIBRATED)


def is_distance(name: str) -> bool:
    """Whether a column compares two branches; all else is of one alone."""
    return split_column(name)[1] in DISTANCE_COLUMNS


def is_labels(name: str) -> bool:
    """Whether these are labels or targets."""
    return time_of(name) in (LABELS, TARGETS)


def is_targets(name: str) -> bool:
    """Whether these are targets."""
    return time_of(name) == TARGETS


def is_real(name: str) -> bool:
    """Whether a table holds something else than probabilities, whole."""
    return split_column(name)[1] in REAL


def is_by_position(name: str) -> bool:
    """Whether it is one of the columns of a table by position."""
    return split_column(name)[1] in COLUMNS


def tables_of(names: Iterable[str]) -> Mapping[str, frozenset[str]]:
    """The tables that there are, with the columns of each; none of a whole table."""
    return _tables_of(tuple(names))


@functools.lru_cache(maxsize=64)
def _tables_of(names: tuple[str, ...]) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name in names:
        if is_labels(name) or split_measure(name)[1]:
            continue
        table, column = split_column(name)
        found.setdefault(table, set()).update([column] if column else [])
    return {table: frozenset(columns) for table, columns in found.items()}


def outcome_differences(
    here: Mapping[str, NDArray[Any]], there: Mapping[str, NDArray[Any]]
) -> list[str]:
    """Tables and columns that are not the same in two outcomes.

    Distances from the control are the branch's alone: beside the control's they are no difference.
    """
    return [
        name
        for name in sorted({*here, *there})
        if not (is_distance(name) and (name in here) != (name in there))
        and (name not in here or name not in there or here[name].tobytes() != there[name].tobytes())
    ]
