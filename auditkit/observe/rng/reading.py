"""The global streams read at every step: what nobody drew from is neither copied nor compared.

A Mersenne Twister's state is 625 numbers. Whether it has moved is seen in the generator's own
memory, where that is laid out as was expected; what is given is always what its library says.
"""

from __future__ import annotations

import _random
import random
import struct
from typing import Any

import torch
from torch import Tensor

from auditkit.observe.rng.numpy_memory import current_generator, words_of
from auditkit.observe.rng.streams import (
    GlobalStreams,
    cuda_states,
    numpy_state,
    state_bytes,
)
from auditkit.observe.rng.torch_memory import GeneratorMemory, generator_memory
from auditkit.observe.values.tensors import memory_view

#: A Mersenne Twister's position and its 624 words, as they lie in python's memory.
_PYTHON_MEMORY = struct.Struct("=i624I")


class StreamReader:
    """Freezes the global streams again and again; where nobody drew, nothing is copied."""

    def __init__(self) -> None:
        self._python = _PythonReader()
        self._numpy = _NumpyReader()
        self._torch = _TorchReader()
        self._last: GlobalStreams | None = None

    def read(self) -> GlobalStreams:
        """The streams as they stand; what has not moved is the same object as the last time.

        Raises:
            UncapturedState: When numpy's global stream was given another bit generator.
        """
        last, cuda = self._last, cuda_states()
        python, numpy, state = self._python.read(), self._numpy.read(), self._torch.read()
        if (
            last is None
            or cuda
            or last.cuda
            or python is not last.python
            or numpy is not last.numpy
            or state is not last.torch
        ):
            last = self._last = GlobalStreams(python, numpy, state, cuda)
        return last


class _TorchReader:
    """torch's global state, whose 5 kB are made anew whenever torch is asked for them.

    Whether it has moved is seen in the memory of the object behind it, where that is laid out as a
    generator of our own is found to be.
    """

    def __init__(self) -> None:
        self._memory: GeneratorMemory | None = None
        self._generator: object = None
        self._seen = b""
        self._state: tuple[Tensor, bytes] | None = None

    def read(self) -> Tensor:
        """As ``torch.get_rng_state``; the same object as long as nobody draws."""
        generator = torch.default_generator
        if generator is not self._generator:
            self._generator, self._memory = generator, generator_memory(generator)
            self._seen = b""
        seen = b"" if self._memory is None else self._memory.read()
        if seen and seen == self._seen and self._state is not None:
            return self._state[0]
        state, self._seen = generator.get_state(), seen
        content = state_bytes(state)
        if self._state is None or content != self._state[1]:
            self._state = state, content
        return self._state[0]


class _PythonReader:
    """python's global state, whose 625 numbers take longer to make and compare than a digest.

    Whether it has moved is seen in the memory of the object behind ``random``, where that is laid
    out as CPython's is, as a comparison with what ``getstate`` says finds at first.
    """

    def __init__(self) -> None:
        self._owner: Any = None
        self._memory: memoryview | None = None
        self._seen = b""
        self._state: tuple[Any, ...] = ()

    def read(self) -> tuple[Any, ...]:
        """As ``random.getstate``; the same object as long as nobody draws."""
        owner: Any = getattr(random.getstate, "__self__", None)
        memory, is_known = self._memory, owner is self._owner
        if (
            is_known
            and memory is not None
            and owner.gauss_next is self._state[2]
            and memory.tobytes() == self._seen
        ):
            return self._state
        state = random.getstate()
        if not is_known or owner is None:
            self._owner, self._memory = owner, _python_words(owner, state)
        self._seen = b"" if self._memory is None else self._memory.tobytes()
        if state != self._state:
            self._state = state
        return self._state


def _python_words(owner: Any, state: tuple[Any, ...]) -> memoryview | None:
    """A view of a `random.Random`'s memory; None where its content is not as was expected."""
    if type(owner) is not random.Random or state[0] != owner.VERSION:
        return None
    *words, position = state[1]
    expected = _PYTHON_MEMORY.pack(position, *words)
    if _random.Random.__basicsize__ < object.__basicsize__ + len(expected):
        return None
    memory = memory_view(id(owner) + object.__basicsize__, len(expected))
    return memory if memory.tobytes() == expected else None


class _NumpyReader:
    """numpy's global state, which takes 30 microseconds to copy: copied where it has moved.

    Whether it has is seen in the memory of the bit generator, whose place numpy tells for this
    use. The half of a pair of normal numbers that the old functions keep is not in there: while
    there is one, the state is copied always. (Who lays such a half back, by ``set_state`` to the
    very words that the generator stands at, is seen once it moves, or where a snapshot is taken.)
    """

    def __init__(self) -> None:
        self._generator: object = None
        self._memory: memoryview | None = None
        self._seen = b""
        self._state: tuple[Any, ...] = ()

    def read(self) -> tuple[Any, ...]:
        """As of :class:`auditkit.observe.rng.streams.GlobalStreams`."""
        generator: object = current_generator()
        memory, is_halfway = self._memory, bool(self._state and self._state[3])
        is_known = generator is self._generator and memory is not None and not is_halfway
        if not is_known or memory is None or memory.tobytes() != self._seen:
            self._state = numpy_state()
            if generator is not self._generator:
                self._generator, self._memory = generator, words_of(generator, self._state)
            self._seen = b"" if self._memory is None else self._memory.tobytes()
        return self._state
