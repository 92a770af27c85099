"""The only place where a record becomes bytes, and where JSON from outside becomes values.

Canonical JSON here means: keys sorted, no spaces, ASCII only, no NaN or infinity, integers of
2**53 and more as decimal strings. Equal values give equal bytes, so a digest of the bytes is a
digest of the value.

Reading is strict where the standard library is not: a duplicate key, NaN, a number beyond
float64, half a surrogate pair, a byte order mark, or too deep a nesting is refused, because two
readers of one signed file must not see two different things.

How a record's fields become plain values is in :mod:`auditkit.formats.structure`; files are opened
elsewhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import NoReturn, TypeVar

from auditkit.errors import JsonError
from auditkit.formats.quote import brief
from auditkit.formats.structure import EXACT_LIMIT, MAX_NUMBER_CHARS, from_dict, to_dict

T = TypeVar("T")

#: Largest JSON text that is read, in bytes. A manifest of 100 seeds and 20 branches has a tenth.
MAX_BYTES = 32 * 2**20

#: Deepest nesting that is read or written. The records need about ten levels.
MAX_DEPTH = 64

# A string is consumed whole, closed or not, so that the scan stays linear on hostile input.
_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def dumps(value: object) -> bytes:
    """Encode a value as canonical JSON.

    Args:
        value: Dicts with string keys, lists, tuples (as lists), strings, booleans, None, finite
            floats, and integers; integers of 2**53 and more become decimal strings.

    Returns:
        ASCII bytes.

    Raises:
        JsonError: When the value holds anything else: bytes, sets, records, NaN, numpy scalars
            other than float64, half a surrogate pair, or nesting beyond :data:`MAX_DEPTH`.
    """
    ready = value if _is_ready(value, MAX_DEPTH) else _ready(value, "$", MAX_DEPTH)
    text = json.dumps(ready, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def loads(
    data: bytes | bytearray | memoryview,
    *,
    what: str,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
) -> object:
    """Decode strict JSON; see the module for what is refused.

    Args:
        data: UTF-8 text.
        what: What is being read, for the error message.
        max_bytes: Largest length of ``data``.
        max_depth: Deepest nesting of arrays and objects.

    Returns:
        Dicts, lists, strings, numbers, booleans, None. Decimal strings stay strings:
        :func:`from_dict` knows which of them are integers.

    Raises:
        JsonError: When the bytes are anything but such a text.
    """
    try:
        text = _text(data, max_bytes)
        _check_depth(text, max_depth)
        value: object = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
        if _SURROGATE_ESCAPE.search(text):
            _check_surrogates(value)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise JsonError(f"not JSON: {error.msg} ({place})", where=what) from None
    except RecursionError:  # a caller that is itself near the limit of the stack
        raise JsonError("not JSON: nested too deeply", where=what) from None
    except JsonError as error:
        raise JsonError(f"not JSON: {error.message}", where=what) from None
    return value


def encode(record: object) -> bytes:
    """The canonical bytes of a record.

    Raises:
        JsonError: When a field holds what JSON cannot, such as NaN.
    """
    return dumps(to_dict(record))


def decode(cls: type[T], data: bytes, *, what: str) -> T:
    """Read a record from JSON bytes; ``decode(type(r), encode(r))`` equals ``r``.

    Raises:
        JsonError: When the bytes are not strict JSON.
        SchemaError: When the JSON is no such record.
    """
    return from_dict(cls, loads(data, what=what), what=what)


def _is_ready(value: object, depth: int) -> bool:
    """Whether json.dumps writes a value canonically as it is, as nearly every one.

    A glance, which needs no path: that is made where there is something to say.
    """
    kind = type(value)
    if kind is str:
        return value.isascii()  # type: ignore[attr-defined, no-any-return]
    if kind is int:
        return -EXACT_LIMIT < value < EXACT_LIMIT  # type: ignore[operator]
    if kind is dict:
        return (
            depth > 0
            and all(type(key) is str and key.isascii() for key in value)  # type: ignore[attr-defined]
            and all(_is_ready(item, depth - 1) for item in value.values())  # type: ignore[attr-defined]
        )
    if kind is list or kind is tuple:
        return depth > 0 and all(_is_ready(item, depth - 1) for item in value)  # type: ignore[attr-defined]
    return value is None or kind is bool or (kind is float and math.isfinite(value))  # type: ignore[arg-type]


def _ready(value: object, path: str, depth: int) -> object:
    """Check a value and turn it into what json.dumps writes canonically."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _encodable(value, path)
    if isinstance(value, int):
        return _exact_integer(int(value), path)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise JsonError(f"{path}: {value} is not JSON")
        return float(value)
    if isinstance(value, (dict, list, tuple)):
        return _ready_container(value, path, depth)
    raise JsonError(f"{path}: a {type(value).__name__} has no JSON form")


def _ready_container(
    value: Mapping[object, object] | list[object] | tuple[object, ...], path: str, depth: int
) -> object:
    if depth == 0:
        raise JsonError(f"nested too deeply to be written (more than {MAX_DEPTH} levels)")
    if not isinstance(value, Mapping):
        return [_ready(item, f"{path}[{n}]", depth - 1) for n, item in enumerate(value)]
    ready: dict[str, object] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise JsonError(f"{path}: the key {brief(key)} is no string")
        ready[_encodable(key, path)] = _ready(item, f"{path}.{brief(key)[1:-1]}", depth - 1)
    return ready


def _encodable(text: str, path: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise JsonError(f"{path}: half a surrogate pair in {brief(text)}") from None
    return str(text)


def _exact_integer(value: int, path: str) -> int | str:
    if abs(value) < EXACT_LIMIT:
        return value
    if value.bit_length() > 3 * (MAX_NUMBER_CHARS - 1):  # 10 > 2**3: surely few enough digits
        raise JsonError(f"{path}: an integer of {value.bit_length()} bits is too large")
    return str(value)


def _text(data: bytes | bytearray | memoryview, max_bytes: int) -> str:
    raw = bytes(data)
    if len(raw) > max_bytes:
        raise JsonError(f"{len(raw)} bytes are more than the limit of {max_bytes}")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise JsonError("it starts with a byte order mark (line 1, column 1)")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise JsonError(f"it is not UTF-8 (line {line}, column {column})") from None


def _check_depth(text: str, max_depth: int) -> None:
    if text.count("[") + text.count("{") <= max_depth:
        return  # as in the header of nearly every file
    depth = 0
    for match in _STRINGS_AND_BRACKETS.finditer(text):
        first = text[match.start()]
        if first in "[{":
            depth += 1
            if depth > max_depth:
                line = text.count("\n", 0, match.start()) + 1
                column = match.start() - text.rfind("\n", 0, match.start())
                raise JsonError(
                    f"nested too deeply, more than {max_depth} levels "
                    f"(line {line}, column {column})"
                )
        elif first in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonError(f"duplicate key {brief(key)}")
            seen.add(key)
    return found


def _constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if len(text) > MAX_NUMBER_CHARS or not math.isfinite(number := float(text)):
        raise JsonError(f"the number {text[:24]} is beyond float64")
    return number


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS:
        raise JsonError(f"an integer of {len(text)} digits, starting {text[:24]}, is too large")
    return int(text)


def _check_surrogates(value: object) -> None:
    if isinstance(value, str):
        _encodable(value, "a string")
    elif isinstance(value, list):
        for item in value:
            _check_surrogates(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _encodable(key, "a key")
            _check_surrogates(item)
