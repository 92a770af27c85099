"""A loader's samplers: what they yield, as numbers, and their state at the start of an epoch.

The order of an epoch follows from what its samplers held when the epoch began: a
``generator=``, an epoch counter, a position. That state is kept at every ``iter()``, since the
state at the fork alone cannot rebuild the permutation that is under way.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from auditkit.errors import RestoreMismatch, UnsupportedLoader
from auditkit.formats.ordering import Batch
from auditkit.formats.packed_batch import PackedBatch
from auditkit.observe.rng.streams import generator_leaves, is_generator, restore_generator
from auditkit.observe.values.codec import flatten, unflatten

_STATELESS = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)

#: Samplers of torch that draw from the global streams at their first index only.
_DRAW_ONCE = (*_STATELESS, DistributedSampler)
_INNER = frozenset({"sampler", "batch_sampler", "base_sampler"})
_SCALARS = (bool, int, float, complex, str, bytes, type(None))


class _NotPlainError(Exception):
    """Something that is not made of numbers, text, arrays and containers of them."""


def index_pairs(yielded: Any, epoch: int, loader: DataLoader[Any]) -> Batch:
    """What a sampler yielded as int64 ``(B, 2)`` of (epoch, index).

    Raises:
        UnsupportedLoader: When it is something else than whole numbers.
    """
    if type(yielded) is list and set(map(type, yielded)) == {int}:
        return _pairs_of_ints(yielded, epoch)
    indices = yielded.tolist() if isinstance(yielded, (Tensor, np.ndarray)) else yielded
    indices = indices if is_batch(indices) else [indices]
    if isinstance(yielded, tuple) and loader.batch_sampler is None:
        indices = [yielded]  # one key of several parts, not several samples
    if type(indices) is list and set(map(type, indices)) == {int}:
        return _pairs_of_ints(indices, epoch)
    try:
        pairs = [(epoch, operator.index(index)) for index in indices]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)
    except (TypeError, OverflowError) as error:
        raise _unsupported(yielded) from error


def packed_indices(yielded: Any, epoch: int, loader: DataLoader[Any]) -> PackedBatch:
    """The same, packed: of a list, as nearly every sampler yields, in a fraction of the time."""
    packed = PackedBatch.of_numbers(yielded, epoch) if type(yielded) is list else None
    return packed or PackedBatch.of(index_pairs(yielded, epoch, loader))


def _pairs_of_ints(indices: list[int], epoch: int) -> Batch:
    """What nearly every sampler yields, without a tuple for each sample."""
    pairs = np.empty((len(indices), 2), dtype=np.int64)
    try:
        pairs[:, 0], pairs[:, 1] = epoch, indices
    except OverflowError as error:
        raise _unsupported(indices) from error
    return pairs


def _unsupported(yielded: Any) -> UnsupportedLoader:
    return UnsupportedLoader(
        f"the sampler yields {type(yielded).__name__} of {yielded!r:.60}",
        expected="whole numbers that fit 64 bits",
        hint="let the dataset map whole numbers to its own keys",
    )


def is_batch(yielded: Any) -> bool:
    """Whether a sampler's item stands for several samples."""
    if isinstance(yielded, (Tensor, np.ndarray)):
        return yielded.ndim > 0
    return isinstance(yielded, Iterable) and not isinstance(yielded, (str, bytes))


def order_hint(changed: list[str]) -> str:
    """What to do where a branch's sampler yields other samples than the control's.

    Args:
        changed: Attributes that changed while training.
    """
    named = f" ({', '.join(changed)} changed while training)" if changed else ""
    return (
        f"branches are held to one order, so it must not follow from the model or from its "
        f"draws{named}: let the factory or the epoch decide it, or let the horizon end before the "
        "epoch for which it is set anew"
    )


def draws_once(sampler: object) -> bool:
    """Whether a sampler is known to draw from the global streams at its first index only."""
    inner = sampler.sampler if type(sampler) is BatchSampler else sampler
    return type(inner) in _DRAW_ONCE


def named_samplers(loader: DataLoader[Any]) -> Iterator[tuple[str, Any]]:
    """The loader's samplers with a path each, outermost first."""
    seen: set[int] = set()
    queue = [("batch_sampler", loader.batch_sampler), ("sampler", loader.sampler)]
    while queue:
        path, sampler = queue.pop(0)
        if sampler is None or id(sampler) in seen:
            continue
        seen.add(id(sampler))
        yield path, sampler
        for name, value in getattr(sampler, "__dict__", {}).items():
            if isinstance(value, Sampler) or name in _INNER:
                queue.append((f"{path}.{name}", value))


def sampler_generators(loader: DataLoader[Any]) -> dict[str, Any]:
    """Generator objects that the loader and its samplers hold, by path."""
    found = {} if loader.generator is None else {"generator": loader.generator}
    for path, sampler in named_samplers(loader):
        for name, value in getattr(sampler, "__dict__", {}).items():
            if is_generator(value):
                found[f"{path}.{name}"] = value
    return found


def capture_samplers(loader: DataLoader[Any]) -> dict[str, Any]:
    """What the samplers hold now, as a tree for the snapshot codec."""
    state: dict[str, Any] = {}
    for path, generator in sampler_generators(loader).items():
        state[path] = dict(generator_leaves(generator))
    for path, sampler in named_samplers(loader):
        if hasattr(sampler, "state_dict") and hasattr(sampler, "load_state_dict"):
            tree = sampler.state_dict()
            state[f"{path}.state_dict()"] = unflatten(flatten(tree, where=f"{path}.state_dict()"))
        elif type(sampler) not in (*_STATELESS, BatchSampler):
            for name, value in getattr(sampler, "__dict__", {}).items():
                if value is loader.dataset:
                    continue
                try:
                    state[f"{path}.{name}"] = _plain_copy(value)
                except _NotPlainError:
                    continue
    return state


def restore_samplers(loader: DataLoader[Any], state: Mapping[str, Any]) -> None:
    """Put the samplers back to a captured state.

    Raises:
        RestoreMismatch: When the loader has other samplers than the snapshot.
    """
    generators = sampler_generators(loader)
    owners = dict(named_samplers(loader))
    for path, value in state.items():
        owner_path, _, attribute = path.rpartition(".")
        if path in generators:
            restore_generator(generators[path], value)
        elif owner_path not in owners:
            raise RestoreMismatch(f"the loader has no {owner_path!r}", component="loader")
        elif attribute == "state_dict()":
            owners[owner_path].load_state_dict(value)
        else:
            # A frozen dataclass as a sampler refuses plain assignment; its dict does not.
            owners[owner_path].__dict__[attribute] = value


def _plain_copy(value: Any) -> Any:
    # A copy: what is kept is what the epoch began with, and samplers shuffle lists in place.
    kind = type(value)
    if kind in _SCALARS:
        return value
    copy = _COPIES.get(kind)
    if copy is None:
        raise _NotPlainError
    return copy(value)


def _sequence_copy(value: Any) -> Any:
    if all(type(item) in _SCALARS for item in value):
        return type(value)(value)
    return type(value)(_plain_copy(item) for item in value)


def _array_copy(value: Any) -> Any:
    if value.dtype.hasobject:
        raise _NotPlainError
    return value.copy()


_COPIES: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys((list, tuple, set, frozenset), _sequence_copy),
    deque: lambda value: deque(map(_plain_copy, value), value.maxlen),
    dict: lambda value: {_plain_copy(key): _plain_copy(item) for key, item in value.items()},
    np.ndarray: _array_copy,
    Tensor: lambda value: value.detach().clone(),
}
