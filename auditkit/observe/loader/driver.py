"""Drive a user's DataLoader batch by batch, with its order recorded and resumable.

Under ``augmentation_rng="per-sample"`` everything that loading draws (sampler, dataset,
collate) runs on derived streams and the global streams are put back after every batch, so
that what training draws and what loading draws never meet. Under ``"inherit"`` the loader
behaves as it would without auditkit, and resuming replays the epoch from its start.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from auditkit.errors import RestoreMismatch, UnsupportedLoader
from auditkit.formats.ordering import Batch
from auditkit.formats.packed_batch import Drawn, as_pairs
from auditkit.observe.loader.attributes import Changes, WatchedAttributes
from auditkit.observe.loader.interception import Interception
from auditkit.observe.loader.iterables import loaders_in
from auditkit.observe.loader.samplers import capture_samplers, restore_samplers
from auditkit.observe.loader.saved_position import position_tree
from auditkit.observe.rng.per_sample import MeasuredBatch
from auditkit.observe.rng.streams import (
    Generator,
    GlobalStreams,
    capture_streams,
    generator_leaves,
    restore_generator,
    streams_from_leaves,
)
from auditkit.observe.values.codec import Leaves, flatten

#: Entries that a position has where there is something of them.
_FURTHER = ("generators", "epoch-start attributes", "attributes")


@dataclass(frozen=True)
class Delivery:
    """One batch as training receives it.

    Attributes:
        batch: What the loader yielded.
        drawn: int64 ``(B, 2)`` of (epoch, index) in consumption order, perhaps packed; None for an
            iterable dataset, whose samples have no index.
        epoch: Epoch (from 0) that was under way.
        samples: Digests of its samples; None where nobody asked for them.
        delivered: What the loader yielded, where ``batch`` was made of it.
    """

    batch: Any
    drawn: Drawn | None
    epoch: int
    samples: list[bytes] | None = None
    delivered: Any = None

    @property
    def order(self) -> Batch | None:
        """What was drawn, as an array."""
        return None if self.drawn is None else as_pairs(self.drawn)


class LoaderDriver:
    """A DataLoader, an epoch and a position in it.

    Args:
        loader: The user's loader; it gets its own class back at :meth:`close`.
        seed: The study seed.
        augmentation_rng: ``per-sample`` or ``inherit``.
        generators: What follows the sample beside the global streams, by name.
        registered: Generators that follow the position, by name. An iterable data set may draw its
            order from one, so an epoch is gone through again from where they stood at its start.

    Raises:
        UnsupportedLoader: When the loader cannot be recorded.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        seed: int,
        augmentation_rng: str,
        generators: Mapping[str, Generator] | None = None,
        registered: Mapping[str, Generator] | None = None,
    ) -> None:
        self._loader = loader
        self._per_sample = augmentation_rng == "per-sample"
        self._interception = Interception(
            loader, seed, per_sample=self._per_sample, generators=generators
        )
        self._generators = registered or {}
        self._registered = registered if registered and self.iterable else {}
        self._iterator: Iterator[Any] | None = None
        self._watched = WatchedAttributes(loader)
        self._samplers = capture_samplers(loader)
        self._interception.suspects = self._watched.changed_names
        self._attributes: Changes = {}
        self._fingerprints = self._watched.fingerprints()
        self._epoch_streams: GlobalStreams | None = None
        self._epoch_generators: dict[str, Any] = {}
        self.epoch = -1
        self.position = 0

    @property
    def iterable(self) -> bool:
        """Whether the dataset is iterable-style: batches without indices."""
        return self._interception.iterable

    @property
    def per_sample(self) -> bool:
        """Whether loading draws from derived streams only."""
        return self._per_sample

    @property
    def loads_by_index(self) -> bool:
        """Whether a batch is given again for its (epoch, index) pairs, whatever came before."""
        registered = bool(self._generators)
        return self._per_sample and not (
            self.iterable or self._loader.batch_sampler is None or registered
        )

    def load(self, batches: Sequence[Batch]) -> list[Any]:
        """Batches by their indices, where :attr:`loads_by_index`.

        Leaves the global streams and what the data set holds anywhere.
        """
        epoch, found = self.epoch, []
        for batch in batches:
            self.epoch = int(batch[0, 0]) if len(batch) else epoch
            self._set_epoch()
            found.append(self._interception.load(batch))
        self.epoch = epoch
        if epoch >= 0:
            self._set_epoch()
        return found

    def draw(self, until: float) -> Iterator[Batch]:
        """The indices of every batch from the first epoch on, in their order; nothing is loaded.

        Under per-sample streams they are those that :meth:`next` has, unless a step changes the
        sampler. It ends where an epoch has none. The loader cannot be iterated afterwards.

        Args:
            until: When to end in any case, by ``time.perf_counter``.
        """
        is_over, self.epoch = False, -1
        while not is_over:
            is_over, self.epoch = True, self.epoch + 1
            self._set_epoch()
            self._interception.epoch = self.epoch
            for _ in self._loader._index_sampler:
                is_over = time.perf_counter() > until
                yield as_pairs(self._interception.dispatched.popleft())
                if is_over:
                    return

    def pin_order(self, control: Sequence[Batch], delivered: Sequence[Batch], step: int) -> None:
        """See :meth:`Interception.pin_order`."""
        self._interception.pin_order(control, delivered, step)

    def yoke(self, control: Sequence[Batch], step: int) -> None:
        """Deliver the control's batches, from this step on, whatever the sampler yields."""
        self._interception.yoked = True
        self._interception.pin_order(control, control, step)

    def measure(self, steps: range) -> None:
        """See :meth:`Interception.measure`."""
        self._interception.measure(steps)

    def begin_epoch(self) -> None:
        """Start the next epoch: set its number, keep the samplers' state, make an iterator."""
        self.epoch += 1
        self.position = 0
        self._set_epoch()
        self._samplers, self._fingerprints = capture_samplers(self._loader), self._watched.begin()
        self._attributes = self._watched.changes(self._samplers, self._fingerprints)
        self._iterate(capture_streams())

    def _set_epoch(self) -> None:
        owners = (self._loader.batch_sampler, self._loader.sampler, self._loader.dataset)
        for owner in (*owners, *loaders_in(self._loader)):
            set_epoch = getattr(owner, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(self.epoch)

    def next(self, streams: GlobalStreams) -> Delivery | None:
        """The next batch of this epoch, or None at its end.

        Args:
            streams: The global streams as they stand; put back afterwards under per-sample
                streams.
        """
        if self._iterator is None:
            return None
        try:
            batch = next(self._iterator)
        except StopIteration:
            self._watched.end()
            return None
        finally:
            if self._per_sample:
                streams.restore()
        self.position += 1
        order = None if self.iterable else self._interception.dispatched.popleft()
        if isinstance(batch, MeasuredBatch):
            return Delivery(batch.batch, order, self.epoch, batch.samples)
        return Delivery(batch, order, self.epoch)

    def capture(self) -> Leaves:
        """Epoch, position and what the epoch began with, as component ``loader``.

        Raises:
            UnsupportedLoader: When this position cannot be resumed exactly.
        """
        self._refuse_lasting_workers(self.epoch)
        self._watched.refuse_too_large()
        self._refuse_stale_workers()
        tree: dict[str, Any] = {
            "epoch": self.epoch,
            "position": self.position,
            "samplers": self._samplers,
        }
        if not self._per_sample and self._epoch_streams is not None:
            for name, leaves in self._epoch_streams.leaves().items():
                tree[f"epoch-start {name}"] = dict(leaves)
        if self._epoch_generators:
            tree["generators"] = self._epoch_generators
        if self._attributes:
            tree["epoch-start attributes"] = self._attributes
        if changed := self._watched.changes_since(self._fingerprints):
            tree["attributes"] = changed
        return flatten(tree, where="loader")

    def refuse_ahead(self, step: int) -> None:
        """Refuse before the first batch what :meth:`capture` would refuse after a step.

        As far as it can be known: where torch's own samplers say how long an epoch is.

        Raises:
            UnsupportedLoader: As :meth:`capture`.
        """
        batches, sampler = self._loader.batch_sampler, self._loader.sampler
        own = type(batches) is BatchSampler and type(sampler) in (RandomSampler, SequentialSampler)
        if own and len(self._loader):
            self._refuse_lasting_workers(step // len(self._loader))

    def _refuse_lasting_workers(self, epoch: int) -> None:
        if not self._per_sample and self._persistent and epoch > 0:
            raise UnsupportedLoader(
                "persistent workers keep random state from epoch to epoch that no snapshot "
                "can read",
                where=f"epoch {epoch}",
                hint='use augmentation_rng="per-sample", persistent_workers=False, or fork in '
                "the first epoch",
            )

    def restore(self, leaves: Leaves) -> None:
        """Go to a captured position; leaves the global streams anywhere.

        Raises:
            RestoreMismatch: When the epoch ends before the position, or that is none.
        """
        tree = position_tree(leaves, {"samplers": dict}, dict.fromkeys(_FURTHER, dict))
        self.epoch, position = tree["epoch"], tree["position"]
        self._attributes = tree.pop("epoch-start attributes", {})
        if self.epoch >= 0:
            self._set_epoch()  # which may count where no attribute tells it, as in shared memory
        self._watched.reset(copy.deepcopy(self._attributes), but=tree["samplers"])
        restore_samplers(self._loader, tree["samplers"])
        self._samplers, self._fingerprints = capture_samplers(self._loader), self._watched.begin()
        start = {
            name.removeprefix("epoch-start "): value
            for name, value in tree.items()
            if name.startswith("epoch-start ")
        }
        if start:
            streams_from_leaves(start).restore()
        for name, state in tree.get("generators", {}).items():
            if name not in self._registered:
                raise RestoreMismatch(f"no generator {name!r} is registered", component="loader")
            restore_generator(self._registered[name], state)
        self.position = position
        skips_in_sampler = self._per_sample and not self.iterable
        # Either way these batches are the control's past: they are not checked or replaced.
        self._interception.to_skip = position if skips_in_sampler else 0
        self._interception.to_discard = 0 if skips_in_sampler else position
        if self.epoch < 0:  # before the first batch there is no epoch under way
            self._iterator = None
            return
        self._iterate(capture_streams())
        if skips_in_sampler:
            self._interception.skip()
        else:
            self._discard(position)
        self._watched.put(tree.get("attributes", {}))

    def close(self) -> None:
        """Stop the workers and give the loader its own class back."""
        iterator, self._iterator = self._iterator, None
        for owner in (iterator, getattr(self._loader, "_iterator", None)):
            shut_down = getattr(owner, "_shutdown_workers", None)
            if shut_down is not None:
                shut_down()
        if getattr(self._loader, "_iterator", None) is not None:
            self._loader._iterator = None
        self._interception.remove()

    @property
    def _persistent(self) -> bool:
        return bool(self._loader.persistent_workers and self._loader.num_workers)

    def _refuse_stale_workers(self) -> None:
        """Refuse what persistent workers do not know: they hold the data set as it was at first.

        Raises:
            UnsupportedLoader: When the loop has changed it since.
        """
        if not self._persistent or self.epoch < 1:
            return
        for name in self._watched.changed_names():
            if name.startswith(("loader.dataset", "loader.collate_fn")):
                raise UnsupportedLoader(
                    f"{name} has changed since the persistent workers were started, which hold a "
                    "copy of it as it was",
                    where=f"epoch {self.epoch}",
                    hint="use persistent_workers=False, so that the change reaches them",
                )

    def _iterate(self, streams: GlobalStreams) -> None:
        self._epoch_streams = streams
        self._epoch_generators = {
            name: dict(generator_leaves(value)) for name, value in self._registered.items()
        }
        self._interception.epoch = self.epoch
        self._interception.dispatched.clear()
        try:
            self._iterator = iter(self._loader)
        finally:
            if self._per_sample:
                streams.restore()

    def _discard(self, n_batches: int) -> None:
        iterator = self._iterator if self._iterator is not None else iter(())
        for _ in range(n_batches):
            try:
                next(iterator)
            except StopIteration:
                raise RestoreMismatch(
                    f"the epoch ends before batch {n_batches}", component="loader"
                ) from None
            if not self.iterable:
                self._interception.dispatched.popleft()
