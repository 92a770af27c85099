"""Data order as numbers: the order table of a branch, and what order perturbations do to it.

An *order* is a list of batches; a batch is an int64 array ``(B, 2)`` of (epoch, index). Torch
is not needed, so that a verifier can derive every branch's order from the control's.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from auditkit.formats.flat_order import FlatOrder, Order
from auditkit.formats.seeds import derive_seed
from auditkit.records.plan import PerturbationSpec

Batch = NDArray[np.int64]

#: Fills batches that are shorter than the longest one in an order table.
PADDING = -1

#: The order perturbation that goes by what the program says of its samples.
CURRICULUM = "order-curriculum"

#: Largest difficulty in size: sums of them are finite.
LARGEST = 1e200

#: Batches that are hashed at a time: a call costs more than hashing a small batch.
_HASHED_TOGETHER = 1024


def order_sha256(batches: Sequence[Batch]) -> str:
    """SHA-256 over the int64 little-endian (epoch, index) pairs, batch sizes included.

    Args:
        batches: One int64 array ``(B, 2)`` a step.

    Returns:
        Lower-case hexadecimal digits. Each batch is preceded by its size as int64, so that the
        same samples cut elsewhere give another digest.
    """
    return flat_sha256(FlatOrder.of(batches))


def flat_sha256(*orders: Order) -> str:
    """What :func:`order_sha256` gives of the batches of orders in a row."""
    digest = hashlib.sha256()
    for stream in itertools.chain.from_iterable(map(_streams, orders)):
        digest.update(stream)
    return digest.hexdigest()


def whole_and_tail_sha256(order: Order, first: int) -> tuple[str, str]:
    """What :func:`flat_sha256` gives of an order, and of its steps from ``first`` on."""
    whole, tail = hashlib.sha256(), hashlib.sha256()
    for stream in _streams(order.part(0, first)):
        whole.update(stream)
    for stream in _streams(order.part(first)):
        whole.update(stream)
        tail.update(stream)
    return whole.hexdigest(), tail.hexdigest()


def _streams(order: Order) -> Iterator[memoryview]:
    """Batches as they are hashed, many at a time: each after its size."""
    for start in range(0, len(order), _HASHED_TOGETHER):
        steps = order.part(start, start + _HASHED_TOGETHER)
        sizes, numbers = steps.sizes, steps.pairs.reshape(-1)
        if (sizes == sizes[0]).all():
            table = np.empty((len(sizes), 1 + 2 * int(sizes[0])), "<i8")
            table[:, 0] = sizes[0]
            table[:, 1:] = numbers.reshape(len(sizes), 2 * int(sizes[0]))
            yield table.reshape(-1).data
        else:  # each size stands where its batch's numbers begin
            stream = np.insert(numbers, 2 * (steps.ends - sizes), sizes)
            yield stream.astype("<i8", copy=False).data


def to_table(batches: Sequence[Batch]) -> NDArray[np.int64]:
    """Stack batches into one table ``(steps, longest batch, 2)``, padded with -1."""
    longest = max((len(batch) for batch in batches), default=0)
    table = np.full((len(batches), longest, 2), PADDING, dtype=np.int64)
    for row, batch in enumerate(batches):
        table[row, : len(batch)] = batch
    return table


def from_table(table: NDArray[np.int64]) -> list[Batch]:
    """Cut a table ``(steps, longest batch, 2)`` back into batches."""
    return flat_from_table(table).batches()


def is_full(table: NDArray[np.int64]) -> bool:
    """Whether a table ``(steps, longest batch, 2)`` has no padding: batches are of one size."""
    return bool(table[:, :, 0].min(initial=0) >= 0)


def flat_from_table(table: NDArray[np.int64]) -> FlatOrder:
    """The order that a table ``(steps, longest batch, 2)`` holds."""
    # A real epoch is never negative, whatever the index is, so the epoch marks the padding.
    if is_full(table):
        sizes, pairs = np.full(len(table), table.shape[1], np.int64), table.reshape(-1, 2)
    else:
        is_sample = table[:, :, 0] != PADDING
        sizes, pairs = is_sample.sum(axis=1, dtype=np.int64), table[is_sample]
    return FlatOrder(np.ascontiguousarray(pairs, np.int64), sizes)


def positions(
    spec: PerturbationSpec, n_items: int, seed: int, difficulty: Sequence[float] = ()
) -> NDArray[np.intp]:
    """Which of a window's samples, or batches, an order perturbation puts where.

    Args:
        spec: An order perturbation with complete parameters.
        n_items: Samples or batches in the window.
        seed: The study seed, from which ``order-shuffle`` and ``order-with-replacement`` draw.
        difficulty: Of every sample, or batch, for ``order-curriculum``; equal ones keep their
            order.

    Returns:
        Indices ``(n_items,)``: position i of the new window takes old position ``out[i]``.

    Raises:
        KeyError: When ``spec`` is no order perturbation.
        ValueError: When there is not one difficulty for each.
    """
    identity = np.arange(n_items)
    if spec.name == CURRICULUM:
        if len(difficulty) != n_items:
            raise ValueError(f"{len(difficulty)} difficulties for {n_items} places")
        sign = -1.0 if spec.parameters.get("first") == "hard" else 1.0
        return np.argsort(sign * np.asarray(difficulty, dtype=np.float64), kind="stable")
    if spec.name == "order-reverse":
        return identity[::-1]
    if spec.name == "order-swap":
        half = n_items // 2
        return np.concatenate([identity[half:], identity[:half]])
    if spec.name in ("order-shuffle", "order-with-replacement"):
        drawn = derive_seed(seed, spec.name, int(spec.parameters["draw"]))
        # RandomState's stream is frozen (NEP 19): the same numbers in every numpy.
        stream = np.random.RandomState(drawn & 0xFFFFFFFF)
        if spec.name == "order-shuffle":
            return stream.permutation(n_items)
        return stream.randint(0, n_items, n_items, dtype=np.int64) if n_items else identity
    raise KeyError(spec.name)


def moves_batches(spec: PerturbationSpec) -> bool:
    """Whether an order perturbation moves whole batches, and not samples."""
    return spec.parameters.get("unit") == "batch"


def keeps_augmentation(spec: PerturbationSpec) -> bool:
    """Whether batches that are moved are augmented as at the steps that they come from."""
    return spec.parameters.get("augment") == "kept"


def moves_nothing(spec: PerturbationSpec, window: int, seed: int) -> bool:
    """Whether an order perturbation of whole batches leaves a window as it is.

    What is ordered by difficulty is not known before the program says it.
    """
    if not moves_batches(spec) or spec.name == CURRICULUM:
        return False
    return np.array_equal(positions(spec, window, seed), np.arange(window))


def delivered_order(
    control: Sequence[Batch],
    spec: PerturbationSpec | None,
    window: int,
    seed: int,
    difficulty: Sequence[float] | None = None,
) -> list[Batch]:
    """What a branch delivers, given what the control delivered.

    Args:
        control: The control's batches of steps t0+1..T.
        spec: An order perturbation, or None for every other branch.
        window: W, in steps.
        seed: The study seed.
        difficulty: Of every sample of the window in the control's order, for ``order-curriculum``;
            a batch's is the mean over its samples.

    Returns:
        One batch a step. Inside the window the control's flat sequence of (epoch, index) is
        put in another order and cut again to the control's batch sizes, or its batches are put in
        another order as they are; beyond it nothing changes.

    Raises:
        ValueError: When an order by difficulty lacks one for each sample.
    """
    if spec is None:
        return list(control)
    moved = delivered_window(FlatOrder.of(control[:window]), spec, seed, difficulty)
    return [*moved.batches(), *control[window:]]


def delivered_window(
    control: Order,
    spec: PerturbationSpec,
    seed: int,
    difficulty: Sequence[float] | None = None,
) -> FlatOrder:
    """What :func:`delivered_order` gives of the window alone.

    Args:
        control: What the control delivered inside the window.
        spec: An order perturbation.
        seed: As of :func:`delivered_order`.
        difficulty: As of :func:`delivered_order`.

    Raises:
        ValueError: When an order by difficulty lacks one for each sample.
    """
    if not len(control):
        return FlatOrder.of([])
    hard = list(difficulty or ()) if spec.name == CURRICULUM else []
    if spec.name == CURRICULUM and len(hard) != len(control.pairs):
        raise ValueError(f"{len(hard)} difficulties for {len(control.pairs)} samples")
    if moves_batches(spec):
        inside = control.batches()
        at = positions(spec, len(inside), seed, _means(hard, inside))
        return FlatOrder.of([inside[place] for place in at])
    at = positions(spec, len(control.pairs), seed, hard)
    # a tenth of the time of indexing
    return FlatOrder(np.take(control.pairs, at, axis=0), control.sizes)


def _means(difficulty: list[float], batches: Sequence[Batch]) -> list[float]:
    """A batch's difficulty, exactly summed: the same on every machine."""
    if not difficulty:
        return []
    ends = np.cumsum([len(batch) for batch in batches]).tolist()
    parts = [difficulty[end - len(batch) : end] for end, batch in zip(ends, batches, strict=True)]
    return [math.fsum(part) / max(len(part), 1) for part in parts]


def order_spec(spec: PerturbationSpec | None, kinds: Mapping[str, str]) -> PerturbationSpec | None:
    """``spec`` where its kind is ``order``, else None."""
    if spec is not None and kinds.get(spec.name) == "order":
        return spec
    return None
