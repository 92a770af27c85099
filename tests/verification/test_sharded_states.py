"""Two ranks that hold a tensor together: what of their checkpoints is not as the manifest says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from record_examples import RANK, RECORDING

from auditkit.evidence.reader import RecordingEvidence
from auditkit.files import store
from auditkit.formats.chunk_digests import digest_parts, parts_of
from auditkit.formats.snapshot_file import FORMAT, tensor_key
from auditkit.records.manifest import FileRecord
from auditkit.records.recording import CheckpointRecord
from auditkit.records.sharding import Shard, ShardedState
from auditkit.records.tensor import RawTensor
from auditkit.verification.sharded_states import check_sharded, sharded_note

NUMBERS = np.arange(12, dtype="<f4").reshape(6, 2)
WHOLE = digest_parts(
    [parts_of({"w": RawTensor("float32", (6, 2), NUMBERS.tobytes())}, {}, "params")], "params"
).hex()


@dataclass
class Forged:
    """What two ranks have left, to be changed before it is written."""

    rows: list[tuple[int, int]] = field(default_factory=lambda: [(0, 4), (4, 6)])
    numbers: list[np.ndarray] = field(default_factory=lambda: [NUMBERS.copy(), NUMBERS.copy()])
    claimed: dict[str, str] = field(default_factory=lambda: {"params": WHOLE})
    sharded: list[tuple[str, ...]] = field(default_factory=lambda: [("params",), ("params",)])
    shards: list[dict[str, Shard] | None] = field(default_factory=lambda: [None, None])
    steps: tuple[int, ...] = (2,)

    def write(self, folder: Path) -> RecordingEvidence:
        """Write the checkpoints; the manifest agrees with them but for what was changed."""
        ranks, files = [], []
        for rank, (first, last) in enumerate(self.rows):
            name = f"checkpoint-{rank}.safetensors"
            part = self.numbers[rank][first:last]
            shards = self.shards[rank] or {"w": Shard((6, 2), first)}
            tree = {
                "params": {e: {"first": s.first, "shape": list(s.shape)} for e, s in shards.items()}
            }
            meta = {
                "format": FORMAT,
                "components": {
                    "params": {"w": {"dtype": "float32", "shape": list(part.shape)}},
                    "sharding": {"": {"json": tree}},
                },
            }
            raw = RawTensor("float32", part.shape, part.tobytes())
            store.write_tensors(folder / name, {tensor_key("params", "w"): raw}, meta)
            taken = CheckpointRecord(2, name, {"params": "", "sharding": ""})
            ranks.append(replace(RANK, rank=rank, checkpoints=(taken,), sharded=self.sharded[rank]))
            files.append(FileRecord(name, "checkpoint", (folder / name).stat().st_size, ""))
        states = tuple(ShardedState(step, self.claimed) for step in self.steps)
        manifest = replace(RECORDING, ranks=tuple(ranks), files=tuple(files), sharded=states)
        return RecordingEvidence(folder, manifest)


def said(forged: Forged, folder: Path) -> list[str]:
    """What is found."""
    return [finding.message for finding in check_sharded(forged.write(folder))]


def test_an_honest_one_passes(tmp_path: Path) -> None:
    assert said(Forged(), tmp_path) == []


def test_replicas_that_are_equal_pass(tmp_path: Path) -> None:
    assert said(Forged(rows=[(0, 6), (0, 6)]), tmp_path) == []


def _other_number(forged: Forged) -> None:
    forged.numbers[1][5, 1] += 1


def _moved_rows(forged: Forged) -> None:
    forged.shards = [{"w": Shard((6, 2), 2)}, {"w": Shard((6, 2), 0)}]


def _gap(forged: Forged) -> None:
    forged.rows = [(0, 3), (4, 6)]


def _unequal_replicas(forged: Forged) -> None:
    forged.rows = [(0, 6), (0, 6)]
    _other_number(forged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_number, "the checkpoints hold another state than committed"),
        (_moved_rows, "the checkpoints hold another state than committed"),
        (_gap, "rows are in no part, at byte 24"),
        (_unequal_replicas, "processes that hold the same rows hold other numbers"),
        (lambda f: f.claimed.update(grad=WHOLE), "what is sharded has no digest, or is not"),
        (lambda f: f.claimed.clear(), "what is sharded has no digest, or is not"),
        (
            lambda f: setattr(f, "sharded", [(), ()]),
            "the manifest and the checkpoints differ on its sharding",
        ),
        (
            lambda f: setattr(f, "sharded", [("params",), ()]),
            "other components are sharded than of rank 0",
        ),
        (lambda f: setattr(f, "steps", (2, 7)), "a digest of a state that not every rank has kept"),
        (lambda f: setattr(f, "steps", (2, 0)), "digests are not in the order of their steps"),
        (
            lambda f: setattr(f, "shards", [{"v": Shard((6, 2), 0)}, None]),
            "a part of what is not there",
        ),
        (
            lambda f: setattr(f, "shards", [{"w": Shard((6, 3), 0)}, None]),
            "a part of another shape than the whole",
        ),
    ],
)
def test_a_forgery_is_named(
    tmp_path: Path, change: Callable[[Forged], object], message: str
) -> None:
    forged = Forged()
    change(forged)
    assert message in said(forged, tmp_path)


def test_what_is_said_to_be_sharded_and_is_whole_in_the_checkpoints(tmp_path: Path) -> None:
    evidence = Forged(sharded=[("grad", "params")] * 2).write(tmp_path)
    ranks = tuple(
        replace(
            rank,
            checkpoints=(replace(rank.checkpoints[0], digests={"params": "", "grad": ""}),),
        )
        for rank in evidence.manifest.ranks
    )
    evidence = RecordingEvidence(tmp_path, replace(evidence.manifest, ranks=ranks))
    (finding,) = check_sharded(evidence)
    assert (finding.component, finding.step) == ("grad", 2)


def test_a_digest_of_what_one_rank_alone_has_kept_is_nobody_s_to_make_again(tmp_path: Path) -> None:
    evidence = Forged(claimed={"params": "5" * 64}).write(tmp_path)
    kept, other = evidence.manifest.ranks
    ranks = tuple(replace(rank, steps=9) for rank in (kept, replace(other, checkpoints=())))
    evidence = RecordingEvidence(tmp_path, replace(evidence.manifest, ranks=ranks))
    (finding,) = check_sharded(evidence)
    assert (finding.message, finding.step) == (
        "a digest of a state that not every rank has kept",
        2,
    )


def test_it_is_said_which_digests_of_the_whole_were_made_again(tmp_path: Path) -> None:
    manifest = Forged(steps=(0, 2, 5)).write(tmp_path).manifest
    told = "; digests of the whole made again after 2 and not made again after 0, 5"
    assert sharded_note(manifest) == told
    assert sharded_note(replace(manifest, sharded=())) == ""
