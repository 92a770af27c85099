"""Compare the checkpoints of a recording with the states that a replay passed at the same steps.

By SHA-256, section by section: a row holds no more than a fast digest of each, and none of the
data position. The replaying process writes nothing; it commits to what a checkpoint would hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from auditkit.errors import AuditError
from auditkit.evidence.comparison import Mismatch, compare_commitments
from auditkit.evidence.reader import RecordingEvidence
from auditkit.formats.data_position import position_digests
from auditkit.formats.recipes import digest_raw
from auditkit.formats.snapshot_file import LOADER, raw_components
from auditkit.processes.row_server import RankStatus, StateCommitment
from auditkit.records.digest import COMMITMENT_RECIPE
from auditkit.records.recording import CheckpointRecord, RankRecord


class CheckpointComparison:
    """Compares the checkpoints of one process.

    Args:
        evidence: The recording.
        record: What it says of the process.
        status: What the replaying one has sent.
        idle: Random streams that nobody draws from, so that where they stood is no matter.
        other_loaders: Names of loaders that are set up in another way, which changes nothing of
            what they deliver, but what their position says.

    Attributes:
        compared: How many checkpoints were compared, every section of them.
    """

    def __init__(
        self,
        evidence: RecordingEvidence,
        record: RankRecord,
        status: RankStatus,
        idle: Collection[str],
        other_loaders: Collection[str],
    ) -> None:
        self._evidence, self._record, self._status = evidence, record, status
        self._idle = idle
        self._other = {f"{LOADER}/{name}" if name else LOADER for name in other_loaders}
        self.compared = 0

    def mismatches(self) -> Iterator[Mismatch]:
        """What differs, a checkpoint each."""
        for checkpoint in self._record.checkpoints:
            here = self._status.commitments.get(checkpoint.step)
            if here is None or not here.digests:
                continue  # no checkpoint can be taken here: not compared
            mismatch = self._compare(checkpoint, here)
            if mismatch is not None:
                yield mismatch

    def _compare(self, checkpoint: CheckpointRecord, here: StateCommitment) -> Mismatch | None:
        recorded = checkpoint.digests
        other = {name for name in here.positions if recorded.get(name) != here.digests[name]}
        same = {name for name in other if self._is_same_position(checkpoint, name, here)}
        unclear = (other - same) & self._other
        excused = {*self._idle, *same, *unclear}
        found = {**here.digests, **{name: recorded[name] for name in excused if name in recorded}}
        self.compared += not unclear
        where = f"{self._status.where}, {checkpoint.file}"
        return compare_commitments(where, recorded, found, checkpoint.step)

    def _is_same_position(
        self, checkpoint: CheckpointRecord, section: str, here: StateCommitment
    ) -> bool:
        """Whether nothing but streams that nobody draws from stands elsewhere in it."""
        try:
            tensors, meta = self._evidence.tensors(checkpoint.file)
            entries, aliases = raw_components(tensors, meta)[section]
            text = entries[""]
            if not isinstance(text, bytes):
                return False
            there = position_digests(
                text,
                lambda rest: digest_raw(COMMITMENT_RECIPE, {**entries, "": rest}, aliases),
            )
        except (AuditError, KeyError):
            return False
        parts = here.positions[section]
        names = (set(there) | set(parts)) - set(self._idle)
        return all(there.get(name) == parts.get(name) for name in names)
