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

#: A Mersenne Twister's 624 words and its position.
_MEMORY = struct.Struct("=624Ii")
_POSITION = struct.Struct("=i")


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
    """Puts numpy's global generator back to a state, again and again."""

    def __init__(self) -> None:
        self._generator: object = None
        self._memory: memoryview | None = None

    def write(self, state: tuple[Any, ...]) -> None:
        """As ``numpy.random.set_state`` of a Mersenne Twister.

        Args:
            state: As of :class:`auditkit.observe.rng.streams.GlobalStreams`.
        """
        generator = current_generator()
        if self._memory is None or generator is not self._generator or state[3]:
            np.random.set_state(state)
            if type(generator) is np.random.MT19937 and not state[3]:
                self._generator = generator
                self._memory = words_of(generator, state, writable=True)
            return
        np.random.seed(0)  # which also forgets half of a pair
        self._memory[:] = state[1].tobytes() + _POSITION.pack(state[2])
