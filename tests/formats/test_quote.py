from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from auditkit.formats.quote import brief, class_of, escaped, public_class_of


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


def test_what_cannot_be_printed_is_named_by_its_class() -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    assert "Unprintable" in brief(Unprintable(), 200)


def test_half_a_pair_that_no_name_has_is_escaped_too() -> None:
    assert escaped("\ud800") == "\\ud800"


def test_a_class_is_named_as_it_can_be_imported() -> None:
    class Own:
        pass

    generators = (torch.Generator(), np.random.default_rng(), random.Random())
    assert [public_class_of(generator) for generator in generators] == [
        *("torch.Generator", "numpy.random.Generator", "random.Random")
    ]
    assert public_class_of(torch.nn.Linear(1, 1)) == "torch.nn.Linear"
    for value in (Own(), 1, Path("x")):
        assert public_class_of(value) in (class_of(value), "pathlib.PosixPath")
