from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from auditkit.errors import FormatError
from auditkit.formats.chunk_digests import CHUNK_BYTES, Part, digest_parts, parts_of
from auditkit.records.sharding import Shard
from auditkit.records.tensor import RawTensor

NUMBERS = np.arange(6000, dtype="<i8").reshape(3000, 2)
EMPTY = {"b": RawTensor("float32", (0,), b"")}
VECTORS = {
    "A": "43d636e98e23e48dce27330ff1cca651b3e24be09cd5f773c299a33ff68bf818",
    "B": "06050e36cb5487f0f7f08296191e71feb22aecd25f5abc46418e6748955bc308",
}


def rows(
    whole: NDArray[np.int64], first: int, last: int, **others: RawTensor | bytes
) -> dict[str, Part]:
    """What a process contributes that holds some rows."""
    part = whole[first:last]
    entries = {"w": RawTensor("int64", part.shape, part.tobytes()), **others}
    return parts_of(entries, {"w": Shard(whole.shape, first)}, "params")


def digest(cuts: Sequence[int], whole: NDArray[np.int64] = NUMBERS) -> str:
    """Of a tensor whose rows are cut there."""
    borders = [0, *cuts, len(whole)]
    pairs = itertools.pairwise(borders)
    return digest_parts([rows(whole, *pair) for pair in pairs], "params").hex()


def by_hand(whole: NDArray[np.int64]) -> str:
    """The recipe, word for word."""
    data = whole.tobytes()
    chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    head = struct.pack("<I1sI5sIQQQ", 1, b"w", 5, b"int64", 2, *whole.shape, len(data))
    return hashlib.sha256(
        head + b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
    ).hexdigest()


def test_vectors() -> None:
    assert digest([]) == VECTORS["A"] == by_hand(NUMBERS)
    assert digest_parts([rows(NUMBERS, 0, 3000, **EMPTY)], "params").hex() == VECTORS["B"]


@given(st.lists(st.integers(0, 3000), max_size=6).map(sorted))
def test_it_hangs_on_no_cut(cuts: list[int]) -> None:
    assert digest(cuts) == VECTORS["A"]


@pytest.mark.parametrize("n_rows", [0, 1, 1023, 1024, 1025, 2048])
def test_every_length(n_rows: int) -> None:
    whole = NUMBERS[:n_rows]
    assert digest([], whole) == digest([n_rows // 3, n_rows // 2], whole) == by_hand(whole)


def test_who_holds_the_same_rows_must_hold_the_same_numbers() -> None:
    halves = [rows(NUMBERS, 0, 1500), rows(NUMBERS, 1500, 3000)]
    assert digest_parts(halves * 2, "params").hex() == VECTORS["A"]
    other = NUMBERS.copy()
    other[1600, 1] ^= 1
    with pytest.raises(FormatError, match="hold the same rows hold other numbers"):
        digest_parts([*halves, rows(other, 1500, 3000)], "params")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([(0, 2000)], "rows are in no part, at byte 32000"),
        ([(1, 3000)], "rows are in no part, at byte 0"),
        ([(0, 1000), (1001, 3000)], "rows are in no part, at byte 16000"),
        ([(0, 2000), (1500, 3000)], "parts overlap, at byte 24000"),
    ],
)
def test_rows_that_are_missing_or_held_in_part_by_two(
    held: list[tuple[int, int]], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        digest_parts([rows(NUMBERS, *pair) for pair in held], "params")


def test_one_bit_name_or_shape_changes_it() -> None:
    for row in (0, 1023, 1024, 2999):
        other = NUMBERS.copy()
        other[row, 0] ^= 1
        assert digest([1500], other) != VECTORS["A"]
    assert digest([], NUMBERS.reshape(1000, 6)) != VECTORS["A"]
    whole = RawTensor("int64", (3000, 2), NUMBERS.tobytes())
    assert digest_parts([parts_of({"v": whole}, {}, "params")], "params").hex() != VECTORS["A"]


def test_what_is_no_tensor_is_the_same_for_all() -> None:
    one, other = (rows(NUMBERS, 0, 3000, t=text) for text in (b"1", b"2"))
    digest_parts([one, one], "params")
    with pytest.raises(FormatError, match="other numbers"):
        digest_parts([one, other], "params")


def test_parts_that_do_not_fit() -> None:
    whole = rows(NUMBERS, 0, 3000)
    with pytest.raises(FormatError, match="processes hold other entries"):
        digest_parts([whole, {}], "params")
    with pytest.raises(FormatError, match="tensors of another kind"):
        digest_parts([whole, rows(NUMBERS[:2000], 0, 2000)], "params")
    with pytest.raises(FormatError, match="of another length than its chunks"):
        digest_parts([{"w": Part("int64", (3000, 2), 0, 48000, b"short")}], "params")
    with pytest.raises(FormatError, match="outside of its tensor"):
        digest_parts([{"w": Part("int64", (3000, 2), 32000, 32000, b"")}], "params")
    part = RawTensor("int64", (2, 3), bytes(48))
    with pytest.raises(FormatError, match="another shape than the whole"):
        parts_of({"w": part}, {"w": Shard((4, 2), 0)}, "params")
    with pytest.raises(FormatError, match="a part of what is not there"):
        parts_of({}, {"w": Shard((4, 2), 0)}, "params")
