"""How far the chains of a recording are while it runs: what its journal does not say yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from auditkit.errors import FormatError
from auditkit.formats.run_files import Tensors, array_of
from auditkit.records.tensor import RawTensor


@dataclass(frozen=True)
class ChainHeads:
    """The chains over what a loop consumed, after a step.

    Attributes:
        step: The step; every one up to it is over.
        epochs: How often the training loader was iterated by then.
        order: SHA-256 of the chain over the order, hexadecimal.
        consumed: The same over the batches.
    """

    step: int
    epochs: int
    order: str
    consumed: str

    def to_tensors(self) -> dict[str, RawTensor]:
        """As tensors."""
        at = np.array([self.step, self.epochs], "<i8")
        heads = bytes.fromhex(self.order + self.consumed)
        return {
            "at": RawTensor("int64", (2,), at.tobytes()),
            "heads": RawTensor("uint8", (64,), heads),
        }

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> ChainHeads:
        """Inverse of :meth:`to_tensors`.

        Raises:
            FormatError: When something else is there.
        """
        at = array_of(tensors, "at", "int64", what="heads")
        heads = array_of(tensors, "heads", "uint8", what="heads")
        if (at.shape, heads.shape) != ((2,), (64,)):
            raise FormatError("these are no heads of two chains", where="heads")
        text = heads.tobytes().hex()
        return cls(int(at[0]), int(at[1]), text[:64], text[64:])
