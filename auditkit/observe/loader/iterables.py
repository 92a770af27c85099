"""Loaders that are no DataLoader: anything that gives its batches anew whenever it is iterated.

Pipelines of other libraries (a graph of nodes, a stream of shards, a list of batches) have no
sampler that could be stood before. They are taken as the iterable data set of a DataLoader that
passes their batches on as they are: then all that holds for iterable data sets holds for them, and
a position is gone back to by going through the epoch again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from auditkit.errors import UnsupportedLoader
from auditkit.formats.quote import class_of

#: Can be iterated, and stand for something else than a sequence of batches.
_NO_LOADERS = (str, bytes, Mapping, set, frozenset, Tensor, nn.Module)

TAKEN = (
    "a torch.utils.data.DataLoader, or another object whose iter() gives an iterator over the "
    "batches of one epoch, a new one each time"
)


class BatchStream(IterableDataset[Any]):
    """A loader as a data set whose samples are its batches.

    Attributes:
        loader: The loader.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


class NoLoader:
    """Stands for the loader of a program that has none."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())


def without_batches() -> DataLoader[Any]:
    """Stands for the DataLoader of a program that has no loader; nothing iterates it."""
    return DataLoader(BatchStream(NoLoader()), batch_size=None)


def is_batch_stream(loader: DataLoader[Any]) -> bool:
    """Whether a DataLoader only passes on the batches of another loader."""
    return isinstance(loader.dataset, BatchStream)


def is_loader(value: object) -> bool:
    """Whether it gives batches, anew at each iteration: an iterator is spent after one."""
    if isinstance(value, DataLoader):
        return True
    return isinstance(value, Iterable) and not isinstance(value, (Iterator, *_NO_LOADERS))


def as_data_loader(loader: Any) -> DataLoader[Any]:
    """A DataLoader itself, or one that passes on what another loader gives.

    Raises:
        UnsupportedLoader: When it is none.
    """
    if isinstance(loader, DataLoader):
        return loader
    if not is_loader(loader):
        once = ", which can be iterated once," if isinstance(loader, Iterator) else ""
        raise UnsupportedLoader(
            f"{class_of(loader)}{once} is no loader",
            expected=TAKEN,
            hint="wrap the data in a Dataset or IterableDataset and a DataLoader",
        )
    return DataLoader(BatchStream(loader), batch_size=None)


def loaders_in(loader: DataLoader[Any]) -> tuple[Any, ...]:
    """The DataLoader, and what it passes on the batches of, if that is something else."""
    dataset: Any = loader.dataset
    return (loader, dataset.loader) if isinstance(dataset, BatchStream) else (loader,)
