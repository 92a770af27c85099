"""Stand between a DataLoader and its sampler without changing the loader.

The loader's class is swapped in place for a single-inheritance subclass (DataLoader derives
from Generic, so a mixin would change the object layout): identity, ``isinstance``, attributes
and the user's sampler objects stay. The subclass overrides two methods: the index sampler,
through which indices are drawn, and ``_get_iterator``, inside which the dataset may be
exchanged for the per-sample wrapper.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from auditkit.errors import OrderDrift, RestoreMismatch, UnsupportedLoader
from auditkit.formats.ordering import Batch
from auditkit.observe.loader.refusals import is_iterable_style, refuse_unsupported
from auditkit.observe.loader.samplers import draws_once, index_pairs, is_batch, order_hint
from auditkit.observe.rng.per_sample import (
    MeasuredCollate,
    PerBatchCollate,
    PerSampleDataset,
    PerSampleIterable,
    PerWorkerInit,
    SampleStreams,
    draws_in_collate,
)
from auditkit.observe.rng.reading import StreamReader
from auditkit.observe.rng.streams import Generator, GlobalStreams, seed_everything

_ATTRIBUTE = "_auditkit_interception"


class Interception:
    """What the intercepted loader reports to and is controlled by.

    Attributes:
        epoch: Epoch (from 0) of the batches that are being dispatched.
        to_skip: Batches of the sampler that are still to be skipped.
        to_discard: Batches that are still to be loaded as they are and discarded.
        dispatched: Indices of batches that were dispatched and not yet consumed; workers make
            the sampler run ahead of the training loop.
        measured: Steps whose samples are digested one by one.
        yoked: Whether the loader's own sampler may yield what it will: the control's is delivered.
        suspects: Names what changed while training, where the order is not the control's.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        seed: int,
        *,
        per_sample: bool,
        generators: Mapping[str, Generator] | None = None,
    ) -> None:
        refuse_unsupported(loader)
        if _ATTRIBUTE in loader.__dict__:
            raise UnsupportedLoader("this DataLoader is already being recorded")
        self.loader = loader
        self.seed = seed
        self.per_sample = per_sample
        self.measured = range(0)
        self.yoked = False
        self._streams = SampleStreams(seed, generators)
        self.iterable = is_iterable_style(loader)
        self.epoch = 0
        self.to_skip = 0
        self.to_discard = 0
        self.dispatched: deque[Batch] = deque()
        self.suspects: Callable[[], list[str]] = list
        self._indices: _IndexIterator | None = None
        self._original = type(loader)
        self._reader = StreamReader()
        self._order_streams: GlobalStreams | None = None
        self._control: Sequence[Batch] = ()
        self._delivered: Sequence[Batch] = ()
        self._first_step = 1
        self._next_step = 1
        loader.__dict__[_ATTRIBUTE] = self
        loader.__class__ = _intercepted_class(self._original)

    def measure(self, steps: range) -> None:
        """Digest the samples of these steps one by one, where nothing else sees what is loaded.

        A loader with an ``__iter__`` of its own may do anything with a batch, and gets it as it
        is; batches of data sets that are asked for many samples at once are not taken apart.
        """
        library = self._original.__iter__.__module__.partition(".")[0]
        if self.per_sample and library in ("torch", "torchdata"):
            self.measured = steps

    def load(self, batch: Batch) -> Any:
        """A batch of a map-style data set, by its indices, in this process."""
        keys = [tuple(pair) for pair in batch.tolist()]
        with self.wrapped_for_iterator():
            dataset: Any = self.loader.dataset
            return self.loader.collate_fn(dataset.__getitems__(keys))

    def remove(self) -> None:
        """Give the loader its own class back."""
        self.loader.__class__ = self._original
        self.loader.__dict__.pop(_ATTRIBUTE, None)

    def pin_order(
        self, control: Sequence[Batch], delivered: Sequence[Batch], first_step: int
    ) -> None:
        """Deliver given batches while the loader's own sampler must yield the control's.

        Args:
            control: The control's batches from ``first_step`` on, ``(B, 2)`` of (epoch, index).
            delivered: What to deliver in their place.
            first_step: Step of the first of them.
        """
        self._control, self._delivered = control, delivered
        self._first_step = self._next_step = first_step

    def skip(self) -> None:
        """Skip what is still to be skipped, where no worker has made the sampler do it yet.

        Raises:
            RestoreMismatch: When the epoch ends before.
        """
        if self._indices is not None:
            self._indices.skip()

    def dispatch(self, yielded: Any) -> Any:
        """Turn what the sampler yielded into what the dataset is asked for.

        Raises:
            OrderDrift: When a branch's sampler yields other indices than the control's did.
            UnsupportedLoader: When the sampler yields something else than whole numbers.
        """
        if self.iterable:
            return yielded
        pairs = index_pairs(yielded, self.epoch, self.loader)
        batch = self._replace_pinned(pairs)
        self.dispatched.append(batch)
        if not self.per_sample and batch is pairs:
            return yielded  # of the very types that the dataset would get without auditkit
        keys = list(map(tuple, batch.tolist()))
        if self._next_step - 1 in self.measured:
            keys = [(*key, 1) for key in keys]
        if not self.per_sample:
            keys = [key[1] for key in keys]
        return keys if is_batch(yielded) else keys[0]

    def _replace_pinned(self, yielded: Batch) -> Batch:
        if self.to_discard:
            self.to_discard -= 1
            return yielded
        row = self._next_step - self._first_step
        self._next_step += 1
        if row >= len(self._control):
            return yielded
        if not self.yoked and not _are_equal(yielded, self._control[row]):
            raise OrderDrift(
                "the loader's own sampler yielded other samples than for the control",
                step=self._first_step + row,
                component="order",
                expected=f"(epoch, index) {self._control[row][:4].tolist()} ...",
                found=f"{yielded[:4].tolist()} ...",
                hint=order_hint(self.suspects()),
            )
        # The same object where nothing moves, so that `dispatch` can tell.
        delivered = self._delivered[row]
        return yielded if _are_equal(yielded, delivered) else delivered

    def start_order_stream(self) -> None:
        """Seed the streams that the sampler of this epoch draws from."""
        if self.per_sample:
            seed_everything(self.seed, "order", self.epoch)

    def save_order_stream(self) -> None:
        """Remember where the sampler's streams stand."""
        if self.per_sample:
            self._order_streams = self._reader.read()

    def resume_order_stream(self) -> None:
        """Go on where the sampler's streams stood."""
        if self.per_sample and self._order_streams is not None:
            self._order_streams.restore()

    @contextmanager
    def wrapped_for_iterator(self) -> Iterator[None]:
        """While an iterator is built, let it see the per-sample dataset and collate."""
        if not self.per_sample:
            yield
            return
        attributes = self.loader.__dict__
        originals = {name: attributes[name] for name in ("dataset", "collate_fn", "worker_init_fn")}
        dataset, collate, worker_init = originals.values()
        wrapped: PerSampleDataset | PerSampleIterable = (
            PerSampleIterable(dataset, self._streams, self.epoch)
            if self.iterable
            else PerSampleDataset(dataset, self._streams)
        )
        attributes["dataset"] = wrapped
        if draws_in_collate(collate):
            attributes["collate_fn"] = PerBatchCollate(collate, wrapped, self.seed)
        if self.measured and isinstance(wrapped, PerSampleDataset):
            attributes["collate_fn"] = MeasuredCollate(attributes["collate_fn"], wrapped)
        if worker_init is not None:
            attributes["worker_init_fn"] = PerWorkerInit(worker_init, self.seed)
        try:
            yield
        finally:
            attributes.update(originals)


def _are_equal(batch: Batch, other: Batch) -> bool:
    """Whether two batches are the same; nearly all are, and then so are their bytes."""
    return batch.tobytes() == other.tobytes() or np.array_equal(batch, other)


class _IndexSampler:
    """What the loader takes for its sampler."""

    def __init__(self, interception: Interception, inner: Any) -> None:
        self._interception = interception
        self._inner = inner

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> _IndexIterator:
        return _IndexIterator(self._interception, self._inner)


class _IndexIterator:
    def __init__(self, interception: Interception, inner: Any) -> None:
        self._interception = interception
        self._draws_once = draws_once(inner)
        self._first = True
        interception.start_order_stream()
        # Eagerly: a generator here would change how often an eager sampler draws.
        self._inner = iter(inner)
        interception.save_order_stream()
        interception._indices = self

    def __iter__(self) -> _IndexIterator:
        return self

    def __next__(self) -> Any:
        self.skip()
        return self._interception.dispatch(self._draw())

    def skip(self) -> None:
        """Draw what is still to be skipped."""
        while self._interception.to_skip and not self._interception.iterable:
            try:
                self._draw()
            except StopIteration:
                raise RestoreMismatch(
                    f"the epoch ends {self._interception.to_skip} batches before the position",
                    component="loader",
                ) from None
            self._interception.to_skip -= 1

    def _draw(self) -> Any:
        if self._first or not self._draws_once:
            self._interception.resume_order_stream()
        yielded = next(self._inner)
        if not self._draws_once:
            self._interception.save_order_stream()
        self._first = False
        # A copy: a sampler may re-use one object for every batch, and workers read it late.
        if isinstance(yielded, Tensor):
            return yielded.clone()
        return yielded.copy() if isinstance(yielded, (list, np.ndarray)) else yielded


def _shut_down_half_made(error: BaseException) -> None:
    """Stop the workers of an iterator that raised while it was made (it fetches ahead then).

    Nobody else can: it is only in the frames of the error. The garbage collector would finalize
    its pipes before it, so that its workers never hear that they are to end (torch waits for
    each) and the numbers of its descriptors are closed twice, by then perhaps somebody else's.
    """
    trace = error.__traceback__
    while trace is not None:
        iterator = trace.tb_frame.f_locals.get("self")
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()
            return
        trace = trace.tb_next


def _intercepted_class(original: type[DataLoader[Any]]) -> type[DataLoader[Any]]:
    def index_sampler(self: Any) -> Any:
        inner = original._index_sampler.__get__(self)
        return _IndexSampler(self.__dict__[_ATTRIBUTE], inner)

    def get_iterator(self: Any) -> Any:
        with self.__dict__[_ATTRIBUTE].wrapped_for_iterator():
            try:
                return original._get_iterator(self)
            except BaseException as error:
                _shut_down_half_made(error)
                raise

    return type(
        original.__name__,
        (original,),
        {
            "_index_sampler": property(index_sampler),
            "_get_iterator": get_iterator,
            "__module__": original.__module__,
            "__qualname__": original.__qualname__,
            "__doc__": original.__doc__,
        },
    )
