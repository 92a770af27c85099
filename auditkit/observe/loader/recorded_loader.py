"""The batch boundary of a loader that somebody else's loop iterates.

The passive counterpart of :mod:`auditkit.observe.loader.driver`: nothing is driven, seeded or
exchanged. The loader's class is swapped in place for a single-inheritance subclass, and so is
the class of every iterator that it makes; at the entry of ``__next__`` everything of the step
before is done, whatever the loop does.

Going on from a snapshot needs no code in the loop either. An epoch before the position delivers
one batch (so that what a loop does after an epoch finds what it expects, and
``DistributedDataParallel`` has rebuilt its buckets); in the epoch of the position the loader is
iterated anew from the streams and samplers that this epoch began with, and the batches before
the position are loaded and discarded, unseen by the loop. Then the state is written, before
the first batch that counts is requested.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from auditkit.errors import RestoreMismatch
from auditkit.formats.ordering import Batch
from auditkit.formats.packed_batch import Drawn
from auditkit.observe.loader.attributes import WatchedAttributes
from auditkit.observe.loader.blame import Guard, foreign
from auditkit.observe.loader.iteration import Boundary, Iteration
from auditkit.observe.loader.position import (
    IterationStart,
    ResumePoint,
    epoch_counters,
    restore_epoch_counters,
)
from auditkit.observe.loader.proxies import (
    IteratorProxy,
    SamplerProxy,
    StatefulSamplerProxy,
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
    refuse_without_class,
)
from auditkit.observe.loader.samplers import capture_samplers, draws_once, restore_samplers
from auditkit.observe.loader.saved_position import iteration_tree
from auditkit.observe.rng.streams import Generator
from auditkit.observe.values.codec import Leaves, flatten

#: The recorded loaders of this process. To be told of a fork costs less than to ask for the number
#: of the process at every step.
_IN_PROCESS: weakref.WeakSet[RecordedLoader] = weakref.WeakSet()


def _close_in_fork() -> None:
    """A fork of the recorded process is not recorded."""
    for recorded in _IN_PROCESS:
        recorded.open = False


os.register_at_fork(after_in_child=_close_in_fork)


class RecordedLoader:
    """A loader whose every batch passes a boundary.

    Args:
        loader: What the loop iterates: a DataLoader, or a wrapper that fetches ahead from one.
        base: The DataLoader that draws the indices, where ``loader`` wraps it.
        generators: Registered generators by name, which loading may draw from.

    Attributes:
        boundary: What it reports to; to be set before the loader is iterated.
        guard: What auditkit's own code runs in; as the boundary.
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
        if loader is not self.base:
            refuse_without_class(loader)
        self.generators = generators or {}
        self.guard: Guard = nullcontext
        self.iterable = is_iterable_style(self.base)
        #: Whether loading may draw from streams that training draws from in between.
        self.keep_call_streams = not self.base.num_workers and (
            self.iterable or not draws_once(self.base._index_sampler)
        )
        self.epoch = -1
        self.next_step = 1
        self.first_step = 1
        self.control: Sequence[Batch] = ()
        self.delivered: Sequence[Batch] = ()
        self.open = True
        _IN_PROCESS.add(self)
        self.watched = WatchedAttributes(self.base)
        self.check: Callable[[int, Drawn | None, Any], None] | None = None
        self._unfinished: weakref.WeakSet[Iteration] = weakref.WeakSet()
        self._current: Iteration | None = None
        self._early_iteration: Iteration | None = None
        self._starting = False
        self._counters: dict[str, int] = {}
        self._resume_point: ResumePoint | None = None
        self._warmed_up = False
        self._loop_epoch: tuple[int, int] | None = None
        self._positioned_iterator: Any = None
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

    @property
    def may_be_over(self) -> bool:
        """Whether the next batch that is asked for may turn out not to be there."""
        try:
            return self.position >= len(self.loader)
        except Exception:  # a loader without a length, or whose length is the user's code
            return True

    def pin_order(self, control: Sequence[Batch], delivered: Sequence[Batch], step: int) -> None:
        """Deliver given batches where the loader's own sampler yields the control's.

        Args:
            control: The control's batches from ``step`` on, int64 ``(B, 2)``.
            delivered: What to deliver in their place.
            step: Step of the first of them.
        """
        self.control, self.delivered, self.first_step = control, delivered, step

    def capture(self) -> Leaves:
        """Epoch, position and what the epoch began with, as component ``loader``.

        Raises:
            UnsupportedLoader: When this position cannot be resumed exactly.
        """
        current = self._current
        if current is None:
            return flatten({"epoch": -1, "position": 0, "start": {}}, where="loader")
        refuse_position(self.base, self.epoch, self._unfinished, current)
        self.watched.refuse_too_large()
        tree = {
            "epoch": self.epoch,
            "position": current.position,
            "start": current.start.tree(),
            "round": self._loop_epoch,
            "wrapper": self._counters,
        }
        if changed := current.start.changes_since(self.watched):
            tree["attributes"] = changed
        if current.is_over:  # the next one begins with what there is now
            samplers = capture_samplers(self.base)
            tree["over"] = {
                "samplers": samplers,
                "attributes": self.watched.changes(but=samplers),
            }
        return flatten(tree, where="loader")

    def restore(self, leaves: Leaves) -> None:
        """Go on from a captured position when the loop gets to its epoch.

        Raises:
            RestoreMismatch: When it is none; or later, when the epoch ends before the position.
        """
        tree = iteration_tree(leaves)
        if tree["epoch"] < 0:
            raise RestoreMismatch("the position lies before the first batch", component="loader")
        self._resume_point = ResumePoint(
            tree["epoch"],
            tree["position"],
            IterationStart.from_tree(tree["start"]),
            tree.get("round"),
            tree["wrapper"],
            tree.get("attributes", {}),
        )

    @property
    def resume_loop_epoch(self) -> int | None:
        """The loop's own epoch that is to be resumed; None where there is none."""
        point = self._resume_point
        return None if point is None or not point.loop_epoch else point.loop_epoch[0]

    def begin_loop_epoch(self, number: int) -> bool:
        """The loop's own epoch ``number`` (from 0) begins.

        Returns:
            Whether to go through it: False where it lies before the position to resume at.
        """
        point = self._resume_point
        if point is not None and point.loop_epoch is not None:
            if number < point.loop_epoch[0]:
                return False
            self.epoch = point.loop_epoch[1]
        self._loop_epoch = (number, self.epoch)
        return True

    def seek(self, leaves: Leaves) -> None:
        """Put the iteration that is under way, or the next one, to a captured position at once.

        Where the captured one was over, the next one begins anew.

        Raises:
            RestoreMismatch: When the epoch ends before the position, or that is none.
        """
        tree = iteration_tree(leaves)
        if tree["epoch"] < 0:
            return
        under_way, self.epoch = self._current, tree["epoch"]
        start = IterationStart.from_tree(tree["start"])
        iteration = self._current = Iteration(self, start, n_discarded=tree["position"])
        self._counters = tree["wrapper"]
        restore_epoch_counters(self.loader, self.base, self._counters, start)
        if "over" in tree:
            iteration.ended = True
            self.watched.reset(tree["over"]["attributes"], but=tree["over"]["samplers"])
            restore_samplers(self.base, tree["over"]["samplers"])
            if under_way is not None:
                under_way.redirect(iteration, iter(()))
            return
        start.restore(self.base, self.generators, self.watched)
        original: Any = type(self.loader).__mro__[1]
        self._starting = True
        try:
            iterator = original.__iter__(self.loader)
        finally:
            self._starting = False
        iteration.discard(iterator, [], repeat_last=False)
        self.watched.put(tree.get("attributes", {}))
        self.watched.settle()
        if under_way is None:
            self._positioned_iterator = self._attach(iterator, iteration)
        else:
            under_way.redirect(iteration, iterator)

    def close(self) -> None:
        """Give the loader and its iterators their own classes back."""
        self.open = False
        for undo in reversed(self._undo):
            undo()
        for iterator in list(self._iterators):
            iterator.__class__ = type(iterator).__mro__[1]
            iterator.__dict__.pop("_auditkit_iteration", None)
        self._undo, self._current = [], None

    def suspects(self) -> list[str]:
        """What changed while training, of what is drawn from."""
        return self.watched.changed_names()

    # What the swapped classes call

    def wrap_sampler(self, inner: Any) -> Any:
        """Stands in for the loader's index sampler."""
        if self.iterable or not self.open:
            return inner
        with self.guard():
            proxy = StatefulSamplerProxy if has_state_dict(inner) else SamplerProxy
            return proxy(self, inner)

    def iterate(self, make_iterator: Callable[[], Any]) -> Any:
        """Stands in for the loader's ``__iter__``; ``make_iterator`` is its own."""
        if not self.open:
            return make_iterator()
        if self._positioned_iterator is not None:
            positioned, self._positioned_iterator = self._positioned_iterator, None
            return positioned

        def make() -> Any:
            with foreign():
                return make_iterator()

        self._starting = True
        try:
            with self.guard():
                refuse_own_state(self.base)
                return self._start_iteration(make)
        finally:
            self._starting = False

    def _start_iteration(self, make_iterator: Callable[[], Any]) -> Any:
        early, self._early_iteration = self._early_iteration, None
        if early is not None and self._resume_point is not None:
            make_iterator()  # from other streams than those to go on from; the next one is new
            early = None
        self.epoch += 1
        point = self._resume_point
        if point is None or self.epoch < point.epoch:
            self._counters = epoch_counters(self.loader)
            if early is None:
                start = IterationStart.capture(self.base, self.generators, self.watched)
                early = Iteration(self, start, limit=None if point is None else 1)
            self._current = iteration = early
            self._warmed_up = True
            return self._attach(make_iterator(), iteration)
        self._resume_point = None
        warm_up = self.boundary.needs_warmup and not self._warmed_up
        iteration = self._current = Iteration(self, point.start, n_discarded=point.position)
        warmup = []
        if warm_up and not point.position:
            iterator = make_iterator()
            with foreign():
                warmup = list(itertools.islice(iterator, 1))
        self._counters = point.counters
        restore_epoch_counters(self.loader, self.base, self._counters, point.start)
        point.start.restore(self.base, self.generators, self.watched)
        iteration = self._current = Iteration(self, point.start, n_discarded=point.position)
        iterator = make_iterator()
        iteration.discard(iterator, warmup, repeat_last=warm_up)
        self.watched.put(point.attributes)
        self.watched.settle()
        return self._attach(iterator, iteration)

    def iteration_for_sampler(self) -> Iteration:
        """The iteration that is being started or was started last."""
        with self.guard():
            return self._iteration_for_sampler()

    def _iteration_for_sampler(self) -> Iteration:
        fetching = self._current is not None and self._current.fetching
        if self.loader is self.base and not self._starting and not fetching:
            # A loader that is asked for its state makes its iterator before it is iterated.
            self.epoch += 1
            start = IterationStart.capture(self.base, self.generators, self.watched)
            self._early_iteration = Iteration(self, start)
            self.epoch -= 1
            return self._early_iteration
        assert self._current is not None  # noqa: S101 # indices are drawn below __iter__ only
        return self._current

    def iteration_ended(self, iteration: Iteration) -> None:
        """The iteration has delivered all that it had."""
        self._unfinished.discard(iteration)
        self.watched.end()

    def make_current(self, iteration: Iteration) -> None:
        """The loop asks this iteration for a batch."""
        if not iteration.position or iteration is not self._current:
            self._unfinished.add(iteration)
            self._current = iteration

    def _attach(self, iterator: Any, iteration: Iteration) -> Any:
        if not isinstance(iterator, _BaseDataLoaderIter):
            proxy = IteratorProxy(iterator, iteration)
            iteration.iterator = weakref.ref(proxy)
            return proxy
        iteration.iterator = weakref.ref(iterator)
        if iterator not in self._iterators:
            iterator.__class__ = iterator_class(type(iterator))
            self._iterators.add(iterator)
        iterator.__dict__["_auditkit_iteration"] = iteration
        return iterator
