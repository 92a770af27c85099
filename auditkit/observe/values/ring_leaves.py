"""A ring buffer's digest, made of what was written since the last one.

By the recipe ``int64-mix/1`` the digest of an array is made of sums over its rows of 512 bytes.
They are kept, and of a write only those that it fell into are made anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Final, TypeAlias

import numpy as np
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from auditkit.errors import UncapturedState
from auditkit.formats.recipes import RING_KEY, frame, json_frame
from auditkit.formats.word_mix import COLUMNS, ROW_BYTES, Mixer, Words, multipliers
from auditkit.observe.values.flatten import flatten
from auditkit.observe.values.summed import SummedLeaves
from auditkit.observe.values.tensors import DTYPE_NAMES, memory_view

#: Rows of 512 bytes that are mixed at a time.
_AT_ONCE: Final = 256

#: Writes that are kept apart until the next digest; from so many on everything is looked at.
_MOST_WRITES: Final = 4096

#: An array's number, and which of its rows of 512 bytes.
_Part: TypeAlias = tuple[int, int, int]


class RingLeaves(SummedLeaves):
    """The leaves of a ring buffer, with the sums of their rows of 512 bytes.

    Args:
        tree: What the memory says of itself.
        capacity: How many rows its arrays have.
    """

    def __init__(self, tree: dict[str, Any], capacity: int) -> None:
        super().__init__(flatten(tree, where="ring buffer"))
        self._capacity = capacity
        self._pieces: list[bytes] = []
        self._places: list[int] = []  # of the sums among the pieces
        self._arrays: list[_Array] = []
        n_rows = 0
        for name in sorted(self):
            leaf = self[name]
            if isinstance(leaf, bytes):
                self._pieces += (json_frame(name, len(leaf)), leaf)
                continue
            self._pieces.append(frame(name, DTYPE_NAMES[leaf.dtype], leaf.shape, leaf.nbytes))
            if leaf.nbytes:
                self._places.append(len(self._pieces))
                self._pieces.append(b"")
                self._arrays.append(_Array(name, leaf, n_rows))
                n_rows += self._arrays[-1].n_rows
        self._tensors = [array.tensor for array in self._arrays]
        self._addresses = [array.address for array in self._arrays]
        self._factors = multipliers(0, max(array.n_rows for array in self._arrays))
        self._rows = np.zeros((2, n_rows), np.uint64)
        self._totals = np.zeros((len(self._arrays), 2), np.uint64)
        #: Of the last write, if it fell into one row of each array: the next one mostly does, too.
        self._last: _Mixed | None = None
        self._written: list[tuple[int, int]] = []
        self._digest = b""
        self.mark(0, capacity)

    def mark(self, start: int, stop: int) -> None:
        """Rows ``start`` .. ``stop - 1`` of the arrays, and where the memory stands, are others."""
        written = self._written
        if written and written[-1][1] == start:
            written[-1] = (written[-1][0], stop)
        elif len(written) < _MOST_WRITES:
            written.append((start, stop))
        else:
            written[:] = [(0, self._capacity)]

    def digest(self) -> bytes:
        """The digest, ``int64-mix/1``, of all that is there if every write was told of.

        Raises:
            UncapturedState: When an array does not lie any more where it did.
        """
        if self._written:
            self._require_places()
            if self._last is not None and self._last.takes(self._written):
                self._renew(self._last)
            else:
                self._renew_all()
            self._written = []
            sums = self._totals.astype("<u8", copy=False).tobytes()
            for number, place in enumerate(self._places):
                self._pieces[place] = sums[16 * number : 16 * number + 16]
            self._digest = xxhash.xxh3_128_digest(b"".join(self._pieces))
        return self._digest

    def require_whole(self, component: str) -> None:
        """Compare every row of 512 bytes with its sums.

        Raises:
            UncapturedState: When one of them was written past the ring buffer.
        """
        self.digest()
        whole = [(number, 0, array.n_rows) for number, array in enumerate(self._arrays)]
        for some in _cut(whole):
            mixed = _Mixed(self._arrays, some, self._factors)
            unequal = (mixed.sums() != self._rows[:, mixed.places]).any(axis=0)
            if unequal.any():
                raise self._written_past(component, int(mixed.places[np.argmax(unequal)]))

    def _require_places(self) -> None:
        """Raise where a tensor was given other memory: what was here would be freed."""
        if list(map(Tensor.data_ptr, self._tensors)) != self._addresses:
            for array in self._arrays:
                array.require_place()

    def _written_past(self, component: str, place: int) -> UncapturedState:
        array = next(one for one in self._arrays if place < one.first + one.n_rows)
        return UncapturedState(
            f"among rows {array.rows_of(place - array.first)} of {array.name} something was "
            "written past the ring buffer",
            component=component,
            hint="write by add or extend, or say wrote(row) after each write",
        )

    def _renew_all(self) -> None:
        """Make anew what all writes fell into."""
        self._last = None
        parts = [
            (number, start, stop)
            for number, array in enumerate(self._arrays)
            for start, stop in array.parts(self._written)
        ]
        n_rows = sum(stop - start for _, start, stop in parts)
        for some in (parts,) if 0 < n_rows <= _AT_ONCE else _cut(parts):
            mixed = _Mixed(self._arrays, some, self._factors)
            self._renew(mixed)
            if mixed.is_row_each:
                self._last = mixed

    def _renew(self, mixed: _Mixed) -> None:
        found, places = mixed.sums(), mixed.places
        changes = found - self._rows[:, places]  # modulo 2^64, as the recipe adds
        self._rows[:, places] = found
        if mixed.is_row_each:
            self._totals += changes.T
            return
        parts = mixed.parts
        numbers = [number for number, _, _ in parts]
        if len(parts) < len(places):
            lengths = [stop - start for _, start, stop in parts]
            starts = list(accumulate(lengths[:-1], initial=0))
            changes = np.add.reduceat(changes, starts, axis=1)
        if len(set(numbers)) == len(numbers):
            self._totals[numbers] += changes.T
        else:
            for number, change in zip(numbers, changes.T, strict=True):
                self._totals[number] += change


class _Mixed:
    """Rows of 512 bytes that are mixed together.

    Args:
        arrays: The arrays.
        parts: Which of their rows.
        factors: The multipliers of an array's rows.

    Attributes:
        parts: As they were given.
        places: Of these rows among those of all arrays.
        is_row_each: Whether they are one row of each array.
    """

    def __init__(self, arrays: Sequence[_Array], parts: Sequence[_Part], factors: Words) -> None:
        self._pieces: list[memoryview | bytes] = []
        rows: list[int] = []
        places: list[int] = []
        for number, start, stop in parts:
            array = arrays[number]
            self._pieces.append(array.data[start * ROW_BYTES : stop * ROW_BYTES])
            if stop == array.n_rows:
                self._pieces.append(array.padding)
            rows += range(start, stop)
            places += range(array.first + start, array.first + stop)
        self.parts = parts
        self.is_row_each = len(parts) == len(places) == len(arrays) == len({p[0] for p in parts})
        self._rows = range(0)
        if self.is_row_each:
            within = [arrays[number].within(start) for number, start, _ in parts]
            self._rows = range(max(w.start for w in within), min(w.stop for w in within))
        self.places: NDArray[np.intp] = np.array(places, np.intp)
        self._mixer = Mixer(factors[rows])

    def takes(self, written: Sequence[tuple[int, int]]) -> bool:
        """Whether it is these rows that writes of the memory's rows fell into."""
        return (
            len(written) == 1
            and self._rows.start <= written[0][0] < written[0][1] <= self._rows.stop
        )

    def sums(self) -> Words:
        """Both sums of each row as it is now, (2, n)."""
        words: Any = np.frombuffer(b"".join(self._pieces), "<u8")
        return self._mixer.sums(words.reshape(-1, COLUMNS))


class _Array:
    """One array of a ring buffer.

    Args:
        name: Of its entry.
        tensor: The array; it must stay where it is.
        first: Where its rows of 512 bytes begin among those of all arrays.
    """

    def __init__(self, name: str, tensor: Tensor, first: int) -> None:
        self.name = name.removeprefix(f"{RING_KEY}/").removeprefix("arrays/")
        self.tensor, self.address, self.first = tensor, tensor.data_ptr(), first
        self.data = memory_view(self.address, tensor.nbytes)
        self.padding = bytes(-tensor.nbytes % ROW_BYTES)
        self.n_rows = -(-tensor.nbytes // ROW_BYTES)
        self._of_rows = name.startswith(f"{RING_KEY}/arrays/")
        self._per_row = tensor.nbytes // len(tensor)

    def require_place(self) -> None:
        """Raise where the tensor was given other memory: what is here would be freed."""
        if self.tensor.data_ptr() != self.address:
            raise UncapturedState("an array was given other memory", where=self.name)

    def parts(self, written: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        """The rows of 512 bytes that writes of rows of the array fell into, each once."""
        if not self._of_rows:
            return ((0, self.n_rows),)
        width = self._per_row
        parts = [(a * width // ROW_BYTES, -(-b * width // ROW_BYTES)) for a, b in written]
        return parts if len(parts) == 1 and parts[0][0] < parts[0][1] else _united(parts)

    def within(self, row: int) -> range:
        """Which of the array's rows lie in a row of 512 bytes and in no other."""
        if not self._of_rows:
            return range(sys.maxsize)  # it is made anew with every write
        return range(-(-row * ROW_BYTES // self._per_row), (row + 1) * ROW_BYTES // self._per_row)

    def rows_of(self, row: int) -> str:
        """Which of the array's rows a row of 512 bytes is of, for people."""
        start, stop = row * ROW_BYTES // self._per_row, -(-(row + 1) * ROW_BYTES // self._per_row)
        return f"{start} to {min(stop, len(self.tensor)) - 1}"


def _united(parts: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same rows, each once, in order."""
    first, last = 0, 0
    for start, stop in sorted(part for part in parts if part[0] < part[1]):
        if start > last:
            if last > first:
                yield first, last
            first = start
        last = max(last, stop)
    if last > first:
        yield first, last


def _cut(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Parts of so many rows in all that they stay in the processor's cache."""
    taken: list[_Part] = []
    count = 0
    for number, start, stop in parts:
        for begin in range(start, stop, _AT_ONCE):
            end = min(begin + _AT_ONCE, stop)
            if count + end - begin > _AT_ONCE:
                yield taken
                taken, count = [], 0
            taken.append((number, begin, end))
            count += end - begin
    if taken:
        yield taken
