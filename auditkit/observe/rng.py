"""Random streams: seed them, freeze them, put them back, and say what is not covered.

The global streams are python's ``random``, numpy's legacy global state, torch's CPU generator
and every CUDA device's generator. Their states are components ``rng/python``, ``rng/numpy``,
``rng/torch`` and ``rng/cuda:N``.
"""

from __future__ import annotations

import random
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditkit.errors import RestoreMismatch
from auditkit.observe.codec import Leaves, flatten, unflatten
from auditkit.seeds import derive_seed

#: Generator objects that a program may hold and register as extras.
Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random

#: What no RNG contract covers, whatever the program.
ALWAYS_UNCOVERED = (
    "os.urandom, secrets, uuid4 and the clock: no program can be replayed that reads them",
    "random numbers drawn inside compiled extensions that keep a state of their own",
)

_OTHER_LIBRARIES = ("jax", "tensorflow", "cupy", "numba", "torchdata", "dgl")


@dataclass(frozen=True)
class GlobalStreams:
    """The state of every global stream at one moment.

    Attributes:
        python: ``random.getstate()``.
        numpy: ``numpy.random.get_state(legacy=True)``.
        torch: uint8 state of the CPU generator.
        cuda: uint8 state by device index.
    """

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: Tensor
    cuda: Mapping[int, Tensor]

    def leaves(self) -> dict[str, Leaves]:
        """Components ``rng/...`` by name."""
        version, words, gauss = self.python
        kind, keys, position, has_gauss, cached = self.numpy
        components: dict[str, Leaves] = {
            "rng/python": {
                "": _tag([version, gauss]),
                "words": torch.frombuffer(array("I", words), dtype=torch.uint32),
            },
            "rng/numpy": {
                "": _tag([kind, position, has_gauss, cached]),
                "words": torch.from_numpy(keys),
            },
            "rng/torch": {"state": self.torch},
        }
        for index, state in self.cuda.items():
            components[f"rng/cuda:{index}"] = {"state": state}
        return components

    def restore(self) -> None:
        """Put every stream back to this state."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # type: ignore[arg-type] # numpy types the tuple apart
        torch.set_rng_state(self.torch)
        for index, state in self.cuda.items():
            torch.cuda.set_rng_state(state, index)


def capture_streams() -> GlobalStreams:
    """Freeze the global streams; draws nothing."""
    return GlobalStreams(
        python=random.getstate(),
        numpy=tuple(np.random.get_state(legacy=True)),
        torch=torch.get_rng_state(),
        cuda=_cuda_states(),
    )


def streams_from_leaves(components: Mapping[str, Leaves]) -> GlobalStreams:
    """Rebuild the global streams from the components of :meth:`GlobalStreams.leaves`.

    Raises:
        RestoreMismatch: When a stream is missing or has another shape.
    """
    try:
        version, gauss = _untag(components["rng/python"])
        kind, position, has_gauss, cached = _untag(components["rng/numpy"])
        words = _tensor(components["rng/python"], "words").tolist()
        keys = _tensor(components["rng/numpy"], "words").numpy()
        return GlobalStreams(
            python=(version, tuple(words), gauss),
            numpy=(kind, keys, position, has_gauss, cached),
            torch=_tensor(components["rng/torch"], "state"),
            cuda={
                int(name.removeprefix("rng/cuda:")): _tensor(leaves, "state")
                for name, leaves in components.items()
                if name.startswith("rng/cuda:")
            },
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RestoreMismatch(f"the snapshot's random streams are incomplete: {error}") from error


def seed_everything(seed: int, *purpose: str | int) -> dict[str, int]:
    """Seed every global stream from one study seed.

    Args:
        seed: The study's seed.
        purpose: Names the set of streams; none for the streams that training starts with,
            ``"order", EPOCH`` for those that a sampler draws from.

    Returns:
        The derived seed by component name.
    """
    names = ["python", "numpy", "torch", *(f"cuda:{index}" for index in _cuda_devices())]
    seeds = {f"rng/{name}": derive_seed(seed, *purpose, name) for name in names}
    random.seed(seeds["rng/python"])
    np.random.seed(seeds["rng/numpy"] & 0xFFFFFFFF)
    # torch.manual_seed would touch every backend, also those that no stream is recorded for.
    torch.default_generator.manual_seed(seeds["rng/torch"])
    for index in _cuda_devices():
        torch.cuda.default_generators[index].manual_seed(seeds[f"rng/cuda:{index}"])
    return seeds


def seed_sample(seed: int) -> None:
    """Seed python, numpy and torch CPU for one sample; a few microseconds."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


def uncovered_streams() -> tuple[str, ...]:
    """Sources of randomness that the contract does not cover, for people."""
    found = list(ALWAYS_UNCOVERED)
    found.extend(
        f"random state of {library}, which is imported"
        for library in _OTHER_LIBRARIES
        if library in sys.modules
    )
    for backend in ("mps", "xpu"):
        module = getattr(torch, backend, None)
        if module is not None and module.is_available():
            found.append(f"torch.{backend} generators")
    return tuple(found)


def is_generator(value: object) -> bool:
    """Whether ``value`` is a generator object that can be registered."""
    return isinstance(value, Generator)


def generator_leaves(generator: Generator) -> Leaves:
    """State of a generator object as a component."""
    if isinstance(generator, torch.Generator):
        return {"state": generator.get_state()}
    if isinstance(generator, np.random.Generator):
        return flatten(generator.bit_generator.state, where="numpy generator")
    if isinstance(generator, np.random.RandomState):
        return flatten(generator.get_state(legacy=False), where="numpy RandomState")
    return flatten(generator.getstate(), where="random.Random")


def restore_generator(generator: Generator, leaves: Leaves) -> None:
    """Put a generator object back to a recorded state.

    Raises:
        RestoreMismatch: When the state is of another kind of generator.
    """
    try:
        if isinstance(generator, torch.Generator):
            generator.set_state(_tensor(leaves, "state"))
            return
        state: Any = unflatten(leaves)
        if isinstance(generator, np.random.Generator):
            generator.bit_generator.state = state
        elif isinstance(generator, np.random.RandomState):
            generator.set_state(state)
        else:
            generator.setstate(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RestoreMismatch(f"the state is of another kind of generator: {error}") from error


def _tag(values: list[object]) -> bytes:
    encoded = flatten(values, where="rng")[""]
    assert isinstance(encoded, bytes)  # noqa: S101 # a list of scalars holds no tensor
    return encoded


def _untag(leaves: Leaves) -> list[Any]:
    decoded = unflatten({"": leaves[""]})
    if not isinstance(decoded, list):
        raise TypeError("a list was expected")
    return decoded


def _tensor(leaves: Leaves, name: str) -> Tensor:
    value = leaves[name]
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is no tensor")
    return value


def _cuda_devices() -> range:
    return range(torch.cuda.device_count() if torch.cuda.is_available() else 0)


def _cuda_states() -> dict[int, Tensor]:
    # An uninitialised CUDA context has no state to lose, and asking would create one.
    if not torch.cuda.is_initialized():
        return {}
    return {index: torch.cuda.get_rng_state(index) for index in _cuda_devices()}
