"""A replay memory whose evidence takes the time of what was written."""

from __future__ import annotations

import operator
from array import array as array_of_numbers
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auditkit.errors import RestoreMismatch, UncapturedState, UsageError
from auditkit.formats.recipes import RING_KEY
from auditkit.observe.values.ring_leaves import RingLeaves
from auditkit.observe.values.summed import SummedLeaves
from auditkit.observe.values.tensors import DTYPE_NAMES

Array = NDArray[Any] | Tensor


class RingBuffer:
    """A replay memory as an extra of a program or a recorder.

    ::

        memory = ak.extras.RingBuffer.zeros(
            200_000, obs=((4,), "float32"), action=((), "int64"), reward=((), "float32"))
        memory.add(obs=obs, action=action, reward=reward)
        batch = memory["obs"][rng.integers(len(memory), size=64)]
        ak.Program(..., extras={"memory": memory})

    A step's evidence of it takes the time of what was written, and not of what it holds. Arrays
    that another class writes are given to it as they are, and it is told of each write:
    ``memory = RingBuffer({"obs": buffer.observations, ...})``, then ``memory.wrote(row)``. At
    every fork, snapshot and end all is digested, and a write that it was not told of is an error
    with its rows.

    Args:
        arrays: Arrays of numpy, or tensors, of (capacity, ...) in the host's memory, by name.

    Attributes:
        arrays: Those, by name.
        capacity: How many rows they have.
        position: The row that :meth:`add` writes next.

    Raises:
        UncapturedState: An array that is no plain memory.
        UsageError: No array, or of other numbers of rows.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        if not hasattr(arrays, "items"):
            raise UsageError(
                "a ring buffer's arrays are given by name", found=type(arrays).__name__
            )
        found = {_name(name): _tensor(name, array) for name, array in arrays.items()}
        counts = {len(tensor) for tensor in found.values()}
        if len(counts) != 1 or not max(counts):
            raise UsageError(
                "a ring buffer is made of arrays of as many rows each",
                expected="one array at least, of one row at least",
                found=", ".join(f"{name} {tuple(one.shape)}" for name, one in found.items())
                or "none",
            )
        self.arrays: Mapping[str, Any] = MappingProxyType(dict(arrays))
        self.capacity = counts.pop()
        self._counts = array_of_numbers("q", (0, 0))
        here = torch.frombuffer(self._counts, dtype=torch.int64)  # the same memory
        self._position, self._filled = here[:1], here[1:]
        self._tensors = found
        self._leaves = RingLeaves(RingBuffer.state_dict(self), self.capacity)

    @classmethod
    def zeros(cls, capacity: int, **fields: tuple[Sequence[int], Any]) -> RingBuffer:
        """A new memory.

        Args:
            capacity: How many rows it has.
            **fields: Of each array the shape of a row and the dtype: a name or one of numpy's for
                an array, one of torch's for a tensor.

        Raises:
            UsageError: On what is no capacity, shape or dtype.
        """
        try:
            arrays: dict[str, Array] = {
                name: torch.zeros((capacity, *shape), dtype=dtype, device="cpu")
                if isinstance(dtype, torch.dtype)
                else np.zeros((capacity, *shape), dtype)
                for name, (shape, dtype) in fields.items()
            }
        except (TypeError, ValueError, RuntimeError, MemoryError) as error:
            raise UsageError(
                f"no ring buffer can be made: {error}",
                expected="a number of rows, and NAME=(shape of a row, dtype)",
            ) from None
        return cls(arrays)

    @property
    def position(self) -> int:
        """The row that :meth:`add` writes next."""
        return self._counts[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (dict(self.arrays), self.position, len(self))

    def __len__(self) -> int:
        return self._counts[1]

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name]

    def add(self, **row: Any) -> None:
        """Write one row, and go on to the next; after the last one comes the first.

        Args:
            **row: A value for every array.

        Raises:
            UsageError: When the values are not those of a row.
        """
        here = self.position
        self._leaves.mark(here, here + 1)
        self._write(here, row)
        self._advance(1)

    def extend(self, **rows: Any) -> None:
        """Write several rows, the oldest first.

        Args:
            **rows: For every array as many values.

        Raises:
            UsageError: When they are not, or are more than the memory has rows.
        """
        counts = {name: len(v) if hasattr(v, "__len__") else -1 for name, v in rows.items()}
        count = max(counts.values(), default=0)
        if len(set(counts.values())) > 1 or not 0 <= count <= self.capacity:
            told = (f"{name} {one if one >= 0 else 'no length'}" for name, one in counts.items())
            raise UsageError(
                "as many values are wanted for each array, and no more than there are rows",
                expected=f"0 to {self.capacity}",
                found=", ".join(told),
            )
        here = self.position
        before_end = min(count, self.capacity - here)
        for start, first, last in ((here, 0, before_end), (0, before_end, count)):
            stop = start + last - first
            self._leaves.mark(start, stop)
            part = {name: values[first:last] for name, values in rows.items()}
            self._write(slice(start, stop), part)
        self._advance(count)

    def wrote(self, rows: int | slice | Sequence[int] | Array | None = None) -> None:
        """Say that rows of the arrays were written by somebody else.

        Args:
            rows: A row, a slice or several rows; all by default.

        Raises:
            UsageError: When there are no such rows.
        """
        if rows is None:
            rows = slice(None)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.capacity)
            low, high = (start, stop) if step > 0 else (stop + 1, start + 1)
            self._leaves.mark(low, max(low, high))
            return
        try:
            given = list(rows) if isinstance(rows, (Sequence, np.ndarray, Tensor)) else [rows]
            numbers = [operator.index(row) for row in given]
        except TypeError:
            raise UsageError("rows are whole numbers or a slice", found=repr(rows)[:80]) from None
        for row in numbers:
            if not -self.capacity <= row < self.capacity:
                raise UsageError(f"the ring buffer has no row {row}", expected=f"{self.capacity}")
            self._leaves.mark(row % self.capacity, row % self.capacity + 1)

    @property
    def leaves(self) -> SummedLeaves:
        """What it holds, live."""
        return self._leaves

    @property
    def is_whole(self) -> bool:
        """Whether that is its state: a subclass's own ``state_dict`` may say more."""
        return type(self).state_dict is RingBuffer.state_dict

    def state_dict(self) -> dict[str, Any]:
        """What it holds, live."""
        counts = {"position": self._position, "filled": self._filled}
        return {RING_KEY: {**counts, "arrays": dict(self._tensors)}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Put back what it held.

        Raises:
            RestoreMismatch: When that was a memory of other arrays.
        """
        if not isinstance(state_dict, Mapping) or RING_KEY not in state_dict:
            raise RestoreMismatch("this is no state of a ring buffer", expected=RING_KEY)
        saved = state_dict[RING_KEY]
        there = {name: (tuple(one.shape), one.dtype) for name, one in saved["arrays"].items()}
        here = {name: (tuple(one.shape), one.dtype) for name, one in self._tensors.items()}
        if there != here:
            raise RestoreMismatch("the ring buffer has other arrays", expected=there, found=here)
        position, filled = int(saved["position"]), int(saved["filled"])
        if not (0 <= position < self.capacity and 0 <= filled <= self.capacity):
            raise RestoreMismatch(
                "the ring buffer cannot stand there",
                expected=f"one of {self.capacity} rows",
                found=f"row {position}, of {filled} that are filled",
            )
        with torch.no_grad():
            self._position.copy_(saved["position"])
            self._filled.copy_(saved["filled"])
            for name, tensor in self._tensors.items():
                tensor.copy_(saved["arrays"][name])
        self.wrote()

    def _write(self, place: int | slice, values: Mapping[str, Any]) -> None:
        if values.keys() != self.arrays.keys():
            raise UsageError(
                "a row has one value for every array",
                expected=", ".join(self.arrays),
                found=", ".join(values),
            )
        for name, value in values.items():
            array = self.arrays[name]
            try:
                array[place] = _plain(value, as_tensor=isinstance(array, Tensor))
            except (TypeError, ValueError, RuntimeError) as error:
                raise UsageError(f"{name} cannot be written: {error}") from None

    def _advance(self, count: int) -> None:
        counts = self._counts
        counts[0] = (counts[0] + count) % self.capacity
        counts[1] = min(counts[1] + count, self.capacity)


def _plain(value: Any, *, as_tensor: bool) -> Any:
    """A value that can be written into an array of numpy, or into a tensor."""
    if not isinstance(value, Tensor):
        return torch.as_tensor(value) if as_tensor else value
    if value.requires_grad:
        value = value.detach()
    return value if value.is_cpu else value.cpu()


def _again(arrays: Mapping[str, Array], position: int, count: int) -> RingBuffer:
    """A copy, of arrays that were copied."""
    made = RingBuffer(arrays)
    made._counts[0], made._counts[1] = position, count
    return made


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise UsageError("an array's name is text", found=repr(name)[:80])
    return name


def _tensor(name: str, array: Any) -> Tensor:
    """An array as a tensor of the same memory."""
    if isinstance(array, np.ndarray):
        if not array.flags.writeable:
            raise UncapturedState("an array that cannot be written is no memory", where=name)
        try:
            tensor = torch.from_numpy(array)
        except (TypeError, ValueError) as error:
            raise UncapturedState(
                f"an array that is no plain memory: {error}", where=name
            ) from None
    elif type(array) is Tensor:
        tensor = array
    else:
        raise UncapturedState(
            f"a {type(array).__name__} is no array of numpy and no tensor", where=name
        )
    is_plain = tensor.layout is torch.strided and tensor.dtype in DTYPE_NAMES
    if not is_plain or not tensor.is_cpu or tensor.is_conj() or tensor.is_neg():
        raise UncapturedState("a ring buffer lies in the host's memory, densely", where=name)
    if not tensor.ndim or not tensor.is_contiguous() or tensor.requires_grad:
        raise UncapturedState(
            "an array of a ring buffer is contiguous, has rows and is not trained", where=name
        )
    return tensor
