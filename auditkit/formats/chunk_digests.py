"""Digest recipe ``sha256/chunks-v1``: a component that several processes hold together.

It does not depend on how many they are, or on who holds what: it is that of the whole tensors. The
stream is that of ``tensor-v1`` (:mod:`auditkit.formats.recipes`), with two differences. The content
of a tensor's record is, in place of its elements, the SHA-256 of every chunk of them: `CHUNK_BYTES`
bytes of the elements in row-major order, from the first on, the last one shorter; none of a tensor
without elements. The length before it stays that of the elements. And there are no aliases: a
tensor that is the memory of another one counts by its content. The digest is the SHA-256 of the
stream.

A process hashes the chunks that it holds whole. Of a chunk that begins or ends with another process
it hands over the bytes, fewer than two chunks a tensor, and whoever puts the parts together hashes
these. Where several processes hold the same rows, their parts must be equal.

Test vectors. A is the component of one entry ``w``: int64 of shape (3000, 2), the numbers from 0
on; B has beside it ``b``: float32 of shape (0,)::

    A  43d636e98e23e48dce27330ff1cca651b3e24be09cd5f773c299a33ff68bf818
    B  06050e36cb5487f0f7f08296191e71feb22aecd25f5abc46418e6748955bc308
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from auditkit.errors import FormatError
from auditkit.formats.recipes import ITEM_BYTES, frame, json_frame
from auditkit.records.sharding import Shard
from auditkit.records.tensor import Tensor

#: Bytes of the elements of a tensor that are hashed by themselves.
CHUNK_BYTES: Final = 2**14

_DIGEST_BYTES: Final = 32


@dataclass(frozen=True)
class Part:
    """What one process contributes to an entry.

    Attributes:
        dtype: Of the tensor; empty where the entry is canonical JSON.
        shape: Of the whole tensor.
        start: Where in the elements of the whole its part begins, in bytes.
        n_bytes: Length of its part, or of the JSON.
        data: The bytes before the first border of chunks, the SHA-256 of each whole chunk, and the
            bytes after the last border; or the JSON.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int
    data: bytes

    @property
    def head(self) -> int:
        """How many bytes lie before the first border, the start included where it is one."""
        return min(-self.start % CHUNK_BYTES, self.n_bytes)

    @property
    def n_chunks(self) -> int:
        """How many whole chunks there are."""
        return (self.n_bytes - self.head) // CHUNK_BYTES

    def check(self, where: str) -> None:
        """Refuse what no process can have contributed.

        Raises:
            FormatError: When its numbers do not fit each other.
        """
        expected = self.n_bytes
        if self.dtype:
            rest = self.n_bytes - self.head - self.n_chunks * CHUNK_BYTES
            expected = self.head + self.n_chunks * _DIGEST_BYTES + rest
            whole = math.prod(self.shape) * ITEM_BYTES.get(self.dtype, 0)
            if self.start < 0 or self.n_bytes < 0 or self.start + self.n_bytes > whole:
                raise FormatError("a part that lies outside of its tensor", where=where)
        if len(self.data) != expected:
            raise FormatError("a part of another length than its chunks", where=where)


def parts_of(
    entries: Mapping[str, Tensor | bytes], shards: Mapping[str, Shard], where: str
) -> dict[str, Part]:
    """What a process contributes to a component.

    Args:
        entries: What it holds, aliases with the content of what they are the memory of.
        shards: Which of it are parts, and of what.
        where: The component, for messages.

    Raises:
        FormatError: When a part does not fit the whole.
    """
    found = {}
    for name, entry in entries.items():
        if isinstance(entry, bytes):
            found[name] = Part("", (), 0, len(entry), entry)
            continue
        shape, width = tuple(entry.shape), ITEM_BYTES[entry.dtype]
        shard = shards.get(name, Shard(shape, 0))
        if len(shape) != len(shard.shape) or shape[1:] != shard.shape[1:]:
            raise FormatError("a part of another shape than the whole", where=f"{where}/{name}")
        start = shard.first * math.prod(shape[1:]) * width
        data = _cut(-start % CHUNK_BYTES, entry.pieces())
        found[name] = Part(entry.dtype, shard.shape, start, entry.n_bytes, data)
        found[name].check(f"{where}/{name}")
    unknown = sorted(set(shards) - set(entries))
    if unknown:
        raise FormatError("a part of what is not there", where=f"{where}/{unknown[0]}")
    return found


def digest_parts(component: Sequence[Mapping[str, Part]], where: str) -> bytes:
    """Digest of a component that some processes hold together.

    Args:
        component: The contributions of every process.
        where: The component, for messages.

    Returns:
        32 bytes.

    Raises:
        FormatError: When a row is in no part, or not the same in two.
    """
    first = component[0]
    if any(one.keys() != first.keys() for one in component):
        raise FormatError("processes hold other entries", where=where)
    hash_ = hashlib.sha256()
    for name in sorted(first):
        place = f"{where}/{name}"
        parts = [one[name] for one in component]
        kinds = {(part.dtype, part.shape) for part in parts}
        if len(kinds) > 1:
            raise FormatError("processes hold tensors of another kind", where=place)
        for part in parts:
            part.check(place)
        dtype, shape = kinds.pop()
        if dtype:
            whole = math.prod(shape) * ITEM_BYTES[dtype]
            hash_.update(frame(name, dtype, shape, whole))
            hash_.update(_joined(parts, whole, place))
        else:
            _refuse_unequal({part.data for part in parts}, place)
            hash_.update(json_frame(name, len(parts[0].data)) + parts[0].data)
    return hash_.digest()


def _cut(head: int, pieces: Iterable[bytes | bytearray | memoryview]) -> bytes:
    """The data of a part whose first border comes after ``head`` bytes."""
    found, open_, missing = bytearray(), bytearray(), head
    for piece in pieces:
        view = memoryview(piece).cast("B")
        found += view[:missing]
        view, missing = view[missing:], missing - min(missing, len(view))
        if open_:
            taken = CHUNK_BYTES - len(open_)
            open_ += view[:taken]
            view = view[taken:]
            if len(open_) < CHUNK_BYTES:
                continue
            found += hashlib.sha256(open_).digest()
            open_.clear()
        border = len(view) - len(view) % CHUNK_BYTES
        for at in range(0, border, CHUNK_BYTES):
            found += hashlib.sha256(view[at : at + CHUNK_BYTES]).digest()
        open_ += view[border:]
    return bytes(found + open_)


def _joined(parts: Sequence[Part], whole: int, where: str) -> bytes:
    """The SHA-256 of every chunk of a whole tensor."""
    by_place: dict[tuple[int, int], Part] = {}
    for part in parts:
        if part.n_bytes:
            other = by_place.setdefault((part.start, part.n_bytes), part)
            _refuse_unequal({part.data, other.data}, where)
    found, open_, at = bytearray(), bytearray(), 0
    for (start, n_bytes), part in sorted(by_place.items()):
        if start != at:
            problem = "rows are in no part" if start > at else "parts overlap"
            raise FormatError(f"{problem}, at byte {min(start, at)}", where=where)
        end = part.head + part.n_chunks * _DIGEST_BYTES
        open_ += part.data[: part.head]
        if len(open_) == CHUNK_BYTES:
            found += hashlib.sha256(open_).digest()
            open_.clear()
        found += part.data[part.head : end]
        open_ += part.data[end:]
        at = start + n_bytes
    if at != whole:
        raise FormatError(f"rows are in no part, at byte {at}", where=where)
    return bytes(found + (hashlib.sha256(open_).digest() if open_ else b""))


def _refuse_unequal(contents: set[bytes], where: str) -> None:
    if len(contents) > 1:
        raise FormatError("processes that hold the same rows hold other numbers", where=where)
