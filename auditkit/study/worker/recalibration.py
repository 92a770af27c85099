"""Batches for recalibrating BatchNorm: kept as indices where they can be loaded again.

They are the control's first batches, and were most of a fork. A map-style data set under per-sample
streams gives a sample again for its (epoch, index): then the fork holds these, under a name that
commits to the batches, and every branch loads them before it is restored. Whether it can is tried
when the control has ended, where nothing that trains is touched any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from auditkit.errors import AuditError, RestoreMismatch
from auditkit.formats.ordering import Batch, from_table, to_table
from auditkit.formats.snapshot_file import RECALIBRATION, recalibrated_on
from auditkit.observe.loader.driver import LoaderDriver
from auditkit.observe.rng.streams import capture_streams
from auditkit.observe.values.codec import Leaves, flatten, pack, unflatten
from auditkit.observe.values.digests import commitments
from auditkit.observe.values.flatten import batch_leaves
from auditkit.program.session import Session
from auditkit.study.stages.forker import Fork
from auditkit.study.stages.snapshotter import Snapshot, recalibration_batch
from auditkit.study.worker.callbacks import TrunkCallback

_TABLE = "indices"

#: No training has so many epochs; larger numbers do not fit a sampler's.
_EPOCHS = 2**31

#: Bytes of batches in a fork that are worth a note.
_LARGE = 2**26


def can_load_again(session: Session) -> bool:
    """Whether the loader is of a kind that gives a batch again for its indices."""
    driver = session.driver
    return isinstance(driver, LoaderDriver) and driver.loads_by_index


def compact(session: Session, callback: TrunkCallback) -> Snapshot:
    """The snapshot with indices in place of batches, where these give the batches again.

    Args:
        session: At the horizon; what its data set holds may change here.
        callback: Of the trunk.
    """
    snapshot, batches = callback.snapshot, callback.recalibration
    if not batches or not can_load_again(session):
        return snapshot
    order = callback.order[: len(batches)]
    try:
        found = _commitment(_loaded(session, order))
    except Exception:  # whatever the data set raises: then the batches themselves are kept
        return snapshot
    if found != snapshot.digests[RECALIBRATION]:
        return snapshot
    name = f"{RECALIBRATION}/{found}"
    section = {name: flatten({_TABLE: to_table(order)}, where=RECALIBRATION)}
    tensors, meta = pack(section)
    components: Any = snapshot.meta["components"]
    kept = {key: tensor for key, tensor in snapshot.tensors.items() if not _is_of_batches(key)}
    others = {key: value for key, value in components.items() if key != RECALIBRATION}
    added: Any = meta["components"]
    digests = {key: value for key, value in snapshot.digests.items() if key != RECALIBRATION}
    return Snapshot(
        tensors=kept | tensors,
        meta={**snapshot.meta, "components": dict(sorted({**others, **added}.items()))},
        known={**digests, **commitments(section)},
    )


def kept_bytes(session: Session, snapshot: Snapshot) -> int:
    """Size of what a fork will hold, with indices where the loader is of that kind."""
    without = can_load_again(session)
    return sum(
        tensor.n_bytes
        for key, tensor in snapshot.tensors.items()
        if not (without and _is_of_batches(key))
    )


def notes(callback: TrunkCallback, snapshot: Snapshot) -> tuple[str, ...]:
    """What a fork that holds the batches themselves has to say."""
    whole = [tensor for key, tensor in snapshot.tensors.items() if _is_of_batches(key)]
    n_bytes, batches = sum(tensor.n_bytes for tensor in whole), len(callback.recalibration)
    if callback.is_full:
        return (
            f"BatchNorm is recalibrated on {batches} batches only: they are kept whole in every "
            f"fork ({n_bytes / 1e6:,.0f} MB), since no indices give them again",
        )
    if n_bytes < _LARGE:
        return ()
    return (
        f"{n_bytes / 1e6:,.0f} MB of every fork are batches to recalibrate BatchNorm on: a "
        "map-style data set under per-sample augmentation that gives a sample again for its index "
        "needs none of it",
    )


def _is_of_batches(key: str) -> bool:
    return key.startswith(f"{RECALIBRATION}/")


def with_batches(session: Session, fork: Fork) -> Fork:
    """A fork whose recalibration batches are there, loaded again where it holds indices.

    Args:
        session: Before it is restored, which undoes what loading does to its data set.
        fork: As it was read.

    Raises:
        RestoreMismatch: When other batches come of the indices.
    """
    if fork.recalibration_indices is None:
        return fork
    name, leaves = fork.recalibration_indices
    order = _order(session, leaves)
    batches = _loaded(session, order)
    found = _commitment(batches)
    if found != recalibrated_on(name):
        raise RestoreMismatch(
            "the batches that BatchNorm is recalibrated on are not the control's when they are "
            "loaded again",
            component=RECALIBRATION,
            expected=recalibrated_on(name),
            found=found,
            hint="what a sample looks like must follow from (seed, epoch, index)",
        )
    return replace(fork, recalibration=batches)


def _order(session: Session, leaves: Leaves) -> list[Batch]:
    """The indices that a fork holds.

    Raises:
        RestoreMismatch: When they are none, or none of the data set's.
    """
    tree: Any = unflatten(leaves)
    table = np.asarray(tree.get(_TABLE) if isinstance(tree, Mapping) else None)
    if table.ndim != 3 or table.shape[2] != 2 or table.dtype != np.int64:
        raise RestoreMismatch(
            "the fork's recalibration batches are no table of indices",
            component=RECALIBRATION,
            expected="int64 (batches, longest batch, 2)",
            found=f"{table.dtype} {table.shape}",
        )
    order = from_table(table)
    dataset = session.program.data_loader.dataset
    length = len(dataset) if hasattr(dataset, "__len__") else None
    for number, batch in enumerate(order):
        for epoch, index in batch.tolist():
            if not (0 <= epoch < _EPOCHS and 0 <= index < (length or index + 1)):
                raise RestoreMismatch(
                    f"recalibration batch {number} names sample {index} of epoch {epoch}, "
                    "which the data set has not",
                    component=RECALIBRATION,
                    expected="a sample" if length is None else f"0 .. {length - 1}",
                )
    return order


def _loaded(session: Session, order: list[Batch]) -> list[Any]:
    driver, streams = session.driver, capture_streams()
    if not isinstance(driver, LoaderDriver) or not driver.loads_by_index:
        raise RestoreMismatch("the loader gives no batch for its indices", component=RECALIBRATION)
    try:
        batches = driver.load(order)
        supplied = (session.supply(step, batch) for step, batch in enumerate(batches, start=1))
        return [recalibration_batch(batch_leaves(batch)) for batch in supplied]
    except AuditError:
        raise
    except Exception as error:  # the data set's own
        raise RestoreMismatch(
            "the batches that BatchNorm is recalibrated on cannot be loaded again: "
            f"{type(error).__name__}: {error}",
            component=RECALIBRATION,
        ) from error
    finally:
        streams.restore()


def _commitment(batches: list[Any]) -> str:
    leaves = flatten(batches, where=RECALIBRATION, data=True)
    return commitments({RECALIBRATION: leaves})[RECALIBRATION]
