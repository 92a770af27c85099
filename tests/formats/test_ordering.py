from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.formats import ordering
from auditkit.formats.flat_order import FlatOrder
from auditkit.formats.ordering import (
    PADDING,
    Batch,
    delivered_order,
    from_table,
    order_sha256,
    order_spec,
    positions,
    to_table,
)
from auditkit.records.plan import PerturbationSpec

REVERSE = PerturbationSpec("order-reverse", {})
SWAP = PerturbationSpec("order-swap", {})
SHUFFLE = PerturbationSpec("order-shuffle", {"draw": 0})
SPECS = [REVERSE, SWAP, SHUFFLE, PerturbationSpec("order-shuffle", {"draw": 9})]
REPLACED = PerturbationSpec("order-with-replacement", {"draw": 0})


def by_batch(spec: PerturbationSpec) -> PerturbationSpec:
    return PerturbationSpec(spec.name, {**spec.parameters, "unit": "batch"})


_PAIRS = st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 2**62)), max_size=5)
BATCHES = st.lists(_PAIRS.map(lambda b: np.array(b, dtype=np.int64).reshape(-1, 2)), max_size=8)


def pairs(batches: list[Batch]) -> list[tuple[int, int]]:
    return [(int(epoch), int(index)) for batch in batches for epoch, index in batch]


@settings(deadline=None, max_examples=60)
@given(BATCHES)
def test_a_table_gives_the_batches_back(batches: list[Batch]) -> None:
    found = from_table(to_table(batches))
    assert [b.tolist() for b in found] == [b.tolist() for b in batches]
    assert order_sha256(found) == order_sha256(batches)


def test_a_table_is_padded() -> None:
    batches = [np.array([[0, 1], [0, 2]]), np.array([[0, 3]])]
    table = to_table(batches)
    assert table.shape == (2, 2, 2)
    assert table[1, 1].tolist() == [PADDING, PADDING]
    assert to_table([]).shape == (0, 0, 2)


@settings(deadline=None, max_examples=60)
@given(BATCHES, st.integers(0, 9), st.sampled_from(SPECS), st.integers(0, 2**64 - 1))
def test_delivery_keeps_samples_sizes_and_what_is_beyond(
    control: list[Batch], window: int, spec: PerturbationSpec, seed: int
) -> None:
    found = delivered_order(control, spec, window, seed)
    assert [len(batch) for batch in found] == [len(batch) for batch in control]
    assert Counter(pairs(found[:window])) == Counter(pairs(control[:window]))
    assert pairs(found[window:]) == pairs(control[window:])
    again = delivered_order(control, spec, window, seed)
    assert pairs(again) == pairs(found)


@settings(deadline=None, max_examples=60)
@given(BATCHES, st.integers(0, 9), st.sampled_from(SPECS), st.integers(0, 2**64 - 1))
def test_batches_that_are_moved_stay_whole(
    control: list[Batch], window: int, spec: PerturbationSpec, seed: int
) -> None:
    found = delivered_order(control, by_batch(spec), window, seed)
    assert Counter(batch.tobytes() for batch in found[:window]) == Counter(
        batch.tobytes() for batch in control[:window]
    )
    assert pairs(found[window:]) == pairs(control[window:])


@settings(deadline=None, max_examples=60)
@given(BATCHES, st.integers(0, 9), st.booleans(), st.integers(0, 2**64 - 1))
def test_what_is_drawn_with_replacement_is_of_the_window(
    control: list[Batch], window: int, whole: bool, seed: int
) -> None:
    spec = by_batch(REPLACED) if whole else REPLACED
    found = delivered_order(control, spec, window, seed)
    assert len(found) == len(control)
    assert set(pairs(found[:window])) <= set(pairs(control[:window]))
    assert pairs(found[window:]) == pairs(control[window:])
    if whole:
        assert {b.tobytes() for b in found[:window]} <= {b.tobytes() for b in control[:window]}
    else:
        assert [len(batch) for batch in found] == [len(batch) for batch in control]


@pytest.mark.parametrize("window", [4, 5])
def test_a_swap_of_batches_keeps_them_for_even_and_odd_windows(window: int) -> None:
    control = [np.array([[0, 2 * step], [0, 2 * step + 1]]) for step in range(window)]
    found = delivered_order(control, by_batch(SWAP), window, 0)
    half = window // 2
    assert [b.tolist() for b in found] == [b.tolist() for b in [*control[half:], *control[:half]]]
    of_samples = delivered_order(control, SWAP, window, 0)
    kept = sum(any(np.array_equal(a, b) for b in control) for a in of_samples)
    assert kept == (window if window % 2 == 0 else 0)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 60), st.sampled_from(SPECS), st.integers(0, 2**64 - 1))
def test_permutations_are_permutations(n: int, spec: PerturbationSpec, seed: int) -> None:
    assert sorted(positions(spec, n, seed).tolist()) == list(range(n))


def test_without_a_perturbation_the_control_is_delivered() -> None:
    control = [np.array([[0, 1], [0, 2]]), np.array([[0, 3]])]
    assert pairs(delivered_order(control, None, 2, 0)) == pairs(control)


def test_what_each_does() -> None:
    assert positions(REVERSE, 5, 0).tolist() == [4, 3, 2, 1, 0]
    assert positions(SWAP, 5, 0).tolist() == [2, 3, 4, 0, 1]
    with pytest.raises(KeyError):
        positions(PerturbationSpec("carry", {}), 3, 0)


def test_golden_shuffle() -> None:
    # Pinned: another order would mean that recorded branches no longer replay.
    assert positions(SHUFFLE, 10, 0).tolist() == GOLDEN
    assert positions(SHUFFLE, 10, 1).tolist() != GOLDEN
    other = PerturbationSpec("order-shuffle", {"draw": 1})
    assert positions(other, 10, 0).tolist() != GOLDEN
    assert positions(REPLACED, 10, 0).tolist() == REPLACED_GOLDEN


GOLDEN = [1, 3, 0, 2, 8, 5, 9, 6, 7, 4]
REPLACED_GOLDEN = [3, 0, 8, 1, 2, 1, 5, 0, 1, 4]


def test_the_digest_covers_order_epochs_and_sizes() -> None:
    batches = [np.array([[0, 1], [0, 2]]), np.array([[0, 3]])]
    others = [
        [batches[1], batches[0]],
        [batches[0][::-1], batches[1]],
        [np.array([[0, 1]]), np.array([[0, 2], [0, 3]])],
        [np.array([[1, 1], [0, 2]]), batches[1]],
        batches[:1],
        [*batches, np.empty((0, 2), dtype=np.int64)],
    ]
    assert order_sha256(batches) not in {order_sha256(other) for other in others}
    assert order_sha256([]) == order_sha256([])


def test_only_order_perturbations_are_order_perturbations() -> None:
    kinds = {"order-reverse": "order", "ulp": "state"}
    assert order_spec(REVERSE, kinds) is REVERSE
    assert order_spec(PerturbationSpec("ulp", {}), kinds) is None
    assert order_spec(None, kinds) is None


@given(BATCHES, st.sampled_from([1, 3, 1024]))
def test_the_digest_is_of_sizes_and_pairs(batches: list[Batch], together: int) -> None:
    stream = b"".join(
        len(batch).to_bytes(8, "little") + batch.astype("<i8").tobytes() for batch in batches
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "_HASHED_TOGETHER", together)
        assert order_sha256(batches) == hashlib.sha256(stream).hexdigest()
        assert order_sha256([b[::-1][::-1] for b in batches]) == hashlib.sha256(stream).hexdigest()


@given(BATCHES, st.integers(0, 8))
def test_a_whole_and_its_tail_are_hashed_as_each_alone(batches: list[Batch], first: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "_HASHED_TOGETHER", 2)
        found = ordering.whole_and_tail_sha256(FlatOrder.of(batches), first)
    assert found == (order_sha256(batches), order_sha256(batches[first:]))
