"""Where a generator of torch keeps its state: its memory, to see whether it has moved.

torch copies 5 kB whenever it is asked for a state, and the object behind a generator is described
nowhere. So its layout is found on a generator of our own, by what torch says of its state, and
tried: numbers that are drawn, and the two normal numbers that may be kept back, must be seen in it.
Where anything is otherwise nothing is looked at, and torch is asked.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from auditkit.observe.values.tensors import memory_view

#: In what torch gives as a state: the Mersenne Twister's words, each in eight bytes, and a normal
#: number that is kept back, with whether there is one.
_WORDS = slice(24, 24 + 624 * 8)
_KEPT = slice(5048, 5053)
_STATE_BYTES = 5056

#: Around the words lie, before: seed, position and a flag, then another position; behind: two
#: optional numbers. What is left out is padding, which holds anything.
_BEFORE, _LENGTH = 20, 624 * 4
_PARTS = (slice(0, 13), slice(16, _BEFORE + _LENGTH))
#: Whether there are these numbers.
_FLAGS = (_BEFORE + _LENGTH + 8, _BEFORE + _LENGTH + 20)
#: How many words are left and which is next, before the words; and both after seeding.
_POSITION = struct.Struct("=i4xI")
_FRESH = (1, 0)
#: Behind a table of functions and a count of references, and no further than that.
_FIRST, _LAST = 16, 512


class GeneratorMemory:
    """The memory of one generator.

    Args:
        generator: The generator.
        place: Where its words begin.
    """

    def __init__(self, generator: torch.Generator, place: int) -> None:
        view = memory_view(_address(generator) + place - _BEFORE, _FLAGS[-1] + 1)
        flags = [view[flag : flag + 1] for flag in _FLAGS]
        self._parts = [*flags, *(view[part] for part in _PARTS)]

    def read(self) -> bytes:
        """What is the same as long as nobody draws; nothing while a normal number is kept back."""
        content = b"".join(self._parts)
        return content if content.startswith(bytes(len(_FLAGS))) else b""


def generator_memory(generator: torch.Generator) -> GeneratorMemory | None:
    """The memory of a generator on the CPU; None where its layout is not known."""
    place = _place()
    if place is None or generator.device.type != "cpu":
        return None
    memory = GeneratorMemory(generator, place)
    found = memory.read()
    return memory if not found or found.endswith(_words(generator)) else None


class SeededWords:
    """Where the words of one generator lie, which seeding makes and drawing changes.

    Args:
        generator: The generator.
        place: Where its words begin.

    Attributes:
        words: Their memory.
    """

    def __init__(self, generator: torch.Generator, place: int) -> None:
        begin = _address(generator) + place
        self.words = memory_view(begin, _LENGTH)
        self._position = memory_view(begin - _POSITION.size, _POSITION.size)

    def are_fresh(self) -> bool:
        """Whether nobody, in no other thread, has drawn since the generator was seeded."""
        # A draw counts down what is left before it changes a word.
        return _POSITION.unpack(self._position) == _FRESH


def seeded_words(generator: torch.Generator) -> SeededWords | None:
    """The words of a generator on the CPU; None where its layout is not known.

    Args:
        generator: No normal number may be kept back in it.
    """
    place, memory = _place(), generator_memory(generator)
    if place is None or memory is None or not memory.read():
        return None
    return SeededWords(generator, place)


@functools.cache
def _place() -> int | None:
    """Where the words begin in a generator, as one of our own tells."""
    try:
        generator = torch.Generator()
        generator.manual_seed(5)
        if generator.get_state().numel() != _STATE_BYTES:
            return None
        words, address = _words(generator), _address(generator)
        for place in range(_FIRST, _LAST, 4):
            # The words lie in the object at some place from here on, so this much is its own.
            if memory_view(address + place, _LENGTH).tobytes() == words:
                return place if place - _BEFORE >= _FIRST and _is_seen(generator, place) else None
    except Exception:  # a torch that is built otherwise
        return None
    return None


def _is_seen(generator: torch.Generator, place: int) -> bool:
    """Whether all that may happen to a generator is seen in its memory."""
    memory = GeneratorMemory(generator, place)

    def keep_back() -> None:
        state = generator.get_state()
        state[_KEPT] = 1
        generator.set_state(state)

    # With whether a normal number is kept back afterwards.
    actions: list[tuple[Callable[[], object], bool]] = [
        (lambda: torch.rand(1, generator=generator), False),
        (lambda: torch.randn(1, generator=generator), True),
        (lambda: torch.randn(1, generator=generator), False),
        (lambda: torch.rand(2000, generator=generator), False),
        (keep_back, True),
        (lambda: generator.manual_seed(6), False),
    ]
    for action, keeps in actions:
        before = memory.read()
        action()
        if memory.read() == before or (not memory.read()) != keeps:
            return False
    state, before = generator.get_state(), memory.read()
    torch.rand(1, generator=generator)
    generator.set_state(state)
    return memory.read() == before


def _address(generator: Any) -> int:
    return int(generator._cdata)  # which torch's type hints leave out


def _words(generator: torch.Generator) -> bytes:
    state = generator.get_state().numpy()
    return state[_WORDS].view(np.uint64).astype(np.uint32).tobytes()
