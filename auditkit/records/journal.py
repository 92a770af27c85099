"""The journal of a recording that is under way: from where it can be resumed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.environment import Environment
from auditkit.records.manifest import ProgramRecord
from auditkit.records.recording import CheckpointRecord, WorldRecord

#: How a recording ended whose script came to its end, and did not close it.
NEVER_CLOSED = "never closed"


@dataclass(frozen=True)
class KeptCheckpoint:
    """A checkpoint and what else a recording needs to resume from it.

    Attributes:
        record: The checkpoint.
        order_head: Chain over the order of the steps so far, hexadecimal.
        consumed_head: Chain over their batches.
        components: Columns of the trace so far.
        counters: Numbers by which the script itself counts the steps, and where they stood.
    """

    record: CheckpointRecord
    order_head: str
    consumed_head: str
    components: tuple[str, ...]
    counters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordingJournal:
    """How far an unfinished recording got.

    Attributes:
        seed: The seed that the user says.
        started: When it was first started.
        initial: Commitments before step 1.
        stream_starts: Commitments to the random streams at the start.
        kept: Checkpoints, in order.
        resumed_at: Steps after which the recording went on from a checkpoint.
        proven_by: For each of them, how many recorded rows proved it; 0 for none. Of journals of
            earlier builds, only the latest.
        ended: How the recording ended, where there is no manifest for that: the last row then
            holds a state that may lie within a step.
        size: How many processes there are.
        environment: What it ran on when it began.
        loaders: What its loaders were.
        unresumable: Why nothing can go on from its checkpoints, for people; None where it can.
        program: The script as it was when it began, of rank 0; None in journals of earlier builds.
        command: Arguments of the script when it began.
        world: The processes.
        final: Commitments to the state at the end of a script that never closed its Recorder.
        resumed_with: Arguments that it was resumed with, where they were others.
        sharded: Components of which this process holds only a part.
        evidence_digest: Recipe of the state's digests in its rows.
    """

    seed: int | None
    started: str
    initial: dict[str, str] = field(default_factory=dict)
    stream_starts: dict[str, str] = field(default_factory=dict)
    kept: tuple[KeptCheckpoint, ...] = ()
    resumed_at: tuple[int, ...] = ()
    proven_by: tuple[int, ...] = ()
    ended: str | None = None
    size: int = 1
    environment: Environment | None = None
    loaders: dict[str, dict[str, str]] = field(default_factory=dict)
    unresumable: str | None = None
    program: ProgramRecord | None = None
    command: tuple[str, ...] = ()
    world: WorldRecord | None = None
    final: dict[str, str] = field(default_factory=dict)
    resumed_with: tuple[tuple[str, ...], ...] = ()
    sharded: tuple[str, ...] = ()
    evidence_digest: str = EVIDENCE_RECIPE

    @property
    def checkpoints(self) -> tuple[CheckpointRecord, ...]:
        """The checkpoints by themselves."""
        return tuple(kept.record for kept in self.kept)

    @property
    def steps(self) -> int:
        """Steps at the latest checkpoint; 0 before the first."""
        return self.kept[-1].record.step if self.kept else 0

    def resumed(self, start: int, last: int, rows: int) -> RecordingJournal:
        """The journal of a recording that has gone on.

        Args:
            start: Step of the checkpoint; 0 where the loop began anew and gave the same rows.
            last: The last step whose row is still that of the killed run.
            rows: How many of its rows proved that.
        """
        pairs = zip(reversed(self.resumed_at), _filled(self.proven_by), strict=False)
        earlier = [(step, proven) for step, proven in reversed(list(pairs)) if step <= start]
        history = [*earlier, (start, rows)] if start else []
        return replace(
            self,
            kept=tuple(kept for kept in self.kept if kept.record.step <= last),
            resumed_at=tuple(step for step, _ in history),
            proven_by=tuple(proven for _, proven in history),
            ended=None,
        )


def _filled(proven_by: tuple[int, ...]) -> Iterator[int]:
    """The latest first, and 0 for all before the first that is known."""
    yield from reversed(proven_by)
    yield from itertools.repeat(0)
