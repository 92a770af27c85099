"""One iteration over a recorded loader: what is dispatched, delivered and discarded."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from torch.utils.data import DataLoader

from auditkit.errors import OrderDrift, RestoreMismatch
from auditkit.formats.ordering import Batch
from auditkit.formats.packed_batch import Drawn, as_pairs
from auditkit.observe.loader.attributes import WatchedAttributes
from auditkit.observe.loader.blame import Guard, foreign
from auditkit.observe.loader.position import IterationStart
from auditkit.observe.loader.samplers import (
    index_pairs,
    is_batch,
    order_hint,
    packed_indices,
)
from auditkit.observe.rng.streams import GlobalStreams


class Boundary(Protocol):
    """What a recorded loader reports to.

    Attributes:
        needs_warmup: Whether the loop must have trained on a batch before the state is written:
            ``DistributedDataParallel`` rebuilds its buckets after its first backward pass.
    """

    needs_warmup: bool

    def position_reached(self) -> None:
        """The loader stands at the position that it was to go on from; write the state."""

    def batch_requested(self) -> GlobalStreams:
        """The loop asks for a batch; returns the global streams as they stand."""

    def batch_delivered(self, batch: Any, order: Drawn | None, epoch: int) -> None:
        """The loop gets this batch."""


class Recorded(Protocol):
    """What an iteration knows of its loader.

    Attributes:
        base: The DataLoader that draws the indices.
        boundary: What it reports to.
        guard: What auditkit's own code runs in.
        epoch: Number of the last iteration (from 0).
        iterable: Whether the dataset is iterable-style.
        open: Whether the loader is still recorded; in a fork of the process it is not.
        next_step: Step of the next batch that is delivered.
        control: The control's batches from ``first_step`` on.
        delivered: What to deliver in their place.
        first_step: Step of the first of them.
        keep_call_streams: Whether the streams at every call must be kept to go through it again.
        watched: Plain attributes of what the loader draws from.
        check: Called with step, order and batch of what is discarded, to compare with a record.
    """

    base: DataLoader[Any]
    boundary: Boundary
    guard: Guard
    epoch: int
    iterable: bool
    open: bool
    next_step: int
    control: Sequence[Batch]
    delivered: Sequence[Batch]
    first_step: int
    keep_call_streams: bool
    watched: WatchedAttributes
    check: Callable[[int, Drawn | None, Any], None] | None

    def suspects(self) -> list[str]:
        """What changed while training, of what is drawn from."""

    def iteration_ended(self, iteration: Iteration) -> None:
        """The iteration has delivered all that it had."""

    def make_current(self, iteration: Iteration) -> None:
        """The loop asks this iteration for a batch."""

    def iteration_for_sampler(self) -> Iteration:
        """The iteration that is being started."""


class Iteration:
    """One iteration over a loader.

    Args:
        recorded: The loader.
        start: What it began with.
        n_discarded: Batches that are loaded only to be discarded.
        limit: Batches that are delivered without passing the boundary, after which the
            iteration ends; None for an ordinary one.

    Attributes:
        position: Batches that were delivered.
        fetching: Whether a batch is being loaded.
        load_failed: Whether loading one of its batches raised: then no position can be resumed.
        ended: Whether the loop was told that there are no more batches.
        iterator: Its iterator, as long as somebody holds it; None before there is one.
    """

    def __init__(
        self,
        recorded: Recorded,
        start: IterationStart,
        n_discarded: int = 0,
        limit: int | None = None,
    ) -> None:
        self.recorded, self.start, self.position = recorded, start, n_discarded
        self.epoch = recorded.epoch
        self.dispatched: deque[tuple[Drawn, Drawn]] = deque()
        self._limit = limit
        self._at_position = False
        self._redirection: tuple[Iteration, Iterator[Any]] | None = None
        self._warmup: list[Any] = []
        self._n_discarded, self._resume_step = n_discarded, recorded.next_step
        self._n_dispatched = 0
        self._calls = n_discarded
        self.load_failed = self.fetching = self.ended = False
        self.iterator: weakref.ref[Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the loop is done with it: it has ended, or was left and let go of."""
        return self.ended or (self.iterator is not None and self.iterator() is None)

    def next(self, fetch: Callable[[], Any]) -> Any:
        """Stands in for an iterator's ``__next__``; ``fetch`` is its own."""
        recorded = self.recorded
        if not recorded.open:
            return fetch()
        if self._redirection is not None:
            iteration, iterator = self._redirection
            return iteration.next(lambda: next(iterator))
        if self._limit is not None:
            if not self._limit:
                raise StopIteration
            self._limit -= 1
            return fetch()
        if self._warmup:
            return self._warmup.pop()
        with recorded.guard():
            if self._at_position:
                self._at_position = False
                recorded.boundary.position_reached()
            recorded.make_current(self)
            self.start.record_moved(self._calls, recorded.watched)
            streams = recorded.boundary.batch_requested()
            self.start.record_call(self._calls, streams, every=recorded.keep_call_streams)
            self._calls += 1
        batch = self._fetch(fetch)
        with recorded.guard():
            if recorded.keep_call_streams and self.start.is_full:
                self.start.record_loaded(streams)
            recorded.watched.settle()
            self.position += 1
            order = None if recorded.iterable else self._consumed()
            recorded.boundary.batch_delivered(batch, order, self.epoch)
            recorded.next_step += 1
        return batch

    def _fetch(self, fetch: Callable[[], Any]) -> Any:
        self.fetching = True
        try:
            return fetch()
        except StopIteration:
            self.ended = True
            self.recorded.iteration_ended(self)
            raise
        except BaseException:
            # A loop that catches what its data set raised gets the batch after this one.
            self.load_failed = True
            if self.dispatched:
                self.dispatched.popleft()
            raise
        finally:
            self.fetching = False

    def redirect(self, iteration: Iteration, iterator: Iterator[Any]) -> None:
        """From now on deliver what another iteration does."""
        self._redirection = (iteration, iterator)

    def discard(self, iterator: Any, warmup: list[Any], *, repeat_last: bool) -> None:
        """Load the batches before the position and discard them.

        Args:
            iterator: The loader's own iterator.
            warmup: What is delivered once before the state is written.
            repeat_last: Whether the last batch before the position is delivered so instead.

        Raises:
            RestoreMismatch: When the epoch ends before the position, or has other batches.
        """
        for call in range(self._n_discarded):
            self.start.replay_moved(call, self.recorded.watched)
            self.start.replay(call)
            try:
                with foreign():
                    batch = next(iterator)
            except StopIteration:
                raise RestoreMismatch(
                    f"the epoch ends before batch {self._n_discarded}", component="loader"
                ) from None
            order = None if self.recorded.iterable else self.dispatched.popleft()[1]
            if self.recorded.check is not None:
                self.recorded.check(self._resume_step - self._n_discarded + call, order, batch)
            if repeat_last and call == self._n_discarded - 1:
                warmup = [batch]
        self.start.replay_moved(self._n_discarded, self.recorded.watched)
        self._warmup = warmup
        self._at_position = True

    def dispatch(self, yielded: Any) -> Any:
        """What the dataset is asked for in place of what the sampler yielded."""
        with self.recorded.guard():
            return yielded if self._limit is not None else self._dispatched(yielded)

    def _dispatched(self, yielded: Any) -> Any:
        recorded = self.recorded
        number = self._n_dispatched
        self._n_dispatched += 1
        if not len(recorded.control):  # there is nothing to compare it with
            packed = packed_indices(yielded, self.epoch, recorded.base)
            self.dispatched.append((packed, packed))
            return yielded
        pairs = index_pairs(yielded, self.epoch, recorded.base)
        row = self._resume_step + number - self._n_discarded - recorded.first_step
        delivered = pairs
        # An order that is not the control's is an error when it is consumed: a loop that breaks
        # leaves batches behind that were dispatched and never consumed.
        if (
            number >= self._n_discarded
            and 0 <= row < len(recorded.control)
            and np.array_equal(pairs, recorded.control[row])
        ):
            delivered = recorded.delivered[row]
        self.dispatched.append((pairs, delivered))
        if delivered is pairs or np.array_equal(delivered, pairs):
            return yielded
        keys = delivered[:, 1].tolist()
        return keys if is_batch(yielded) else keys[0]

    def _consumed(self) -> Drawn:
        yielded, delivered = self.dispatched.popleft()
        recorded = self.recorded
        row = recorded.next_step - recorded.first_step
        if 0 <= row < len(recorded.control):
            control, replacement = recorded.control[row], recorded.delivered[row]
            yielded, delivered = as_pairs(yielded), as_pairs(delivered)
            if not (np.array_equal(yielded, control) and np.array_equal(delivered, replacement)):
                raise OrderDrift(
                    "the loader's own sampler yielded other samples than for the control",
                    step=recorded.next_step,
                    component="order",
                    expected=f"(epoch, index) {control[:4].tolist()} ...",
                    found=f"{yielded[:4].tolist()} ...",
                    hint=order_hint(recorded.suspects()),
                )
        return delivered
