"""The batch boundary of a loader that somebody else's loop iterates.

The passive counterpart of :mod:`auditkit.observe.loader.driver`: nothing is driven, seeded or
exchanged. The loader's class is swapped in place for a single-inheritance subclass, and so is
the class of every iterator that it makes; at the entry of ``__next__`` everything of the step
before is done, whatever the loop does.

Going on from a snapshot needs no code in the loop either. An epoch before the position delivers
one batch (so that what a loop does after an epoch finds what it expects, and
``DistributedDataParallel`` has settled its buckets); in the epoch of the position the loader is
iterated anew from the streams and samplers that this epoch began with, and the batches before
the position are loaded and thrown away, unseen by the loop. Then the state is written, before
the first batch that counts is asked for.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from auditkit.errors import RestoreMismatch
from auditkit.formats.ordering import Batch
from auditkit.observe.loader.iteration import Boundary, Passage
from auditkit.observe.loader.position import Start, Target, counters_of, prepare
from auditkit.observe.loader.proxies import (
    Indices,
    PassingIterator,
    StatefulIndices,
    has_state_dict,
    iterator_class,
    loader_class,
    swap,
)
from auditkit.observe.loader.refusals import (
    is_iterable_style,
    refuse_own_state,
    refuse_position,
    refuse_running,
    refuse_unsupported,
)
from auditkit.observe.loader.samplers import draws_once
from auditkit.observe.rng.streams import Generator
from auditkit.observe.values.codec import Leaves, flatten, unflatten


class RecordedLoader:
    """A loader whose every batch passes a boundary.

    Args:
        loader: What the loop iterates: a DataLoader, or a wrapper that fetches ahead from one.
        base: The DataLoader that draws the indices, where ``loader`` wraps it.
        generators: Registered generators by name, which loading may draw from.

    Attributes:
        boundary: What is told; to be set before the loader is iterated.
        epoch: Number of the last iteration over the loader (from 0), -1 before the first.

    Raises:
        UnsupportedLoader: When the loader cannot be recorded.
    """

    per_sample = False
    boundary: Boundary

    def __init__(
        self,
        loader: Any,
        *,
        base: DataLoader[Any] | None = None,
        generators: Mapping[str, Generator] | None = None,
    ) -> None:
        self.loader = loader
        self.base: DataLoader[Any] = loader if base is None else base
        refuse_unsupported(self.base)
        self.generators = generators or {}
        self.iterable = is_iterable_style(self.base)
        #: Whether loading may draw from streams that training draws from in between.
        self.keeps_calls = not self.base.num_workers and (
            self.iterable or not draws_once(self.base._index_sampler)
        )
        self.epoch = -1
        self.next_step = 1
        self.first_step = 1
        self.control: Sequence[Batch] = ()
        self.given: Sequence[Batch] = ()
        self.open = True
        self.pid = os.getpid()
        self.check: Callable[[int, Batch | None, Any], None] | None = None
        self._asked: weakref.WeakSet[Passage] = weakref.WeakSet()
        self._current: Passage | None = None
        self._early: Passage | None = None
        self._opening = False
        self._counters: dict[str, int] = {}
        self._target: Target | None = None
        self._settled = False
        self._round: tuple[int, int] | None = None
        self._placed: Any = None
        self._iterators: weakref.WeakSet[Any] = weakref.WeakSet()
        refuse_running(self.base)
        refuse_own_state(self.base)
        self._undo = [swap(self.base, loader_class(type(self.base)), self)]
        if loader is not self.base:
            self._undo.append(swap(loader, loader_class(type(loader)), self))

    @property
    def position(self) -> int:
        """Batches of this epoch that were delivered."""
        return 0 if self._current is None else self._current.position

    def follow(self, control: Sequence[Batch], delivered: Sequence[Batch], step: int) -> None:
        """Deliver given batches where the loader's own sampler yields the control's.

        Args:
            control: The control's batches from ``step`` on, int64 ``(B, 2)``.
            delivered: What to deliver in their place.
            step: Step of the first of them.
        """
        self.control, self.given, self.first_step = control, delivered, step

    def capture(self) -> Leaves:
        """Epoch, position and what the epoch began with, as component ``loader``.

        Raises:
            UnsupportedLoader: When this position cannot be resumed exactly.
        """
        current = self._current
        if current is None:
            return flatten({"epoch": -1, "position": 0, "start": {}}, where="loader")
        refuse_position(self.base, self.epoch, self._asked, current)
        tree = {
            "epoch": self.epoch,
            "position": current.position,
            "start": current.start.tree(),
            "round": self._round,
            "wrapper": self._counters,
        }
        return flatten(tree, where="loader")

    def restore(self, leaves: Leaves) -> None:
        """Go on from a captured position when the loop gets to its epoch.

        Raises:
            RestoreMismatch: Later, when the epoch ends before the position.
        """
        tree: Any = unflatten(leaves, where="loader")
        if tree["epoch"] < 0:
            raise RestoreMismatch("the position lies before the first batch", component="loader")
        self._target = Target(
            tree["epoch"],
            tree["position"],
            Start.of(tree["start"]),
            tree["round"],
            tree["wrapper"],
        )

    @property
    def target_round(self) -> int | None:
        """The loop's own epoch that is to be gone on from; None where there is none."""
        return None if self._target is None or not self._target.round else self._target.round[0]

    def begin_round(self, number: int) -> bool:
        """The loop's own epoch ``number`` (from 0) begins.

        Returns:
            Whether to go through it: False where it lies before the position to go on from.
        """
        target = self._target
        if target is not None and target.round is not None:
            if number < target.round[0]:
                return False
            self.epoch = target.round[1]
        self._round = (number, self.epoch)
        return True

    def place(self, leaves: Leaves) -> None:
        """Put the iteration that is under way, or the next one, to a captured position at once.

        Raises:
            RestoreMismatch: When the epoch ends before the position.
        """
        tree: Any = unflatten(leaves, where="loader")
        if tree["epoch"] < 0:
            return
        under_way, self.epoch = self._current, tree["epoch"]
        start = Start.of(tree["start"])
        passage = self._current = Passage(self, start, base=tree["position"])
        self._counters = tree["wrapper"]
        prepare(self.loader, self.base, self._counters, start)
        start.restore(self.base, self.generators)
        original: Any = type(self.loader).__mro__[1]
        self._opening = True
        try:
            iterator = original.__iter__(self.loader)
        finally:
            self._opening = False
        passage.discard(iterator, [], settle=False)
        if under_way is None:
            self._placed = self._dress(iterator, passage)
        else:
            under_way.redirect(passage, iterator)

    def close(self) -> None:
        """Give the loader and its iterators their own classes back."""
        self.open = False
        for undo in reversed(self._undo):
            undo()
        for iterator in list(self._iterators):
            iterator.__class__ = type(iterator).__mro__[1]
            iterator.__dict__.pop("_auditkit_passage", None)
        self._undo, self._current = [], None

    # What the swapped classes call

    def indices(self, inner: Any) -> Any:
        """Stands in for the loader's index sampler."""
        if self.iterable or not self.open:
            return inner
        return StatefulIndices(self, inner) if has_state_dict(inner) else Indices(self, inner)

    def iterate(self, make: Callable[[], Any]) -> Any:
        """Stands in for the loader's ``__iter__``; ``make`` is its own."""
        if not self.open:
            return make()
        if self._placed is not None:
            placed, self._placed = self._placed, None
            return placed
        refuse_own_state(self.base)
        self._opening = True
        try:
            return self._open(make)
        finally:
            self._opening = False

    def _open(self, make: Callable[[], Any]) -> Any:
        early, self._early = self._early, None
        if early is not None and self._target is not None:
            make()  # made from other streams than those to go on from; the next one is new
            early = None
        self.epoch += 1
        target = self._target
        if target is None or self.epoch < target.epoch:
            self._counters = counters_of(self.loader)
            if early is None:
                start = Start.capture(self.base, self.generators)
                early = Passage(self, start, limit=None if target is None else 1)
            self._current = passage = early
            self._settled = True
            return self._dress(make(), passage)
        self._target = None
        settle = self.boundary.needs_warmup and not self._settled
        passage = self._current = Passage(self, target.start, base=target.position)
        spare = list(itertools.islice(make(), 1)) if settle and not target.position else []
        self._counters = target.counters
        prepare(self.loader, self.base, self._counters, target.start)
        target.start.restore(self.base, self.generators)
        passage = self._current = Passage(self, target.start, base=target.position)
        iterator = make()
        passage.discard(iterator, spare, settle=settle)
        return self._dress(iterator, passage)

    def passage(self) -> Passage:
        """The iteration that is being opened or was opened last."""
        drawing = self._current is not None and self._current.drawing
        if self.loader is self.base and not self._opening and not drawing:
            # A loader that is asked for its state makes its iterator before it is iterated.
            self.epoch += 1
            self._early = Passage(self, Start.capture(self.base, self.generators))
            self.epoch -= 1
            return self._early
        assert self._current is not None  # noqa: S101 # indices are drawn below __iter__ only
        return self._current

    def ended(self, passage: Passage) -> None:
        """The iteration has delivered all that it had."""
        self._asked.discard(passage)

    def make_current(self, passage: Passage) -> None:
        """The loop asks this iteration for a batch."""
        if not passage.position or passage is not self._current:
            self._asked.add(passage)
            self._current = passage

    def _dress(self, iterator: Any, passage: Passage) -> Any:
        if not isinstance(iterator, _BaseDataLoaderIter):
            return PassingIterator(iterator, passage)
        if iterator not in self._iterators:
            iterator.__class__ = iterator_class(type(iterator))
            self._iterators.add(iterator)
        iterator.__dict__["_auditkit_passage"] = passage
        return iterator
