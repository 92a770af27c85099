"""Ed25519 public keys that no honest program makes. Numbers only, no files.

Under a key of small order anybody can make signatures of any message: with R a point of small order
and S = 0 the equation that a verifier checks holds, and OpenSSL does not look at the key itself.
"""

from __future__ import annotations

#: The prime of the field that points of the curve have their coordinates in.
PRIME = 2**255 - 19

_ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)

#: The y of the eight points whose order divides 8; each x has the same y as its negative.
_SMALL_ORDER = (0, 1, PRIME - 1, _ORDER_8, PRIME - _ORDER_8)


def weakness(public: bytes) -> str | None:
    """What is wrong with a key, as the end of "the key is ..."; None where nothing is.

    Args:
        public: Its 32 bytes.
    """
    y = int.from_bytes(public, "little") & (2**255 - 1)  # the highest bit is the sign of x
    if y % PRIME in _SMALL_ORDER:
        return "weak: it would verify any message"
    if y >= PRIME:
        return "damaged: it is not in canonical form, which makes two keys of one"
    return None
