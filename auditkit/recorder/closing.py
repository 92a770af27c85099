"""Make a signed manifest of what a recorded process has left that is dead: ``auditkit close``.

The manifest ends at the last step of which all is on disk: its rows, and the chains over what was
consumed. It says that it was made afterwards. The state at the end was committed to only where the
script came to its end, or a checkpoint lies there.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from auditkit.errors import RecordingIncomplete, StoreError
from auditkit.files import artifacts, store
from auditkit.files.checkpoint_files import lost_checkpoints, require_checkpoints
from auditkit.files.recording_folder import RecordingFolder
from auditkit.formats.chain_heads import ChainHeads
from auditkit.formats.group_values import is_groups
from auditkit.formats.snapshot_file import UNTRACED
from auditkit.formats.statements import to_statement
from auditkit.recorder.sharded_states import leave_checkpoints, states_of
from auditkit.recorder.written_checkpoints import require_whole
from auditkit.records.journal import NEVER_CLOSED, RecordingJournal
from auditkit.records.manifest import (
    CODE_FOLDER,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    SIGNER_NAME,
    CodeFile,
    FileRecord,
    Producer,
    RunTimes,
)
from auditkit.records.recording import (
    TRACE_STEPS,
    CheckpointRecord,
    RankRecord,
    RecordingManifest,
)
from auditkit.records.rng import ALWAYS_UNCOVERED, UNSEEDED, RngContract, StreamContract
from auditkit.signing.envelopes import sign_statement
from auditkit.signing.keys import public_line
from auditkit.signing.trust import SigningKey
from auditkit.version import __version__


def close_recording(out: Path, key: SigningKey, *, allow_lost: bool = False) -> RecordingManifest:
    """Close what an unclosed recording has left.

    Args:
        out: Its folder.
        key: What to sign with.
        allow_lost: Whether the files of checkpoints may be gone; the manifest says which are.

    Raises:
        StoreError: When it is finished, or none, or its process still runs.
        RecordingIncomplete: When too little of it is on disk.
        ArtifactMissing: When a checkpoint is gone, and that is not allowed.
        RestoreMismatch: When one is not what was recorded: no manifest of it would verify.
        FormatError: When a journal or checkpoint is damaged.
    """
    if (out / MANIFEST_NAME).exists():
        raise StoreError("the recording is finished", where=str(out), hint="there is its manifest")
    first = RecordingFolder(out).read_whole_journal()
    if first is None:
        hint = "auditkit list DIR shows which there are"
        raise StoreError("there is no unfinished recording here", where=str(out), hint=hint)
    with ExitStack() as stack:
        left = [
            _open(out, rank, first.size, stack, allow_lost=allow_lost) for rank in range(first.size)
        ]
        steps = max(set.intersection(*(set(one.heads) for one in left)), default=0)
        if not steps or first.program is None or first.environment is None or first.world is None:
            raise RecordingIncomplete(
                "too little of it is on disk for a manifest",
                where=str(out),
                hint="rows are put there from the first checkpoint on (checkpoint_every=), every "
                "1,024 steps, and where a script ends; earlier builds left less",
            )
        ranks = tuple(one.record(steps) for one in left)
        for one, rank in zip(left, ranks, strict=True):
            for checkpoint in rank.checkpoints:
                require_whole(one.folder.checkpoint_path(checkpoint), checkpoint)
            leave_checkpoints(one.folder, rank.checkpoints)
        code = _kept_code(out, first.program.code)
        manifest = RecordingManifest(
            schema_version=SCHEMA_VERSION,
            producer=Producer("auditkit", __version__),
            run=RunTimes.ending(first.started, _now()),
            seed=first.seed,
            program=replace(first.program, code=code),
            command=first.command,
            environment=first.environment,
            world=first.world,
            ranks=ranks,
            files=_files(left, ranks, code),
            closed_as=_ended(first),
            resumed_with=first.resumed_with,
            sharded=states_of(out, ranks),
            evidence_digest=first.evidence_digest,
        )
        envelope = sign_statement(to_statement(manifest), key.key)
        signer = f"{public_line(key.key)}\n".encode()
        left[0].folder.publish(manifest.files, {SIGNER_NAME: signer, MANIFEST_NAME: envelope})
    return manifest


@dataclass(frozen=True)
class _Left:
    """What one process has left.

    Attributes:
        folder: Its folder.
        rank: Its number.
        journal: Its journal.
        heads: How far its chains were, by step, of the steps whose rows are on disk.
        lost: Checkpoints whose files are gone.
    """

    folder: RecordingFolder
    rank: int
    journal: RecordingJournal
    heads: dict[int, ChainHeads]
    lost: tuple[CheckpointRecord, ...]

    def record(self, steps: int) -> RankRecord:
        """Its record, of so many steps; the last chunk and the numbers are written anew."""
        number = (steps - 1) // TRACE_STEPS
        rows = self.folder.read_rows(number * TRACE_STEPS + 1, self.journal)
        assert rows is not None  # noqa: S101 # there are heads of that step
        self.folder.write_trace(rows.until(steps))
        components = set(rows.columns)
        for chunk in range(number):
            components |= set(self.folder.read_chunk(chunk).columns)
        journal, head = self.journal, self.heads[steps]
        taken = [one for one in journal.checkpoints if one.step <= steps]
        final = self._final(steps)
        return RankRecord(
            rank=self.rank,
            steps=steps,
            epochs=head.epochs,
            traces=tuple(self.folder.trace_name(chunk) for chunk in range(number + 1)),
            components=tuple(sorted(components)),
            initial=journal.initial,
            final=final,
            order_sha256=head.order,
            consumed_sha256=head.consumed,
            rng=RngContract(UNSEEDED, _streams(journal, components, final), ALWAYS_UNCOVERED),
            loaders=journal.loaders,
            checkpoints=tuple(one for one in taken if one not in self.lost),
            resumed_at=journal.resumed_at,
            proven_by=journal.proven_by,
            scalars=self._scalars(steps),
            sharded=journal.sharded,
            lost_checkpoints=tuple(one for one in taken if one in self.lost),
        )

    def _final(self, steps: int) -> dict[str, str]:
        """Commitments to the state at the end; empty where nobody made any."""
        if self.journal.final and steps == max(self.heads):
            return self.journal.final
        taken = [one.digests for one in self.journal.checkpoints if one.step == steps]
        return {
            name: digest
            for digests in taken
            for name, digest in digests.items()
            if name.partition("/")[0] not in UNTRACED
        }

    def _scalars(self, steps: int) -> str | None:
        found = {
            name: series.until(steps + is_groups(name))
            for name, series in self.folder.log.read_scalars().items()
        }
        kept = {name: series for name, series in found.items() if len(series.steps)}
        return self.folder.write_scalars(kept) if kept else None


def _open(out: Path, rank: int, size: int, stack: ExitStack, *, allow_lost: bool) -> _Left:
    """What one process has left, kept from others while it is closed."""
    folder = RecordingFolder(out, rank, size)
    stack.enter_context(folder.locked())
    folder.unpublish()
    journal = folder.read_whole_journal()
    if journal is None:
        raise RecordingIncomplete(f"rank {rank} left no journal", where=str(out))
    if not allow_lost:
        require_checkpoints(out, journal.checkpoints)
    lost = lost_checkpoints(out, journal.checkpoints)
    if journal.ended == NEVER_CLOSED:
        journal = replace(journal, ended=None)  # its last row is the state at the end
    last = _last_step(folder, journal)
    heads = {one.step: one for one in folder.log.read_heads() if 0 < one.step <= last}
    return _Left(folder, rank, journal, heads, lost)


def _last_step(folder: RecordingFolder, journal: RecordingJournal) -> int:
    """The last step whose rows are on disk, in an unbroken line from the first."""
    rows = folder.read_rows(0, journal)
    return 0 if rows is None or rows.first_step != 1 else rows.last_step


def _streams(
    journal: RecordingJournal, components: set[str], final: dict[str, str]
) -> tuple[StreamContract, ...]:
    names = sorted(name for name in components if name.startswith("rng/"))
    starts = journal.stream_starts
    return tuple(
        StreamContract(name, None, starts.get(name), None, final.get(name)) for name in names
    )


def _kept_code(out: Path, code: tuple[CodeFile, ...]) -> tuple[CodeFile, ...]:
    """Those of the sources that still are as they were when the loop began."""
    names = set(artifacts.list_files(out))
    return tuple(f for f in code if f"{CODE_FOLDER}/{f.name}{store.PARTIAL}" in names)


def _files(
    left: list[_Left], ranks: tuple[RankRecord, ...], code: tuple[CodeFile, ...]
) -> tuple[FileRecord, ...]:
    roles = {f"{CODE_FOLDER}/{file.name}": "code" for file in code}
    for record in ranks:
        roles |= dict.fromkeys(record.traces, "trace")
        roles |= {checkpoint.file: "checkpoint" for checkpoint in record.checkpoints}
        roles |= {} if record.scalars is None else {record.scalars: "scalars"}
    return left[0].folder.files(roles)


def _ended(journal: RecordingJournal) -> str:
    """How the process ended, in words."""
    if journal.ended == NEVER_CLOSED:
        return "the script ended without closing its Recorder"
    return "the process was killed" if journal.ended is None else f"ended by {journal.ended}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
