"""A tensor as bytes: what files hold and digests run over, without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RawTensor:
    """A named tensor's content.

    Attributes:
        dtype: torch's name without the prefix: ``float32``, ``bfloat16``, ``bool``,
            ``complex128`` ...
        shape: Sizes; ``()`` for a scalar.
        data: The elements in row-major order, little-endian, contiguous.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview

    @property
    def n_bytes(self) -> int:
        """Length of the data in bytes."""
        return memoryview(self.data).nbytes
