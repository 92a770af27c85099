"""Whether a checkpoint that a recording goes on from is what was recorded, and its batches are."""

from __future__ import annotations

from typing import Any

from auditkit.errors import RestoreMismatch
from auditkit.formats.packed_batch import Drawn, as_pairs
from auditkit.formats.recipes import order_digest
from auditkit.observe.values.digests import commitments, digest_leaves
from auditkit.observe.values.flatten import batch_leaves
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.evidence import Trace
from auditkit.records.recording import CheckpointRecord
from auditkit.study.stages.forker import Fork


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


def check_digests(fork: Fork, checkpoint: CheckpointRecord) -> None:
    """Refuse a checkpoint that is not the one that was written.

    Raises:
        RestoreMismatch: Naming its first section that is another.
    """
    for name, sha256 in commitments({**fork.state, "loader": fork.loader}).items():
        if checkpoint.digests.get(name) != sha256:
            raise RestoreMismatch(
                "the checkpoint is not what was written", where=checkpoint.file, component=name
            )
