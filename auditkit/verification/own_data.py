"""Branches whose own course makes their data: what the contract can hold, and what it cannot.

A treatment of a program without a loader (reinforcement learning), or of one whose loader asks the
model (hard-example mining), consumes other data than the control, because it is treated. Then its
effect is a *total* one: what the change did, and what the other data did that it led to. Replica
and carry, which change nothing, must consume the control's data all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from auditkit.evidence.reader import RunEvidence
from auditkit.records.declaration import Declaration
from auditkit.records.estimate import EstimateTable
from auditkit.records.evidence import CONSUMED, Trace
from auditkit.records.manifest import BranchRecord, SeedRecord
from auditkit.records.plan import as_typed

#: Label of an effect that goes through the data, too.
TOTAL = "total"


def makes_own_data(
    record: SeedRecord, branch: BranchRecord, declarations: Mapping[str, Declaration]
) -> bool:
    """Whether a branch may consume other data than the control, by no change of its data."""
    spec = branch.perturbation
    if record.data.data_from == "loader" or spec is None or spec.name not in declarations:
        return False
    return declarations[spec.name].kind == "state"


def departed(control: Trace, trace: Trace) -> bool:
    """Whether a branch consumed anything else than the control."""
    stop = min(control.last_step, trace.last_step) + 1
    first = control.first_step
    return any(control.first_unequal(trace, name, first, stop) is not None for name in CONSUMED)


def departures(run: RunEvidence, declarations: Mapping[str, Declaration]) -> dict[str, int]:
    """In how many seeds a branch consumed other data than the control, by branch, where any did."""
    found: dict[str, int] = {}
    for record in run.manifest.seeds:
        if record.data.data_from == "loader":
            continue
        control = run.trace(record.branches[0].trace)
        for branch in record.branches[1:]:
            if makes_own_data(record, branch, declarations):
                own = departed(control, run.trace(branch.trace))
                found[branch.name] = found.get(branch.name, 0) + own
    return {name: count for name, count in found.items() if count}


def labelled(
    table: EstimateTable, departed_in: Mapping[str, int], treatments: Iterable[str]
) -> EstimateTable:
    """The same table with rows and a note that say which effects are total ones."""
    total = [name for name in treatments if name in departed_in]
    if not total:
        return table
    return replace(
        table,
        signed=tuple(
            replace(row, effect=TOTAL) if row.perturbation in total else row for row in table.signed
        ),
        distances=tuple(
            replace(row, effect=TOTAL) if row.perturbation in total else row
            for row in table.distances
        ),
        notes=(*_notes(total, departed_in, table.n_seeds), *table.notes),
    )


def _notes(total: Iterable[str], departed_in: Mapping[str, int], n_seeds: int) -> Iterator[str]:
    for name in total:
        yield (
            f"{as_typed(name)} is a total effect: in {departed_in[name]} of {n_seeds} seeds its "
            "own course made other data than the control's, and what these did is part of it"
        )
