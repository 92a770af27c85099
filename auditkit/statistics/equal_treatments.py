"""Treatments that did the same: equal bits in every table, in every seed.

``optimizer-reset`` of an optimizer that keeps nothing but momentum is ``momentum-reset``. Two names
of one treatment are no two confirmations, and make no further test that Holm has to pay for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.records.perturbation_spec import as_typed
from auditkit.records.plan import StudyPlan
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes
from auditkit.statistics.positions import PositionTable, Table
from auditkit.statistics.real_tables import RealTable


def equal_treatments(
    outcomes: Sequence[SeedOutcomes], plan: StudyPlan, keys: Sequence[str]
) -> dict[str, str]:
    """By treatment, the first one of the plan that gave the same.

    Args:
        outcomes: One a seed.
        plan: Names the treatments.
        keys: What branches are compared on: tables and measures.

    Returns:
        A treatment that no earlier one equals stands for itself.
    """
    first: dict[tuple[bytes, ...], str] = {}
    found = {}
    for name in plan.treatment_names:
        given = tuple(_digest(outcome.treatments[name], keys) for outcome in outcomes)
        found[name] = first.setdefault(given, name)
    return found


def equality_notes(equal: Mapping[str, str]) -> list[str]:
    """Which treatments are counted once, a line for each group."""
    groups: dict[str, list[str]] = {}
    for name, first in equal.items():
        groups.setdefault(first, []).append(as_typed(name))
    return [
        f"{', '.join(names)}: equal bits in every seed, so each of their tests is counted once"
        for names in groups.values()
        if len(names) > 1
    ]


def _columns(table: Table) -> Mapping[str, NDArray[Any]]:
    if isinstance(table, PositionTable):
        return table.columns
    return {table.kind: table.values} if isinstance(table, RealTable) else {"": table}


def _digest(branch: BranchTables, keys: Sequence[str]) -> bytes:
    """Of where it diverged, and else of all that it gave."""
    whole = hashlib.sha256(repr(branch.diverged_at).encode())
    for key in keys if branch.diverged_at is None else ():
        for name, column in sorted(_columns(branch.tables[key]).items()):
            array = np.ascontiguousarray(column)
            whole.update(repr((key, name, array.dtype.str, array.shape)).encode())
            whole.update(array.data)
    return whole.digest()
