"""Check 4 of a recording, for its traces: read in chunks, what follows from what, row by row.

All ranks are read side by side, one chunk of each in memory, and a checkpoint is opened while
the chunk with its row is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import AuditError
from auditkit.evidence.reader import RecordingEvidence
from auditkit.evidence.verdicts import as_finding
from auditkit.formats.snapshot_file import LOADER, UNTRACED
from auditkit.records.digest import ABSENT, EVIDENCE_BYTES
from auditkit.records.evidence import CONSUMED, Trace, is_consumed
from auditkit.records.recording import TRACE_STEPS, CheckpointRecord, RankRecord
from auditkit.records.report import Finding

#: State that data-parallel processes share; what they consume and draw is their own.
_SHARED = ("params", "param_groups", "scheduler")


def _is_shared(column: str) -> bool:
    """Whether a column is the same in every process of a data-parallel loop."""
    return column in _SHARED or column.startswith("optimizer/")


def place(rank: RankRecord) -> str:
    """How messages name a rank."""
    return f"rank {rank.rank}"


def check_chunks(evidence: RecordingEvidence) -> Iterator[Finding]:
    """Findings about the traces and checkpoints of all ranks."""
    pairs = _DigestPairs()
    readers = [_Reader(evidence, rank, pairs) for rank in evidence.manifest.ranks]
    first, number = readers[0], 0
    while readers := [reader for reader in readers if number < len(reader.rank.traces)]:
        for reader in readers:
            yield from reader.next_chunk(number)
        for reader in readers:
            if reader is not first and number < len(first.rank.traces):
                yield from _check_shared(first, reader)
        number += 1


class _DigestPairs:
    """Commitments beside the evidence of the same state, of all ranks.

    The two are digests of one thing: states that are equal by one are equal by the other. So a
    commitment that was edited contradicts every other one of a state that did not change.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, bytes], tuple[str, str]] = {}
        self._known: dict[tuple[str, str], tuple[bytes, str]] = {}

    def check(
        self, committed: Mapping[str, str], chunk: Trace, step: int, where: str
    ) -> Iterator[Finding]:
        """Findings about what was committed to of one row."""
        for name, value in sorted(committed.items()):
            cell = chunk.cell(step, name)
            if cell == ABSENT:
                continue
            here = f"{where}, step {step}"
            other, place_of = self._seen.setdefault((name, cell), (value, here))
            if other != value:
                text = f"committed to as another state than in {place_of}, by equal evidence"
                yield Finding(text, where, step, name)
            cell_of, place_of = self._known.setdefault((name, value), (cell, here))
            if cell_of != cell:
                text = f"committed to as the state of {place_of}, by other evidence"
                yield Finding(text, where, step, name)


@dataclass
class _Reader:
    """Reads one rank's chunks in order; the last row of one is what the next begins with."""

    evidence: RecordingEvidence
    rank: RankRecord
    pairs: _DigestPairs
    chunk: Trace | None = None
    checkpoints: dict[int, list[CheckpointRecord]] = field(default_factory=dict)
    epoch: int = 0

    def __post_init__(self) -> None:
        last = len(self.rank.traces) - 1
        for checkpoint in self.rank.checkpoints:
            # The state after a chunk's last step is the first row of the next, if there is one.
            number = min(checkpoint.step // TRACE_STEPS, last)
            self.checkpoints.setdefault(number, []).append(checkpoint)

    def next_chunk(self, number: int) -> Iterator[Finding]:
        """Findings about one chunk, which is ``chunk`` afterwards, or None where it is broken."""
        rank, before = self.rank, self.chunk
        self.chunk, name = None, rank.traces[number]
        first = number * TRACE_STEPS + 1
        last = min(first + TRACE_STEPS - 1, rank.steps)
        try:
            chunk = self.evidence.trace(name)
        except AuditError as error:
            yield as_finding(error)
            return
        if (chunk.first_step, chunk.last_step) != (first, last):
            text = f"has steps {chunk.first_step}..{chunk.last_step}, expected {first}..{last}"
            yield Finding(text, name)
            return
        self.chunk = chunk
        for column in sorted(set(chunk.columns) - set(rank.components)):
            yield Finding("the manifest names no such component", name, component=column)
        yield from _check_rows(chunk, name)
        if number == 0:
            yield from self._check_commitments(rank.initial, chunk, first, name)
        elif before is not None:
            yield from _check_joint(before, chunk, first, name)
        # Where the process died nobody committed to its end, and the manifest says so.
        committed = rank.final or self.evidence.manifest.closed_as is None
        if number == len(rank.traces) - 1 and committed:
            yield from self._check_commitments(rank.final, chunk, last + 1, name)
        for checkpoint in self.checkpoints.get(number, ()):
            if checkpoint.step <= last:
                yield from self._check_checkpoint(checkpoint, chunk)

    def _check_commitments(
        self, committed: dict[str, str], chunk: Trace, step: int, where: str
    ) -> Iterator[Finding]:
        present = {
            name
            for name in chunk.columns
            if not is_consumed(name) and chunk.cell(step, name) != ABSENT
        }
        for name in sorted(set(committed) - present):
            yield Finding("committed to but absent from the trace", where, step, name)
        for name in sorted(present - set(committed)):
            yield Finding("no commitment", where, step, name)
        yield from self.pairs.check(committed, chunk, step, where)

    def _check_checkpoint(self, checkpoint: CheckpointRecord, chunk: Trace) -> Iterator[Finding]:
        """The file holds the committed state, which is that of the row after its step."""
        file, row = checkpoint.file, checkpoint.step + 1
        try:
            sections = self.evidence.sections(file, self.evidence.manifest.evidence_digest)
        except AuditError as error:
            yield as_finding(error)
            return
        for name in sorted(set(sections) | set(checkpoint.digests)):
            if name not in sections or name not in checkpoint.digests:
                yield Finding("a section is missing", file, checkpoint.step, name)
                continue
            if sections[name].commitment != checkpoint.digests[name]:
                text = "the checkpoint holds another state than committed"
                yield Finding(text, file, checkpoint.step, name)
            if name.partition("/")[0] in UNTRACED:
                continue
            if chunk.cell(row, name) != sections[name].evidence:
                yield Finding("the trace's row is of another state", file, row, name)
        if LOADER in sections:
            yield from self._check_epoch(checkpoint, sections[LOADER].epoch)
        yield from self.pairs.check(checkpoint.digests, chunk, row, file)
        for name in sorted(set(chunk.columns) - set(sections)):
            if not is_consumed(name) and any(chunk.cell(row, name)):
                yield Finding("the checkpoint lacks a component", file, row, name)

    def _check_epoch(self, checkpoint: CheckpointRecord, epoch: int | None) -> Iterator[Finding]:
        """Epochs are counted upwards, and no further than the manifest says."""
        if epoch is None:
            return
        if not self.epoch <= epoch < self.rank.epochs:
            text = (
                f"taken in epoch {epoch + 1}, after one of epoch {self.epoch + 1}; "
                f"the manifest says {self.rank.epochs} epochs"
            )
            yield Finding(text, checkpoint.file, checkpoint.step, LOADER)
        self.epoch = max(self.epoch, epoch)


def _check_rows(chunk: Trace, where: str) -> Iterator[Finding]:
    if chunk.n_rows < 2:
        return  # that there are no steps was said
    for name in (*CONSUMED, "params"):
        full = _filled(chunk, name) if name in chunk.columns else np.zeros(chunk.n_rows, bool)
        rows = full if name == "params" else full[:-1]
        if not rows.all():
            step = chunk.first_step + int(np.argmin(rows))
            yield Finding("no evidence in this row", where, step, name)
    end = chunk.last_step + 1
    for name in sorted(chunk.columns):
        kind, _, loader = name.partition("/")
        if is_consumed(name) and any(chunk.cell(end, name)):
            yield Finding("the last row consumed something", where, end, name)
        if kind == "order" and loader:
            batch = f"batch/{loader}"
            other = (
                _filled(chunk, batch) if batch in chunk.columns else np.zeros(chunk.n_rows, bool)
            )
            unequal = np.flatnonzero(_filled(chunk, name) != other)
            if len(unequal):
                step = chunk.first_step + int(unequal[0])
                yield Finding("order and batch disagree on what was consumed", where, step, name)
    if any(chunk.loss(end)):
        yield Finding("the last row consumed something", where, end, "loss")


def _filled(chunk: Trace, name: str) -> NDArray[np.bool_]:
    """Which rows of a column hold a digest."""
    cells = np.frombuffer(chunk.columns[name][:], dtype=np.uint8).reshape(-1, EVIDENCE_BYTES)
    return np.asarray(cells.any(axis=1), dtype=np.bool_)


def _check_joint(before: Trace, chunk: Trace, step: int, where: str) -> Iterator[Finding]:
    for name in before.row_difference(step, chunk):
        if not is_consumed(name) and name != "loss":
            yield Finding("does not begin where the chunk before it ends", where, step, name)


def _check_shared(one: _Reader, other: _Reader) -> Iterator[Finding]:
    left, right = one.chunk, other.chunk
    if left is None or right is None or left.n_rows != right.n_rows:
        return
    apart = {*one.rank.sharded, *other.rank.sharded}
    for name in sorted(filter(_is_shared, {*left.columns, *right.columns} - apart)):
        step = left.first_unequal(right, name, left.first_step, left.last_step + 2)
        if step is not None:
            text = f"the state is not that of rank {one.rank.rank}"
            yield Finding(text, place(other.rank), step, name)
