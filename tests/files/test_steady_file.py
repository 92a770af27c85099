from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from auditkit.errors import ArtifactMismatch, ArtifactMissing, UnsafePath
from auditkit.files import steady_file
from auditkit.files.steady_file import BLOCK_BYTES, SteadyFile

DATA = os.urandom(5 * BLOCK_BYTES + 7)


def opened(folder: Path, data: bytes = DATA) -> SteadyFile:
    (folder / "file").write_bytes(data)
    return SteadyFile(folder, "file", len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 1),
        (BLOCK_BYTES - 1, BLOCK_BYTES + 1),
        (BLOCK_BYTES, 2 * BLOCK_BYTES),
        (3, len(DATA)),
        (len(DATA) - 1, len(DATA)),
        (9, 9),
    ],
)
def test_a_part_is_that_of_the_file(tmp_path: Path, start: int, stop: int) -> None:
    file = opened(tmp_path)
    for _ in range(2):  # from the file, and from what is kept of it
        assert file.read(start, stop - start) == DATA[start:stop]


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, 16 * BLOCK_BYTES, 16 * BLOCK_BYTES + 1])
def test_a_file_of_any_length_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    assert opened(tmp_path, data).read(0, size) == data


def test_what_was_not_signed_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(ArtifactMismatch, match="another SHA-256"):
        SteadyFile(tmp_path, "file", len(DATA), other)
    with pytest.raises(ArtifactMismatch, match="another size"):
        SteadyFile(tmp_path, "file", len(DATA) - 1, hashlib.sha256(DATA).hexdigest())


@pytest.mark.parametrize("place", [0, BLOCK_BYTES - 1, BLOCK_BYTES, len(DATA) - 1])
def test_a_byte_that_changed_after_the_digest_is_never_given(tmp_path: Path, place: int) -> None:
    file = opened(tmp_path)
    edited = bytearray(DATA)
    edited[place] ^= 1
    (tmp_path / "file").write_bytes(edited)
    block = place // BLOCK_BYTES
    for start, n_bytes in ((place, 1), (0, len(DATA)), (block * BLOCK_BYTES, 1)):
        with pytest.raises(ArtifactMismatch, match="changed while it was read"):
            file.read(start, n_bytes)
    elsewhere = 3 * BLOCK_BYTES
    assert file.read(elsewhere, 5) == DATA[elsewhere : elsewhere + 5]


def test_equal_blocks_at_other_places_do_not_stand_for_each_other(tmp_path: Path) -> None:
    blocks = [bytes([number]) * BLOCK_BYTES for number in range(3)]
    file = opened(tmp_path, b"".join(blocks))
    (tmp_path / "file").write_bytes(blocks[1] + blocks[0] + blocks[2])
    for place in (0, BLOCK_BYTES):
        with pytest.raises(ArtifactMismatch, match="changed while it was read"):
            file.read(place, 1)


def test_a_file_that_is_gone_or_became_a_link_is_refused(tmp_path: Path) -> None:
    file = opened(tmp_path)
    (tmp_path / "file").rename(tmp_path / "moved")
    with pytest.raises(ArtifactMissing):
        file.read(0, 1)
    (tmp_path / "file").symlink_to("moved")
    with pytest.raises(UnsafePath):
        file.read(0, 1)


def test_few_blocks_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady_file, "_KEPT_BLOCKS", 2)
    file = opened(tmp_path)
    for number in range(5):
        file.read(number * BLOCK_BYTES, 1)
    (tmp_path / "file").unlink()
    assert file.read(4 * BLOCK_BYTES, 9) == DATA[4 * BLOCK_BYTES :][:9]
    with pytest.raises(ArtifactMissing):
        file.read(0, 1)
