"""Forker: build the program afresh and put it into the state of a stored snapshot.

Every branch gets objects of its own, so that no branch can reach another: the factory is
called again, the data position is set, every component is overwritten, the random streams
last. Nothing is shared but the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auditkit.errors import RestoreMismatch
from auditkit.files import store
from auditkit.formats.sharding import read_sharding
from auditkit.formats.snapshot_file import LOADER, RECALIBRATION, SHARDING, recalibrated_on
from auditkit.observe.state.restoring import add_groups, restore
from auditkit.observe.values.codec import Leaves, unflatten, unpack
from auditkit.program.session import TrainingSession
from auditkit.records.sharding import Sharding
from auditkit.records.tensor import Tensor


@dataclass(frozen=True)
class Fork:
    """A snapshot read back.

    Attributes:
        state: Every component of the training state.
        loader: The data position.
        recalibration: Batches for BatchNorm recalibration; empty where the file has their indices.
        auxiliary: Data positions of further loaders by name.
        recalibration_indices: Name and content of the section that has these instead.
        sharding: Which tensors of the state are parts of sharded ones.
    """

    state: Mapping[str, Leaves]
    loader: Leaves
    recalibration: list[Any]
    auxiliary: Mapping[str, Leaves] = field(default_factory=dict)
    recalibration_indices: tuple[str, Leaves] | None = None
    sharding: Sharding = field(default_factory=dict)


def load_fork(path: Path, *, what: str = "fork") -> Fork:
    """Thaw a snapshot file, tensor by tensor: no more of it than that is in memory twice.

    Raises:
        StoreError: When it cannot be read.
        FormatError: As :func:`read_fork`.
        RestoreMismatch: As :func:`read_fork`.
    """
    with store.open_tensors(path, what=what) as content:
        return read_fork(*content)


def read_fork(tensors: Mapping[str, Tensor], meta: object) -> Fork:
    """Thaw a snapshot file's content into memory of its own.

    Raises:
        FormatError: When it is no snapshot.
        RestoreMismatch: When a section is missing.
    """
    sections = dict(unpack(tensors, meta))
    by_index = next(filter(recalibrated_on, sections), None)
    indices = None if by_index is None else (by_index, sections.pop(by_index))
    try:
        loader = sections.pop(LOADER)
        recalibration = None if indices else sections.pop(RECALIBRATION)
    except KeyError as missing:
        raise RestoreMismatch("the snapshot has no such section", component=str(missing)) from None
    sharding = read_sharding(sections.pop(SHARDING, None))
    prefix = f"{LOADER}/"
    auxiliary = {name: sections.pop(name) for name in list(sections) if name.startswith(prefix)}
    return Fork(
        sections,
        loader,
        [] if recalibration is None else list(unflatten(recalibration)),
        {name.removeprefix(prefix): leaves for name, leaves in auxiliary.items()},
        indices,
        sharding,
    )


def restore_fork(session: TrainingSession, fork: Fork) -> None:
    """Put a freshly built session into the fork's state.

    Raises:
        RestoreMismatch: When the snapshot is of another program.
    """
    session.driver.restore(fork.loader)
    add_groups(session.objects, fork.state)
    restore(session.objects, fork.state)
