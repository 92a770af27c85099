"""The memory of numpy's global generator, whose place numpy tells for this use.

numpy takes 30 microseconds to copy its state, and as long to take it back, number by number. The
half of a pair of normal numbers that the old functions keep is not in this memory.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from auditkit.observe.values.tensors import memory_view

#: numpy's own accessor, which its type hints leave out.
current_generator: Any = np.random.get_bit_generator  # type: ignore[attr-defined]
#: Its counterpart. The very same generator set again forgets half of a pair, and nothing else.
_set_generator: Any = np.random.set_bit_generator  # type: ignore[attr-defined]

#: A Mersenne Twister's 624 words and its position.
_MEMORY = struct.Struct("=624Ii")
_POSITION = struct.Struct("=i")
_WORDS = 624 * 4
#: Where seeding leaves the position: the next draw makes new words.
_AT_THE_END = _POSITION.pack(624)


def words_of(
    generator: Any, state: tuple[Any, ...], *, writable: bool = False
) -> memoryview | None:
    """A view of a Mersenne Twister's memory; None where its content is not as was expected.

    Args:
        generator: The bit generator.
        state: Its state, as of :class:`auditkit.observe.rng.streams.GlobalStreams`.
        writable: Whether the view is to be written to.
    """
    expected = _MEMORY.pack(*state[1].tolist(), state[2])
    memory = memory_view(generator.ctypes.state_address, len(expected), writable=writable)
    return memory if memory.tobytes() == expected else None


class NumpyWriter:
    """Puts numpy's global generator to one state after the other.

    Its memory is written to where that is laid out as was expected and the half of a pair is
    forgotten as was expected, which is tried; elsewhere numpy is asked.
    """

    def __init__(self) -> None:
        #: What was looked at last, and its words and position where they may be written to.
        self._generator: Any = None
        self._memory: tuple[memoryview, memoryview] | None = None

    def write(self, state: tuple[Any, ...]) -> None:
        """As ``numpy.random.set_state`` of a Mersenne Twister.

        Args:
            state: As of :class:`auditkit.observe.rng.streams.GlobalStreams`.
        """
        if state[3] or not self._put(state[1].tobytes(), _POSITION.pack(state[2])):
            np.random.set_state(state)
            self.look()

    def begin(self, words: memoryview) -> bool:
        """Go to where seeding goes that makes these words; False where numpy is to be asked."""
        return self._put(words, _AT_THE_END)

    def _put(self, words: bytes | memoryview, position: bytes) -> bool:
        """Write to the memory, half of a pair forgotten; False where it is not known."""
        generator = self._generator
        if self._memory is None or current_generator() is not generator:
            return False
        _set_generator(generator)
        own_words, own_position = self._memory
        with generator.lock:  # another thread may be drawing
            own_words[:] = words
            own_position[:] = position
        return True

    def look(self) -> None:
        """Look for the memory of the generator, where it is another one than the last time."""
        generator = current_generator()
        if generator is self._generator or type(generator) is not np.random.MT19937:
            return
        self._generator, self._memory = generator, None
        state: Any = np.random.get_state()
        memory = words_of(generator, state, writable=True)
        np.random.set_state((*state[:3], 1, 0.5))
        _set_generator(generator)
        is_forgotten = np.random.get_state()[3] == 0  # type: ignore[index]
        np.random.set_state(state)
        if memory is not None and is_forgotten and current_generator() is generator:
            self._memory = memory[:_WORDS], memory[_WORDS:]
