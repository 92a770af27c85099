"""Snapshotter: freeze the whole state at t0 into tensors and one JSON value.

The snapshot holds every component of the training state, the data position (section
``loader``) and the fixed batches on which BatchNorm is recalibrated (section
``recalibration``). Whatever influences training and is in none of them is an error.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from auditkit.errors import FormatError, UncapturedState
from auditkit.formats.recipes import digest_raw
from auditkit.formats.sharding import sharding_leaves
from auditkit.formats.snapshot_file import RECALIBRATION, raw_components
from auditkit.observe.loader.consumption import StepDriver
from auditkit.observe.loader.driver import LoaderDriver
from auditkit.observe.state.components import State
from auditkit.observe.values.classes import holds_objects
from auditkit.observe.values.codec import Leaves, flatten, pack, unflatten
from auditkit.observe.values.digests import commitments
from auditkit.observe.values.flatten import batch_leaves
from auditkit.observe.values.summed import require_whole
from auditkit.program.session import TrainingSession
from auditkit.records.digest import COMMITMENT_RECIPE
from auditkit.records.tensor import RawTensor

#: Bytes of tensors from which on a snapshot is large.
_LARGE = 2**22


@dataclass(frozen=True)
class Snapshot:
    """A frozen state, in memory of its own.

    Attributes:
        tensors: By key of the snapshot file.
        meta: The file's JSON value.
        known: Those of :attr:`digests` that were made of the same state elsewhere.
    """

    tensors: dict[str, RawTensor]
    meta: dict[str, object]
    known: Mapping[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def digests(self) -> dict[str, str]:
        """``sha256/tensor-v1`` of every section, made when they are first asked for.

        Of a large state they take as long as its file: whoever only restores it needs none.
        """
        components: Any = self.meta["components"]
        if self.known.keys() == components.keys():
            return dict(self.known)
        return {
            name: self.known.get(name) or digest_raw(COMMITMENT_RECIPE, *part).hex()
            for name, part in raw_components(self.tensors, self.meta).items()
        }

    def without_content(self) -> Snapshot:
        """What is left of it once it is written: its digests."""
        return Snapshot({}, self.meta, self.digests)

    @property
    def is_large(self) -> bool:
        """Whether its digests take long enough for a thread of their own."""
        return sum(tensor.n_bytes for tensor in self.tensors.values()) >= _LARGE


@contextmanager
def hashed_beside(frozen: Snapshot) -> Iterator[None]:
    """While a large snapshot is written, another thread makes its digests: both let others run."""
    if not frozen.is_large:
        yield
        return
    hashing = threading.Thread(target=getattr, args=(frozen, "digests"), daemon=True)
    hashing.start()
    try:
        yield
    finally:
        hashing.join()


def freeze(
    session: TrainingSession, state: State, recalibration: Sequence[Any], *, live: bool = False
) -> Snapshot:
    """Freeze a session at a batch boundary.

    Args:
        session: The live objects.
        state: Its state at the boundary, as live views.
        recalibration: Batches for BatchNorm recalibration; empty where there is no BatchNorm.
        live: Whether a large snapshot may be of live memory, for whoever writes it before training
            goes on.

    Raises:
        AuditError: As :func:`sections`.
    """
    found = sections(session, state, recalibration)
    require_whole(found)
    tensors, meta = pack(found, live=live)
    snapshot = Snapshot(tensors, meta)
    if live and not snapshot.is_large:
        snapshot = Snapshot(*pack(found))
    # Of a small one the texts as they are here are hashed sooner than made again.
    return snapshot if snapshot.is_large else replace(snapshot, known=commitments(found))


def sections(
    session: TrainingSession, state: State, recalibration: Sequence[Any]
) -> dict[str, Leaves]:
    """What a snapshot of a session holds, as live views.

    Args:
        session: As of :func:`freeze`.
        state: As of :func:`freeze`.
        recalibration: As of :func:`freeze`.

    Raises:
        UncapturedState: When plain attributes changed that no component holds, or the model of
            a program that is driven has another structure than when it was built.
        UnsupportedLoader: When the data position cannot be resumed exactly.
    """
    built = session.objects.built
    if built is not None and isinstance(session.driver, LoaderDriver | StepDriver):
        built.refuse_growth(session.objects.model)
    return {
        **state,
        **session.attributes(strict=True),
        **session.positions(),
        **sharding_leaves(session.sharding()),
        RECALIBRATION: flatten(list(recalibration), where=RECALIBRATION, data=True),
    }


def recalibration_batch(leaves: Leaves) -> Any:
    """A batch on which BatchNorm is recalibrated, made again from its items.

    Args:
        leaves: The batch as data.

    Raises:
        UncapturedState: When a class that it is of makes something else of them.
    """
    try:
        batch = unflatten(leaves)
        if not holds_objects(leaves):
            return batch
        if commitments({"": batch_leaves(batch)}) == commitments({"": leaves}):
            return batch
        found = "other items"
    except FormatError as error:
        found = error.message
    raise UncapturedState(
        "a batch cannot be made again from its items, as recalibration of BatchNorm needs it",
        where="batch",
        found=found,
        hint="let collate_fn return a dict or tuple of tensors",
    )
