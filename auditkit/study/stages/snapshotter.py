"""Snapshotter: freeze the whole state at t0 into tensors and one JSON value.

The snapshot holds every component of the training state, the data position (section
``loader``) and the fixed batches on which BatchNorm is recalibrated (section
``recalibration``). Whatever influences training and is in none of them is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from auditkit.errors import FormatError, UncapturedState
from auditkit.formats.snapshot_file import RECALIBRATION
from auditkit.observe.loader.consumption import StepDriver
from auditkit.observe.loader.driver import LoaderDriver
from auditkit.observe.state.components import State
from auditkit.observe.values.classes import holds_objects
from auditkit.observe.values.codec import Leaves, flatten, pack, unflatten
from auditkit.observe.values.digests import commitments
from auditkit.observe.values.flatten import batch_leaves
from auditkit.program.session import TrainingSession
from auditkit.records.tensor import RawTensor


@dataclass(frozen=True)
class Snapshot:
    """A frozen state, in memory of its own.

    Attributes:
        tensors: By key of the snapshot file.
        meta: The file's JSON value.
        digests: ``sha256/tensor-v1`` of every section.
    """

    tensors: dict[str, RawTensor]
    meta: dict[str, object]
    digests: dict[str, str]


def freeze(session: TrainingSession, state: State, recalibration: Sequence[Any]) -> Snapshot:
    """Freeze a session at a batch boundary.

    Args:
        session: The live objects.
        state: Its state at the boundary, as live views.
        recalibration: Batches for BatchNorm recalibration; empty where there is no BatchNorm.

    Raises:
        AuditError: As :func:`sections`.
    """
    found = sections(session, state, recalibration)
    tensors, meta = pack(found)
    return Snapshot(tensors, meta, commitments(found))


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
