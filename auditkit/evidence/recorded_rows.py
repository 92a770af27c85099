"""A recording as what a running loop is held against: rows, checkpoints, ends."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from auditkit.evidence.comparison import Parting, compare_commitments
from auditkit.evidence.reader import RecordingEvidence
from auditkit.evidence.rows import part_rows
from auditkit.processes.row_server import About, Told
from auditkit.records.evidence import Trace
from auditkit.records.recording import TRACE_STEPS, RankRecord
from auditkit.records.tensor import RawTensor

#: Settings of a loader that need change nothing of what it delivers; if they do, a row says so.
_SPEED = ("workers", "persistent workers")


class Recorded:
    """Reads the traces of a recording a chunk at a time.

    Args:
        evidence: The recording, whose files passed checks 1 to 5.
    """

    def __init__(self, evidence: RecordingEvidence) -> None:
        self.evidence = evidence
        self.manifest = evidence.manifest
        self._chunks: dict[int, tuple[int, Trace]] = {}
        self._first: dict[int, Trace] = {}
        common = [{taken.step for taken in rank.checkpoints} for rank in self.manifest.ranks]
        self.checkpoints = sorted(set.intersection(*common))

    def rank(self, number: int) -> RankRecord | None:
        """The record of a rank, or None where there is no such rank."""
        ranks = self.manifest.ranks
        return ranks[number] if 0 <= number < len(ranks) else None

    def checkpoint(self, rank: int, step: int) -> Path:
        """The file of a checkpoint."""
        return (self.evidence.root / self._file(rank, step)).resolve()

    def snapshot(self, rank: int, step: int) -> tuple[Mapping[str, RawTensor], object]:
        """Content of a checkpoint."""
        return self.evidence.tensors(self._file(rank, step))

    def part(self, told: Told, row: Trace) -> Parting | None:
        """Where a process's row parts from the recorded one.

        A row is read by one thread a rank, so that no two touch the same chunk.
        """
        record = self.rank(told.rank)
        if record is None:
            return Parting(told.where, row.first_step, "processes", (), "length")
        if row.first_step > record.steps + 1:
            return Parting(told.where, row.first_step, "steps", (), "length")
        starts, chunk = self.other_starts(told), self._chunk(record, row.first_step)
        first = self._first.setdefault(told.rank, row)
        idle = [
            name
            for name in starts
            if _is_idle(record, name)
            and row.cell(row.first_step, name) == first.cell(first.first_step, name)
        ]
        seen = {**row.columns, **{name: chunk.cell(row.first_step, name) for name in idle}}
        return part_rows(
            told.where,
            chunk,
            Trace(row.first_step, row.loss_bits, seen),
            starts if row.first_step == 1 else (),
        )

    def other_starts(self, told: Told) -> Collection[str]:
        """Random streams that were elsewhere when the process handed its objects over."""
        record = self.rank(told.rank)
        if record is None or told.about is None:
            return ()
        starts = {stream.stream: stream.start for stream in record.rng.streams}
        here = told.about.starts
        return [name for name in here if starts.get(name) not in (None, here[name])]

    def part_ends(self, told: Told) -> Iterator[Parting]:
        """Where the end of a loop parts from the recorded one."""
        record, ending = self.rank(told.rank), told.ending
        if record is None or ending is None:
            return
        if ending.steps != record.steps:
            yield Parting(told.where, ending.steps + 1, "steps", (), "length")
        if ending.order_sha256 != record.order_sha256:
            yield Parting(told.where, None, "order", (), "order drift")
        if ending.consumed_sha256 != record.consumed_sha256:
            yield Parting(told.where, None, "batch", (), "data drift")
        idle = [
            name
            for name in self.other_starts(told)
            if _is_idle(record, name) and ending.final.get(name) == told.initial.get(name)
        ]
        for committed, state, step in (
            (record.initial, told.initial, 1),
            (record.final, ending.final, record.steps + 1),
        ):
            found = {**state, **{name: committed[name] for name in idle if name in committed}}
            parting = compare_commitments(told.where, committed, found, step)
            if parting is not None:
                yield parting
        for loader, key, *_ in _loader_differences(record, told.about):
            if key not in _SPEED:
                yield Parting(told.where, None, f"{key} of the {loader}", (), "description")

    def other_code(self, told: Told) -> tuple[str, ...]:
        """What a loop consists of that is not what was recorded, a line each."""
        record, about = self.rank(told.rank), told.about
        if record is None or about is None:
            return ()
        loaders = (
            f"{loader}: {key} is {there} there, {here} here"
            for loader, key, there, here in _loader_differences(record, about)
        )
        return (*self._files(about), *self._arguments(about), *loaders)

    def _files(self, about: About) -> Iterator[str]:
        there = {file.name: file.sha256 for file in self.manifest.program.code}
        here = {file.name: file.sha256 for file in about.code}
        for name in sorted(set(there) | set(here)):
            if name in there and name in here:
                if there[name] != here[name]:
                    yield f"{name} is another file than the recorded one"
            elif name in here:
                yield f"{name} is no recorded file"

    def _arguments(self, about: About) -> Iterator[str]:
        there, here = self.manifest.command, about.command
        if there != here:
            shown = [" ".join(words) or "none" for words in (there, here)]
            yield f"the script's arguments: {shown[0]} there, {shown[1]} here"

    def _file(self, rank: int, step: int) -> str:
        taken = self.manifest.ranks[rank].checkpoints
        return next(checkpoint.file for checkpoint in taken if checkpoint.step == step)

    def _chunk(self, record: RankRecord, step: int) -> Trace:
        number = min((step - 1) // TRACE_STEPS, len(record.traces) - 1)
        kept = self._chunks.get(record.rank)
        if kept is None or kept[0] != number:
            kept = self._chunks[record.rank] = (number, self.evidence.trace(record.traces[number]))
        return kept[1]


def _is_idle(record: RankRecord, stream: str) -> bool:
    """Whether nothing drew from a stream in the whole recording: where it stood is no matter."""
    return any(one.stream == stream and one.start == one.end for one in record.rng.streams)


def _loader_differences(
    record: RankRecord, about: About | None
) -> Iterator[tuple[str, str, str, str]]:
    """Loader, setting, and what it is there and here."""
    loaders = {} if about is None else about.loaders
    for name in sorted(set(record.loaders) | set(loaders)):
        there, here = record.loaders.get(name, {}), loaders.get(name, {})
        for key in sorted(set(there) | set(here)):
            if there.get(key) != here.get(key):
                loader = f"loader {name}" if name else "training loader"
                yield loader, key, there.get(key, "absent"), here.get(key, "absent")
