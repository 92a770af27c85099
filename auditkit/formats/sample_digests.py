"""What the samples of a window looked like, a digest each, and whether they look the same again.

A control and an order branch draw the same samples (epoch, index) in another order. Under
per-sample augmentation each must have the same bytes in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from auditkit.errors import FormatError
from auditkit.formats.ordering import Batch
from auditkit.formats.run_files import Tensors, array_of
from auditkit.records.digest import ABSENT, EVIDENCE_BYTES
from auditkit.records.tensor import RawTensor

#: Digests of a batch's samples, in consumption order; zeros where one has no digest.
Digests = list[bytes]

_NAME = "samples"


def samples_to_tensors(batches: Sequence[Digests]) -> dict[str, RawTensor]:
    """Digests as a tensor ``samples``: uint8 (steps, longest batch, 16), padded with zeros."""
    longest = max(map(len, batches), default=0)
    data = b"".join(b"".join(batch) + ABSENT * (longest - len(batch)) for batch in batches)
    return {_NAME: RawTensor("uint8", (len(batches), longest, EVIDENCE_BYTES), data)}


def samples_from_tensors(tensors: Tensors, *, what: str) -> list[Digests]:
    """Inverse of :func:`samples_to_tensors`, padding included.

    Raises:
        FormatError: When it has another shape.
    """
    table = array_of(tensors, _NAME, "uint8", what=what)
    if table.ndim != 3 or table.shape[2] != EVIDENCE_BYTES or set(tensors) != {_NAME}:
        shape = f"{table.shape}, not (steps, batch, {EVIDENCE_BYTES})"
        raise FormatError(f"samples have shape {shape}", where=what)
    return [[cell.tobytes() for cell in row] for row in np.asarray(table)]


@dataclass(frozen=True)
class AugmentationDrift:
    """A sample that does not look like the control's.

    Attributes:
        epoch: Its epoch, from 0.
        index: Its index.
        offset: Steps from the window's first one to where it was consumed.
        in_control: Whether the control already has it in two looks.
    """

    epoch: int
    index: int
    offset: int
    in_control: bool = False

    def __str__(self) -> str:
        told = "has two looks" if self.in_control else "has other bytes than"
        return (
            f"augmentation drift: sample {self.index} of epoch {self.epoch} {told} in the control, "
            "so what it looks like follows from more than (seed, epoch, index)"
        )


@dataclass(frozen=True)
class Window:
    """The samples of one branch's window.

    Attributes:
        order: int64 ``(B, 2)`` of (epoch, index), a batch a step.
        samples: Their digests; a shorter list than the order where some have none.
    """

    order: Sequence[Batch]
    samples: Sequence[Digests]

    def measured(self) -> Iterator[tuple[tuple[int, int], bytes, int]]:
        """(epoch, index), digest and step of every sample that has a digest."""
        for offset, (batch, digests) in enumerate(zip(self.order, self.samples, strict=False)):
            for (epoch, index), digest in zip(batch.tolist(), digests, strict=False):
                if digest != ABSENT:
                    yield (epoch, index), digest, offset

    @property
    def n_unmeasured(self) -> int:
        """Samples that have no digest."""
        return sum(map(len, self.order)) - sum(1 for _ in self.measured())


def augmentation_drift(control: Window, branch: Window) -> AugmentationDrift | None:
    """The first sample of a branch whose bytes are not the control's; None where all are.

    A sample that only one of them has a digest of says nothing.
    """
    known: dict[tuple[int, int], bytes] = {}
    for sample, digest, offset in control.measured():
        if known.setdefault(sample, digest) != digest:
            return AugmentationDrift(*sample, offset, in_control=True)
    for sample, digest, offset in branch.measured():
        if known.get(sample, digest) != digest:
            return AugmentationDrift(*sample, offset)
    return None
