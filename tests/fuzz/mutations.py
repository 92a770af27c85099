"""Inputs that are nearly valid: bytes that were flipped, cut and spliced; JSON of another shape."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

#: What hostile JSON holds where something else was expected.
_ODD_VALUES: Sequence[Any] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 1.5, 1e308, 10**100),
    *(
        "",
        "\x00",
        "..",
        "/",
        "a/../b",
        "\ud800",
        "é" * 300,
        "A" * 5000,
        "9" * 700,
        "-1",
        "9007199254740993",
    ),
    *([], {}, [[]], {"": {}}, [None] * 50, {"a": {"a": {"a": {}}}}),
)

#: Bytes that mean something to a parser.
_ODD_BYTES = (
    b"",
    b"\x00",
    b"\xff" * 8,
    b"\x7f" + b"\xff" * 7,
    b'"',
    b"{",
    b"}",
    b"[",
    b"\\u",
    b"1e999",
)


def mutate(data: bytes, rng: Random, *, is_json: bool) -> bytes:
    """A neighbour of a valid input.

    Args:
        data: The input.
        rng: Draws what is changed.
        is_json: Whether it may be decoded, changed and encoded again.
    """
    if is_json and rng.random() < 0.7:
        return _mutate_json(data, rng)
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(_BYTE_CHANGES)(data, rng)
    return data


def _mutate_json(data: bytes, rng: Random) -> bytes:
    document = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        inner = _payload(document)
        if inner is not None and rng.random() < 0.5:
            changed = mutate(inner, rng, is_json=True)
            document["payload"] = base64.b64encode(changed).decode()
        else:
            _change_value(document, rng)
    indent = rng.choice([None, None, 1])
    return json.dumps(document, indent=indent, ensure_ascii=rng.random() < 0.8).encode(
        "utf-8", "surrogatepass"
    )


def _payload(document: Any) -> bytes | None:
    """What an envelope holds, where that still is JSON."""
    try:
        payload = base64.b64decode(document["payload"])
        json.loads(payload)
    except (ValueError, KeyError, TypeError):
        return None
    return payload


def _change_value(document: Any, rng: Random) -> None:
    """Change one value somewhere below: another one, none, twice, or one from elsewhere."""
    here = document
    while isinstance(here, (dict, list)) and here:
        key: Any = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
        if not isinstance(here[key], (dict, list)) or not here[key] or rng.random() < 0.15:
            _change_entry(here, key, rng)
            return
        here = here[key]


def _change_entry(here: Any, key: Any, rng: Random) -> None:
    kind = rng.randrange(5)
    if kind == 0:
        del here[key]
    elif kind == 1 and isinstance(here, dict):
        here[rng.choice(["", "x", "__class__", f"{key}\x00"])] = here.pop(key)
    elif kind == 2 and isinstance(here, list):
        here.extend(copy.deepcopy(here[key]) for _ in range(rng.randint(1, 3)))
    elif kind == 3:
        other = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
        here[key], here[other] = here[other], here[key]
    else:
        here[key] = copy.deepcopy(rng.choice(_ODD_VALUES))


def _flip(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    # the first bytes are headers and lengths: half of the changes go there
    for _ in range(rng.randint(1, 8)):
        if changed:
            end = min(len(changed), 64) if rng.random() < 0.5 else len(changed)
            changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(data: bytes, rng: Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _splice(data: bytes, rng: Random) -> bytes:
    start, stop = sorted(rng.randint(0, len(data)) for _ in range(2))
    place = rng.randint(0, len(data))
    return data[:place] + data[start:stop][:4096] + data[place:]


def _remove(data: bytes, rng: Random) -> bytes:
    start = rng.randint(0, len(data))
    return data[:start] + data[start + rng.randint(1, 64) :]


def _overwrite(data: bytes, rng: Random) -> bytes:
    start, odd = rng.randint(0, len(data)), rng.choice(_ODD_BYTES)
    return data[:start] + odd + data[start + len(odd) :]


_BYTE_CHANGES: Sequence[Callable[[bytes, Random], bytes]] = (
    _flip,
    _cut,
    _splice,
    _remove,
    _overwrite,
)
