"""The data position of a snapshot, section ``loader``, taken apart by random stream.

It holds the global streams as they stood when the epoch began. A stream that nobody draws from may
stand anywhere, and differs between two runs that are equal in all that matters; so a comparison
needs each stream by itself, and all the rest. A file may be forged: a tree of no known shape is
part of the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from auditkit.errors import JsonError
from auditkit.formats.canonical import dumps, loads

_STREAM = "rng/"


def position_digests(text: bytes, digest_rest: Callable[[bytes], bytes]) -> dict[str, str]:
    """SHA-256 of every part of a data position.

    Args:
        text: The section's JSON, its entry ``""``.
        digest_rest: ``sha256/tensor-v1`` of the section with other JSON in that entry.

    Returns:
        By the name of a global stream, the digest of all that is said of it and where; under
        ``""`` the digest of the section without the streams.

    Raises:
        JsonError: When the text is no JSON.
    """
    found: dict[str, list[object]] = {}
    rest = _without_streams(loads(text, what="loader"), [], found)
    digests = {name: hashlib.sha256(dumps(part)).hexdigest() for name, part in found.items()}
    return {**digests, "": digest_rest(dumps(rest)).hex()}


def epoch_of(text: bytes) -> int | None:
    """The epoch, from 0, of a data position; None where it says none."""
    try:
        tree = loads(text, what="loader")
    except JsonError:
        return None
    # A forged key may be anything, and need not be one that a dict takes.
    epoch = next((value for key, value in _pairs(tree) or () if key == "epoch"), None)
    return epoch if type(epoch) is int else None


def _without_streams(value: object, path: list[object], found: dict[str, list[object]]) -> object:
    """The tree without what it says of streams, which goes to ``found`` with its path."""
    if isinstance(value, list):
        return [_without_streams(item, [*path, n], found) for n, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    pairs = _pairs(value)
    if pairs is None:
        return {key: _without_streams(item, [*path, key], found) for key, item in value.items()}
    kept: list[tuple[object, object]] = []
    for key, item in pairs:
        if isinstance(key, str) and key.startswith(_STREAM):
            found.setdefault(key, []).append([path, item])
        else:
            kept.append((key, _without_streams(item, [*path, key], found)))
    return {**value, "keys": [key for key, _ in kept], "values": [item for _, item in kept]}


def _pairs(value: object) -> list[tuple[object, object]] | None:
    """Keys and values of a dict in tagged encoding; None for anything else."""
    if not isinstance(value, dict) or value.get("$") != "dict":
        return None
    keys, values = value.get("keys"), value.get("values")
    if not isinstance(keys, list) or not isinstance(values, list) or len(keys) != len(values):
        return None
    return list(zip(keys, values, strict=True))
