"""The recipe of mixed words beside an implementation in whole numbers alone."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from auditkit.formats import word_mix
from auditkit.formats.recipes import digest_raw, frame, order_digest
from auditkit.formats.word_mix import ROW_BYTES, TensorSums, tensor_sums
from auditkit.records.digest import MIX_RECIPE
from auditkit.records.tensor import RawTensor

MASK = 2**64 - 1


def split(n: int) -> int:
    z = (n + 1) * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def plain_sums(content: bytes) -> bytes:
    """The sums as the recipe's text has them, word by word."""
    first = second = 0
    content += bytes(-len(content) % 512)
    for place, (word,) in enumerate(struct.iter_unpack("<Q", content)):
        row, column = divmod(place, 64)
        x = (word ^ split(column)) * (split(64 + row) | 1) & MASK
        x = (x ^ x >> 32) * 0xFF51AFD7ED558CCD & MASK
        x = (x ^ x >> 32) * 0xC4CEB9FE1A85EC53 & MASK
        a = x ^ x >> 32
        x = a * 0x9E3779B97F4A7C15 & MASK
        first, second = first + a & MASK, second + (x ^ x >> 32) & MASK
    return struct.pack("<QQ", first, second)


EXAMPLE = RawTensor("int64", (1000,), np.arange(1000, dtype="<i8").tobytes())
BITS = RawTensor("bool", (3,), b"\x01\x00\x01")


def test_splitmix_is_the_published_one() -> None:
    assert list(map(hex, word_mix.splitmix(0, 2))) == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]
    assert list(map(int, word_mix.splitmix(5, 3))) == [split(5), split(6), split(7)]


def test_the_docstring_has_the_test_vectors() -> None:
    text = word_mix.__doc__ or ""
    entries: dict[str, RawTensor | bytes] = {
        "c": b'{"$":"none"}',
        "b": RawTensor("float32", (2,), struct.pack("<2f", 1.0, -2.0)),
        "a": RawTensor("int64", (), struct.pack("<q", 7)),
    }
    found = {
        "A": digest_raw(MIX_RECIPE, {}, {}),
        "B": digest_raw(MIX_RECIPE, entries, {}),
        "C": digest_raw(MIX_RECIPE, entries, {"d": "b"}),
        "E": digest_raw(MIX_RECIPE, {"e": EXAMPLE}, {}),
        "F": digest_raw(MIX_RECIPE, {"f": BITS}, {}),
    }
    assert dict(re.findall(r"^    ([A-F])  (\w{32})$", text, re.M)) == {
        name: digest.hex() for name, digest in found.items()
    }
    sums = {"e": plain_sums(bytes(EXAMPLE.data)), "f": plain_sums(bytes(BITS.data))}
    for name, expected in sums.items():
        assert f"sums of {name}  {expected.hex()}" in text
    assert found["E"] == xxhash.xxh3_128_digest(frame("e", "int64", (1000,), 8000) + sums["e"])


@given(st.binary(max_size=1200), st.integers(1, 700))
def test_pieces_give_the_sums_of_the_whole(content: bytes, size: int) -> None:
    sums = TensorSums()
    for start in range(0, len(content), size):
        sums.update(content[start : start + size])
    assert sums.digest() == plain_sums(content) == tensor_sums(content)


def test_more_rows_than_are_mixed_at_a_time() -> None:
    content = np.random.default_rng(0).bytes(300 * ROW_BYTES + 100)
    assert tensor_sums(content) == plain_sums(content)


def test_words_one_by_one_become_what_rows_do() -> None:
    words = np.frombuffer(np.random.default_rng(2).bytes(2 * ROW_BYTES), "<u8").reshape(2, 64)
    factors = word_mix.multipliers(5, 2)
    found = [
        [word_mix.mixed_word(word, column, factor) for column, word in enumerate(row)]
        for row, factor in zip(words.tolist(), factors.tolist(), strict=True)
    ]
    sums = np.array(found, np.uint64).sum(axis=1)
    assert (word_mix.mixed_rows(words.astype(np.uint64), factors) == sums.T).all()


def test_every_bit_and_every_place_counts() -> None:
    content = np.random.default_rng(1).bytes(ROW_BYTES + 24)
    whole = tensor_sums(content)
    found = {whole}
    bits = [*range(130), *range(8 * ROW_BYTES - 70, 8 * len(content))]
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        sums = tensor_sums(changed)
        assert sums[:8] != whole[:8]
        assert sums[8:] != whole[8:]
        found.add(sums)
    assert len(found) == len(bits) + 1
    words = np.frombuffer(content, "<u8")
    pairs = [
        (one, other) for one in range(len(words)) for other in range(one) if one < 9 or other > 57
    ]
    for one, other in pairs:
        swapped = words.copy()
        swapped[[one, other]] = swapped[[other, one]]
        found.add(tensor_sums(swapped.tobytes()))
    assert len(found) == len(bits) + 1 + len(pairs)


@pytest.mark.parametrize("kind", ["<f4", "<f8", "<i8"])
def test_whole_changes_of_a_tensor_are_seen(kind: str) -> None:
    values = (np.random.default_rng(2).standard_normal(512) * 100).astype(kind)
    others = [
        *(-values, values * 2, values[::-1], np.sort(values), values + values.dtype.type(1)),
        *(np.roll(values, shift) for shift in (1, 2, 64, 128)),
        np.concatenate([-values[:2], values[2:]]),
        np.concatenate([values[64:128], values[:64], values[128:]]),
        np.zeros_like(values),
    ]
    found = {tensor_sums(np.ascontiguousarray(other).tobytes()) for other in (values, *others)}
    assert len(found) == len(others) + 1


def test_zeros_are_of_a_length() -> None:
    def of(n_bytes: int) -> bytes:
        return digest_raw(MIX_RECIPE, {"x": RawTensor("uint8", (n_bytes,), bytes(n_bytes))}, {})

    assert len(set(map(of, (0, 1, 8, 511, 512, 513, 1024)))) == 7
    assert tensor_sums(bytes(512)) != tensor_sums(bytes(1024)) != tensor_sums(b"")


def test_an_order_has_this_digest_too() -> None:
    order = np.arange(10, dtype=np.int64).reshape(5, 2)
    entry = RawTensor("int64", (5, 2), order.astype("<i8").tobytes())
    assert order_digest(MIX_RECIPE, order) == digest_raw(MIX_RECIPE, {"order": entry}, {})
