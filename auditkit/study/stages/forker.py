"""Forker: build the program afresh and put it into the state of a stored snapshot.

Every branch gets objects of its own, so that no branch can reach another: the factory is
called again, the data position is set, every component is overwritten, the random streams
last. Nothing is shared but the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from auditkit.errors import RestoreMismatch
from auditkit.files import store
from auditkit.formats.sharding import read_sharding
from auditkit.formats.snapshot_file import LOADER, RECALIBRATION, SHARDING, recalibrated_on
from auditkit.observe.state.restoring import add_groups, restore
from auditkit.observe.values.codec import Leaves, unflatten, unpack, unpack_in_place
from auditkit.observe.values.stored import Check, Saved, loaded
from auditkit.program.session import TrainingSession
from auditkit.records.sharding import Sharding
from auditkit.records.tensor import FileTensor, Tensor


@dataclass(frozen=True)
class Fork:
    """A snapshot read back.

    Attributes:
        state: Every component of the training state; of those in a file the tensors are read when
            they are restored, which can be done once.
        loader: The data position.
        recalibration: Batches for BatchNorm recalibration; empty where the file has their indices.
        auxiliary: Data positions of further loaders by name.
        recalibration_indices: Name and content of the section that has these instead.
        sharding: Which tensors of the state are parts of sharded ones.
        close: Lets go of the file.
    """

    state: Mapping[str, Saved]
    loader: Leaves
    recalibration: list[Any]
    auxiliary: Mapping[str, Leaves] = field(default_factory=dict)
    recalibration_indices: tuple[str, Leaves] | None = None
    sharding: Sharding = field(default_factory=dict)
    close: Callable[[], None] = lambda: None


#: Looks at a snapshot's tensors and metadata before anything is made of them.
Look: TypeAlias = Callable[[Mapping[str, FileTensor], object], None]


def load_fork(
    path: Path, *, what: str = "fork", look: Look | None = None, check: Check | None = None
) -> Fork:
    """Open a snapshot file, to be restored from tensor by tensor: no more is in memory twice.

    Args:
        path: The file.
        what: What it is, for error messages.
        look: Called with what the file holds: of the very file, header and names that the fork is
            of, whatever becomes of the path meanwhile.
        check: Judges each component, see :func:`auditkit.observe.values.codec.unpack_in_place`.

    Raises:
        StoreError: When it cannot be read; restoring raises it, too.
        FormatError: As :func:`read_fork`.
        RestoreMismatch: As :func:`read_fork`.
        AuditError: What ``look`` and ``check`` raise; restoring raises the latter's, too.
    """
    with ExitStack() as stack:
        content = stack.enter_context(store.open_tensors(path, what=what))
        if look is not None:
            look(*content)
        fork = _fork_of(unpack_in_place(*content, check))
        return replace(fork, close=stack.pop_all().close)


@contextmanager
def closed_on_error(fork: Fork) -> Iterator[Fork]:
    """Let go of a fork's file where it does not come to a restoration."""
    try:
        yield fork
    except BaseException:
        fork.close()
        raise


def read_fork(tensors: Mapping[str, Tensor], meta: object) -> Fork:
    """Thaw a snapshot file's content into memory of its own.

    Raises:
        FormatError: When it is no snapshot.
        RestoreMismatch: When a section is missing.
    """
    return _fork_of(unpack(tensors, meta))


def _fork_of(saved: Mapping[str, Saved]) -> Fork:
    sections = dict(saved)
    by_index = next(filter(recalibrated_on, sections), None)
    indices = None if by_index is None else (by_index, loaded(sections.pop(by_index)))
    try:
        loader = loaded(sections.pop(LOADER))
        recalibration = None if indices else loaded(sections.pop(RECALIBRATION))
    except KeyError as missing:
        raise RestoreMismatch("the snapshot has no such section", component=str(missing)) from None
    parts = sections.pop(SHARDING, None)
    sharding = read_sharding(None if parts is None else loaded(parts))
    prefix = f"{LOADER}/"
    auxiliary = {name: sections.pop(name) for name in list(sections) if name.startswith(prefix)}
    return Fork(
        sections,
        loader,
        [] if recalibration is None else list(unflatten(recalibration)),
        {name.removeprefix(prefix): loaded(leaves) for name, leaves in auxiliary.items()},
        indices,
        sharding,
    )


def restore_fork(session: TrainingSession, fork: Fork) -> None:
    """Put a freshly built session into the fork's state.

    Raises:
        RestoreMismatch: When the snapshot is of another program.
    """
    try:
        session.driver.restore(fork.loader)
        add_groups(session.objects, fork.state)
        restore(session.objects, fork.state)
    finally:
        fork.close()
