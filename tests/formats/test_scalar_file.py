"""Numbers that a loop logs, as a file and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from auditkit.errors import FormatError
from auditkit.formats.chain_heads import ChainHeads
from auditkit.formats.scalar_file import (
    groups_at,
    merged,
    scalars_from_tensors,
    scalars_to_tensors,
    series_of,
)
from auditkit.records.tensor import RawTensor

LR = "param_groups[0].lr"


def pairs(series: Any) -> list[tuple[int, float]]:
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def test_a_file_gives_back_what_was_written() -> None:
    scalars = {
        "a": series_of([(0, 1.5), (7, -0.0)]),
        "a/step": series_of([(2, float("inf"))]),
        "val/loss": series_of([(1, 0.25)]),
    }
    found = scalars_from_tensors(scalars_to_tensors(scalars), what="x")
    assert {name: pairs(one) for name, one in found.items()} == {
        name: pairs(one) for name, one in scalars.items()
    }


def tensor(dtype: str, *values: float) -> RawTensor:
    data = np.array(values, dtype).tobytes()
    return RawTensor({"<i8": "int64", "<f8": "float64"}[dtype], (len(values),), data)


@pytest.mark.parametrize(
    "tensors",
    [
        {"a/step": tensor("<i8", 1)},
        {"a/value": tensor("<f8", 1)},
        {"a": tensor("<i8", 1)},
        {"a/step": tensor("<i8", 1, 2), "a/value": tensor("<f8", 1)},
        {"a/step": tensor("<i8"), "a/value": tensor("<f8")},
        {"a/step": tensor("<i8", 2, 2), "a/value": tensor("<f8", 1, 1)},
        {"a/step": tensor("<i8", -1), "a/value": tensor("<f8", 1)},
        {"a/step": tensor("<f8", 1), "a/value": tensor("<f8", 1)},
    ],
)
def test_what_is_no_such_file_is_malformed(tensors: dict[str, RawTensor]) -> None:
    with pytest.raises(FormatError):
        scalars_from_tensors(tensors, what="x")


def test_parts_are_joined_and_the_later_counts() -> None:
    parts = [
        {"a": series_of([(1, 1.0), (2, 2.0), (3, 3.0)]), LR: series_of([(1, 0.1)])},
        {"a": series_of([(3, 9.0), (4, 4.0)]), LR: series_of([(3, 0.1), (4, 0.2)])},
    ]
    found = merged(parts)
    assert pairs(found["a"]) == [(1, 1.0), (2, 2.0), (3, 9.0), (4, 4.0)]
    assert pairs(found[LR]) == [(1, 0.1), (4, 0.2)]  # where it changes
    assert [groups_at(found, step) for step in (0, 3, 9)] == [{}, {LR: 0.1}, {LR: 0.2}]
    assert merged([]) == {}


def test_heads_of_chains_come_back() -> None:
    heads = ChainHeads(7, 2, "0a" * 32, "0b" * 32)
    assert ChainHeads.from_tensors(heads.to_tensors()) == heads
    with pytest.raises(FormatError):
        ChainHeads.from_tensors({})
    for broken in ({"at": tensor("<i8", 1)}, {"heads": RawTensor("uint8", (1,), b"1")}):
        with pytest.raises(FormatError):
            ChainHeads.from_tensors({**heads.to_tensors(), **broken})
