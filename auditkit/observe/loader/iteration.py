"""One iteration over a recorded loader: what is issued, what is delivered, what is thrown away."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from torch.utils.data import DataLoader

from auditkit.errors import OrderDrift, RestoreMismatch
from auditkit.formats.ordering import Batch
from auditkit.observe.loader.position import Start
from auditkit.observe.loader.samplers import index_pairs, is_batch
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

    def batch_delivered(self, batch: Any, order: Batch | None, epoch: int) -> None:
        """It gets this one."""


class Recorded(Protocol):
    """What an iteration knows of its loader.

    Attributes:
        base: The DataLoader that draws the indices.
        boundary: What is told.
        epoch: Number of the last iteration (from 0).
        iterable: Whether the dataset is iterable-style.
        open: Whether the loader is still recorded.
        next_step: Step of the next batch that is delivered.
        control: The control's batches from ``first_step`` on.
        given: What to deliver in their place.
        first_step: Step of the first of them.
        keeps_calls: Whether the streams at every call must be kept to go through it again.
        pid: The process that is recorded; a fork of it is not.
        check: Told step, order and batch of what is thrown away, to be held against a record.
    """

    base: DataLoader[Any]
    boundary: Boundary
    epoch: int
    iterable: bool
    open: bool
    next_step: int
    control: Sequence[Batch]
    given: Sequence[Batch]
    first_step: int
    pid: int
    keeps_calls: bool
    check: Callable[[int, Batch | None, Any], None] | None

    def ended(self, passage: Passage) -> None:
        """The iteration has delivered all that it had."""

    def make_current(self, passage: Passage) -> None:
        """The loop asks this iteration for a batch."""

    def passage(self) -> Passage:
        """The iteration that is being opened."""


class Passage:
    """One iteration over a loader.

    Args:
        recorded: The loader.
        start: What it began with.
        base: Batches that are loaded only to be thrown away.
        limit: Batches that are delivered without passing the boundary, after which the
            iteration ends; None for an ordinary one.

    Attributes:
        position: Batches that were delivered.
        drawing: Whether a batch is being loaded.
        lost: Whether loading one of its batches raised: then no position can be gone back to.
    """

    def __init__(
        self, recorded: Recorded, start: Start, base: int = 0, limit: int | None = None
    ) -> None:
        self.recorded, self.start, self.position = recorded, start, base
        self.epoch = recorded.epoch
        self.issued: deque[tuple[Batch, Batch]] = deque()
        self._limit = limit
        self._restoring = False
        self._redirected: tuple[Passage, Iterator[Any]] | None = None
        self._spare: list[Any] = []
        self._base, self._base_step, self._n_issued = base, recorded.next_step, 0
        self._calls = base
        self.lost = self.drawing = False

    def next(self, draw: Callable[[], Any]) -> Any:
        """Stands in for an iterator's ``__next__``; ``draw`` is its own."""
        recorded = self.recorded
        if not recorded.open or os.getpid() != recorded.pid:
            return draw()
        if self._redirected is not None:
            passage, iterator = self._redirected
            return passage.next(lambda: next(iterator))
        if self._limit is not None:
            if not self._limit:
                raise StopIteration
            self._limit -= 1
            return draw()
        if self._spare:
            return self._spare.pop()
        if self._restoring:
            self._restoring = False
            recorded.boundary.position_reached()
        recorded.make_current(self)
        streams = recorded.boundary.batch_requested()
        self.start.note(self._calls, streams, every=recorded.keeps_calls)
        self._calls += 1
        batch = self._draw(draw)
        self.position += 1
        order = None if recorded.iterable else self._consumed()
        recorded.boundary.batch_delivered(batch, order, self.epoch)
        recorded.next_step += 1
        return batch

    def _draw(self, draw: Callable[[], Any]) -> Any:
        self.drawing = True
        try:
            return draw()
        except StopIteration:
            self.recorded.ended(self)
            raise
        except BaseException:
            # A loop that catches what its data set raised gets the batch after this one.
            self.lost = True
            if self.issued:
                self.issued.popleft()
            raise
        finally:
            self.drawing = False

    def redirect(self, passage: Passage, iterator: Iterator[Any]) -> None:
        """From now on deliver what another iteration does."""
        self._redirected = (passage, iterator)

    def discard(self, iterator: Any, spare: list[Any], *, settle: bool) -> None:
        """Load the batches before the position and throw them away.

        Args:
            iterator: The loader's own iterator.
            spare: What is delivered once before the state is written.
            settle: Whether the last batch before the position is.

        Raises:
            RestoreMismatch: When the epoch ends before the position, or has other batches.
        """
        for call in range(self._base):
            self.start.replay(call)
            try:
                batch = next(iterator)
            except StopIteration:
                raise RestoreMismatch(
                    f"the epoch ends before batch {self._base}", component="loader"
                ) from None
            order = None if self.recorded.iterable else self.issued.popleft()[1]
            if self.recorded.check is not None:
                self.recorded.check(self._base_step - self._base + call, order, batch)
            if settle and call == self._base - 1:
                spare = [batch]
        self._spare = spare
        self._restoring = True

    def issue(self, own: Any) -> Any:
        """What the dataset is asked for in place of what the sampler yielded."""
        if self._limit is not None:
            return own
        recorded = self.recorded
        pairs = index_pairs(own, self.epoch, recorded.base)
        number = self._n_issued
        self._n_issued += 1
        row = self._base_step + number - self._base - recorded.first_step
        moved = pairs
        # An order that is not the control's is told when it is consumed: a loop that breaks
        # leaves batches behind that were issued and never meant to be.
        if (
            number >= self._base
            and 0 <= row < len(recorded.control)
            and np.array_equal(pairs, recorded.control[row])
        ):
            moved = recorded.given[row]
        self.issued.append((pairs, moved))
        if np.array_equal(moved, pairs):
            return own
        keys = moved[:, 1].tolist()
        return keys if is_batch(own) else keys[0]

    def _consumed(self) -> Batch:
        own, moved = self.issued.popleft()
        recorded = self.recorded
        row = recorded.next_step - recorded.first_step
        if 0 <= row < len(recorded.control):
            expected, given = recorded.control[row], recorded.given[row]
            if not (np.array_equal(own, expected) and np.array_equal(moved, given)):
                raise OrderDrift(
                    "the loader's own sampler yielded other samples than for the control",
                    step=recorded.next_step,
                    component="order",
                    expected=f"(epoch, index) {expected[:4].tolist()} ...",
                    found=f"{own[:4].tolist()} ...",
                    hint="a sampler whose order depends on the model or on unregistered state "
                    "cannot be held fixed; register its state as an extra",
                )
        return moved
