"""Names of the tensors of an outcome file.

``TIME[/recalibrated]`` is a table of class probabilities. The tables of a probe whose labels are
one a position have a tensor a column instead, ``TIME[/recalibrated]:COLUMN``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

RECALIBRATED = "/recalibrated"

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


def column_name(table: str, column: str) -> str:
    """Name of a column's tensor."""
    return f"{table}:{column}"


def split_column(name: str) -> tuple[str, str]:
    """Table and column of a tensor's name; no column where it is a whole table."""
    table, _, column = name.partition(":")
    return table, column


def time_of(name: str) -> str:
    """The time at which a table was made."""
    return split_column(name)[0].partition("/")[0]


def is_recalibrated(name: str) -> bool:
    """Whether a table rests on recalibration batches, too."""
    return split_column(name)[0].endswith(RECALIBRATED)


def tables_of(names: Iterable[str]) -> dict[str, frozenset[str]]:
    """The tables that there are, with the columns of each; none of a whole table."""
    found: dict[str, set[str]] = {}
    for name in names:
        table, column = split_column(name)
        found.setdefault(table, set()).update([column] if column else [])
    return {table: frozenset(columns) for table, columns in found.items()}
