from __future__ import annotations

from pathlib import Path

import pytest
from studies import Run

from auditkit.errors import ArtifactMismatch, ArtifactMissing
from auditkit.evidence import reader
from auditkit.evidence.reader import RunEvidence
from auditkit.files import store

FORK = "seed-0000/fork.safetensors"


@pytest.mark.parametrize("size", [1, 1000, 2**22])
def test_pieces_are_the_file(small: Run, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(reader, "_PIECE", size)
    run = RunEvidence(small.folder, small.manifest)
    pieces = list(run.pieces(FORK))
    assert b"".join(pieces) == (small.folder / FORK).read_bytes()
    assert max(map(len, pieces)) <= size


def test_a_copy_of_what_was_not_signed_is_never_made(forged: Run, tmp_path: Path) -> None:
    run = RunEvidence(forged.folder, forged.manifest)
    data = bytearray((forged.folder / FORK).read_bytes())
    data[-1] ^= 1
    (forged.folder / FORK).write_bytes(data)
    with pytest.raises(ArtifactMismatch, match="another SHA-256"):
        store.write_bytes(tmp_path / "target", run.pieces(FORK))
    assert not [path for path in tmp_path.iterdir() if "target" in path.name]


def test_what_is_not_listed_has_no_pieces(small: Run) -> None:
    with pytest.raises(ArtifactMissing, match="lists no such file"):
        list(RunEvidence(small.folder, small.manifest).pieces("elsewhere"))
