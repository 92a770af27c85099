from __future__ import annotations

import time
from itertools import permutations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from timestamp_authority import children, der

from auditkit.signing.der import MAX_VALUES, is_request, ordered_reply

SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
GRANTED = bytes.fromhex("3003020100")
SIGNERS = der(0x31, der(0x30, b"\x05\x00"))
#: Of lengths that are written in one, two and three bytes.
CERTIFICATES = tuple(sorted(der(0x30, bytes([0x04, n, 1]) * n) for n in (1, 70, 120)))


def reply_of(*fields: bytes, kind: bytes = SIGNED_DATA, tag: int = 0xA0) -> bytes:
    """A reply whose SignedData ends in these fields."""
    start = (b"\x02\x01\x03", der(0x31), der(0x30, SIGNED_DATA))
    content = der(tag, der(0x30, *start, *fields))
    return der(0x30, GRANTED, der(0x30, kind, content))


IN_ORDER = reply_of(der(0xA0, *CERTIFICATES), SIGNERS)
OUT_OF_ORDER = reply_of(der(0xA0, *reversed(CERTIFICATES)), SIGNERS)


@pytest.mark.parametrize("tag", [0xA0, 0xA1])
def test_every_order_becomes_the_same(tag: int) -> None:
    expected = reply_of(der(tag, *CERTIFICATES), SIGNERS)
    for order in permutations(CERTIFICATES):
        assert ordered_reply(reply_of(der(tag, *order), SIGNERS)) == expected


def test_certificates_and_revocation_lists_are_sorted_each_among_themselves() -> None:
    low, high = CERTIFICATES[0], CERTIFICATES[-1]
    mixed = reply_of(der(0xA0, high, low), der(0xA1, high, low, low), SIGNERS)
    ordered = reply_of(der(0xA0, low, high), der(0xA1, low, low, high), SIGNERS)
    assert ordered_reply(mixed) == ordered


def long_form(value: bytes) -> bytes:
    """The same value with a byte of length more than it needs."""
    body = b"".join(children(value))
    return bytes([value[0], 0x84]) + len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        OUT_OF_ORDER[:-1],
        OUT_OF_ORDER + b"\0",
        der(0x30, OUT_OF_ORDER),
        long_form(OUT_OF_ORDER),
        b"\x30\x80" + b"".join(children(OUT_OF_ORDER)) + b"\0\0",
        der(0x30, GRANTED),
        der(0x30, *children(OUT_OF_ORDER), GRANTED),
        der(0x31, *children(OUT_OF_ORDER)),
        reply_of(der(0xA0, *reversed(CERTIFICATES)), SIGNERS, kind=SIGNED_DATA[:-1] + b"\x03"),
        reply_of(der(0xA0, *reversed(CERTIFICATES)), SIGNERS, tag=0xA1),
        reply_of(der(0x80, *reversed(CERTIFICATES)), SIGNERS),
        reply_of(der(0xA0, *reversed(CERTIFICATES)), b"\x1f\x01\0"),
        reply_of(der(0xA0, *reversed(CERTIFICATES), b"\x04\x05"), SIGNERS),
        reply_of(der(0xA0, *reversed(CERTIFICATES)), b"\x04\x81\x01\0"),
        reply_of(der(0xA0, *reversed(CERTIFICATES)), b"\x04\x85\x01\0\0\0\0"),
        reply_of(der(0xA0, b"\x05\0", *[b"\x04\0"] * MAX_VALUES), SIGNERS),
    ],
)
def test_what_is_not_understood_is_left_as_it_is(reply: bytes) -> None:
    assert ordered_reply(reply) == reply


def test_as_many_certificates_are_sorted_as_are_promised() -> None:
    reply = reply_of(der(0xA0, b"\x05\0", *[b"\x04\0"] * (MAX_VALUES - 1)), SIGNERS)
    assert sorted(ordered_reply(reply)) == sorted(reply)
    assert ordered_reply(reply) != reply


@given(
    head=st.binary(max_size=12),
    at=st.integers(0, len(OUT_OF_ORDER)),
    cut=st.integers(0, 12),
)
@example(head=b"", at=0, cut=0)
def test_any_bytes_come_back_permuted_at_most(head: bytes, at: int, cut: int) -> None:
    for data in (head, OUT_OF_ORDER[:at] + head + OUT_OF_ORDER[at + cut :]):
        given_back = ordered_reply(data)
        assert sorted(given_back) == sorted(data)
        assert ordered_reply(given_back) == given_back
        is_request(data)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_error(data: bytes) -> None:
    assert sorted(ordered_reply(data)) == sorted(data)
    assert not is_request(data) or data[:1] == b"\x30"


@pytest.mark.parametrize(
    "reply",
    [
        reply_of(*[der(0xA0, *[b"\x04\0"] * 9)] * 9, der(0x04, bytes(2**24))),
        reply_of(der(0xA0, *[der(0x30, bytes(2**18))] * MAX_VALUES), SIGNERS),
        reply_of(der(0xA0, b"\x04\0" * 2**23), SIGNERS),
        b"\x30\x80" * 2**23,
    ],
)
def test_the_largest_replies_take_no_time(reply: bytes) -> None:
    start = time.monotonic()
    assert len(ordered_reply(reply)) == len(reply) >= 2**24
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (der(0x30, b"\x02\x01\x01", der(0x30, b"\x05\0")), True),
        (der(0x30, b"\x02\x01\x01", der(0x30, b"\x05\0"), b"\x01\x01\xff"), True),
        (der(0x30, b"\x02\x01\x01"), False),
        (der(0x31, b"\x02\x01\x01", der(0x30, b"\x05\0")), False),
        (der(0x30, b"\x02\x01\x01", der(0x30, b"\x05\0")) + b"\0", False),
        (IN_ORDER, False),
        (b"", False),
    ],
)
def test_a_request_is_told_from_a_reply(data: bytes, expected: bool) -> None:
    assert is_request(data) is expected
