from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_programs import FixedBatchSampler, Numbers
from torch.utils.data import DataLoader, IterDataPipe

from auditkit.errors import UnsupportedLoader
from auditkit.observe.loader.interception import Interception
from auditkit.observe.rng.streams import capture_streams


class Seen(Numbers):
    """Keeps the indices that were requested of it, as they came."""

    def __init__(self) -> None:
        super().__init__()
        self.requested: list[Any] = []

    def __getitem__(self, index: Any) -> torch.Tensor:
        self.requested.append(index)
        return super().__getitem__(index)


BATCHES = [np.array([1, 2]), torch.tensor([3, 4]), (5, 6), [7, np.int64(8)]]


def test_inherit_hands_over_what_the_sampler_yielded() -> None:
    bare, watched = Seen(), Seen()
    list(DataLoader(bare, batch_sampler=FixedBatchSampler(BATCHES)))  # type: ignore[arg-type]
    loader: DataLoader[Any] = DataLoader(watched, batch_sampler=FixedBatchSampler(BATCHES))  # type: ignore[arg-type]
    interception = Interception(loader, 0, per_sample=False)
    list(loader)
    interception.remove()
    assert list(map(type, watched.requested)) == list(map(type, bare.requested))
    assert list(map(int, watched.requested)) == list(range(1, 9))


def test_indices_are_dispatched_as_pairs_before_they_are_consumed() -> None:
    loader: DataLoader[Any] = DataLoader(Numbers(4), batch_size=2)
    interception = Interception(loader, 0, per_sample=True)
    interception.epoch = 3
    streams = capture_streams()
    iterator = iter(loader)
    next(iterator)
    streams.restore()
    assert [batch.tolist() for batch in interception.dispatched] == [[[3, 0], [3, 1]]]
    assert interception.dispatched[0].dtype == np.int64
    interception.remove()
    assert type(loader) is DataLoader


def test_the_data_set_is_wrapped_only_while_an_iterator_is_built() -> None:
    data = Numbers(4)
    loader: DataLoader[Any] = DataLoader(data, batch_size=2, collate_fn=torch.stack)
    interception = Interception(loader, 0, per_sample=True)
    with interception.wrapped_for_iterator():
        assert loader.dataset is not data
        assert loader.collate_fn is not torch.stack
    assert loader.dataset is data
    assert loader.collate_fn is torch.stack
    with pytest.raises(ZeroDivisionError), interception.wrapped_for_iterator():
        raise ZeroDivisionError
    assert loader.dataset is data
    interception.remove()


def test_datapipes_are_refused() -> None:
    class Pipe(IterDataPipe[int]):
        def __iter__(self) -> Any:
            return iter([1])

    with pytest.raises(UnsupportedLoader, match="DataPipe"):
        Interception(DataLoader(Pipe()), 0, per_sample=True)
