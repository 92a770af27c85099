from __future__ import annotations

import hashlib
import itertools
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from studies import Run

from auditkit.errors import ArtifactMismatch, ArtifactMissing, FormatError
from auditkit.evidence import reader
from auditkit.evidence.reader import RunEvidence
from auditkit.files import steady_file, store
from auditkit.formats.stored_order import StoredOrder
from auditkit.records.manifest import FileRecord
from auditkit.records.tensor import FileColumn, RawTensor

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


def test_tensors_are_the_files(small: Run) -> None:
    run = RunEvidence(small.folder, small.manifest)
    for file in small.manifest.files:
        if file.name.endswith(".safetensors"):
            expected = store.read_tensors(small.folder / file.name, what="x")
            tensors, metadata = run.tensors(file.name)
            assert (tensors, metadata) == expected
            assert list(tensors) == list(expected[0])


@pytest.mark.parametrize("at_once", [0, 2**24])
@pytest.mark.parametrize("lies", [range(2), range(1, 4), range(1, 99)])
def test_a_header_that_is_exchanged_while_it_is_read_fools_nobody(
    small: Run, monkeypatch: pytest.MonkeyPatch, at_once: int, lies: range
) -> None:
    expected = store.read_tensors(small.folder / TRACE, what="x")[0]
    n_read, pread = itertools.count(), os.pread

    def exchanged(file: int, n_bytes: int, start: int) -> bytes:
        data = pread(file, n_bytes, start)
        if next(n_read) not in lies:
            return data
        return data.replace(b'"order"', b'"other"').replace(b'"batch"', b'"order"')

    monkeypatch.setattr(reader, "_AT_ONCE", at_once)
    monkeypatch.setattr(os, "pread", exchanged)
    run = RunEvidence(small.folder, small.manifest)
    try:
        trace = run.trace(TRACE)
        found = {name: column[:] for name, column in trace.columns.items()}
    except ArtifactMismatch:
        return
    assert found == {name: expected[name].data for name in found}


def test_what_is_left_in_its_file_is_what_is_read_whole(
    small: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, order = RunEvidence(small.folder, small.manifest), "seed-0000/order.safetensors"
    trace, whole = run.trace(TRACE), run.order(order)
    monkeypatch.setattr(reader, "_AT_ONCE", 0)
    stored, left = run.trace(TRACE), run.order(order)
    assert {type(column) for column in stored.columns.values()} == {FileColumn}
    assert {name: stored.columns[name][:] for name in stored.columns} == trace.columns
    assert (stored.first_step, stored.loss_bits[:]) == (trace.first_step, trace.loss_bits)
    assert stored.first_difference(trace) is None
    assert isinstance(left.flat, StoredOrder)
    assert (left.content, left.difficulty) == (whole.content, whole.difficulty)
    for name in ("pairs", "sizes", "ends"):
        assert np.array_equal(getattr(left.flat, name), getattr(whole.flat, name))


def test_a_trace_that_changes_after_it_was_found_intact_is_refused(
    forged: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_AT_ONCE", 0)
    monkeypatch.setattr(steady_file, "BLOCK_BYTES", 100)
    run = RunEvidence(forged.folder, forged.manifest)
    trace = run.trace(TRACE)
    assert run.intact
    data = bytearray((forged.folder / TRACE).read_bytes())
    data[-1] ^= 255
    (forged.folder / TRACE).write_bytes(data)
    with pytest.raises(ArtifactMismatch, match="changed while it was read"):
        trace.cell(trace.last_step + 1, max(trace.columns))
    assert not run.intact


def test_the_memory_that_a_long_trace_takes_does_not_grow_with_it(
    small: Run, tmp_path: Path
) -> None:
    rows, names = 4 * 10**5, ("batch", "order", "params")
    steps = RawTensor("int64", (rows,), np.arange(1, rows + 1, dtype="<i8").tobytes())
    losses = RawTensor("uint64", (rows,), bytes(8 * rows))
    columns = {name: RawTensor("uint8", (rows, 16), bytes(16 * rows)) for name in names}
    path = tmp_path / "trace"
    store.write_tensors(path, {"step": steps, "loss_bits": losses, **columns})
    size, sha256 = store.stream_sha256(path)
    manifest = replace(small.manifest, files=(FileRecord("trace", "trace", size, sha256),))
    del steps, losses, columns
    tracemalloc.start()
    try:
        run = RunEvidence(tmp_path, manifest)
        one, other = run.trace("trace"), run.trace("trace")
        assert one.first_difference(other) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**23 < size / 3


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
