"""What a recorded branch says that does not follow from its own states.

Another environment excuses states that are not the recorded ones: rounding grows. It excuses
nothing that is computed from a state which both sides reached. So where a replay stood in the
recorded state and gives another probe table, or another commitment to that very state, the record
was edited, whatever environment it claims.

Both sides stood in one state where their commitments are the same, or where the evidence of every
row up to the one behind it is: who edits a table may have edited the commitment beside it. The
table of a state that a branch was given, and not trained to, may be rounded otherwise elsewhere: it
counts where the branch then took its steps to the recorded states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from auditkit.evidence.comparison import Mismatch
from auditkit.formats.outcome_names import (
    DISTANCE_COLUMNS,
    is_recalibrated,
    split_column,
    time_of,
)
from auditkit.formats.run_files import Outcome
from auditkit.records.digest import EVIDENCE_BYTES
from auditkit.records.evidence import Trace, is_consumed
from auditkit.records.manifest import BranchRecord, SeedRecord
from auditkit.records.results import TrunkResult

#: Section of a fork that holds the batches of recalibration.
_BATCHES = "recalibration"


@dataclass(frozen=True)
class BranchSide:
    """One branch as one side has it.

    Attributes:
        record: Its commitments.
        trace: Its evidence.
        outcome: Its probe tables.
    """

    record: BranchRecord
    trace: Trace
    outcome: Outcome


@dataclass(frozen=True)
class Shared:
    """What both sides evaluated their branches on.

    Attributes:
        probe: Whether the probe is the same.
        recalibration: Whether the recalibration batches are.
    """

    probe: bool
    recalibration: bool

    @classmethod
    def of(cls, recorded: SeedRecord, replayed: SeedRecord | TrunkResult) -> Shared:
        """What two runs of a seed share."""
        batches = [side.fork_digests.get(_BATCHES) for side in (recorded, replayed)]
        return cls(
            recorded.data.probe_sha256 == replayed.data.probe_sha256, batches[0] == batches[1]
        )


def unfounded(
    recorded: BranchSide, replayed: BranchSide, steps: Mapping[str, int], shared: Shared
) -> Iterator[Mismatch]:
    """What of a recorded branch contradicts states that both sides reached.

    Args:
        recorded: From the manifest.
        replayed: From a run on this machine.
        steps: Step of each time at which tables were made.
        shared: What both were evaluated on.
    """
    branch = recorded.record.name
    times = [time for time, step in steps.items() if _same_state(recorded, replayed, time, step)]
    for time in times:
        # A branch begins in a state that it was given: only steps show that this machine computes
        # the record's bits, and that another table is not its rounding.
        if time != "t0" or len(times) > 1:
            yield from _tables(branch, time, recorded.outcome, replayed.outcome, shared)
        here, there = recorded.record.digests[time], replayed.record.digests[time]
        names = sorted(n for n in {*here, *there} if here.get(n) != there.get(n))
        if names:
            yield Mismatch(branch, steps[time], names[0], tuple(names[1:]), "commitment")
    if shared.probe and recorded.outcome.labels.tobytes() != replayed.outcome.labels.tobytes():
        yield Mismatch(branch, None, "labels", (), "outcome")


def _same_state(recorded: BranchSide, replayed: BranchSide, time: str, step: int) -> bool:
    """Whether both sides stood in one state."""
    here, there = recorded.record.digests.get(time), replayed.record.digests.get(time)
    if here is None or there is None:
        return False
    return here == there or _same_evidence(recorded.trace, replayed.trace, step + 1)


def _tables(
    branch: str, time: str, recorded: Outcome, replayed: Outcome, shared: Shared
) -> Iterator[Mismatch]:
    """Tables of one state that are not the same, bit for bit."""
    for name in sorted({*recorded.tables, *replayed.tables}):
        if time_of(name) != time or split_column(name)[1] in DISTANCE_COLUMNS:
            continue  # a distance follows from two states, of which this is one
        if not shared.probe or (is_recalibrated(name) and not shared.recalibration):
            continue
        here, there = recorded.tables.get(name), replayed.tables.get(name)
        # Bytes, not values: a NaN equals itself here, and -0.0 is not 0.0.
        is_same = here is not None and there is not None and here.shape == there.shape
        if not is_same or here.tobytes() != there.tobytes():  # type: ignore[union-attr]
            yield Mismatch(branch, None, name, (), "outcome")


def _same_evidence(recorded: Trace, replayed: Trace, last: int) -> bool:
    """Whether every state up to the row of a step is the same by its evidence."""
    if recorded.first_step != replayed.first_step:
        return False
    rows = last + 1 - recorded.first_step
    if not 0 < rows <= min(recorded.n_rows, replayed.n_rows):
        return False
    blank = bytes(rows * EVIDENCE_BYTES)
    names = {name for name in (*recorded.columns, *replayed.columns) if not is_consumed(name)}
    return bool(names) and all(
        recorded.columns.get(name, blank)[: len(blank)]
        == replayed.columns.get(name, blank)[: len(blank)]
        for name in names
    )
