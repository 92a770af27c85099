"""Per-sample random streams: what augmentation draws depends on (seed, epoch, index) alone.

Wrappers around a dataset and a ``collate_fn`` that exist only inside the iterators of an
intercepted loader, in the main process or in its workers. Neither the number of workers nor
the order of samples then changes what a sample looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset, IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate, default_convert

from auditkit.observe.rng import seed_sample
from auditkit.seeds import SampleSeeds, derive_seed

#: What an intercepted sampler hands to the dataset in place of an index.
Key = tuple[int, int]

_OWN = frozenset({"_inner", "_seeds", "_epoch", "last_key"})


class _Forwarding:
    """Reads and writes of attributes reach the user's dataset.

    A ``worker_init_fn`` commonly reads or edits ``get_worker_info().dataset``.
    """

    _inner: Any

    def __getattr__(self, name: str) -> Any:
        if name in _OWN or name.startswith("__"):
            raise AttributeError(name)  # while it is rebuilt in a worker there is no inner yet
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._inner, name, value)


class PerSampleDataset(_Forwarding, Dataset[Any]):
    """A map-style dataset that is asked by (epoch, index)."""

    def __init__(self, inner: Any, seeds: SampleSeeds) -> None:
        self._inner = inner
        self._seeds = seeds
        self.last_key: Key = (0, 0)

    def __len__(self) -> int:
        return len(self._inner)

    def __getitem__(self, key: Key | Sequence[Key]) -> Any:
        if isinstance(key, list):  # a loader with batch_size=None whose sampler yields lists
            epoch = key[0][0] if key else 0
            indices = [index for _, index in key]
            seed_sample(self._seeds(epoch, *indices))
            return self._inner[indices]
        epoch, index = key  # type: ignore[misc] # a pair: lists were handled above
        self.last_key = (epoch, index)
        seed_sample(self._seeds(epoch, index))
        return self._inner[index]

    def __getitems__(self, keys: Sequence[Key]) -> list[Any]:
        if not hasattr(self._inner, "__getitem__"):
            return [self._one_of_many(key) for key in keys]
        return [self[key] for key in keys]

    def _one_of_many(self, key: Key) -> Any:
        epoch, index = self.last_key = key
        seed_sample(self._seeds(epoch, index))
        (sample,) = self._inner.__getitems__([index])
        return sample


class PerSampleIterable(_Forwarding, IterableDataset[Any]):
    """An iterable dataset whose j-th sample of a worker draws from (epoch, worker, j)."""

    def __init__(self, inner: Any, seeds: SampleSeeds, epoch: int) -> None:
        self._inner = inner
        self._seeds = seeds
        self._epoch = epoch
        self.last_key: Key = (epoch, 0)

    def __iter__(self) -> Iterator[Any]:
        # A persistent worker keeps this object and iterates it once an epoch.
        epoch, self._epoch = self._epoch, self._epoch + 1
        info = get_worker_info()
        worker = 0 if info is None else info.id
        seed_sample(self._seeds(epoch, worker))
        inner = iter(self._inner)
        position = 0
        while True:
            seed_sample(self._seeds(epoch, worker, position))
            self.last_key = (epoch, position)
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
        seed_sample(derive_seed(self._seed, "collate", *self._dataset.last_key))
        return self._inner(samples)


def draws_in_collate(collate_fn: Callable[[Any], Any]) -> bool:
    """Whether a ``collate_fn`` may draw random numbers (torch's own ones do not)."""
    return collate_fn not in (default_collate, default_convert)
