"""Per-sample random streams: what augmentation draws depends on (seed, epoch, index) alone.

Wrappers around a dataset, a ``collate_fn`` and a ``worker_init_fn`` that exist only inside the
iterators of an intercepted loader, in the main process or in its workers. Neither the number
of workers nor the order of samples then changes what a sample looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset, IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate, default_convert

from auditkit.formats.seeds import SampleSeeds, derive_seed
from auditkit.observe.rng.streams import seed_sample

#: What an intercepted sampler hands to the dataset in place of an index.
Key = tuple[int, int]

_OWN = "_auditkit_"


class _Forwarding:
    """Reads and writes of attributes reach the user's dataset.

    A ``worker_init_fn`` commonly reads or edits ``get_worker_info().dataset``.
    """

    _auditkit_inner: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith((_OWN, "__")):
            raise AttributeError(name)  # while it is rebuilt in a worker there is no inner yet
        return getattr(self._auditkit_inner, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith(_OWN):
            object.__setattr__(self, name, value)
        else:
            setattr(self._auditkit_inner, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._auditkit_inner, name)


class PerSampleDataset(_Forwarding, Dataset[Any]):
    """A map-style dataset that is asked by (epoch, index)."""

    def __init__(self, inner: Any, seeds: SampleSeeds) -> None:
        self._auditkit_inner = inner
        self._auditkit_seeds = seeds
        self._auditkit_last: tuple[int, ...] = (0, 0)

    def __len__(self) -> int:
        return len(self._auditkit_inner)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, list):  # a loader with batch_size=None whose sampler yields lists
            epoch = key[0][0] if key else 0
            indices = [index for _, index in key]
            self._auditkit_begin(epoch, *indices)
            return self._auditkit_inner[indices]
        epoch, index = key
        self._auditkit_begin(epoch, index)
        return self._auditkit_inner[index]

    def __getitems__(self, keys: Sequence[Key]) -> list[Any]:
        # As in torch's fetcher: a dataset that can be asked for many is asked that way, but for
        # one sample at a time, so that its stream does not depend on its neighbours.
        many = getattr(self._auditkit_inner, "__getitems__", None)
        if not many:
            return [self[key] for key in keys]
        samples = []
        for epoch, index in keys:
            self._auditkit_begin(epoch, index)
            (sample,) = many([index])
            samples.append(sample)
        return samples

    def _auditkit_begin(self, epoch: int, *indices: int) -> None:
        self._auditkit_last = (epoch, *indices)
        seed_sample(self._auditkit_seeds(epoch, *indices))


class PerSampleIterable(_Forwarding, IterableDataset[Any]):
    """An iterable dataset whose j-th sample of a worker draws from (epoch, worker, j)."""

    def __init__(self, inner: Any, seeds: SampleSeeds, epoch: int) -> None:
        self._auditkit_inner = inner
        self._auditkit_seeds = seeds
        self._auditkit_epoch = epoch
        self._auditkit_last: tuple[int, ...] = (epoch, 0, 0)

    def __len__(self) -> int:
        return len(self._auditkit_inner)

    def __iter__(self) -> Iterator[Any]:
        # A persistent worker keeps this object and iterates it once an epoch.
        epoch, self._auditkit_epoch = self._auditkit_epoch, self._auditkit_epoch + 1
        info = get_worker_info()
        worker = 0 if info is None else info.id
        seed_sample(self._auditkit_seeds(epoch, worker))
        inner = iter(self._auditkit_inner)
        position = 0
        while True:
            self._auditkit_last = (epoch, worker, position)
            seed_sample(self._auditkit_seeds(*self._auditkit_last))
            try:
                sample = next(inner)
            except StopIteration:
                return
            yield sample
            position += 1


class PerBatchCollate:
    """A user's ``collate_fn`` that draws from the stream of the batch's last sample."""

    def __init__(
        self,
        inner: Callable[[Any], Any],
        dataset: PerSampleDataset | PerSampleIterable,
        seed: int,
    ) -> None:
        self._inner = inner
        self._dataset = dataset
        self._seed = seed

    def __call__(self, samples: Any) -> Any:
        """Collate."""
        seed_sample(derive_seed(self._seed, "collate", *self._dataset._auditkit_last))
        return self._inner(samples)


class PerWorkerInit:
    """A user's ``worker_init_fn`` that draws from a stream of its worker, in every epoch.

    Persistent workers call it once; a resumed branch, whose workers start in a later epoch,
    must get the same.
    """

    def __init__(self, inner: Callable[[int], Any], seed: int) -> None:
        self._inner = inner
        self._seed = seed

    def __call__(self, worker: int) -> None:
        """Prepare a worker."""
        seed_sample(derive_seed(self._seed, "worker", worker))
        self._inner(worker)


def draws_in_collate(collate_fn: Callable[[Any], Any]) -> bool:
    """Whether a ``collate_fn`` may draw random numbers (torch's own ones do not)."""
    return collate_fn not in (default_collate, default_convert)
