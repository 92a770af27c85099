"""The journal of a recording that is under way: from where it can be resumed."""

from __future__ import annotations

from dataclasses import dataclass, field

from auditkit.records.environment import Environment
from auditkit.records.recording import CheckpointRecord


@dataclass(frozen=True)
class KeptCheckpoint:
    """A checkpoint and what else a recording needs to resume from it.

    Attributes:
        record: The checkpoint.
        order_head: Chain over the order of the steps so far, hexadecimal.
        consumed_head: Chain over their batches.
        components: Columns of the trace so far.
    """

    record: CheckpointRecord
    order_head: str
    consumed_head: str
    components: tuple[str, ...]


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
        ended: How the recording ended, where it ended before its time.
        size: How many processes there are.
        environment: What it ran on when it began.
        loaders: What its loaders were.
        unresumable: Why nothing can go on from its checkpoints, for people; None where it can.
    """

    seed: int | None
    started: str
    initial: dict[str, str] = field(default_factory=dict)
    stream_starts: dict[str, str] = field(default_factory=dict)
    kept: tuple[KeptCheckpoint, ...] = ()
    resumed_at: tuple[int, ...] = ()
    ended: str | None = None
    size: int = 1
    environment: Environment | None = None
    loaders: dict[str, dict[str, str]] = field(default_factory=dict)
    unresumable: str | None = None

    @property
    def checkpoints(self) -> tuple[CheckpointRecord, ...]:
        """The checkpoints by themselves."""
        return tuple(kept.record for kept in self.kept)

    @property
    def steps(self) -> int:
        """Steps at the latest checkpoint; 0 before the first."""
        return self.kept[-1].record.step if self.kept else 0

    @property
    def order_head(self) -> str:
        """The latest checkpoint's."""
        return self.kept[-1].order_head if self.kept else ""

    @property
    def consumed_head(self) -> str:
        """The latest checkpoint's."""
        return self.kept[-1].consumed_head if self.kept else ""

    @property
    def components(self) -> tuple[str, ...]:
        """The latest checkpoint's."""
        return self.kept[-1].components if self.kept else ()
