"""Digest recipe ``tensor-v1``: a component of the training state as one stream of bytes.

A component is a set of named entries. Every integer is unsigned and little-endian; ``u32`` has
4 bytes, ``u64`` has 8. The stream is the entries' records, one after the other, in ascending
order of their names' UTF-8 bytes, with nothing before, between or after them. A record is::

    u32 length of the name, the name in UTF-8
    u32 length of the dtype, the dtype in ASCII
    u32 number of dimensions, then each dimension as u64
    u64 length of the content in bytes, the content

and there are three kinds of entry:

tensor
    dtype is torch's name without its prefix (`ITEM_BYTES` has them all), the dimensions are the
    shape, the content is the elements in row-major order, each little-endian. Pending
    conjugations and negations are carried out first. Strides do not enter.
json
    What is not a tensor. dtype ``json-v1``, no dimensions; the content is the canonical JSON
    (:mod:`auditkit.formats.canonical`) of the value in the snapshot codec's tagged encoding.
alias
    A tensor of at least one byte that is the same memory as a tensor entry earlier in the
    order: same device, address of the first element, dtype, shape, stride along every
    dimension of more than one element, and the same pending conjugation and negation. dtype
    ``alias-v1``, no dimensions; the content is the UTF-8 name of the earliest such entry. So
    shared storage is counted once, and tying or untying two weights changes the digest.

The stream is injective: unequal components have unequal streams. ``xxh3-128/tensor-v1`` is
XXH3 with 128 bits, seed 0, of the stream, in XXH's canonical (big-endian) order, 16 bytes;
``sha256/tensor-v1`` is its SHA-256, 32 bytes. An order of samples, `order_digest`, is the
component with the one entry ``order``: int64 of shape (B, 2), rows (epoch, index) as consumed.

Test vectors. Component A has no entries; B has ``b``: float32 of shape (2,), 1.0 and -2.0,
``a``: int64 of shape (), 7, and ``c``: the json ``{"$":"none"}``; C is B with another entry
``d`` that is the same memory as ``b``; D is the order (0, 5), (1, 3)::

    A  xxh3-128  99aa06d3014798d86001c324468d497f
       sha256    e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    B  xxh3-128  2020054ae10021f064b30de24825d317
       sha256    741a80884a7a22ace9de58b40fb62bb5902e214b1bf4ccc13f90de9addcdb391
    C  xxh3-128  aa3d08b48c7735ed64a7fc37e0f19eb9
       sha256    efde74909dfcdce29e266bd21f495442f7b9adf2d59dc3f8cf6bdfcec44e37c9
    D  xxh3-128  32ba5650e6b45d2e9a01053c20b31af6
       sha256    a0e63567b0f130014c7947b7420c73406535be2ee7453e7de3a657c8d6e86c3e
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from auditkit.errors import FormatError, UsageError
from auditkit.formats.flat_order import Order
from auditkit.formats.word_mix import WordMix
from auditkit.records.digest import COMMITMENT_RECIPE, EVIDENCE_RECIPE, MIX_RECIPE
from auditkit.records.tensor import Tensor

#: dtype of an entry that is canonical JSON.
JSON_DTYPE: Final = "json-v1"

#: dtype of an entry that is the same memory as an earlier one.
ALIAS_DTYPE: Final = "alias-v1"

#: Bytes of one element, for every dtype that has a digest.
ITEM_BYTES: Final[Mapping[str, int]] = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "uint16": 2,
    "int16": 2,
    "uint32": 4,
    "int32": 4,
    "uint64": 8,
    "int64": 8,
    "float4_e2m1fn_x2": 1,  # two elements in a byte; torch's shape counts the pairs
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
}


_INT64: Final = np.dtype("<i8")

#: Steps whose orders are in memory at a time.
_ORDERS_AT_ONCE: Final = 1024

#: The one key of what a ring buffer says of itself.
RING_KEY: Final = "auditkit.RingBuffer"

_OF_RING: Final = b'{"$":"dict","keys":["%s"],' % RING_KEY.encode()


class Hasher(Protocol):
    """What hashlib's and xxhash's objects have in common."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in more bytes."""

    def digest(self) -> bytes:
        """Digest of the bytes so far."""


#: OpenSSL looks for its function at every call, which takes longer than to copy what it gave.
_sha256: Callable[[], Any] = hashlib.sha256().copy

_HASHERS: Final[Mapping[str, Callable[[], Hasher]]] = {
    EVIDENCE_RECIPE: xxhash.xxh3_128,
    COMMITMENT_RECIPE: _sha256,
    MIX_RECIPE: WordMix,
}


def hasher(recipe: str) -> Hasher:
    """A fresh hash object.

    Args:
        recipe: ``xxh3-128/tensor-v1``, ``sha256/tensor-v1`` or ``int64-mix/1``.

    Returns:
        An object with ``update`` and ``digest``; a tensor's content goes to :func:`tensor_update`.

    Raises:
        FormatError: The recipe is none of these.
    """
    try:
        return _HASHERS[recipe]()
    except KeyError:
        raise FormatError(
            "unknown digest recipe", expected=" or ".join(_HASHERS), found=recipe
        ) from None


def evidence_recipe(recipe: str, text: object) -> str:
    """The recipe of a component's evidence.

    Args:
        recipe: The plan's.
        text: The component's entry ``""``, where it has one.

    Returns:
        The plan's; of a ring buffer, whose text is a dict with the one key
        ``auditkit.RingBuffer``, always ``int64-mix/1``.
    """
    is_of_ring = isinstance(text, bytes) and text.startswith(_OF_RING)
    return MIX_RECIPE if is_of_ring else recipe


def tensor_update(hash_: Hasher) -> Callable[[bytes | bytearray | memoryview], None]:
    """What takes in the contents of tensors, which one recipe sums up instead."""
    return hash_.update_tensor if isinstance(hash_, WordMix) else hash_.update


def is_of_stream(recipe: str) -> bool:
    """Whether a recipe hashes the stream as it is, in whatever pieces it comes."""
    return recipe != MIX_RECIPE


def digest_bytes(recipe: str, stream: bytes | bytearray) -> bytes:
    """Digest of a whole stream that lies in one piece.

    Args:
        recipe: A known one that hashes the stream as it is, see :func:`is_of_stream`.
        stream: The component's bytes.
    """
    if recipe == EVIDENCE_RECIPE:
        return xxhash.xxh3_128_digest(stream)
    hash_ = _sha256()
    hash_.update(stream)
    return bytes(hash_.digest())


def frame(name: str, dtype: str, shape: Sequence[int], nbytes: int) -> bytes:
    """What precedes an entry's content in the stream.

    Args:
        name: Name of the entry.
        dtype: Its dtype, ``json-v1`` or ``alias-v1``.
        shape: Sizes; ``()`` for a scalar and for what is not a tensor.
        nbytes: Length of the content in bytes.

    Returns:
        The frame.

    Raises:
        FormatError: The name is no Unicode text (it has a lone surrogate), or a number is
            negative or too large.
    """
    label, kind = _utf8(name), _utf8(dtype)
    try:
        return struct.pack(
            f"<I{len(label)}sI{len(kind)}sI{len(shape)}QQ",
            *(len(label), label, len(kind), kind, len(shape), *shape, nbytes),
        )
    except struct.error:
        raise FormatError(f"no frame for shape {tuple(shape)}", where=name) from None


def alias_frame(name: str, other: str) -> bytes:
    """The whole record of an entry that is the same memory as an earlier one.

    Args:
        name: Name of the entry.
        other: Name of the earliest entry of that memory.

    Returns:
        Frame and content.

    Raises:
        FormatError: A name is no Unicode text.
    """
    content = _utf8(other)
    return frame(name, ALIAS_DTYPE, (), len(content)) + content


@functools.lru_cache(maxsize=1024)  # the texts of a component mostly keep their lengths
def json_frame(name: str, nbytes: int) -> bytes:
    """The frame of an entry of ``nbytes`` bytes of canonical JSON."""
    return frame(name, JSON_DTYPE, (), nbytes)


def digest_raw(
    recipe: str, entries: Mapping[str, Tensor | bytes], aliases: Mapping[str, str]
) -> bytes:
    """Digest of a component that is given as bytes.

    Args:
        recipe: As of :func:`hasher`.
        entries: The component's tensors and its canonical JSON, by name, in any order.
        aliases: Names of the other tensors, each with the entry whose memory it is.

    Returns:
        16 or 32 bytes.

    Raises:
        FormatError: Unknown recipe or dtype, a tensor whose data do not fit its shape, or an
            alias of what is no earlier tensor.
    """
    (digest,) = digests_raw((recipe,), entries, aliases)
    return digest


def digests_raw(
    recipes: Sequence[str], entries: Mapping[str, Tensor | bytes], aliases: Mapping[str, str]
) -> tuple[bytes, ...]:
    """Digests by several recipes of a component whose bytes are read once.

    Args:
        recipes: As of :func:`digest_raw`.
        entries: As of :func:`digest_raw`.
        aliases: As of :func:`digest_raw`.

    Returns:
        One digest a recipe.

    Raises:
        FormatError: As :func:`digest_raw`.
    """
    hashers = [hasher(recipe) for recipe in recipes]
    tensor_updates = [*map(tensor_update, hashers)]
    for name in sorted(set(entries) | set(aliases)):  # code points sort as their UTF-8 does
        for piece in _head(name, entries, aliases):
            for hash_ in hashers:
                hash_.update(piece)
        entry = entries.get(name)
        if entry is None or isinstance(entry, bytes):
            continue
        for content in entry.pieces():
            for update in tensor_updates:
                update(content)
    return tuple(hash_.digest() for hash_ in hashers)


def _head(
    name: str, entries: Mapping[str, Tensor | bytes], aliases: Mapping[str, str]
) -> Iterator[bytes]:
    """An entry's part of the stream, up to the content of a tensor."""
    if name in aliases:
        _check_alias(name, aliases[name], entries)
        yield alias_frame(name, aliases[name])
        return
    entry = entries[name]
    if isinstance(entry, bytes):
        yield json_frame(name, len(entry))
        yield entry
    else:
        yield frame(name, entry.dtype, entry.shape, _checked_bytes(name, entry))


def order_digest(recipe: str, order: NDArray[np.int64]) -> bytes:
    """Digest of samples in the order of their consumption.

    Args:
        recipe: ``xxh3-128/tensor-v1`` or ``sha256/tensor-v1``.
        order: (B, 2) int64: epoch and index of each sample.

    Returns:
        16 or 32 bytes.

    Raises:
        FormatError: Unknown recipe.
        UsageError: The array has another shape or dtype.
    """
    if recipe == EVIDENCE_RECIPE and order.dtype == _INT64 and order.shape[1:] == (2,):
        return xxhash.xxh3_128_digest(_order_frame(len(order)) + order.tobytes())  # at every step
    if order.ndim != 2 or order.shape[1] != 2 or order.dtype.kind != "i" or order.itemsize != 8:
        raise UsageError(
            "an order is a table of (epoch, index)",
            expected="int64 (B, 2)",
            found=f"{order.dtype} {order.shape}",
        )
    hash_ = hasher(recipe)
    content = order if order.dtype == _INT64 else order.astype("<i8")
    if is_of_stream(recipe):
        return digest_bytes(recipe, _order_frame(len(order)) + content.tobytes())
    hash_.update(_order_frame(len(order)))
    tensor_update(hash_)(content.tobytes())
    return hash_.digest()


def packed_order_digest(data: bytes) -> bytes:
    """Evidence digest of one step's order, 16 bytes.

    Args:
        data: What :func:`order_digest` takes, as bytes.
    """
    return xxhash.xxh3_128_digest(_order_frame(len(data) // 16) + data)


def order_digests(order: Order) -> bytes:
    """Evidence digests of the orders of many steps, one after the other.

    Args:
        order: What :func:`order_digest` takes, of each step.
    """
    starts = range(0, len(order), _ORDERS_AT_ONCE)
    return b"".join(_order_digests(order.part(at, at + _ORDERS_AT_ONCE)) for at in starts)


def _order_digests(order: Order) -> bytes:
    stream = order.pairs.astype("<i8", copy=False).reshape(-1).view(np.uint8).data
    digest = xxhash.xxh3_128_digest
    frames = {size: _order_frame(size) for size in set(order.sizes.tolist())}
    if len(frames) == 1 and stream.nbytes:  # as nearly always: cut in less time than by spans
        ((size, head),) = frames.items()
        batches = struct.iter_unpack(f"{16 * size}s", stream)
        return b"".join([digest(head + data) for (data,) in batches])
    starts, ends = 16 * (order.ends - order.sizes), 16 * order.ends
    spans = zip(order.sizes.tolist(), starts.tolist(), ends.tolist(), strict=True)
    return b"".join([digest(frames[size] + stream[begin:end]) for size, begin, end in spans])


@functools.lru_cache(maxsize=256)  # most batches of a run are of one size
def _order_frame(n_samples: int) -> bytes:
    return frame("order", "int64", (n_samples, 2), 16 * n_samples)


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError("a name is no Unicode text", found=ascii(text)) from None


def _checked_bytes(name: str, tensor: Tensor) -> int:
    width = ITEM_BYTES.get(tensor.dtype)
    if width is None:
        raise FormatError("unknown dtype", found=tensor.dtype, where=name)
    if min(tensor.shape, default=0) < 0 or math.prod(tensor.shape) * width != tensor.n_bytes:
        raise FormatError(
            f"data do not fit {tensor.dtype} {tensor.shape}",
            expected=math.prod(tensor.shape) * width,
            found=tensor.n_bytes,
            where=name,
        )
    return tensor.n_bytes


def _check_alias(name: str, other: str, entries: Mapping[str, Tensor | bytes]) -> None:
    # one memory has one stream only if every alias points at the earliest tensor
    target = entries.get(other)
    is_tensor = not isinstance(target, bytes | None) and target.n_bytes > 0
    if name in entries or other >= name or not is_tensor:
        raise FormatError("alias of what is no earlier tensor", found=other, where=name)
