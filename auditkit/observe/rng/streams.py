"""Random streams: seed them, freeze them, put them back, and say what is not covered.

The global streams are python's ``random``, numpy's legacy global state, torch's CPU generator
and every CUDA device's generator. Their states are components ``rng/python``, ``rng/numpy``,
``rng/torch`` and ``rng/cuda:N``.
"""

from __future__ import annotations

import random
import struct
import sys
from binascii import hexlify
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditkit.errors import FormatError, RestoreMismatch, UncapturedState
from auditkit.formats.seeds import derive_seed
from auditkit.observe.rng.numpy_memory import NumpyWriter
from auditkit.observe.rng.seeding import SampleSeeder
from auditkit.observe.values.codec import Leaves, flatten, unflatten
from auditkit.observe.values.tensors import KeptLeaves, memory_view
from auditkit.records.rng import ALWAYS_UNCOVERED

#: Generator objects that a program may hold and register as extras.
Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random

#: The Mersenne Twister's 624 words and a position.
_MT_STATE = struct.Struct("<625I")

_NUMPY = NumpyWriter()
_SEEDER = SampleSeeder(_NUMPY)

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
        components = {
            "rng/python": _python_leaves(self.python),
            "rng/numpy": _numpy_leaves(self.numpy),
            "rng/torch": _torch_leaves(self.torch),
        }
        for index, state in self.cuda.items():
            components[f"rng/cuda:{index}"] = _torch_leaves(state)
        return components

    def leaves_since(self, before: GlobalStreams, known: Mapping[str, Leaves]) -> dict[str, Leaves]:
        """:meth:`leaves`; of streams that a `StreamReader` found unmoved, the very same objects.

        Args:
            before: An earlier moment.
            known: Its components.
        """
        if self.cuda or before.cuda:
            return self.leaves()
        found = dict(known)
        if self.python is not before.python:
            found["rng/python"] = _python_leaves(self.python)
        if self.numpy is not before.numpy:
            found["rng/numpy"] = _numpy_leaves(self.numpy)
        if self.torch is not before.torch:
            found["rng/torch"] = _torch_leaves(self.torch)
        return found

    def same_as(self, other: GlobalStreams) -> bool:
        """Whether every stream stands where it stands in ``other``."""
        return (
            self.python == other.python
            and _same_numpy_state(self.numpy, other.numpy)
            and torch.equal(self.torch, other.torch)
            and self.cuda.keys() == other.cuda.keys()
            and all(torch.equal(state, other.cuda[index]) for index, state in self.cuda.items())
        )

    def restore(self) -> None:
        """Put every stream back to this state."""
        random.setstate(self.python)
        _NUMPY.write(self.numpy)
        torch.set_rng_state(self.torch)
        for index, state in self.cuda.items():
            torch.cuda.set_rng_state(state, index)


def capture_streams() -> GlobalStreams:
    """Freeze the global streams; draws nothing.

    Raises:
        UncapturedState: When numpy's global stream was given another bit generator.
    """
    return GlobalStreams(random.getstate(), numpy_state(), torch.get_rng_state(), cuda_states())


def numpy_state() -> tuple[Any, ...]:
    """State of numpy's global generator, in the order of its legacy form.

    Raises:
        UncapturedState: When it runs on another bit generator.
    """
    state: Any = np.random.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":
        raise UncapturedState(
            f"numpy's global stream runs on {state['bit_generator']}",
            component="rng/numpy",
            hint="leave numpy.random.set_bit_generator alone and register a Generator instead",
        )
    words = state["state"]
    return ("MT19937", words["key"], words["pos"], state["has_gauss"], state["gauss"])


def streams_from_leaves(components: Mapping[str, Leaves]) -> GlobalStreams:
    """Rebuild the global streams from the components of :meth:`GlobalStreams.leaves`.

    Raises:
        RestoreMismatch: When a stream is missing or has another shape.
    """
    try:
        version, words, gauss = _decode(components["rng/python"])
        kind, keys, position, has_gauss, cached = _decode(components["rng/numpy"])
        return GlobalStreams(
            python=(version, _MT_STATE.unpack(words), gauss),
            numpy=(kind, np.frombuffer(keys, "<u4").astype(np.uint32), position, has_gauss, cached),
            torch=_byte_tensor(_decode(components["rng/torch"])),
            cuda={
                int(name.removeprefix("rng/cuda:")): _byte_tensor(_decode(leaves))
                for name, leaves in components.items()
                if name.startswith("rng/cuda:")
            },
        )
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise RestoreMismatch(f"the snapshot's random streams are incomplete: {error}") from error


def seed_everything(seed: int, *purpose: str | int) -> dict[str, int]:
    """Seed every global stream from one study seed.

    CUDA is initialised where there is any, so that its streams exist from the start on.

    Args:
        seed: The study's seed.
        purpose: Names the set of streams; none for the streams that training starts with,
            ``"order", EPOCH`` for those that a sampler draws from.

    Returns:
        The derived seed by component name.
    """
    if torch.cuda.is_available():
        torch.cuda.init()  # type: ignore[no-untyped-call]
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
    _SEEDER.seed(seed)


def reseed(generator: Generator, seed: int) -> None:
    """Put a generator object to the start of another stream, of its own kind."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        kind: Any = type(generator.bit_generator)
        generator.bit_generator.state = kind(seed).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed(seed & 0xFFFFFFFF)
    else:
        generator.seed(seed)


def is_generator(value: object) -> bool:
    """Whether ``value`` is a generator object: random numbers that somebody draws from."""
    return issubclass(type(value), Generator)  # a proxy of one may stand for what is gone


def is_global_generator(value: object) -> bool:
    """Whether ``value`` is behind a module-level function: what `capture_streams` records."""
    numpy_global = getattr(np.random.random, "__self__", None)
    python_global = getattr(random.random, "__self__", None)
    known = (torch.default_generator, numpy_global, python_global, *torch.cuda.default_generators)
    return any(value is one for one in known)


def has_state(generator: Generator) -> bool:
    """Whether a generator can be read and put back: the operating system's cannot."""
    return not isinstance(generator, random.SystemRandom)


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
    except (KeyError, TypeError, ValueError, RuntimeError, FormatError) as error:
        raise RestoreMismatch(f"the state is of another kind of generator: {error}") from error


def uncovered_streams() -> tuple[str, ...]:
    """Sources of randomness that no RNG contract covers, named for people."""
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


def _same_numpy_state(state: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return state[2:] == other[2:] and np.array_equal(state[1], other[1])


def _python_leaves(state: tuple[Any, ...]) -> Leaves:
    version, words, gauss = state
    return _encode(b"[%d,%s,%s]", version, _MT_STATE.pack(*words), gauss)


def _numpy_leaves(state: tuple[Any, ...]) -> Leaves:
    kind, keys, position, has_gauss, cached = state
    data = keys.astype("<u4").tobytes()
    return _encode(b"[%s,%s,%d,%d,%s]", kind, data, position, has_gauss, cached)


def _torch_leaves(state: Tensor) -> Leaves:
    return KeptLeaves({"": _bytes_json(state_bytes(state))})


def _encode(form: bytes, *values: Any) -> KeptLeaves:
    # ``flatten`` word for word (a test holds the two together) but written out: this runs at
    # every step, and a tensor in new memory would cost the digest more than all of its JSON.
    return KeptLeaves({"": form % tuple(_json(value) for value in values)})


def _json(value: Any) -> bytes | int:
    if isinstance(value, bytes):
        return _bytes_json(value)
    if isinstance(value, float):
        return b'{"$":"float","bits":"%s"}' % struct.pack(">d", value).hex().encode()
    if isinstance(value, str):
        return b'"%s"' % value.encode()
    return b"null" if value is None else int(value)


def _bytes_json(value: bytes) -> bytes:
    return b"".join((b'{"$":"bytes","hex":"', hexlify(value), b'"}'))


def _decode(leaves: Leaves) -> Any:
    return unflatten({"": leaves[""]})


def state_bytes(state: Tensor) -> bytes:
    """A generator's state that is a tensor in the host's memory."""
    return memory_view(state.data_ptr(), state.nbytes).tobytes()


def _byte_tensor(data: object) -> Tensor:
    if not isinstance(data, bytes):
        raise TypeError("bytes were expected")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _tensor(leaves: Leaves, name: str) -> Tensor:
    value = leaves[name]
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is no tensor")
    return value


def _cuda_devices() -> range:
    # An uninitialised CUDA context has no state to lose, and asking would create one.
    ready = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return range(torch.cuda.device_count() if ready else 0)


def cuda_states() -> dict[int, Tensor]:
    """State of every device's generator, by index; none before CUDA is initialised."""
    return {index: torch.cuda.get_rng_state(index) for index in _cuda_devices()}
