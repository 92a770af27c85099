from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.formats.seeds import SampleSeeds, derive_seed

INTEGERS = st.one_of(st.integers(0, 10**6), st.integers(-(2**70), 2**70))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**64), st.lists(INTEGERS, min_size=1, max_size=4))
def test_sample_seeds_are_derived_seeds(seed: int, parts: list[int]) -> None:
    assert SampleSeeds(seed)(*parts) == derive_seed(seed, "sample", *parts)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**64), st.lists(st.lists(INTEGERS, min_size=2, max_size=3), max_size=4))
def test_seeds_of_many_samples_are_those_of_each(seed: int, samples: list[list[int]]) -> None:
    expected = [derive_seed(seed, "sample", *sample[:2]) for sample in samples]
    assert SampleSeeds(seed).of(samples) == expected


@pytest.mark.parametrize("part", [2**53 - 1, 2**53, -(2**53), 1 - 2**53, 10**15, 10**16])
def test_where_json_changes_to_decimal_strings(part: int) -> None:
    expected = derive_seed(0, "sample", 0, part)
    assert SampleSeeds(0)(0, part) == expected
    assert SampleSeeds(0).of([(0, part), (0, 1)])[0] == expected


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**64), st.lists(st.one_of(INTEGERS, st.text(max_size=5)), max_size=3))
def test_seeds_are_64_bits(seed: int, purpose: list[int | str]) -> None:
    assert 0 <= derive_seed(seed, *purpose) < 2**64


def test_the_recipe_word_for_word() -> None:
    text = b'["auditkit-seed/1",5,"order",3,"numpy"]'
    expected = int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
    assert derive_seed(5, "order", 3, "numpy") == expected


@pytest.mark.parametrize(
    ("purpose", "seed"),
    [
        (("torch",), 0),
        (("python",), 0),
        (("sample", 0, 0), 0),
        (("order", 1, "numpy"), 7),
    ],
)
def test_golden_values(purpose: tuple[str | int, ...], seed: int) -> None:
    # Pinned: other values would mean that recorded studies no longer replay.
    assert derive_seed(seed, *purpose) == GOLDEN[purpose]


GOLDEN: dict[tuple[str | int, ...], int] = {
    ("torch",): 2262330980946060869,
    ("python",): 6538707076007527949,
    ("sample", 0, 0): 2764523258222889360,
    ("order", 1, "numpy"): 8059637274143160006,
}


def test_text_and_number_are_not_the_same_purpose() -> None:
    found = {derive_seed(0, 1), derive_seed(0, "1"), derive_seed(1, 0), derive_seed(0, 1, 0)}
    assert len(found) == 4
