from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_programs import Numbers, row
from torch.utils.data import (
    ConcatDataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
    default_convert,
)

from auditkit.errors import AuditError
from auditkit.formats.seeds import derive_seed
from auditkit.observe.rng import per_sample
from auditkit.observe.rng.per_sample import (
    PerBatchCollate,
    PerSampleDataset,
    PerSampleIterable,
    PerWorkerInit,
    SampleStreams,
    draws_in_collate,
    sample_digest,
)
from auditkit.observe.rng.streams import capture_streams, seed_sample
from auditkit.observe.values.codec import flatten
from auditkit.observe.values.digests import digest_leaves
from auditkit.records.digest import ABSENT, EVIDENCE_RECIPE

SEEDS = SampleStreams(7)


@pytest.fixture(autouse=True)
def _streams_put_back() -> Iterator[None]:
    streams = capture_streams()
    yield
    streams.restore()


def expected(epoch: int, index: int) -> Any:
    seed_sample(derive_seed(7, "sample", epoch, index))
    return row(index)


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    data = PerSampleDataset(Numbers(), SEEDS)
    random.random(), np.random.rand(), torch.rand(1)
    found = data.__getitems__([(0, 3), (1, 3), (0, 4)])
    for key, sample in zip([(0, 3), (1, 3), (0, 4)], found, strict=True):
        assert torch.equal(sample, expected(*key))
        assert torch.equal(data[key], sample)
    assert len(data) == 10


def test_attributes_are_the_data_sets() -> None:
    inner: Any = Numbers()
    inner.last_key, inner._inner, inner._seeds = "mine", "mine", "mine"
    data: Any = PerSampleDataset(inner, SEEDS)
    assert (data.last_key, data._inner, data._seeds) == ("mine", "mine", "mine")
    data.n = 4
    assert inner.n == len(data) == 4
    del data.last_key
    assert not hasattr(inner, "last_key")
    with pytest.raises(AttributeError, match="nothing"):
        data.nothing  # noqa: B018 # reading it is the test


def test_wrappers_survive_the_way_into_a_spawned_worker() -> None:
    data = PerSampleDataset(Numbers(), SEEDS)
    collate = PerBatchCollate(default_collate, data, 7)
    copied, other = pickle.loads(pickle.dumps((data, collate)))  # noqa: S301 # our own bytes
    assert torch.equal(copied[(0, 1)], expected(0, 1))
    assert other._dataset is copied


def test_collate_draws_from_the_stream_of_the_last_sample() -> None:
    data = PerSampleDataset(Numbers(), SEEDS)
    collate = PerBatchCollate(lambda samples: torch.rand(1).item(), data, 7)
    found = [collate(data.__getitems__(keys)) for keys in ([(0, 1), (0, 2)], [(0, 2)], [(0, 1)])]
    assert found[0] == found[1] != found[2]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from map(row, range(4))

    def __len__(self) -> int:
        return 4


def test_an_iterable_draws_by_position_and_counts_its_epochs() -> None:
    data = PerSampleIterable(Stream(), SEEDS, epoch=2)
    first = list(data)
    second = []
    for sample in data:
        torch.rand(3)  # training between the samples
        second.append(sample)
    third = list(PerSampleIterable(Stream(), SEEDS, epoch=3))
    assert all(torch.equal(one, other) for one, other in zip(second, third, strict=True))
    assert not torch.equal(first[0], second[0])
    assert len(data) == 4


def test_workers_are_prepared_from_a_stream_of_their_own() -> None:
    drawn = []
    prepare = PerWorkerInit(lambda worker: drawn.append((worker, random.random())), 7)
    for worker in (0, 1, 0):
        random.random()
        prepare(worker)
    assert drawn[0] == drawn[2]
    assert drawn[0][1] != drawn[1][1]


def test_torchs_own_collates_are_known_not_to_draw() -> None:
    assert not draws_in_collate(default_collate)
    assert not draws_in_collate(default_convert)
    assert draws_in_collate(lambda samples: samples)


class _Array(np.ndarray[Any, Any]):
    """A class of its own, which is no data."""


def _samples() -> Iterator[Any]:
    x, y = torch.arange(12.0).reshape(3, 4), torch.tensor(5)
    halves = x[:, ::2]
    yield from ([x, y], (x, y), (x.double(), y), (x[:2], y), (y, x), (x, x), (x[1], x), (x,))
    yield from ((halves, y), (x.requires_grad_(), y), (x.detach(), y), (halves.conj(), y[None]))
    yield from ((x.detach().to_sparse(), y), (x.detach().to_sparse(), 3), object(), x, (), [])
    yield from ((x.detach(), 3), {"x": x, "y": y}, (x.detach().numpy(), y), np.zeros(3), "text")
    yield (np.zeros(3).view(_Array), y)


def test_a_sample_is_digested_as_what_it_is_whatever_came_before() -> None:
    samples = [*_samples(), *reversed([*_samples()])]
    n_absent = 0
    for sample in samples:
        try:
            expected = digest_leaves(EVIDENCE_RECIPE, flatten(sample, where="", data=True))
        except AuditError:
            expected, n_absent = ABSENT, n_absent + 1
        assert sample_digest(sample) == expected
    assert n_absent == 4
    x = torch.zeros(4)
    before = sample_digest((x, x + 1))
    x[2] = 1
    assert sample_digest((x, x + 1)) != before


class _Own(TensorDataset):
    """A subclass, which may do anything."""


def test_only_what_is_known_to_draw_nothing_is_loaded_without_seeding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = torch.randn(6, 2), torch.arange(6)
    plain = TensorDataset(x, y)
    known = [plain, Subset(plain, [1, 3]), ConcatDataset([plain, Subset(plain, range(2))])]
    odd: Any = torch.Tensor._make_subclass(type("Odd", (torch.Tensor,), {}), x)
    others = [_Own(x, y), TensorDataset(odd, y), Subset(_Own(x, y), [0]), [1, 2, 3], object()]
    assert all(map(per_sample.draws_nothing, known))
    assert not any(map(per_sample.draws_nothing, others))
    seeded: list[int] = []
    monkeypatch.setattr(per_sample, "seed_sample", seeded.append)
    for dataset, n_seeded in ((plain, 0), (_Own(x, y), 2)):
        wrapped = per_sample.PerSampleDataset(dataset, per_sample.SampleStreams(0))
        found = wrapped.__getitems__([(0, 4), (0, 2)])
        assert [int(label) for _, label in found] == [4, 2]
        assert len(seeded) == n_seeded
