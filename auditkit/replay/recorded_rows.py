"""What a recording says of each row, commitment and setting, for a run that is compared with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from auditkit.evidence.comparison import Mismatch, compare_commitments, compare_rows
from auditkit.evidence.reader import RecordingEvidence
from auditkit.evidence.settings import (
    SettingDifference,
    Snapshot,
    held_settings,
    setting_differences,
)
from auditkit.evidence.still_streams import still_streams
from auditkit.formats.group_values import (
    Plain,
    group_values,
    hyper_parameters,
    is_groups,
    numbers,
    parsed_numbers,
)
from auditkit.formats.scalar_file import groups_at, scalars_from_tensors
from auditkit.formats.snapshot_file import raw_components
from auditkit.processes.row_server import RankStatus, ScriptInfo
from auditkit.records.evidence import Trace, is_consumed
from auditkit.records.recording import TRACE_STEPS, CheckpointRecord, RankRecord
from auditkit.records.task import RowsTask
from auditkit.records.tensor import RawTensor
from auditkit.replay.checkpoint_comparison import CheckpointComparison

#: Settings of a loader that need change nothing of what it delivers; if they do, a row says so.
_SPEED_ONLY = ("workers", "persistent workers")

_AT_END = "the first as the record ended"


class RecordedRows:
    """Reads the traces of a recording a chunk at a time.

    Args:
        evidence: The recording, whose files passed checks 1 to 5.
    """

    def __init__(self, evidence: RecordingEvidence) -> None:
        self.evidence = evidence
        self.manifest = evidence.manifest
        self._chunks: dict[int, tuple[int, Trace]] = {}
        self._first: dict[int, Trace] = {}
        self._latest: dict[int, Trace] = {}
        self._still: dict[int, tuple[str, ...]] = {}
        common = [
            {checkpoint.step for checkpoint in rank.checkpoints} for rank in self.manifest.ranks
        ]
        self.checkpoints = sorted(set.intersection(*common))

    def begin(self) -> None:
        """Another run is compared from now on: what the one before drew from says nothing of it."""
        self._first, self._latest = {}, {}

    @property
    def size(self) -> int:
        """How many processes were recorded."""
        return self.manifest.world.size

    def rank(self, number: int) -> RankRecord | None:
        """The record of a rank, or None where there is no such rank."""
        ranks = self.manifest.ranks
        return ranks[number] if 0 <= number < len(ranks) else None

    def without_idle(self, status: RankStatus, row: Trace) -> Trace:
        """A row without the random streams that stand elsewhere and that nothing draws from."""
        idle = self._idle_columns(status, row)
        kept = {name: cell for name, cell in row.columns.items() if name not in idle}
        return replace(row, columns=kept)

    def _idle_columns(self, status: RankStatus, row: Trace) -> list[str]:
        record, first = self.rank(status.rank), self._first.get(status.rank, row)
        return [
            name
            for name in self.differing_starts(status)
            if record is not None
            and name in self._still_streams(record)
            and row.cell(row.first_step, name) == first.cell(first.first_step, name)
        ]

    def settings(
        self, rank: int, mismatch: Mismatch, here: Mapping[str, Plain]
    ) -> tuple[SettingDifference, ...]:
        """Hyper-parameters that are not the recorded ones where a process differs.

        Args:
            rank: The process.
            mismatch: How it differs.
            here: Plain values of its groups there.
        """
        record, step = self.rank(rank), mismatch.step
        if record is None or step is None:
            return ()
        if not any(map(is_groups, (mismatch.component, *mismatch.others))):
            return ()
        frozen = self._frozen_values(record, step)
        counted, seen = self._group_numbers(record, step, frozen)
        others = {name: value for name, value in here.items() if name not in counted}
        return (
            *_differences(counted, here, step, seen),
            *_differences(*self._group_texts(frozen, others), step, "" if frozen else _AT_END),
        )

    def held_settings(
        self, mismatch: Mismatch, there: Snapshot, here: Snapshot, taken_after: int
    ) -> Iterator[SettingDifference]:
        """The same of optimizers that are extras, by a checkpoint's state there and here."""
        first = dict.fromkeys((mismatch.component, *mismatch.others), mismatch.step or 0)
        yield from held_settings(there, here, taken_after + 1, first)

    def _group_numbers(
        self, record: RankRecord, step: int, frozen: Mapping[str, Plain]
    ) -> tuple[Mapping[str, float], str]:
        """The recorded numbers of the groups before a step, and when they were so."""
        if record.scalars is not None:
            tensors, _ = self.evidence.tensors(record.scalars)
            return groups_at(scalars_from_tensors(tensors, what=record.scalars), step), ""
        if frozen:
            return numbers(frozen), ""
        return parsed_numbers(hyper_parameters(self.manifest.program.description)), _AT_END

    def _group_texts(
        self, frozen: Mapping[str, Plain], here: Mapping[str, Plain]
    ) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Values that are no recorded numbers: the recorded ones, and those here.

        A description says nothing of those that are None, takes a tuple for one value, and parts
        values by commas and semicolons.
        """
        told = hyper_parameters(self.manifest.program.description)
        groups = {name.partition("].")[0] for name in (frozen or told)}
        there, found = {}, {}
        for name, value in here.items():
            group, _, own = name.partition("].")
            is_told = bool(frozen) or not {",", ";"} & set(str(value))
            if group in groups and is_told and "[" not in own:
                there[name] = str(frozen.get(name)) if frozen else told.get(name, "None")
                found[name] = str(value)
        return there, found

    def _frozen_values(self, record: RankRecord, step: int) -> Mapping[str, Plain]:
        """Values of the groups in a checkpoint of the moment before a step; none without one."""
        taken = next((c for c in record.checkpoints if c.step == step - 1), None)
        if taken is None:
            return {}
        found: dict[str, Plain] = {}
        for name, (entries, _) in raw_components(*self.evidence.tensors(taken.file)).items():
            text = entries.get("")
            if is_groups(name) and isinstance(text, bytes):
                found.update(group_values(name, text))
        return found

    def task_from(self, rank: int, step: int, task: RowsTask) -> RowsTask:
        """The task, to be begun at a rank's checkpoint."""
        taken = self._checkpoint(rank, step)
        path = str((self.evidence.root / taken.file).resolve())
        return replace(task, checkpoint=path, drawn=taken.drawn, first_step=step + 1)

    def snapshot(self, rank: int, step: int) -> tuple[Mapping[str, RawTensor], object]:
        """Content of a checkpoint."""
        return self.evidence.tensors(self._checkpoint(rank, step).file)

    def compare_row(self, status: RankStatus, row: Trace) -> Mismatch | None:
        """How a process's row differs from the recorded one.

        A row is read by one thread a rank, so that no two touch the same chunk.
        """
        record = self.rank(status.rank)
        if record is None:
            return Mismatch(status.where, row.first_step, "processes", (), "length")
        if row.first_step > record.steps + 1:
            return Mismatch(status.where, row.first_step, "steps", (), "length")
        starts, chunk = self.differing_starts(status), self._chunk(record, row.first_step)
        self._first.setdefault(status.rank, row)
        self._latest[status.rank] = row
        idle = self._idle_columns(status, row)
        seen = {**row.columns, **{name: chunk.cell(row.first_step, name) for name in idle}}
        if self.manifest.closed_as is not None and row.first_step == record.steps + 1:
            # The recorded process died in this step, of which only the state before it is left.
            seen = {name: cell for name, cell in seen.items() if not is_consumed(name)}
            row = replace(row, loss_bits=bytes(8))
        return compare_rows(
            status.where,
            chunk,
            Trace(row.first_step, row.loss_bits, seen),
            starts if row.first_step == 1 else (),
        )

    def drawn_starts(self, status: RankStatus) -> tuple[str, ...]:
        """Those of :meth:`differing_starts` that something draws from."""
        latest = self._latest.get(status.rank)
        idle = self._idle_columns(status, latest) if latest is not None else ()
        return tuple(name for name in self.differing_starts(status) if name not in idle)

    def differing_starts(self, status: RankStatus) -> Collection[str]:
        """Random streams that were elsewhere when the process handed its objects over."""
        record = self.rank(status.rank)
        if record is None or status.info is None:
            return ()
        starts = {stream.stream: stream.start for stream in record.rng.streams}
        here = status.info.starts
        return [name for name in here if starts.get(name) not in (None, here[name])]

    def compare_start(self, status: RankStatus) -> Iterator[Mismatch]:
        """Where the state before the first step differs from the one that was committed to."""
        record = self.rank(status.rank)
        if record is not None:
            yield from self._compare_state(status, record, record.initial, status.initial, 1)

    def compare_end(self, status: RankStatus) -> Iterator[Mismatch]:
        """Where the end of a loop differs from the recorded one."""
        record, summary = self.rank(status.rank), status.summary
        if record is None or summary is None:
            return
        if summary.epochs != record.epochs:
            yield Mismatch(status.where, None, "epochs", (), "length")
        if summary.steps != record.steps:
            yield Mismatch(status.where, summary.steps + 1, "steps", (), "length")
        if summary.order_sha256 != record.order_sha256:
            yield Mismatch(status.where, None, "order", (), "order drift")
        if summary.consumed_sha256 != record.consumed_sha256:
            yield Mismatch(status.where, None, "batch", (), "data drift")
        yield from self.compare_start(status)
        yield from self._compare_state(
            status, record, record.final, summary.final, record.steps + 1
        )
        # What is said to be a part need not be the same in all ranks.
        for name in sorted(summary.final.keys() & ({*record.sharded} ^ {*summary.sharded})):
            yield Mismatch(status.where, None, f"sharding of {name}", (), "description")
        for loader, key, *_ in _loader_differences(record, status.info):
            if key not in _SPEED_ONLY:
                yield Mismatch(
                    status.where, None, f"{key} of the {_loader(loader)}", (), "description"
                )

    def _compare_state(
        self,
        status: RankStatus,
        record: RankRecord,
        committed: Mapping[str, str],
        state: Mapping[str, str],
        step: int,
    ) -> Iterator[Mismatch]:
        idle = self._idle_streams(record, status)
        found = {**state, **{name: committed[name] for name in idle if name in committed}}
        mismatch = compare_commitments(status.where, committed, found, step)
        if mismatch is not None:
            yield mismatch

    def checkpoint_comparison(self, status: RankStatus) -> CheckpointComparison | None:
        """Compares a process's checkpoints; None where it is none of the recorded ones."""
        record = self.rank(status.rank)
        if record is None:
            return None
        others = {loader for loader, *_ in _loader_differences(record, status.info)}
        idle = self._idle_streams(record, status)
        return CheckpointComparison(self.evidence, record, status, idle, others)

    def false_starts(self, status: RankStatus) -> tuple[str, ...]:
        """Random streams that are used, and did not begin where the record says."""
        record = self.rank(status.rank)
        if record is None or status.info is None:
            return ()
        idle, here = self._idle_streams(record, status), status.info.starts
        return tuple(
            one.stream
            for one in record.rng.streams
            if one.start not in (None, here.get(one.stream)) and one.stream not in idle
        )

    def idle_streams(self, status: RankStatus) -> list[str]:
        """Streams of a process that began elsewhere, and that nobody drew from."""
        record = self.rank(status.rank)
        return [] if record is None else self._idle_streams(record, status)

    def _idle_streams(self, record: RankRecord, status: RankStatus) -> list[str]:
        """Streams that stood elsewhere, and that nobody drew from, there or here."""
        still = self._still_streams(record)
        idle = [name for name in self.differing_starts(status) if name in still]
        if status.summary is not None:
            final, initial = status.summary.final, status.initial
            return [name for name in idle if final.get(name) == initial.get(name)]
        first, latest = self._first.get(status.rank), self._latest.get(status.rank)
        if first is None or latest is None:
            return []
        # Of a loop that is looked at in part, the rows say it.
        return [name for name in idle if first.columns.get(name) == latest.columns.get(name)]

    def _still_streams(self, record: RankRecord) -> tuple[str, ...]:
        if record.rank not in self._still:
            rows = map(self.evidence.trace, record.traces)
            self._still[record.rank] = still_streams(record, rows)
        return self._still[record.rank]

    def differing_code(self, status: RankStatus) -> tuple[str, ...]:
        """What a loop consists of that is not what was recorded, a line each."""
        record, info = self.rank(status.rank), status.info
        if record is None or info is None:
            return ()
        loaders = (
            f"{_loader(loader)}: {key} is {there} there, {here} here"
            for loader, key, there, here in _loader_differences(record, info)
        )
        return (*self._files(info), *self._arguments(info), *loaders)

    def _files(self, info: ScriptInfo) -> Iterator[str]:
        there = {file.name: file.sha256 for file in self.manifest.program.code}
        here = {file.name: file.sha256 for file in info.code}
        for name in sorted(set(there) | set(here)):
            if name in there and name in here:
                if there[name] != here[name]:
                    yield f"{name} is another file than the recorded one"
            elif name in here:
                yield f"{name} is no recorded file"

    def _arguments(self, info: ScriptInfo) -> Iterator[str]:
        there, here = self.manifest.command, info.command
        if there != here:
            shown = [" ".join(arguments) or "none" for arguments in (there, here)]
            yield f"the script's arguments: {shown[0]} there, {shown[1]} here"
        for arguments in self.manifest.resumed_with:
            yield f"the recording was resumed with other arguments: {' '.join(arguments) or 'none'}"

    def _checkpoint(self, rank: int, step: int) -> CheckpointRecord:
        checkpoints = self.manifest.ranks[rank].checkpoints
        return next(checkpoint for checkpoint in checkpoints if checkpoint.step == step)

    def _chunk(self, record: RankRecord, step: int) -> Trace:
        number = min((step - 1) // TRACE_STEPS, len(record.traces) - 1)
        kept = self._chunks.get(record.rank)
        if kept is None or kept[0] != number:
            kept = self._chunks[record.rank] = (number, self.evidence.trace(record.traces[number]))
        return kept[1]


def _differences(
    there: Mapping[str, object], here: Mapping[str, object], step: int, seen: str
) -> tuple[SettingDifference, ...]:
    """Those of the values that both sides have."""
    known = set(there) & set(here)
    left, right = ({name: side[name] for name in known} for side in (there, here))
    return setting_differences(left, right, step, seen)


def _loader(name: str) -> str:
    """How messages name a loader."""
    return f"loader {name}" if name else "training loader"


def _loader_differences(
    record: RankRecord, info: ScriptInfo | None
) -> Iterator[tuple[str, str, str, str]]:
    """Name of the loader, setting, and what it is there and here."""
    loaders = {} if info is None else info.loaders
    for name in sorted(set(record.loaders) | set(loaders)):
        there, here = record.loaders.get(name, {}), loaders.get(name, {})
        for key in sorted(set(there) | set(here)):
            if there.get(key) != here.get(key):
                yield name, key, there.get(key, "absent"), here.get(key, "absent")
