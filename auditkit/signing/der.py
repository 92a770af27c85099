"""The little of DER that is read here: replies of time-stamping authorities, put in order.

DER wants the elements of a SET sorted. ``openssl ts``, behind many authorities, writes the
certificates of a reply in the order in which it was given them, and strict parsers refuse that.
No signature covers that SET, so it can be sorted. A permutation is as long as what it permutes:
every length around it stays right.

What is not understood (lengths that are not DER's, tags of several bytes, more values than
:data:`MAX_VALUES`, bytes behind the end) is left as it is, for the parser to judge.
"""

from __future__ import annotations

from typing import NamedTuple

#: Most values of one constructed value that are looked at.
MAX_VALUES = 64

_INTEGER, _SEQUENCE = 0x02, 0x30
_FIRST, _SECOND = 0xA0, 0xA1  # [0] and [1], constructed
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_MAX_LENGTH_BYTES = 4


class _Value(NamedTuple):
    """Where a value lies: its tag at ``start``, its content from ``content`` to ``end``."""

    tag: int
    start: int
    content: int
    end: int


def ordered_reply(reply: bytes) -> bytes:
    """A time stamp reply with its certificates and revocation lists in DER's order.

    Any bytes may be given; those come back that were given where something is not understood.
    """
    ordered = bytearray(reply)
    try:
        _, token = _values(reply, _whole(reply), _SEQUENCE)
        kind, content = _values(reply, token, _SEQUENCE)
        if reply[kind.start : kind.end] != _SIGNED_DATA:
            return reply
        (signed,) = _values(reply, content, _FIRST)
        for field in _values(reply, signed, _SEQUENCE):
            if field.tag in (_FIRST, _SECOND):
                items = [reply[item.start : item.end] for item in _values(reply, field, field.tag)]
                ordered[field.content : field.end] = b"".join(sorted(items))
    except ValueError:  # also where there are more values than two, or fewer
        return reply
    return bytes(ordered)


def is_request(data: bytes) -> bool:
    """Whether bytes look like a time stamp request: in a SEQUENCE, a number and a SEQUENCE."""
    try:
        first, second, *_ = _values(data, _whole(data), _SEQUENCE)
    except ValueError:
        return False
    return (first.tag, second.tag) == (_INTEGER, _SEQUENCE)


def _whole(data: bytes) -> _Value:
    value = _value(data, 0, len(data))
    if value.end != len(data):
        raise ValueError("something follows")
    return value


def _values(data: bytes, within: _Value, tag: int) -> list[_Value]:
    """What a constructed value of that tag is made of."""
    if within.tag != tag:
        raise ValueError("another tag")
    found, at = list[_Value](), within.content
    while at < within.end:
        if len(found) == MAX_VALUES:
            raise ValueError("too many values")
        found.append(_value(data, at, within.end))
        at = found[-1].end
    return found


def _value(data: bytes, start: int, limit: int) -> _Value:
    """The value that starts here; it must end at ``limit`` or before."""
    content = start + 2
    if content > limit or data[start] & 0x1F == 0x1F:
        raise ValueError("cut off, or a tag of several bytes")
    length = data[start + 1]
    if length & 0x80:  # so many bytes of length follow; none: the length is indefinite
        size, at = length & 0x7F, content
        content += size
        length = int.from_bytes(data[at:content], "big") if size <= _MAX_LENGTH_BYTES else 0
        if length < 0x80 or size != (length.bit_length() + 7) // 8:
            raise ValueError("a length that is not DER's")
    if content + length > limit:
        raise ValueError("cut off")
    return _Value(data[start], start, content, content + length)
