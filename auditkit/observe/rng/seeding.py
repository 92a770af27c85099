"""Seeds python's, numpy's and torch's streams from one number, as is done for every sample.

numpy and torch make the same Mersenne Twister's words of the same 32 bits. They are made once, by
torch, and copied from its memory into numpy's, where both are laid out as was expected.
"""

from __future__ import annotations

import _random
import functools
import random
from typing import Any

import numpy as np
import torch

from auditkit.observe.rng.numpy_memory import NumpyWriter
from auditkit.observe.rng.torch_memory import SeededWords, seeded_words

_LOW_BITS = 0xFFFFFFFF
#: Of python's generator, below the methods that the module ``random`` lays over it.
_seed_words: Any = _random.Random.seed

#: What seeds the first two streams where a program has put nothing in their place.
_SEED_PYTHON: Any = random.Random.seed
_SEED_NUMPY: Any = np.random.mtrand.seed

#: Numbers that the shorter ways are tried with.
_TRIED = (0, 5, 2**31, 2**64 - 3)


class SampleSeeder:
    """Seeds the global streams, again and again.

    Args:
        numpy: Writes to numpy's.
    """

    def __init__(self, numpy: NumpyWriter) -> None:
        self._numpy = numpy
        #: Of torch, with the words in its memory where numpy may be given them.
        self._generator: torch.Generator | None = None
        self._seeded: SeededWords | None = None

    def seed(self, seed: int) -> None:
        """As ``random.seed``, ``numpy.random.seed`` and ``torch.manual_seed`` of the CPU's stream.

        Args:
            seed: 64 bits; numpy takes the low 32.
        """
        owner: Any = getattr(random.seed, "__self__", None)
        is_own = getattr(random.seed, "__func__", None) is not _SEED_PYTHON
        is_plain: bool = type(owner) is random.Random and not is_own
        if is_plain and _is_python_as_expected():
            _seed_words(owner, seed)
            owner.gauss_next = None
        else:
            random.seed(seed)
        generator = torch.default_generator
        generator.manual_seed(seed)
        if generator is not self._generator:
            self._generator = generator
            self._seeded = seeded_words(generator) if _are_words_alike() else None
        seeded = self._seeded if np.random.seed is _SEED_NUMPY else None
        is_done = seeded is not None and self._numpy.begin(seeded.words) and seeded.are_fresh()
        if not is_done:
            np.random.seed(seed & _LOW_BITS)
            self._numpy.look()


@functools.cache
def _is_python_as_expected() -> bool:
    """Whether what lies over python's generator does nothing but forget half of a pair."""
    long = random.Random()  # noqa: S311 # seeds are compared
    short: Any = random.Random()  # noqa: S311 # the same
    for seed in _TRIED:
        long.gauss(0, 1)
        short.gauss(0, 1)
        long.seed(seed)
        _seed_words(short, seed)
        short.gauss_next = None
        if long.getstate() != short.getstate():
            return False
    return True


@functools.cache
def _are_words_alike() -> bool:
    """Whether numpy makes the words that torch makes, and torch tells that they are those."""
    generator = torch.Generator()
    seeded = seeded_words(generator)
    if seeded is None:
        return False
    for seed in _TRIED:
        generator.manual_seed(seed)
        state: Any = np.random.RandomState(seed & _LOW_BITS).get_state()
        is_same = seeded.words.tobytes() == state[1].tobytes() and state[2:] == (624, 0, 0.0)
        if not is_same or not seeded.are_fresh():
            return False
    for n_drawn in (1, 622, 1):  # of 624 words
        torch.rand(n_drawn, generator=generator)
        if seeded.are_fresh():
            return False
    return True
