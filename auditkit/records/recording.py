"""The manifest of a recording: a user's own training loop, as the Recorder saw it."""

from __future__ import annotations

from dataclasses import dataclass, field

from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.environment import Environment
from auditkit.records.manifest import FileRecord, Producer, ProgramRecord, RunTimes
from auditkit.records.plan import LEFT_OUT_IF_DEFAULT
from auditkit.records.rng import RngContract
from auditkit.records.sharding import ShardedState

#: Steps in one file of a recording's trace; the last one may have fewer.
TRACE_STEPS = 1024


@dataclass(frozen=True)
class CheckpointRecord:
    """A full snapshot that was taken while a loop was recorded.

    Attributes:
        step: Steps that had been taken: the state is that of row ``step + 1`` of the trace.
        file: Name below the manifest's folder.
        digests: ``sha256/tensor-v1`` of every section of the file.
        drawn: What further loaders had delivered since the last step, as between two epochs, which
            belongs to the row of the next one: its evidence by column, hexadecimal.
    """

    step: int
    file: str
    digests: dict[str, str]
    drawn: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RankRecord:
    """What one process of a recorded loop did; without ``torch.distributed`` there is one.

    Attributes:
        rank: Its rank, from 0.
        steps: Steps that it took.
        epochs: How often it iterated its training loader.
        traces: Names of its trace files in order, :data:`TRACE_STEPS` steps each. Each ends
            with the row in which the next one begins.
        components: Names of the columns of its trace.
        initial: ``sha256/tensor-v1`` by component, before step 1.
        final: The same after the last step.
        order_sha256: Head of the chain ``h = SHA-256(h + pairs)`` over the int64 (epoch, index)
            pairs of every step, from 32 zero bytes on; for an iterable dataset, over the
            SHA-256 of the batches.
        consumed_sha256: Head of the same chain over the SHA-256 of every batch as collated.
        rng: Its random streams: ``start`` where the objects were wrapped, ``end`` at the end.
        loaders: What its loaders are, by the name in their columns; the training loader's
            name is empty.
        checkpoints: In order of their steps.
        resumed_at: Steps after which the recording went on from a checkpoint.
        proven_by: For each of them, how many rows that the killed run had left after that
            checkpoint were given again before anything new was recorded; 0 is *resumed, not
            proven*. Empty in records of earlier builds, which did not compare.
        scalars: Name of the file of what it logged, and of the numbers of its optimizer's groups;
            None where there are none, and in records of earlier builds.
        sharded: Components of which it holds only a part; its columns and commitments are of
            that part.
        lost_checkpoints: Those that were written, and whose files were gone when the recording
            was closed afterwards: what they held cannot be compared with their digests.
    """

    rank: int
    steps: int
    epochs: int
    traces: tuple[str, ...]
    components: tuple[str, ...]
    initial: dict[str, str]
    final: dict[str, str]
    order_sha256: str
    consumed_sha256: str
    rng: RngContract
    loaders: dict[str, dict[str, str]]
    checkpoints: tuple[CheckpointRecord, ...]
    resumed_at: tuple[int, ...]
    proven_by: tuple[int, ...] = ()
    scalars: str | None = None
    sharded: tuple[str, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    lost_checkpoints: tuple[CheckpointRecord, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)

    @property
    def lost_note(self) -> str:
        """Which checkpoints have no file any more, for people; empty where none is lost."""
        steps = [str(checkpoint.step) for checkpoint in self.lost_checkpoints]
        several = "s" * (len(steps) > 1)
        return f"after step{several} {', '.join(steps)}" if steps else ""

    @property
    def resumptions(self) -> tuple[tuple[int, str], ...]:
        """Step and, for people, proof of each; empty where a record does not say which is whose."""
        if len(self.proven_by) != len(self.resumed_at):
            return tuple((step, "") for step in self.resumed_at)
        said = {0: "not proven", 1: "proven by 1 row"}
        proofs = [said.get(rows, f"proven by {rows} rows") for rows in self.proven_by]
        return tuple(zip(self.resumed_at, proofs, strict=True))


@dataclass(frozen=True)
class WorldRecord:
    """How the processes of a recorded loop worked together.

    Attributes:
        size: Number of processes.
        backend: ``torch.distributed`` backend, or None for one process without it.
        settings: What of ``DistributedDataParallel`` changes bits: bucket sizes, buffers, graph.
    """

    size: int
    backend: str | None
    settings: dict[str, str]


@dataclass(frozen=True)
class RecordingManifest:
    """The predicate of ``urn:auditkit:recording:v1``.

    Attributes:
        schema_version: Version of the schema that it follows.
        producer: The software that wrote it.
        run: Start and end.
        seed: The seed that the user says the loop was run with, or None. Nothing was seeded.
        program: The script and every module that it imported; ``arguments`` is empty.
        command: Arguments of the script when the recording began, home folders as ``~``.
        environment: What it ran on, as the loop left it.
        world: How many processes there were.
        ranks: One record a process, by rank.
        files: Every file of the recording, sorted by name; roles ``trace``, ``checkpoint``,
            ``scalars`` and ``code``.
        closed_as: How the recorded process ended, where it did not end its recording: ``auditkit
            close`` made this manifest of what it had left.
        resumed_with: Arguments that the script was resumed with, in order, where they were others.
        sharded: Digests of what the processes hold together, whatever their number: of the state
            at the start, in each checkpoint and at the end.
        evidence_digest: Recipe of the state's digests in every row.
    """

    schema_version: str
    producer: Producer
    run: RunTimes
    seed: int | None
    program: ProgramRecord
    command: tuple[str, ...]
    environment: Environment
    world: WorldRecord
    ranks: tuple[RankRecord, ...]
    files: tuple[FileRecord, ...]
    closed_as: str | None = None
    resumed_with: tuple[tuple[str, ...], ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    sharded: tuple[ShardedState, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    evidence_digest: str = field(default=EVIDENCE_RECIPE, metadata=LEFT_OUT_IF_DEFAULT)

    @property
    def evidence_note(self) -> str:
        """What is unusual about the state's evidence, for people; empty where nothing is."""
        recipe = self.evidence_digest
        return "" if recipe == EVIDENCE_RECIPE else f"the state is in evidence by {recipe}"

    def file(self, name: str) -> FileRecord:
        """The file of that name.

        Raises:
            KeyError: When there is none.
        """
        for record in self.files:
            if record.name == name:
                return record
        raise KeyError(name)
