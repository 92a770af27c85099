from __future__ import annotations

import os

import pytest

from auditkit.formats.quote import escaped


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain", "plain"),
        ("r\u00e9plica".encode(), "r\u00e9plica"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"two\nlines", "two\\nlines"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
    ],
)
def test_a_name_of_a_file_becomes_text_that_can_be_written(name: bytes, text: str) -> None:
    assert escaped(os.fsdecode(name)) == text


def test_half_a_pair_that_no_name_has_is_escaped_too() -> None:
    assert escaped("\ud800") == "\\ud800"
