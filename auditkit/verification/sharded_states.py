"""Check 4 of a recording, for what its processes hold together.

The digest of a sharded component is made anew from the checkpoints of all ranks. Of a state of
which there is no checkpoint nobody can make it; a replay compares the commitments of every rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from auditkit.errors import AuditError
from auditkit.evidence.reader import RecordingEvidence
from auditkit.evidence.verdicts import as_finding
from auditkit.files import artifacts
from auditkit.formats import tensor_file
from auditkit.formats.chunk_digests import digest_parts
from auditkit.formats.shard_parts import Parts, checkpoint_parts
from auditkit.formats.snapshot_file import raw_components
from auditkit.records.recording import CheckpointRecord, RankRecord, RecordingManifest
from auditkit.records.report import Finding

_WORLD = "sharded"


def check_sharded(evidence: RecordingEvidence) -> Iterator[Finding]:
    """Findings about sharded components."""
    manifest = evidence.manifest
    ranks, states = manifest.ranks, {state.step: state for state in manifest.sharded}
    if [state.step for state in manifest.sharded] != sorted(states):
        yield Finding("digests are not in the order of their steps", _WORLD)
    for rank in ranks[1:]:
        if rank.sharded != ranks[0].sharded:
            yield Finding("other components are sharded than of rank 0", f"rank {rank.rank}")
    taken = [{checkpoint.step: checkpoint for checkpoint in rank.checkpoints} for rank in ranks]
    steps = _kept(ranks)
    for step in sorted(set(states) - {0, ranks[0].steps, *steps}):
        yield Finding("a digest of a state that not every rank has kept", _WORLD, step)
    for step in sorted(steps):
        digests = states[step].digests if step in states else {}
        found: dict[str, str] = {}
        yield from _check_step(evidence, [one[step] for one in taken], ranks[0], found)
        for name in sorted(set(found) ^ set(digests)):
            yield Finding("what is sharded has no digest, or is not", _WORLD, step, name)
        for name in sorted(set(found) & set(digests)):
            if found[name] != digests[name]:
                text = "the checkpoints hold another state than committed"
                yield Finding(text, _WORLD, step, name)


def sharded_note(manifest: RecordingManifest) -> str:
    """Which digests of the whole were made again, for people; empty where nothing is sharded."""
    steps = {state.step for state in manifest.sharded}
    if not steps:
        return ""
    made = steps & _kept(manifest.ranks)
    parts = [
        f"{told} after {', '.join(map(str, sorted(some)))}"
        for told, some in (("made again", made), ("not made again", steps - made))
        if some
    ]
    return f"; digests of the whole {' and '.join(parts)}"


def _kept(ranks: Sequence[RankRecord]) -> set[int]:
    """Steps after which every rank has a checkpoint."""
    return set.intersection(*({one.step for one in rank.checkpoints} for rank in ranks))


def _check_step(
    evidence: RecordingEvidence,
    checkpoints: list[CheckpointRecord],
    rank: RankRecord,
    found: dict[str, str],
) -> Iterator[Finding]:
    """Put the digests that the checkpoints of one step have together into ``found``."""
    step, contributed = checkpoints[0].step, []
    for checkpoint in checkpoints:
        try:
            contributed.append(_parts(evidence, checkpoint.file))
        except AuditError as error:
            yield as_finding(error)
            return
    names = {name for one in contributed for name in one}
    present = {name for checkpoint in checkpoints for name in checkpoint.digests}
    for name in sorted((names - set(rank.sharded)) | (present & set(rank.sharded) - names)):
        yield Finding("the manifest and the checkpoints differ on its sharding", _WORLD, step, name)
    for name in sorted(names):
        try:
            found[name] = digest_parts([one.get(name, {}) for one in contributed], name).hex()
        except AuditError as error:
            yield Finding(error.message, _WORLD, step, name)


def _parts(evidence: RecordingEvidence, file: str) -> Parts:
    """What a checkpoint contributes; raises as :meth:`RecordingEvidence.sections`."""
    size = evidence.listed(file).size
    with artifacts.open_reader(evidence.root, file, expected_size=size) as read:
        return checkpoint_parts(raw_components(*tensor_file.from_file(read, size, what=file)))
