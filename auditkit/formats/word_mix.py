"""Digest recipe ``int64-mix/1``: sums of mixed words, for tensors where they lie.

It is evidence of a component's content that whole-number arithmetic alone makes, so that a CPU and
a GPU give the same bits, that parts may be taken in any order, and that a part can be made anew
without the rest. It is a checksum: it finds drift and nondeterminism, and whoever wants two states
of one digest can make them.

The content of a tensor is what ``tensor-v1`` (:mod:`auditkit.formats.recipes`) says, padded with
zeros to a multiple of 512 bytes. It is read as little-endian words of 64 bits in rows of 64. All
arithmetic is modulo 2^64, ``>>`` brings in zeros, ``^`` is exclusive or. Let ``s(n)`` be the n-th
output, from 0 on, of SplitMix64 from state 0::

    z = (n + 1) * 0x9e3779b97f4a7c15
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9
    z = (z ^ z >> 27) * 0x94d049bb133111eb
    s = z ^ z >> 31

and let each word w in row r, column c, both from 0 on, become ``a`` and ``b``::

    x = (w ^ s(c)) * (s(64 + r) | 1)
    x = (x ^ x >> 32) * 0xff51afd7ed558ccd
    x = (x ^ x >> 32) * 0xc4ceb9fe1a85ec53
    a = x ^ x >> 32
    x = a * 0x9e3779b97f4a7c15
    b = x ^ x >> 32

The tensor's two sums are those of all its ``a`` and of all its ``b``, 16 bytes together, each
little-endian. A component's stream is that of ``tensor-v1`` in which every tensor of at least one
byte has its two sums for a content; its frame says, as there, how many bytes that content has. The
digest is XXH3 with 128 bits, seed 0, of the stream, in canonical order, 16 bytes.

Every step from w to a, and from a to b, can be undone, so that another word alone always gives two
other sums. What changes several words at once goes unseen where two sums of 64 bits happen to be
the same.

Test vectors. Components A, B and C are those of ``tensor-v1``; E has one entry ``e``, the 1,000
int64 from 0 on, and F one entry ``f``, bool of shape (3,), true, false, true::

    A  99aa06d3014798d86001c324468d497f
    B  83cd5064390077b0da9dee5fc7c5a9cf
    C  1d8e819d108b1b3ca12e1b423dd157b7
    E  ab8f2bdc80e4f2404a5da8096241320c
    F  f522555ed4f9e120cfae38a7e56b5a56

    sums of e  0e62a06989b3938e335dd0fca1dc7426
    sums of f  7e08be46d507dd76b4070790f75c156a
"""

from __future__ import annotations

from typing import Final

import numpy as np
import xxhash
from numpy.typing import NDArray

#: Words in a row, and bytes.
COLUMNS: Final = 64
ROW_BYTES: Final = 8 * COLUMNS

#: What the words are multiplied by.
FACTORS: Final = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 0x9E3779B97F4A7C15)

Words = NDArray[np.uint64]

#: Rows that are mixed at a time: they and their copy stay in the processor's cache.
_ROWS_AT_ONCE: Final = 256

_HALF: Final = np.uint64(32)
_MIXED: Final = tuple(map(np.uint64, FACTORS))


def splitmix(first: int, count: int) -> Words:
    """Outputs of SplitMix64 from state 0, from the one with the number ``first`` on."""
    z = np.arange(first + 1, first + 1 + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed: Words = z ^ z >> np.uint64(31)
    return mixed


#: What the words of a column are changed by.
KEYS: Final[Words] = splitmix(0, COLUMNS)


def multipliers(first: int, count: int) -> Words:
    """What the words of these rows are multiplied by, from row ``first`` on."""
    odd: Words = splitmix(COLUMNS + first, count) | np.uint64(1)
    return odd


#: The same as numbers of Python: some words are mixed by then when numpy only begins.
_KEYS: Final[list[int]] = KEYS.tolist()
_FIRST, _SECOND, _THIRD = FACTORS
_LOW: Final = 2**64 - 1


def mixed_word(word: int, column: int, factor: int) -> tuple[int, int]:
    """What one word becomes, ``a`` and ``b``.

    Args:
        word: As a whole number.
        column: Its column.
        factor: The multiplier of its row.
    """
    x = (word ^ _KEYS[column]) * factor & _LOW
    x = (x ^ x >> 32) * _FIRST & _LOW
    x = (x ^ x >> 32) * _SECOND & _LOW
    first = x ^ x >> 32
    x = first * _THIRD & _LOW
    return first, x ^ x >> 32


def mixed_rows(words: Words, factors: Words) -> Words:
    """Both sums of each row, (2, n).

    Args:
        words: (n, 64).
        factors: (n,), the rows' multipliers.
    """
    return Mixer(factors).sums(words)


class Mixer:
    """Makes the sums of some rows, again and again in the same memory.

    Args:
        factors: (n,), the rows' multipliers.
    """

    def __init__(self, factors: Words) -> None:
        self._factors = factors[:, None]
        self._mixed = np.empty((len(factors), COLUMNS), np.uint64)
        self._shifted = np.empty_like(self._mixed)

    def sums(self, words: Words) -> Words:
        """Both sums of each row, (2, n).

        Args:
            words: (n, 64).
        """
        mixed, found = self._mixed, np.empty((2, len(words)), np.uint64)
        np.bitwise_xor(words, KEYS, mixed)
        np.multiply(mixed, self._factors, mixed)
        self._fold()
        np.multiply(mixed, _MIXED[0], mixed)
        self._fold()
        np.multiply(mixed, _MIXED[1], mixed)
        self._fold()
        np.add.reduce(mixed, 1, None, found[0])
        np.multiply(mixed, _MIXED[2], mixed)
        self._fold()
        np.add.reduce(mixed, 1, None, found[1])
        return found

    def _fold(self) -> None:
        np.right_shift(self._mixed, _HALF, self._shifted)
        np.bitwise_xor(self._mixed, self._shifted, self._mixed)


def packed(first: int, second: int) -> bytes:
    """Two sums, or what they are modulo 2^64, as bytes."""
    return b"".join((one % 2**64).to_bytes(8, "little") for one in (first, second))


class TensorSums:
    """The two sums of a tensor whose content comes piece by piece."""

    def __init__(self) -> None:
        self._row, self._first, self._second = 0, 0, 0
        self._rest = bytearray()

    def update(self, piece: bytes | bytearray | memoryview) -> None:
        """Take in more bytes."""
        data = memoryview(piece).cast("B")
        start = 0
        if self._rest:
            start = min(ROW_BYTES - len(self._rest), len(data))
            self._rest += data[:start]
            if len(self._rest) < ROW_BYTES:
                return
            self._add(self._rest)
            self._rest = bytearray()
        whole = start + (len(data) - start) // ROW_BYTES * ROW_BYTES
        for at in range(start, whole, _ROWS_AT_ONCE * ROW_BYTES):
            self._add(data[at : min(at + _ROWS_AT_ONCE * ROW_BYTES, whole)])
        self._rest += data[whole:]

    def digest(self) -> bytes:
        """The sums, 16 bytes; this ends the content."""
        if self._rest:
            self._rest += bytes(ROW_BYTES - len(self._rest))
            self._add(self._rest)
            self._rest = bytearray()
        return packed(self._first, self._second)

    def _add(self, rows: bytes | bytearray | memoryview) -> None:
        words = np.frombuffer(rows, "<u8").reshape(-1, COLUMNS).astype(np.uint64, copy=False)
        first, second = mixed_rows(words, multipliers(self._row, len(words))).sum(axis=1)
        self._row += len(words)
        self._first += int(first)
        self._second += int(second)


def tensor_sums(content: bytes | bytearray | memoryview) -> bytes:
    """The two sums of a tensor whose content is at hand, 16 bytes."""
    sums = TensorSums()
    sums.update(content)
    return sums.digest()


class WordMix:
    """A digest of a component, told which of its bytes are a tensor's content."""

    def __init__(self) -> None:
        self._stream = xxhash.xxh3_128()
        self._sums: TensorSums | None = None

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in what is no content of a tensor: a frame, a text, the name of an alias."""
        self._end_tensor()
        self._stream.update(data)

    def update_tensor(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in more of the content of the tensor whose frame came last."""
        if not len(data):
            return  # what has no byte has no sums
        if self._sums is None:
            self._sums = TensorSums()
        self._sums.update(data)

    def digest(self) -> bytes:
        """The component's digest, 16 bytes."""
        self._end_tensor()
        return self._stream.digest()

    def _end_tensor(self) -> None:
        if self._sums is not None:
            self._stream.update(self._sums.digest())
            self._sums = None
