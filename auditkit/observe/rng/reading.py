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
        #: Where all but torch's are seen in memory: that memory, and what was there.
        self._memory: list[memoryview] = []
        self._seen = b""

    def read(self) -> GlobalStreams:
        """The streams as they stand; what has not moved is the same object as the last time.

        Raises:
            UncapturedState: When numpy's global stream was given another bit generator.
        """
        last = self._last
        if last is not None and self._memory and self._others_stand():
            python, numpy, cuda = last.python, last.numpy, last.cuda
        else:
            python, numpy, cuda = self._python.read(), self._numpy.read(), cuda_states()
            are_seen = not cuda and self._python.seen and self._numpy.seen
            self._memory = [*self._python.memory, *self._numpy.memory] if are_seen else []
            self._seen = self._python.seen + self._numpy.seen
        state = self._torch.read()
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

    def _others_stand(self) -> bool:
        """Whether no stream but torch's has moved, asked of all in one go."""
        owner: Any = getattr(random.getstate, "__self__", None)
        return (
            b"".join(self._memory) == self._seen
            and owner is self._python.owner
            and owner.gauss_next is self._python.state[2]
            and current_generator() is self._numpy.generator
            and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        )


class _TorchReader:
    """torch's global state, whose 5 kB are made anew whenever torch is asked for them.

    Whether it has moved is seen in the memory of the object behind it, where that is laid out as a
    generator of our own is found to be.
    """

    def __init__(self) -> None:
        self._memory: GeneratorMemory | None = None
        self._generator: object = None
        self._seen = b""
        self._state: Tensor | None = None

    def read(self) -> Tensor:
        """As ``torch.get_rng_state``; the same object as long as nobody draws."""
        generator = torch.default_generator
        if generator is not self._generator:
            self._generator, self._memory = generator, generator_memory(generator)
            self._seen = b""
        seen = b"" if self._memory is None else self._memory.read()
        if seen and seen == self._seen and self._state is not None:
            return self._state
        has_moved = bool(seen and self._seen)
        state, before, self._seen = generator.get_state(), self._state, seen
        if before is None or has_moved or state_bytes(state) != state_bytes(before):
            self._state = before = state
        return before


class _PythonReader:
    """python's global state, whose 625 numbers take longer to make and compare than a digest.

    Whether it has moved is seen in the memory of the object behind ``random``, where that is laid
    out as CPython's is, as a comparison with what ``getstate`` says finds at first.

    Attributes:
        owner: That object.
        memory: Its memory, where it can be seen there.
        seen: What was there; nothing where that does not tell whether it moves.
        state: What was read last.
    """

    def __init__(self) -> None:
        self.owner: Any = None
        self.memory: list[memoryview] = []
        self.seen = b""
        self.state: tuple[Any, ...] = ()

    def read(self) -> tuple[Any, ...]:
        """As ``random.getstate``; the same object as long as nobody draws."""
        owner: Any = getattr(random.getstate, "__self__", None)
        is_known = owner is self.owner
        if (
            is_known
            and self.memory
            and owner.gauss_next is self.state[2]
            and self.memory[0].tobytes() == self.seen
        ):
            return self.state
        state = random.getstate()
        if not is_known or owner is None:
            self.owner, self.memory = owner, _python_words(owner, state)
        self.seen = b"".join(self.memory)
        if state != self.state:
            self.state = state
        return self.state


def _python_words(owner: Any, state: tuple[Any, ...]) -> list[memoryview]:
    """A view of a `random.Random`'s memory; nothing where its content is not as was expected."""
    if type(owner) is not random.Random or state[0] != owner.VERSION:
        return []
    *words, position = state[1]
    expected = _PYTHON_MEMORY.pack(position, *words)
    if _random.Random.__basicsize__ < object.__basicsize__ + len(expected):
        return []
    memory = memory_view(id(owner) + object.__basicsize__, len(expected))
    return [memory] if memory.tobytes() == expected else []


class _NumpyReader:
    """numpy's global state, which takes 30 microseconds to copy: copied where it has moved.

    Whether it has is seen in the memory of the bit generator, whose place numpy tells for this
    use. The half of a pair of normal numbers that the old functions keep is not in there: while
    there is one, the state is copied always. (Who lays such a half back, by ``set_state`` to the
    very words that the generator stands at, is seen once it moves, or where a snapshot is taken.)

    Attributes:
        generator: The bit generator.
        memory: As of `_PythonReader`.
        seen: The same.
    """

    def __init__(self) -> None:
        self.generator: object = None
        self.memory: list[memoryview] = []
        self.seen = b""
        self._state: tuple[Any, ...] = ()

    def read(self) -> tuple[Any, ...]:
        """As of :class:`auditkit.observe.rng.streams.GlobalStreams`."""
        generator: object = current_generator()
        is_known = generator is self.generator and bool(self.seen)
        if not is_known or self.memory[0].tobytes() != self.seen:
            self._state = numpy_state()
            if generator is not self.generator:
                words = words_of(generator, self._state)
                self.generator, self.memory = generator, [] if words is None else [words]
            is_halfway = bool(self._state[3])
            self.seen = b"" if is_halfway else b"".join(self.memory)
        return self._state
