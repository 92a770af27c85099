"""The files that a job reads and writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from auditkit.errors import RestoreMismatch
from auditkit.files import store
from auditkit.formats.ordering import Batch, order_sha256
from auditkit.formats.run_files import OrderFile, order_from_tensors
from auditkit.records.job import Job


class JobFiles:
    """Names and writes the files of a job."""

    def __init__(self, job: Job) -> None:
        self._folder = Path(job.out)
        self._suffix = job.suffix

    def name(self, stem: str) -> str:
        """Name below the manifest's folder."""
        return f"{self._folder.name}/{stem}.safetensors"

    def tensors(self, stem: str, tensors: dict[str, Any], meta: object = None) -> None:
        """Write one file whole."""
        path = self._folder / f"{stem}.safetensors{self._suffix}"
        store.write_tensors(path, tensors, meta)


def read_order(job: Job) -> OrderFile:
    """The control's order, which a branches job is given.

    Raises:
        RestoreMismatch: When it ends before the horizon.
    """
    tensors, _ = store.read_tensors(Path(job.order or ""), what="order")
    order = order_from_tensors(tensors, what="order")
    if len(order.batches) < (job.plan.horizon if job.plan else 0):
        raise RestoreMismatch(
            f"the order file ends at step {len(order.batches)}", component="order"
        )
    return order


def order_digest_of(batches: list[Batch], content: bytes | None, skip: int) -> str:
    """Commitment to an order.

    Args:
        batches: int64 ``(B, 2)`` a step.
        content: For an iterable dataset, a 16-byte digest a step, which is committed to instead.
        skip: Digests of ``content`` to leave out at its start.
    """
    if content is None:
        return order_sha256(batches)
    cells = np.frombuffer(content, dtype="<i8").reshape(-1, 1, 2)[skip:]
    return order_sha256(list(cells))
