"""What a sampler yields, as numbers; and which loaders cannot be recorded at all."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterDataPipe, MapDataPipe
from torch.utils.data.dataloader import _DatasetKind

from auditkit.errors import UnsupportedLoader
from auditkit.formats.ordering import Batch


def index_pairs(own: Any, epoch: int, loader: DataLoader[Any]) -> Batch:
    """What a sampler yielded as int64 ``(B, 2)`` of (epoch, index).

    Raises:
        UnsupportedLoader: When it is something else than whole numbers.
    """
    indices = own.tolist() if isinstance(own, (Tensor, np.ndarray)) else own
    indices = indices if is_batch(indices) else [indices]
    if isinstance(own, tuple) and loader.batch_sampler is None:
        indices = [own]  # one key of several parts, not several samples
    if type(indices) is list and set(map(type, indices)) == {int}:
        return _pairs_of_ints(indices, epoch)
    try:
        pairs = [(epoch, operator.index(index)) for index in indices]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)
    except (TypeError, OverflowError) as error:
        raise _unsupported(own) from error


def _pairs_of_ints(indices: list[int], epoch: int) -> Batch:
    """What nearly every sampler yields, without a tuple for each sample."""
    pairs = np.empty((len(indices), 2), dtype=np.int64)
    try:
        pairs[:, 0], pairs[:, 1] = epoch, indices
    except OverflowError as error:
        raise _unsupported(indices) from error
    return pairs


def _unsupported(own: Any) -> UnsupportedLoader:
    return UnsupportedLoader(
        f"the sampler yields {type(own).__name__} of {own!r:.60}",
        expected="whole numbers that fit 64 bits",
        hint="let the dataset map whole numbers to its own keys",
    )


def is_batch(own: Any) -> bool:
    """Whether a sampler's item stands for several samples."""
    if isinstance(own, (Tensor, np.ndarray)):
        return own.ndim > 0
    return isinstance(own, Iterable) and not isinstance(own, (str, bytes))


def is_iterable_style(loader: DataLoader[Any]) -> bool:
    """Whether batches come from an IterableDataset, without indices."""
    return bool(loader._dataset_kind == _DatasetKind.Iterable)


def refuse_unsupported(loader: object) -> None:
    """Refuse what cannot be recorded.

    Raises:
        UnsupportedLoader: With the reason, and what to use in its place.
    """
    if not isinstance(loader, DataLoader):
        raise UnsupportedLoader(
            f"{type(loader).__name__} is no torch.utils.data.DataLoader",
            hint="wrap the data in a Dataset or IterableDataset and a DataLoader",
        )
    if isinstance(loader.dataset, (IterDataPipe, MapDataPipe)):
        raise UnsupportedLoader(
            f"{type(loader.dataset).__name__} is a DataPipe, which torch shuffles and shards in "
            "ways of its own",
            hint="use a Dataset or an IterableDataset",
        )
    if not getattr(loader, "in_order", True):
        raise UnsupportedLoader(
            "a DataLoader with in_order=False delivers in an order that no seed fixes",
            hint="use in_order=True",
        )
