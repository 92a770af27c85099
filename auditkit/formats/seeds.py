"""Derived seeds: one recipe for every stream that auditkit seeds.

Recipe ``auditkit-seed/1``: the first 8 bytes, little-endian, of the SHA-256 of the canonical
JSON ``["auditkit-seed/1", SEED, PURPOSE, ...]`` (canonical JSON writes integers of 2^53 and
more as decimal strings). Python and CUDA take all 64 bits; numpy's legacy seeding and torch's
CPU generator take the low 32.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from auditkit.formats import canonical

RECIPE = "auditkit-seed/1"

#: As :data:`RECIPE`, for the seeds of a study that nobody could know before a timestamp.
REGISTERED_RECIPE = "auditkit-registered-seed/1"

#: A comma, an integer below 2**53 and a bracket take at most that many bytes.
_SHORT = len(",9007199254740991]")

#: Of the digests of SHA-256, one after the other.
_FIRST_EIGHT_BYTES = struct.Struct("<Q24x")


def derive_seed(seed: int, *purpose: int | str) -> int:
    """Seed of one stream of a study seed.

    Args:
        seed: The study's seed.
        purpose: What the stream is for: ``"python"``, ``"torch"``, ``"cuda:0"``; ``"order"``,
            epoch, ``"numpy"``; ``"sample"``, epoch, index; ...

    Returns:
        A whole number in ``0 .. 2**64 - 1``.
    """
    return _first_eight_bytes(canonical.dumps([RECIPE, seed, *purpose]))


def registered_seeds(token_sha256: str, count: int) -> tuple[int, ...]:
    """Study seeds that derive from a third party's timestamp.

    Args:
        token_sha256: SHA-256 of what the authority signed, in hexadecimal.
        count: How many.

    Returns:
        Different whole numbers in ``0 .. 2**31 - 1``, which every generator takes as they are.
    """
    found: dict[int, None] = {}
    position = 0
    while len(found) < count:
        text = canonical.dumps([REGISTERED_RECIPE, token_sha256, position])
        found[_first_eight_bytes(text) % 2**31] = None
        position += 1
    return tuple(found)


class SampleSeeds:
    """Seeds of the per-sample streams ``(seed, "sample", epoch, index)``.

    Equal to :func:`derive_seed`, but with the constant part encoded once: it is called for
    every sample of every batch.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._prefix = canonical.dumps([RECIPE, seed, "sample"])[:-1]

    def __call__(self, *parts: int) -> int:
        """Seed for ``parts``: epoch and index, or epoch, worker and position."""
        text = (b",%d" * len(parts) + b"]") % parts
        if len(text) > _SHORT and max(map(abs, parts)) >= 2**53:
            return derive_seed(self._seed, "sample", *parts)  # written as decimal strings
        return _first_eight_bytes(self._prefix + text)

    def of(self, samples: Sequence[Sequence[int]]) -> list[int]:
        """Seeds of samples by epoch and index, which come first in each; all in one go."""
        texts = [b",%d,%d]" % (sample[0], sample[1]) for sample in samples]
        if max(map(len, texts), default=0) > _SHORT:
            return [self(*sample[:2]) for sample in samples]
        prefix, sha256 = self._prefix, hashlib.sha256
        digests = b"".join([sha256(prefix + text).digest() for text in texts])
        return [seed for (seed,) in _FIRST_EIGHT_BYTES.iter_unpack(digests)]


def _first_eight_bytes(text: bytes) -> int:
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
