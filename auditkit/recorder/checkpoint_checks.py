"""Whether a checkpoint that a recording goes on from is what was recorded, and its batches are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from auditkit.errors import RestoreMismatch
from auditkit.formats.packed_batch import Drawn, as_pairs
from auditkit.formats.recipes import order_digest
from auditkit.formats.snapshot_file import raw_components
from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import digest_leaves
from auditkit.observe.values.flatten import batch_leaves
from auditkit.recorder.written_checkpoints import require, require_names, require_sections
from auditkit.records.digest import COMMITMENT_RECIPE, EVIDENCE_RECIPE
from auditkit.records.evidence import Trace
from auditkit.records.recording import CheckpointRecord
from auditkit.records.tensor import FileTensor
from auditkit.study.stages.forker import Fork, load_fork

#: Bytes of a checkpoint that are hashed sooner than anybody waits for them.
_HASHED_AT_ONCE = 2**26


class OrderCheck:
    """Compares batches that are loaded again with the rows that were recorded.

    Args:
        trace: The rows.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __call__(self, step: int, order: Drawn | None, batch: Any) -> None:
        """Refuse a batch that is not the recorded one.

        Raises:
            RestoreMismatch: Naming the step.
        """
        if not self._trace.first_step <= step <= self._trace.last_step:
            return
        if order is None:
            found = digest_leaves(EVIDENCE_RECIPE, batch_leaves(batch))
        else:
            found = order_digest(EVIDENCE_RECIPE, as_pairs(order))
        if found != self._trace.cell(step, "order"):
            raise RestoreMismatch(
                "the loader yields other samples than were recorded",
                step=step,
                component="order",
                hint="go on with the same data, batch size and sampler; what a sampler or data "
                "set keeps must be registered (extras=)",
            )


def open_checkpoint(path: Path, checkpoint: CheckpointRecord, *, at_once: bool) -> Fork:
    """Open a checkpoint to go on from; every byte that is restored from it is checked.

    A component is checked where it was written, so that what is trained with is what was recorded,
    whatever becomes of the file meanwhile. Of a file that is not large this is known before
    anything is written, too; a large one would be hashed twice for that. So restoring may raise
    when a part of the state is written: whoever restores must not train with it then.

    Args:
        path: The file.
        checkpoint: What was recorded of it.
        at_once: Whether to know in any case before anything is written.

    Raises:
        RestoreMismatch: When it is not what was written, naming the first section that differs.
        StoreError: When it cannot be read.
        FormatError: When it is no snapshot.
    """

    def check(name: str, leaves: Leaves) -> None:
        require(checkpoint, name, digest_leaves(COMMITMENT_RECIPE, leaves).hex())

    def look(tensors: Mapping[str, FileTensor], meta: object) -> None:
        if at_once or sum(tensor.n_bytes for tensor in tensors.values()) <= _HASHED_AT_ONCE:
            require_sections(checkpoint, tensors, meta)
        else:
            require_names(checkpoint, raw_components(tensors, meta))

    return load_fork(path, what=checkpoint.file, look=look, check=check)
