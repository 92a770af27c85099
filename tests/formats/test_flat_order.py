from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from auditkit.errors import UsageError
from auditkit.formats.flat_order import FlatOrder
from auditkit.formats.ordering import flat_sha256, order_sha256

SIZES = (3, 0, 2, 2, 1)
BATCHES = [np.arange(2 * n, dtype=np.int64).reshape(n, 2) + step for step, n in enumerate(SIZES)]
ORDER = FlatOrder.of(BATCHES)


def as_lists(batches: list[Any]) -> list[Any]:
    return [batch.tolist() for batch in batches]


def test_batches_come_back() -> None:
    assert as_lists(ORDER.batches()) == as_lists(BATCHES)
    assert len(ORDER) == len(BATCHES)
    assert FlatOrder.of([]).batches() == []
    assert all(np.shares_memory(batch, ORDER.pairs) for batch in ORDER.batches() if batch.size)


@pytest.mark.parametrize("first", range(7))
@pytest.mark.parametrize("stop", [*range(7), None])
def test_a_part_is_of_its_steps(first: int, stop: int | None) -> None:
    part = ORDER.part(first, stop)
    assert as_lists(part.batches()) == as_lists(BATCHES[first:stop])
    assert as_lists(part.part(1).batches()) == as_lists(BATCHES[first:stop][1:])


@pytest.mark.parametrize("cut", range(6))
def test_a_digest_is_of_what_stands_in_a_row(cut: int) -> None:
    assert flat_sha256(ORDER.part(0, cut), ORDER.part(cut)) == order_sha256(BATCHES)


def test_content_is_one_pair_a_step() -> None:
    content = bytes(range(48))
    order = FlatOrder.of_content(content)
    assert order.sizes.tolist() == [1, 1, 1]
    assert order.pairs.tobytes() == content


@pytest.mark.parametrize("shape", [(3, 1), (3,), (2, 2, 2)])
def test_what_is_no_order_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="table of"):
        FlatOrder.of([*BATCHES, np.zeros(shape, np.int64)])
