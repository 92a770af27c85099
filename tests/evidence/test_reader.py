from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from studies import Run

from auditkit.errors import ArtifactMismatch, ArtifactMissing, FormatError
from auditkit.evidence import reader
from auditkit.evidence.reader import RunEvidence
from auditkit.files import store
from auditkit.records.manifest import FileRecord

FORK = "seed-0000/fork.safetensors"
TRACE = "seed-0000/control.trace.safetensors"


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


@pytest.mark.parametrize("at_once", [1, 2**30])
def test_tensors_are_the_files(small: Run, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(reader, "_ONE_READ", at_once)
    run = RunEvidence(small.folder, small.manifest)
    for file in small.manifest.files:
        if file.name.endswith(".safetensors"):
            expected = store.read_tensors(small.folder / file.name, what="x")
            tensors, metadata = run.tensors(file.name)
            assert (tensors, metadata) == expected
            assert list(tensors) == list(expected[0])


@pytest.mark.parametrize("place", [0, 8, 20, -1])
def test_a_file_that_was_damaged_is_not_what_was_signed_wherever_that_is(
    forged: Run, place: int
) -> None:
    run = RunEvidence(forged.folder, forged.manifest)
    data = bytearray((forged.folder / TRACE).read_bytes())
    data[place] ^= 255
    (forged.folder / TRACE).write_bytes(data)
    with pytest.raises(ArtifactMismatch, match="another SHA-256"):
        run.tensors(TRACE)
    assert not run.intact


def test_what_was_signed_and_is_no_tensor_file_is_malformed(forged: Run) -> None:
    data = b"no tensors at all"
    (forged.folder / TRACE).write_bytes(data)
    listed = FileRecord(TRACE, "trace", len(data), hashlib.sha256(data).hexdigest())
    run = RunEvidence(forged.folder, replace(forged.manifest, files=(listed,)))
    with pytest.raises(FormatError, match="not a safetensors file"):
        run.tensors(TRACE)
