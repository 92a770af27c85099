from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from auditkit.formats.packed_batch import PackedBatch, as_pairs
from auditkit.formats.recipes import order_digest
from auditkit.records.digest import EVIDENCE_RECIPE

BATCHES: tuple[list[Any], ...] = ([3, 1, 2], [0], [], [2**63 - 1, -(2**63)], [np.int64(4), True])


@pytest.mark.parametrize("indices", BATCHES, ids=str)
def test_a_packed_batch_is_the_array(indices: list[Any]) -> None:
    array = np.array([(7, int(index)) for index in indices], np.int64).reshape(-1, 2)
    packed = PackedBatch.of_numbers(indices, 7)
    assert packed is not None
    assert np.array_equal(packed.pairs, array)
    assert packed.pairs.dtype == np.int64
    assert packed.data == PackedBatch.of(array).data
    assert packed.digest == order_digest(EVIDENCE_RECIPE, array)
    assert packed.link == len(indices).to_bytes(8, "little") + array.astype("<i8").tobytes()


@pytest.mark.parametrize("index", [1.0, "1", None, 2**63, (1, 2), np.float64(1)], ids=str)
def test_what_is_no_whole_number_of_64_bits_is_not_packed(index: Any) -> None:
    assert PackedBatch.of_numbers([1, index], 0) is None


def test_an_array_is_of_its_own() -> None:
    packed = PackedBatch.of_numbers([1, 2], 0)
    assert packed is not None
    packed.pairs[:] = 9
    assert packed.pairs.tolist() == [[0, 1], [0, 2]]
    assert as_pairs(packed).tolist() == as_pairs(packed.pairs).tolist()
