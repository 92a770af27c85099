"""Digests of what the processes of a loop hold together, whatever their number.

They are made of the state at the start, of every checkpoint that is kept, and of the state at the
end. A process hashes what it holds and leaves that in a file; rank 0 puts the files together when
all are done. So nothing is sent in the midst of the loop, and nothing can wait there for ever.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from auditkit.errors import FormatError
from auditkit.files import store
from auditkit.files.recording_folder import RecordingFolder
from auditkit.files.shard_parts import ShardParts
from auditkit.formats.chunk_digests import digest_parts
from auditkit.formats.shard_parts import checkpoint_parts
from auditkit.formats.snapshot_file import raw_components
from auditkit.records.recording import CheckpointRecord, RankRecord
from auditkit.records.sharding import ShardedState


def leave_checkpoints(folder: RecordingFolder, checkpoints: Iterable[CheckpointRecord]) -> None:
    """Leave what this process holds of the states in its checkpoints."""
    for checkpoint in checkpoints:
        path = folder.checkpoint_path(checkpoint)
        with store.open_tensors(path, what=checkpoint.file) as content:
            found = checkpoint_parts(raw_components(*content))
        if found:
            folder.parts.write(checkpoint.step, found)


def joined_states(parts: Sequence[ShardParts], steps: Iterable[int]) -> tuple[ShardedState, ...]:
    """Digests of the states to which every process has contributed.

    Args:
        parts: The files of every process.
        steps: After how many steps the states are.
    """
    found = []
    for step in sorted(set(steps)):
        if all(one.has(step) for one in parts):
            contributed = [one.read(step) for one in parts]
            digests = {}
            for name in sorted(set.union(*(set(one) for one in contributed))):
                try:
                    component = [one.get(name, {}) for one in contributed]
                    digests[name] = digest_parts(component, name).hex()
                except FormatError as error:  # the recording is worth its manifest all the same
                    warnings.warn(
                        f"auditkit: no digest of {name} after step {step}: {error}", stacklevel=2
                    )
            found.append(ShardedState(step, digests))
    return tuple(found)


def states_of(root: Path, ranks: Sequence[RankRecord]) -> tuple[ShardedState, ...]:
    """Digests of the states of a recording that all ranks have left; none where none is sharded."""
    if not any(rank.sharded for rank in ranks):
        return ()
    folders = [RecordingFolder(root, rank.rank, len(ranks)) for rank in ranks]
    # What a process has left may be there without its checkpoint, where that is lost.
    kept = set.intersection(*({one.step for one in rank.checkpoints} for rank in ranks))
    return joined_states([folder.parts for folder in folders], {0, ranks[0].steps, *kept})
