"""A tensor as bytes: what files hold and digests run over, without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self

#: Bytes of a tensor in a file that are in memory at a time.
PIECE_BYTES = 2**20


class Tensor(Protocol):
    """What a digest needs of a tensor, wherever its elements are."""

    @property
    def dtype(self) -> str:
        """Torch's name without the prefix."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes."""

    @property
    def n_bytes(self) -> int:
        """Length of the data in bytes."""

    def pieces(self) -> Iterator[bytes | bytearray | memoryview]:
        """The data, in order."""

    def fill(self, memory: memoryview) -> None:
        """Write the data into memory of their length."""

    def recast(self, dtype: str, shape: tuple[int, ...]) -> Self:
        """The same data under another dtype and shape."""


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

    def pieces(self) -> Iterator[memoryview]:
        """The data in one piece; none where it is empty."""
        if self.n_bytes:  # memoryview cannot cast a shape with a zero in it
            yield memoryview(self.data).cast("B")

    def fill(self, memory: memoryview) -> None:
        """Copy the data."""
        for piece in self.pieces():
            memory[:] = piece

    def recast(self, dtype: str, shape: tuple[int, ...]) -> RawTensor:
        """The same data under another dtype and shape."""
        return replace(self, dtype=dtype, shape=shape)


@dataclass(frozen=True)
class FileTensor:
    """A tensor that stays in its file until it is read, piece by piece.

    Attributes:
        dtype: As of :class:`RawTensor`.
        shape: As of :class:`RawTensor`.
        n_bytes: Length of the data in bytes.
        start: Where the data start in the file.
        read: Reads from the file: at a place, so many bytes.
        read_into: Fills memory from the file: at a place; None where all goes through ``read``.
    """

    dtype: str
    shape: tuple[int, ...]
    n_bytes: int
    start: int
    read: Callable[[int, int], bytes | memoryview]
    read_into: Callable[[int, memoryview], None] | None = None

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The data, read now; raises what ``read`` raises."""
        for done in range(0, self.n_bytes, PIECE_BYTES):
            yield self.read(self.start + done, min(PIECE_BYTES, self.n_bytes - done))

    def fill(self, memory: memoryview) -> None:
        """Read the data into memory of their length; raises as :meth:`pieces`."""
        if self.read_into is not None:
            for done in range(0, self.n_bytes, PIECE_BYTES):
                self.read_into(self.start + done, memory[done : done + PIECE_BYTES])
            return
        done = 0
        for piece in self.pieces():
            memory[done : done + len(piece)] = piece
            done += len(piece)

    def recast(self, dtype: str, shape: tuple[int, ...]) -> FileTensor:
        """The same data under another dtype and shape."""
        return replace(self, dtype=dtype, shape=shape)


@dataclass(frozen=True)
class FileColumn:
    """The bytes of a tensor that stays in its file, read where and when they are asked for.

    Attributes:
        tensor: The tensor.
    """

    tensor: FileTensor

    def __len__(self) -> int:
        """Length in bytes."""
        return self.tensor.n_bytes

    def __getitem__(self, part: slice, /) -> bytes:
        """A part without gaps, read now; raises what the tensor's ``read`` raises."""
        begin, end, _ = part.indices(self.tensor.n_bytes)
        return bytes(self.tensor.read(self.tensor.start + begin, max(end - begin, 0)))
