"""Per-sample random streams: what augmentation draws depends on (seed, epoch, index) alone.

Whether it does is measured where a key asks for it: the sample's digest travels with its batch.

Wrappers around a dataset, a ``collate_fn`` and a ``worker_init_fn`` that exist only inside the
iterators of an intercepted loader, in the main process or in its workers. Neither the number
of workers nor the order of samples then changes what a sample looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    get_worker_info,
)
from torch.utils.data._utils.collate import default_collate, default_convert
from torch.utils.data._utils.pin_memory import pin_memory

from auditkit.errors import AuditError, ProgramError
from auditkit.formats.seeds import SampleSeeds, derive_seed
from auditkit.observe.rng.streams import Generator, is_generator, reseed, seed_sample
from auditkit.observe.values.batches import BatchDigester
from auditkit.observe.values.codec import flatten
from auditkit.observe.values.digests import digest_leaves
from auditkit.observe.values.flatten import is_plain_batch
from auditkit.records.digest import ABSENT, EVIDENCE_RECIPE

#: What an intercepted sampler hands to the dataset in place of an index: (epoch, index), and a
#: third number where the sample's digest is asked for.
Key = tuple[int, ...]

_OWN = "_auditkit_"

#: Digests lists and tuples of tensors: those of one data set are of one kind, which it knows.
_PLAIN_SAMPLES = BatchDigester(commit=False)


class PerSample:
    """A generator that follows the sample: given in ``extras`` in place of the generator itself.

    A generator in ``extras`` follows the position: its state goes on from one sample to the next.
    Under per-sample augmentation this one is seeded anew for every sample, from (seed, name,
    epoch, index), in the main process and in every worker, as the global streams are. It then has
    no state to keep. Under inherited augmentation, and in a Recorder, it is the plain generator.

    Args:
        generator: What data set, transforms or ``collate_fn`` draw from.

    Raises:
        ProgramError: When it is no generator.
    """

    def __init__(self, generator: Generator) -> None:
        if not is_generator(generator):
            raise ProgramError(
                f"PerSample takes a random generator, not a {type(generator).__name__}",
                expected="numpy.random.Generator, RandomState, random.Random or torch.Generator",
            )
        self.generator = generator


class SampleStreams:
    """Seeds all that a sample draws from.

    Args:
        seed: The study seed.
        generators: What follows the sample beside the global streams, by name.

    Attributes:
        generators: The same.
    """

    def __init__(self, seed: int, generators: Mapping[str, Generator] | None = None) -> None:
        self._seeds = SampleSeeds(seed)
        self.generators = dict(generators or {})

    def begin(self, *sample: int) -> None:
        """Go to the streams of (epoch, index), or of (epoch, worker, position)."""
        self._seed_all(self._seeds(*sample))

    def each(self, keys: Sequence[Key]) -> Iterator[Key]:
        """Samples one after the other, each when its streams have begun."""
        for key, seed in zip(keys, self._seeds.of(keys), strict=True):
            self._seed_all(seed)
            yield key

    def begin_batch(self, seed: int, *sample: int) -> None:
        """Go to the streams of what is made of a whole batch."""
        self._seed_all(derive_seed(seed, "collate", *sample))

    def _seed_all(self, seed: int) -> None:
        seed_sample(seed)
        for name, generator in self.generators.items():
            reseed(generator, derive_seed(seed, "generator", name))


@dataclass(frozen=True)
class MeasuredBatch:
    """A batch with a digest of each of its samples, on its way from the data set.

    Attributes:
        batch: As collated.
        samples: Digests in order; zeros where a sample has none.
    """

    batch: Any
    samples: list[bytes]

    def pin_memory(self) -> MeasuredBatch:
        """What torch calls where the loader pins its batches."""
        return MeasuredBatch(pin_memory(self.batch), self.samples)  # type: ignore[no-untyped-call]


class MeasuredCollate:
    """A ``collate_fn`` that hands on what the data set has measured."""

    def __init__(self, inner: Callable[[Any], Any], dataset: PerSampleDataset) -> None:
        self._inner = inner
        self._dataset = dataset

    def __call__(self, samples: Any) -> Any:
        """Collate."""
        measured = self._dataset._auditkit_take()
        batch = self._inner(samples)
        return MeasuredBatch(batch, measured) if measured else batch


def sample_digest(sample: Any) -> bytes:
    """Digest of a sample as the data set gives it; zeros where it is of no kind that has one."""
    try:
        if is_plain_batch(sample):
            return _PLAIN_SAMPLES.digest(sample)[1]
        return digest_leaves(EVIDENCE_RECIPE, flatten(sample, where="sample", data=True))
    except AuditError:
        return ABSENT


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

    def __init__(self, inner: Any, streams: SampleStreams) -> None:
        self._auditkit_inner = inner
        self._auditkit_streams = streams
        self._auditkit_last: tuple[int, ...] = (0, 0)
        self._auditkit_measured: list[bytes] = []

    def __len__(self) -> int:
        return len(self._auditkit_inner)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, list):  # a loader with batch_size=None whose sampler yields lists
            epoch = key[0][0] if key else 0
            indices = [part[1] for part in key]
            self._auditkit_begin(epoch, *indices)
            return self._auditkit_inner[indices]
        epoch, index, *measured = key
        self._auditkit_begin(epoch, index)
        sample = self._auditkit_inner[index]
        if measured:
            self._auditkit_measured.append(sample_digest(sample))
        return sample

    def __getitems__(self, keys: Sequence[Key]) -> list[Any]:
        # As in torch's fetcher: a dataset that can be asked for many is asked that way, but for
        # one sample at a time, so that its stream does not depend on its neighbours.
        inner = self._auditkit_inner
        many = getattr(inner, "__getitems__", None)
        samples = []
        begun = keys if draws_nothing(inner) else self._auditkit_streams.each(keys)
        for _, index, *measured in begun:
            if many:
                (sample,) = many([index])
            else:
                sample = inner[index]
            if measured:
                self._auditkit_measured.append(sample_digest(sample))
            samples.append(sample)
        if keys:
            self._auditkit_last = tuple(keys[-1][:2])
        return samples

    def _auditkit_begin(self, epoch: int, *indices: int) -> None:
        self._auditkit_last = (epoch, *indices)
        if not draws_nothing(self._auditkit_inner):
            self._auditkit_streams.begin(epoch, *indices)

    def _auditkit_take(self) -> list[bytes]:
        """Digests of the samples since the last batch was made."""
        found, self._auditkit_measured = self._auditkit_measured, []
        return found


class PerSampleIterable(_Forwarding, IterableDataset[Any]):
    """An iterable dataset whose j-th sample of a worker draws from (epoch, worker, j)."""

    def __init__(self, inner: Any, streams: SampleStreams, epoch: int) -> None:
        self._auditkit_inner = inner
        self._auditkit_streams = streams
        self._auditkit_epoch = epoch
        self._auditkit_last: tuple[int, ...] = (epoch, 0, 0)

    def __len__(self) -> int:
        return len(self._auditkit_inner)

    def __iter__(self) -> Iterator[Any]:
        # A persistent worker keeps this object and iterates it once an epoch.
        epoch, self._auditkit_epoch = self._auditkit_epoch, self._auditkit_epoch + 1
        info = get_worker_info()
        worker = 0 if info is None else info.id
        self._auditkit_streams.begin(epoch, worker)
        inner = iter(self._auditkit_inner)
        position = 0
        while True:
            self._auditkit_last = (epoch, worker, position)
            self._auditkit_streams.begin(*self._auditkit_last)
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
        last = self._dataset._auditkit_last
        self._dataset._auditkit_streams.begin_batch(self._seed, *last)
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


def draws_nothing(dataset: Any) -> bool:
    """Whether a data set is known to draw no random numbers: torch's own of plain tensors.

    To seed every stream for a sample takes longer than to load it from there.
    """
    kind = type(dataset)
    if kind is TensorDataset:
        return all(type(tensor) is Tensor for tensor in dataset.tensors)
    if kind is Subset:
        return draws_nothing(dataset.dataset) and type(dataset.indices) in (list, tuple, range)
    return kind is ConcatDataset and all(map(draws_nothing, dataset.datasets))


def draws_in_collate(collate_fn: Callable[[Any], Any]) -> bool:
    """Whether a ``collate_fn`` may draw random numbers (torch's own ones do not)."""
    return collate_fn not in (default_collate, default_convert)
