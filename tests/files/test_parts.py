"""Files that grow by parts: what a kill cuts short is left out, and nothing else."""

from __future__ import annotations

from pathlib import Path

from auditkit.files.parts import append_part, read_parts, write_part
from auditkit.files.store import read_tensors
from auditkit.records.tensor import RawTensor


def numbered(number: int) -> dict[str, RawTensor]:
    return {"n": RawTensor("uint8", (1,), bytes([number]))}


def numbers(path: Path) -> list[int]:
    return [read_tensors(part, what="part")[0]["n"].data[0] for part in read_parts(path)]


def test_parts_come_back_in_their_order_as_far_as_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "parts"
    assert numbers(path) == []
    for number in range(3):
        append_part(path, numbered(number))
    assert numbers(path) == [0, 1, 2]
    whole = path.read_bytes()
    third = len(whole) // 3
    for cut in range(2 * third, len(whole)):
        path.write_bytes(whole[:cut])
        assert numbers(path) == [0, 1]
    damaged = bytearray(whole)
    damaged[third + 50] ^= 1
    path.write_bytes(damaged)
    assert numbers(path) == [0]
    write_part(path, numbered(9))
    assert numbers(path) == [9]
