"""The folder of a recording: chunks, checkpoints, a journal, and the step to published files.

Rules that it keeps: while the loop runs every file ends in ``.partial`` and there is no
manifest; every file is written whole or not at all; the journal is written after the files
that it names, so that a recording can be resumed from what it says. Ranks above 0 have a folder
each.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from auditkit.errors import AuditError, FormatError, RecordingIncomplete, StoreError
from auditkit.files import artifacts, locks, parts, store
from auditkit.files.checkpoint_files import require_checkpoints
from auditkit.files.recording_log import RecordingLog
from auditkit.files.shard_parts import ShardParts
from auditkit.formats import canonical
from auditkit.formats.run_files import trace_from_tensors, trace_to_tensors
from auditkit.formats.scalar_file import Scalars, scalars_to_tensors
from auditkit.records.environment import Environment
from auditkit.records.evidence import Trace
from auditkit.records.journal import RecordingJournal
from auditkit.records.manifest import MANIFEST_NAME, CodeFile, FileRecord
from auditkit.records.recording import TRACE_STEPS, CheckpointRecord, RankRecord
from auditkit.records.tensor import RawTensor

_JOURNAL = f"recording.json{store.PARTIAL}"
_LOCK = f"recording.lock{store.PARTIAL}"
_RANK = f"rank.json{store.PARTIAL}"
_ROWS = f"rows{store.PARTIAL}"

#: Seconds between two looks for the records of other ranks.
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class RankResult:
    """What one process leaves for the manifest."""

    started: str
    record: RankRecord
    files: tuple[FileRecord, ...]
    environment: Environment
    code: tuple[CodeFile, ...]


class RecordingFolder:
    """A recording's folder, as one rank writes it.

    Args:
        path: The recording's folder; it need not exist yet.
        rank: The rank.
        size: How many ranks there are.

    Attributes:
        log: What goes with the rows while they are written.
        parts: What this rank contributes to digests of sharded components.
    """

    def __init__(self, path: Path, rank: int = 0, size: int = 1) -> None:
        self.path, self._size = path, size
        self._prefix = f"rank-{rank:04d}/" if rank else ""
        self._own = path / self._prefix
        self.log, self.parts = RecordingLog(self._own), ShardParts(self._own)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing into it.

        Raises:
            StoreError: When one does, or the folder cannot be made.
        """
        store.make_folder(self._own)
        with locks.lock(self._own / _LOCK):
            yield

    def begin(self, *, resume: bool) -> RecordingJournal | None:
        """Claim the folder; returns what to resume from, if asked for and there is any.

        Raises:
            StoreError: When it holds a finished recording, one to be resumed, checkpoints that no
                journal names, or other files.
            ArtifactError: When a checkpoint is not there.
            RecordingIncomplete: When it holds one that cannot be resumed, and that is asked for.
        """
        if (self.path / MANIFEST_NAME).exists():
            raise StoreError(
                "the folder holds a finished recording",
                where=str(self.path),
                hint="nothing is left to resume; give another folder"
                if resume
                else "give another folder, or new=True for a new numbered one",
            )
        store.remove(self._own / _RANK)
        journal = self.read_journal()
        if journal is not None:
            self.unpublish()
        self._require_checkpoints(journal)
        if journal is not None and journal.unresumable and resume:
            raise not_resumable(journal.unresumable, self.path)
        if journal is not None and journal.checkpoints:
            if not resume:
                raise StoreError(
                    "the folder holds an unfinished recording",
                    where=str(self.path),
                    hint="go on with Recorder.resume(...), make a manifest of it with auditkit "
                    "close, or give another folder (new=True)",
                )
            if journal.size != self._size:
                raise StoreError(
                    "the unfinished recording is of another number of processes",
                    expected=journal.size,
                    found=self._size,
                    where=str(self.path),
                )
            return journal
        others = [
            name for name in artifacts.list_files(self._own) if not name.endswith(store.PARTIAL)
        ]
        if others and not self._prefix:
            raise StoreError(
                f"the folder is not empty: it holds {others[0]!r}",
                where=str(self.path),
                hint="give another folder",
            )
        return None

    def _require_checkpoints(self, journal: RecordingJournal | None) -> None:
        """Lose no training that somebody paid for: journal and checkpoints must both be there.

        A kill may fall between the write of a first checkpoint and the journal that names it.
        """
        named = () if journal is None else journal.checkpoints
        require_checkpoints(self.path, named)
        found = list(self._own.glob(f"checkpoint-*{store.PARTIAL}"))
        if not named and len(found) > (0 if journal is None else 1):
            is_damaged = journal is None and (self._own / _JOURNAL).exists()
            raise StoreError(
                f"the folder holds {len(found)} checkpoint{'s' * (len(found) > 1)}, and "
                f"{'a damaged journal' if is_damaged else 'no journal that names them'}",
                where=str(self._own / _JOURNAL),
                hint="put the journal back, or give another folder: to begin anew here would lose "
                "them",
            )

    def unpublish(self) -> None:
        """Undo a publication that was killed before its manifest: names are partial again."""
        for name in artifacts.list_files(self._own):
            final = not name.endswith(store.PARTIAL)
            if final and not (name.startswith("rank-") and not self._prefix):
                store.rename(self._own / name, self._own / f"{name}{store.PARTIAL}")

    def clear(self) -> None:
        """Forget everything: the recording begins anew."""
        for name in artifacts.list_files(self._own):
            own = self._prefix or not name.startswith("rank-")
            if name.endswith(store.PARTIAL) and own and name != _LOCK:
                store.remove(self._own / name)

    def take_over(
        self, trace: Trace, earlier: Iterable[CheckpointRecord], journal: RecordingJournal
    ) -> None:
        """Let a resumed recording go on: what is later than its rows so far is forgotten.

        Args:
            trace: The rows so far, of the chunk that it writes.
            earlier: The checkpoints that there are.
            journal: From now on; of these it names those that stay.
        """
        self.write_trace(trace)
        number = _chunk(trace) + 1
        while (path := self._trace_path(number)).exists():
            store.remove(path)
            number += 1
        self.write_journal(journal)
        for checkpoint in earlier:
            if checkpoint not in journal.checkpoints:
                self.remove_checkpoint(checkpoint)

    def write_journal(self, journal: RecordingJournal) -> None:
        """Write the journal."""
        text = canonical.encode(journal)
        sha256 = hashlib.sha256(text).hexdigest()
        store.write_bytes(self._own / _JOURNAL, [text, f"\n{sha256}".encode()])

    def trace_name(self, chunk: int) -> str:
        """Name of a trace file."""
        return f"{self._prefix}trace/{chunk:06d}.safetensors"

    def write_trace(self, trace: Trace) -> None:
        """Write the chunk that a trace lies in; what was appended so far is in it."""
        path = self._trace_path(_chunk(trace))
        store.make_folder(path.parent)
        store.write_tensors(path, trace_to_tensors(trace))
        store.remove(self._own / _ROWS)

    def append_rows(self, trace: Trace) -> None:
        """Put rows on disk that no chunk has yet, for a resume to be compared with.

        They outlive the process, and not a crash of the machine.
        """
        parts.append_part(self._own / _ROWS, trace_to_tensors(trace))

    def read_rows(self, step: int, journal: RecordingJournal) -> Trace | None:
        """The rows that are on disk, from the chunk on in which a checkpoint lies.

        The last row is the state before a step that was begun; what an interrupted run left after
        that lies within a step, and is left out.

        Args:
            step: The checkpoint's; 0 for the start.
            journal: What the folder's journal says.

        Returns:
            None where there is no whole row.
        """
        found: list[Trace] = []
        for part in self._parts(max(step - 1, 0) // TRACE_STEPS):
            if not found:
                found.append(part)
            elif part.first_step <= found[-1].last_step + 1 < part.last_step + 1:
                found.append(part.since(found[-1].last_step + 1))
        trace = Trace.joined(found) if found else None
        if trace is not None and journal.ended is not None:
            trace = trace.until(trace.last_step - 1) if trace.n_rows > 1 else None
        return trace

    def write_scalars(self, scalars: Scalars) -> str:
        """Write the file of all numbers; returns its name."""
        name = f"{self._prefix}scalars.safetensors"
        store.write_tensors(self.path / f"{name}{store.PARTIAL}", scalars_to_tensors(scalars))
        return name

    def read_last_trace(self, steps: int) -> Trace:
        """The chunk of the step after ``steps`` up to there.

        Raises:
            StoreError: When it is not there.
            FormatError: When it is broken.
        """
        name = self.trace_name((steps - 1) // TRACE_STEPS)
        return self._read_trace(self.path / f"{name}{store.PARTIAL}", name).until(steps)

    def read_chunk(self, number: int) -> Trace:
        """A chunk of the trace; raises as :meth:`read_last_trace`."""
        return self._read_trace(self._trace_path(number), self.trace_name(number))

    def write_checkpoint(self, step: int, tensors: Mapping[str, RawTensor], meta: object) -> str:
        """Write a snapshot; returns its name."""
        name = f"{self._prefix}checkpoint-{step:08d}.safetensors"
        store.write_tensors(self.path / f"{name}{store.PARTIAL}", tensors, meta)
        return name

    def checkpoint_path(self, checkpoint: CheckpointRecord) -> Path:
        """Where a snapshot lies."""
        return self.path / f"{checkpoint.file}{store.PARTIAL}"

    def remove_checkpoint(self, checkpoint: CheckpointRecord) -> None:
        """Remove a snapshot."""
        self.remove_snapshot(checkpoint.file)

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot by its name."""
        store.remove(self.path / f"{name}{store.PARTIAL}")

    def files(self, roles: Mapping[str, str]) -> tuple[FileRecord, ...]:
        """Sizes and digests of files by name; those with ``.partial`` are looked at there."""
        found = []
        for name, role in sorted(roles.items()):
            partial = f"{name}{store.PARTIAL}"
            size = artifacts.file_size(self.path, partial)
            sha256 = artifacts.file_sha256(self.path, partial, expected_size=size)
            found.append(FileRecord(name, role, size, sha256))
        return tuple(found)

    def write_result(self, result: RankResult) -> None:
        """Write this rank's part, which rank 0 waits for."""
        store.write_bytes(self._own / _RANK, canonical.encode(result))

    def wait_for_ranks(self, timeout: float) -> None:
        """Wait for the folders of the other ranks, which have made them.

        Raises:
            RecordingIncomplete: When they are elsewhere: this is no folder that all share.
        """
        for rank in range(1, self._size):
            if not _appears(self.path / f"rank-{rank:04d}" / _LOCK, timeout):
                raise RecordingIncomplete(
                    f"rank {rank} writes elsewhere",
                    where=str(self.path),
                    hint="give every process the same folder, on a file system that all share",
                )

    def wait_for_result(self, rank: int, timeout: float) -> RankResult:
        """Wait for another rank's part.

        Raises:
            RecordingIncomplete: When it does not come.
        """
        path = self.path / f"rank-{rank:04d}" / _RANK
        if not _appears(path, timeout):
            raise RecordingIncomplete(
                f"rank {rank} left no record within {timeout:g} seconds",
                where=str(self.path),
                hint="the evidence of the other ranks is kept; there is no manifest",
            )
        return canonical.decode(RankResult, store.read_bytes(path), what=path.name)

    def publish(self, files: tuple[FileRecord, ...], final_files: Mapping[str, bytes]) -> None:
        """Give every file its final name, write ``final_files`` in order, then clean up."""
        for file in files:
            store.rename(self.path / f"{file.name}{store.PARTIAL}", self.path / file.name)
        for name, data in final_files.items():
            store.write_bytes(self.path / name, data)
        for name in artifacts.list_files(self.path):
            if name.endswith(store.PARTIAL) and not name.endswith(_LOCK):
                store.remove(self.path / name)

    def read_whole_journal(self) -> RecordingJournal | None:
        """The journal; None where there is none.

        Raises:
            FormatError: When it is damaged.
        """
        journal, path = self.read_journal(), self._own / _JOURNAL
        if journal is None and path.exists():
            raise FormatError(
                "the journal of an unfinished recording is damaged",
                where=str(path),
                hint="put it back from a copy; without it there is no manifest of what lies here, "
                "and the loop must be trained from the start, into another folder",
            )
        return journal

    def read_journal(self) -> RecordingJournal | None:
        """The journal; None where there is none, or it is broken."""
        path = self._own / _JOURNAL
        if not path.exists():
            return None
        text, _, sha256 = store.read_bytes(path).rpartition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != sha256:
            return None
        try:
            return canonical.decode(RecordingJournal, text, what=path.name)
        except AuditError:
            return None

    def _parts(self, number: int) -> Iterator[Trace]:
        """The chunks from that number on, then what was appended."""
        with suppress(AuditError):  # there is none, or it was cut short with the machine
            while (path := self._trace_path(number)).exists():
                yield self._read_trace(path, path.name)
                number += 1
        for part in parts.read_parts(self._own / _ROWS):
            yield self._read_trace(part, _ROWS)

    @staticmethod
    def _read_trace(source: Path | memoryview, what: str) -> Trace:
        tensors, _ = store.read_tensors(source, what=what)
        return trace_from_tensors(tensors, what=what)

    def _trace_path(self, number: int) -> Path:
        return self.path / f"{self.trace_name(number)}{store.PARTIAL}"


def not_resumable(reason: str, folder: Path) -> RecordingIncomplete:
    """What is raised where nothing can go on from a recording's checkpoints."""
    return RecordingIncomplete(
        f"this recording cannot be resumed: {reason}",
        where=str(folder),
        hint="train from the start, into another folder",
    )


def _appears(path: Path, timeout: float) -> bool:
    """Whether a file is there, or comes to be within that many seconds."""
    deadline = time.monotonic() + timeout
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _chunk(trace: Trace) -> int:
    return (trace.first_step - 1) // TRACE_STEPS
