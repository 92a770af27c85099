"""Check 9, noise floor: the replica equals the control, so nothing else could have differed."""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.evidence.comparison import compare_traces
from auditkit.evidence.reader import SeedEvidence
from auditkit.formats.outcome_names import DISTANCE_COLUMNS, split_column
from auditkit.formats.run_files import Outcome
from auditkit.records.evidence import Trace
from auditkit.records.manifest import BranchRecord
from auditkit.records.report import Finding


def check_replica(
    seed: SeedEvidence, replica: BranchRecord, trace: Trace, outcome: Outcome
) -> Iterator[Finding]:
    """Check 9: replica (and ``carry``) equal the control at every step, commitment and outcome."""
    where = seed.place(replica)
    control = seed.record.branches[0]
    mismatch = compare_traces(replica.name, seed.control, trace)
    if mismatch is not None:
        yield Finding(
            f"{replica.name} parts from the control: {mismatch}",
            where,
            mismatch.step,
            mismatch.component,
        )
        yield Finding(
            "kernels are not deterministic, or the program keeps state that no snapshot holds",
            where,
        )
    for time in sorted(control.digests):
        for name, value in sorted(control.digests[time].items()):
            if replica.digests.get(time, {}).get(name) != value:
                yield Finding(f"{replica.name}'s state at {time} is another", where, component=name)
    for name, table in sorted(seed.control_outcome.tables.items()):
        other = outcome.tables.get(name)
        if other is None or other.tobytes() != table.tobytes():
            yield Finding(f"{replica.name}'s outcome {name} is another", where, component="outcome")
    for name, table in sorted(outcome.tables.items()):
        if split_column(name)[1] in DISTANCE_COLUMNS and table.any():
            yield Finding(f"{replica.name}'s outcome {name} is not 0", where, component="outcome")
