"""A ring buffer's digest, made of what was written since the last one.

By the recipe ``int64-mix/1`` the digest of an array is made of sums over its rows of 512 bytes.
They are kept, and of a write only those that it fell into are made anew. While one row of each
array is being filled, what it held is kept, too: of these sums only single words are exchanged.
"""

from __future__ import annotations

import struct
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
from auditkit.formats.word_mix import (
    COLUMNS,
    ROW_BYTES,
    Mixer,
    Words,
    mixed_word,
    multipliers,
)
from auditkit.observe.values.flatten import flatten
from auditkit.observe.values.summed import SummedLeaves
from auditkit.observe.values.tensors import DTYPE_NAMES, memory_view

#: Rows of 512 bytes that are mixed at a time.
_AT_ONCE: Final = 256

#: Writes that are kept apart until the next digest; from so many on everything is looked at.
_MOST_WRITES: Final = 4096

#: Words up to which to exchange them one by one takes less time than to mix whole rows. They are
#: read as the machine has them.
_MOST_WORDS: Final = 24 if sys.byteorder == "little" else -1

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
        #: The stream, in which each array has two sums for a content, and where these are.
        self._stream: list[Any] = []
        self._places: list[int] = []
        self._arrays: list[_Array] = []
        n_rows = 0
        for name in sorted(self):
            leaf = self[name]
            if isinstance(leaf, bytes):
                self._stream += (json_frame(name, len(leaf)), leaf)
                continue
            self._stream.append(frame(name, DTYPE_NAMES[leaf.dtype], leaf.shape, leaf.nbytes))
            if leaf.nbytes:
                self._places.append(len(self._stream))
                self._stream += (0, 0)
                self._arrays.append(_Array(name, leaf, n_rows))
                n_rows += self._arrays[-1].n_rows
        self._tensors = [array.tensor for array in self._arrays]
        self._addresses = [array.address for array in self._arrays]
        self._factors = multipliers(0, max(array.n_rows for array in self._arrays))
        self._rows = np.zeros((2, n_rows), np.uint64)
        forms = (f"{len(piece)}s" if isinstance(piece, bytes) else "Q" for piece in self._stream)
        self._packing = struct.Struct("<" + "".join(forms))
        #: The sums of the arrays of which the rows' sums are the parts.
        self._settled = self._totals()
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
            last = self._last
            if last is None or not last.takes(self._written):
                self._renew_all()
            elif not last.exchange(*self._written[0], self._stream, self._places):
                self._settle()
                self._renew(last)
            self._written = []
            self._digest = xxhash.xxh3_128_digest(self._packing.pack(*self._stream))
        return self._digest

    def require_whole(self, component: str) -> None:
        """Compare every row of 512 bytes with its sums.

        Raises:
            UncapturedState: When one of them was written past the ring buffer.
        """
        self.digest()
        self._settle()
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
        self._settle()
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
        lengths = [stop - start for _, start, stop in mixed.parts]
        starts = list(accumulate(lengths[:-1], initial=0))
        by_part = np.add.reduceat(changes, starts, axis=1).T.tolist()
        for (number, _, _), (first, second) in zip(mixed.parts, by_part, strict=True):
            _add(self._stream, self._places[number], first, second)
        self._settled = self._totals()

    def _totals(self) -> list[tuple[int, int]]:
        """Both sums of each array."""
        return [(self._stream[place], self._stream[place + 1]) for place in self._places]

    def _settle(self) -> None:
        """Give the rows' sums what the exchange of words has changed of the arrays'."""
        totals = self._totals()
        if self._last is not None and totals != self._settled:
            now, before = np.array(totals, np.uint64), np.array(self._settled, np.uint64)
            self._rows[:, self._last.places] += (now - before).T
            self._settled = totals


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
        #: What these rows held when they were read last; and of each array of one row where in
        #: there its rows lie, and the multiplier.
        self._content = bytearray()
        self._held = memoryview(b"")
        self._spans: list[tuple[int, int, int, int]] = []
        if self.is_row_each:
            within = [arrays[number].within(start) for number, start, _ in parts]
            self._rows = range(max(w.start for w in within), min(w.stop for w in within))
            self._spans = [
                (*arrays[number].span(start, at * ROW_BYTES), int(factors[start]))
                for at, (number, start, _) in enumerate(parts)
            ]
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
        content = b"".join(self._pieces)
        if self.is_row_each:
            self._content = bytearray(content)
            self._held = memoryview(self._content).cast("Q")
        words: Any = np.frombuffer(content, "<u8")
        return self._mixer.sums(words.reshape(-1, COLUMNS))

    def exchange(self, start: int, stop: int, stream: list[Any], places: Sequence[int]) -> bool:
        """Take in a write of those that :meth:`takes` says, word by word.

        Args:
            start: The first row of the memory that was written.
            stop: The one behind the last.
            stream: Where both sums of each array are, to be changed.
            places: At which places.

        Returns:
            Whether nothing else was written; otherwise the sums are to be made anew.
        """
        content = b"".join(self._pieces)
        held, found = self._held, memoryview(content).cast("Q")
        changed: list[tuple[int, int, int, int, int]] = []
        for place, (width, low, high, factor) in zip(places, self._spans, strict=True):
            for at in range(low + start * width >> 3, high + stop * width + 7 >> 3):
                before, now = held[at], found[at]
                if before != now:
                    held[at] = now
                    changed.append((place, at % COLUMNS, factor, before, now))
        if self._content != content or len(changed) > _MOST_WORDS:
            return False
        for place, column, factor, before, now in changed:
            first, second = mixed_word(now, column, factor)
            old_first, old_second = mixed_word(before, column, factor)
            _add(stream, place, first - old_first, second - old_second)
        return True


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

    def span(self, row: int, at: int) -> tuple[int, int, int]:
        """Where rows of the array lie, of those in a row of 512 bytes that begins at a place.

        Returns:
            Width of a row, and what is to be added to where it begins and to where it ends.
        """
        if not self._of_rows:
            return 0, at, at + self.tensor.nbytes
        return self._per_row, at - row * ROW_BYTES, at - row * ROW_BYTES

    def within(self, row: int) -> range:
        """Which of the array's rows lie in a row of 512 bytes and in no other."""
        if not self._of_rows:
            return range(sys.maxsize)  # it is made anew with every write
        return range(-(-row * ROW_BYTES // self._per_row), (row + 1) * ROW_BYTES // self._per_row)

    def rows_of(self, row: int) -> str:
        """Which of the array's rows a row of 512 bytes is of, for people."""
        start, stop = row * ROW_BYTES // self._per_row, -(-(row + 1) * ROW_BYTES // self._per_row)
        return f"{start} to {min(stop, len(self.tensor)) - 1}"


def _add(stream: list[Any], place: int, first: int, second: int) -> None:
    """Change two sums in a stream, as the recipe adds."""
    stream[place] = (stream[place] + first) % 2**64
    stream[place + 1] = (stream[place + 1] + second) % 2**64


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
