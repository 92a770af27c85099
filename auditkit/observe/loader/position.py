"""What an iteration over a loader began with and went through since, and where one resumes.

A loader cannot be put to a position; its epoch can be gone through again. For that an
iteration's start is kept: the global streams, the samplers and the registered generators. A
loader that fetches ahead draws one batch's augmentation a step early, and an iterable dataset
may draw from streams that training draws from in between: the streams at the calls are kept as
well, the first and the last one, or all.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from auditkit.errors import RestoreMismatch
from auditkit.observe.loader.attributes import Changes, WatchedAttributes
from auditkit.observe.loader.samplers import capture_samplers, named_samplers, restore_samplers
from auditkit.observe.loader.saved_position import entries
from auditkit.observe.rng.streams import (
    Generator,
    GlobalStreams,
    capture_streams,
    generator_leaves,
    restore_generator,
    streams_from_leaves,
)

#: Calls of one iteration whose streams are kept at most: some 30 kB each.
MAX_CALLS = 1024

#: What the tree of a start holds.
_START = dict.fromkeys(("streams", "samplers", "generators", "calls"), dict)

#: Epoch counters that wrappers keep, and seed their samplers with.
_COUNTERS = ("iteration",)


class IterationStart:
    """What an iteration began with.

    Args:
        streams: The global streams at ``iter()``.
        samplers: From :func:`auditkit.observe.loader.samplers.capture_samplers`.
        generators: State of registered generators by name.
        calls: The global streams at calls of ``next()``, by their number.
        attributes: Plain attributes of what is drawn from that changed since the loader was taken
            over and that ``samplers`` does not hold.
        moved: What the loop set on the samplers in the midst of the iteration, by call.

    Attributes:
        overflowed: Whether loading drew from the streams at more calls than can be kept.
    """

    def __init__(
        self,
        streams: GlobalStreams,
        samplers: dict[str, Any],
        generators: dict[str, Any],
        calls: dict[int, GlobalStreams],
        attributes: Changes | None = None,
        moved: dict[int, Changes] | None = None,
    ) -> None:
        self.overflowed = False
        self._streams, self._samplers = streams, samplers
        self._generators, self._calls = generators, calls
        self._attributes, self._moved = attributes or {}, moved or {}
        self._fingerprints: dict[str, object] = {}

    @classmethod
    def capture(
        cls,
        loader: DataLoader[Any],
        generators: Mapping[str, Generator],
        watched: WatchedAttributes,
    ) -> IterationStart:
        """The start of an iteration that begins now."""
        states = {name: dict(generator_leaves(value)) for name, value in generators.items()}
        samplers, fingerprints = capture_samplers(loader), watched.begin()
        start = cls(
            capture_streams(), samplers, states, {}, watched.changes(samplers, fingerprints)
        )
        start._fingerprints = fingerprints
        return start

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> IterationStart:
        """Inverse of :meth:`tree`.

        Raises:
            RestoreMismatch: When it is none.
        """
        tree = entries(tree, _START, dict.fromkeys(("attributes", "moved"), dict), "start: ")
        for number, call in tree["calls"].items():
            entries(
                {"call": number, "streams": call}, {"call": int, "streams": dict}, {}, "calls: "
            )
        return cls(
            streams_from_leaves(tree["streams"]),
            tree["samplers"],
            tree["generators"],
            _delta_decoded(tree["calls"]),
            tree.get("attributes"),
            tree.get("moved"),
        )

    def tree(self) -> dict[str, Any]:
        """As a tree for the snapshot codec."""
        tree = {
            "streams": _plain(self._streams),
            "samplers": self._samplers,
            "generators": self._generators,
            "calls": _delta_encoded(self._calls),
        }
        further = {"attributes": self._attributes, "moved": self._moved}
        return {**tree, **{name: value for name, value in further.items() if value}}

    def changes_since(self, watched: WatchedAttributes) -> Changes:
        """Plain attributes that are not what the iteration began with."""
        return watched.changes_since(self._fingerprints)

    def record_call(self, call: int, streams: GlobalStreams, *, every: bool) -> None:
        """Keep the streams as they stood when batch number ``call`` (from 0) was requested."""
        if call > 1 and (not every or self.is_full):
            self._calls.pop(call - 1, None)
        self._calls[call] = streams

    @property
    def is_full(self) -> bool:
        """Whether no further call can be kept, but the last one."""
        return len(self._calls) > MAX_CALLS

    def record_loaded(self, before: GlobalStreams) -> None:
        """A batch was loaded at a call that will not be kept: draws forbid going back to it."""
        self.overflowed = self.overflowed or not before.same_as(capture_streams())

    def record_moved(self, call: int, watched: WatchedAttributes) -> None:
        """Keep what the loop has set on the samplers before it requested this batch."""
        if call and len(self._moved) < MAX_CALLS and (moved := watched.moved()):
            self._moved[call] = moved

    def replay_moved(self, call: int, watched: WatchedAttributes) -> None:
        """Set on the samplers what the loop had set before that call."""
        watched.put(copy.deepcopy(self._moved.get(call, {})))

    def replay(self, call: int) -> None:
        """Put the streams where they stood at that call, where that was kept."""
        if call in self._calls:
            self._calls[call].restore()

    def restore(
        self,
        loader: DataLoader[Any],
        generators: Mapping[str, Generator],
        watched: WatchedAttributes,
    ) -> None:
        """Put streams, samplers, generators and plain attributes back.

        Raises:
            RestoreMismatch: When there are others than in the snapshot.
        """
        for name, state in self._generators.items():
            if name not in generators:
                raise RestoreMismatch(f"no generator {name!r} is registered", component="loader")
            restore_generator(generators[name], state)
        # Copies: samplers shuffle in place.
        watched.reset(copy.deepcopy(self._attributes), but=self._samplers)
        restore_samplers(loader, copy.deepcopy(self._samplers))
        self._fingerprints = watched.begin()
        self._streams.restore()


@dataclass(frozen=True)
class ResumePoint:
    """A position to resume at.

    Attributes:
        epoch: Number of the iteration over the loader.
        position: Batches of it that were delivered.
        start: What it began with.
        loop_epoch: The loop's own epoch and the iterations before it; None where it has none.
        counters: The wrapper's epoch counters.
        attributes: Plain attributes that changed since the iteration began.
    """

    epoch: int
    position: int
    start: IterationStart
    loop_epoch: tuple[int, int] | None
    counters: dict[str, int]
    attributes: Changes


def epoch_counters(loader: Any) -> dict[str, int]:
    """The epoch counters of a wrapper, as they stand."""
    attributes = getattr(loader, "__dict__", {})
    return {name: attributes[name] for name in _COUNTERS if type(attributes.get(name)) is int}


def restore_epoch_counters(
    loader: Any, base: DataLoader[Any], counters: dict[str, int], start: IterationStart
) -> None:
    """Put a wrapper's epoch counters back, and let its samplers hold what they held then."""
    loader.__dict__.update(counters)
    saved = start.tree()["samplers"]
    for path, sampler in named_samplers(base):
        # Accelerate's makes its generator in its first epoch, which may have been left out.
        missing = getattr(sampler, "generator", ...) is None
        if missing and saved.get(f"{path}.generator") is not None:
            sampler.generator = torch.Generator()


def _delta_encoded(calls: Mapping[int, GlobalStreams]) -> dict[int, dict[str, Any]]:
    """Of each call only the streams that have moved since the call before it."""
    found: dict[int, dict[str, Any]] = {}
    last: dict[str, Any] = {}
    for number, streams in sorted(calls.items()):
        leaves = _plain(streams)
        found[number] = {name: leaf for name, leaf in leaves.items() if last.get(name) != leaf}
        last = leaves
    return found


def _delta_decoded(calls: Mapping[int, Mapping[str, Any]]) -> dict[int, GlobalStreams]:
    """Inverse of :func:`_delta_encoded`."""
    found: dict[int, GlobalStreams] = {}
    last: dict[str, Any] = {}
    for number, moved in sorted(calls.items()):
        last = {**last, **moved}
        found[number] = streams_from_leaves(last)
    return found


def _plain(streams: GlobalStreams) -> dict[str, Any]:
    return {name: dict(leaves) for name, leaves in streams.leaves().items()}
