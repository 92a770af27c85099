"""The state of an environment of reinforcement learning, as plain data and back, by its attributes.

An environment of gymnasium has no ``state_dict``. What it goes on from are attributes: of its inner
environment, of every wrapper around it, of the environments of a vector of them, and the generators
of all these and of their spaces. They are read as they are, whatever class they are of; what is
configuration (functions, classes, specifications) is left as the factory built it; what can be read
in no such way (a physics engine, a window, a process) is refused by its path. gymnasium itself is
not needed here.
"""

from __future__ import annotations

import copy
import enum
import functools
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.formats.quote import class_of
from auditkit.observe.rng.streams import (
    Generator,
    generator_leaves,
    has_state,
    restore_generator,
)

#: Attributes that are configuration, or read the clock, which no branch shares with another.
_LEFT_OUT = frozenset(
    {
        *("spec", "_cached_spec", "metadata", "_metadata", "_saved_kwargs", "env_fns"),
        *("episode_start_time", "episode_start_times", "time_queue"),
    }
)

_ATOMS = (type(None), bool, int, float, complex, str, bytes, np.generic)
_PLAIN = (*_ATOMS, np.ndarray, Tensor)
_SEQUENCES = (list, tuple, deque)
_CONTAINERS = (*_SEQUENCES, set, frozenset, dict)
_CODE = (
    *(type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType),
    *(functools.partial, np.dtype, np.ufunc, enum.Enum),
)

_TAG = "~"
_MAX_DEPTH = 40

#: Generators that numpy can make anew where one was not made yet.
_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


class Gymnasium:
    """An environment of gymnasium, or a vector of them, as an extra of a program or a recorder.

    ::

        env = gymnasium.make("CartPole-v1")
        env.reset(seed=seed)
        env.action_space.seed(seed)
        ak.Program(..., extras={"env": ak.extras.Gymnasium(env)})

    Its state is the attributes of the environment, of its wrappers and of the environments of a
    ``SyncVectorEnv``, and the generators of all these and of their spaces. What the loop keeps
    itself, such as the last observation, is an extra of its own, or an attribute of the
    environment. Clocks (``RecordEpisodeStatistics``) are left out.

    Args:
        env: The environment, after ``reset(seed=...)``.

    Raises:
        UncapturedState: When it was not seeded, or holds what cannot be read as plain data.
    """

    def __init__(self, env: Any) -> None:
        if not callable(getattr(env, "step", None)) or not callable(getattr(env, "reset", None)):
            raise UncapturedState(
                f"{class_of(env)} is no environment", expected="an object with reset and step"
            )
        self._env = env
        self._unseeded = frozenset(_Reader().read(env)[1])
        inner = getattr(env, "unwrapped", env)
        if getattr(inner, "_np_random", self) is None and not getattr(inner, "envs", ()):
            raise UncapturedState(
                f"the environment {class_of(inner)} has no generator yet, and would take one that "
                "no seed decides",
                component="rng",
                hint="call env.reset(seed=seed) in the factory, before Gymnasium(env)",
            )

    def state_dict(self) -> dict[str, Any]:
        """The state, as plain data.

        Raises:
            UncapturedState: When there is something by now that cannot be read, or a generator
                that nobody seeded.
        """
        tree, unseeded = _Reader().read(self._env)
        for path in sorted(self._unseeded - set(unseeded)):
            raise UncapturedState(
                f"{path} had no generator when the program was built, and has taken one that no "
                "seed decides",
                component="rng",
                hint="seed it in the factory: env.reset(seed=seed), env.action_space.seed(seed)",
            )
        return {"env": tree}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the state back, into an environment that the same factory made.

        Raises:
            RestoreMismatch: When the state is of another environment.
        """
        _Writer().write(state_dict["env"], self._env, "env")

    def held_objects(self) -> Iterator[object]:
        """What has its state in here: the environments, their spaces and generators."""
        reader = _Reader()
        reader.read(self._env)
        return reader.objects()


def held_by(extras: Iterable[object]) -> Iterator[object]:
    """Objects that extras say they hold, with their state."""
    for extra in extras:
        held: Callable[[], Iterator[object]] | None = getattr(extra, "held_objects", None)
        if held is not None and isinstance(extra, Gymnasium):
            yield from held()


class _Reader:
    """One walk over an environment."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[str, Any]] = {}
        self._unseeded: list[str] = []

    def read(self, env: Any) -> tuple[Any, list[str]]:
        """The tree of an environment, and the paths of generators that do not exist yet."""
        return self._value(env, "env", 0), self._unseeded

    def objects(self) -> Iterator[object]:
        """What was gone through and is no plain value."""
        return (value for _, value in self._seen.values() if not isinstance(value, _PLAIN))

    def _value(self, value: Any, path: str, depth: int) -> Any:
        if isinstance(value, _ATOMS):
            return value
        if depth > _MAX_DEPTH:
            raise _refusal(value, path, "lies too deep")
        if isinstance(value, _CODE) or _is_specification(value):
            return {_TAG: "code", "name": getattr(value, "__qualname__", class_of(value))}
        if type(value) in _CONTAINERS or hasattr(value, "_fields"):
            return self._container(value, path, depth)
        if id(value) in self._seen:
            return {_TAG: "same", "path": self._seen[id(value)][0]}
        self._seen[id(value)] = (path, value)
        return self._once(value, path, depth)

    def _once(self, value: Any, path: str, depth: int) -> Any:
        """What may be there more than once: it is read where it is first met."""
        if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype != object):
            return value
        if isinstance(value, Generator):
            return _generator(value, path)
        return (self._space if is_space(value) else self._object)(value, path, depth)

    def _container(self, value: Any, path: str, depth: int) -> Any:
        if isinstance(value, (set, frozenset)):
            if all(isinstance(item, _PLAIN) for item in value):
                return value
            raise _refusal(value, path, "holds objects")
        if isinstance(value, dict):
            pairs = [
                [key, self._value(item, f"{path}[{key!r}]", depth + 1)]
                for key, item in value.items()
            ]
            return {_TAG: "dict", "pairs": pairs}
        parts = [self._value(part, f"{path}[{n}]", depth + 1) for n, part in enumerate(value)]
        limit = value.maxlen if isinstance(value, deque) else None
        if hasattr(value, "_fields"):
            return {_TAG: "named tuple", "items": parts}
        return {_TAG: type(value).__name__, "items": parts, "maxlen": limit}

    def _space(self, space: Any, path: str, depth: int) -> Any:
        """Of a space only its generators change, and those of the spaces in it."""
        own = vars(space).get("_np_random")
        if own is None:
            self._unseeded.append(path)
        inner = vars(space).get("spaces", ())
        parts = list(inner.values()) if isinstance(inner, dict) else list(inner)
        return {
            _TAG: "space",
            "class": class_of(space),
            "generator": None if own is None else self._value(own, f"{path}.np_random", depth + 1),
            "spaces": [
                self._value(part, f"{path}.spaces[{n}]", depth + 1) for n, part in enumerate(parts)
            ],
        }

    def _object(self, value: Any, path: str, depth: int) -> Any:
        if isinstance(value, nn.Module):
            raise _refusal(value, path, "is trained state of its own", "give it as an extra")
        if not isinstance(getattr(value, "__dict__", None), dict):
            raise _refusal(value, path)
        if _slots(value):
            raise _refusal(value, path, "keeps state in slots")
        attributes = {
            name: self._value(item, f"{path}.{name}", depth + 1)
            for name, item in vars(value).items()
            if name not in _LEFT_OUT
        }
        if vars(value).get("_np_random", self) is None:
            self._unseeded.append(path)
        return {_TAG: "object", "class": class_of(value), "attributes": attributes}


class _Writer:
    """One walk that puts a state back."""

    def __init__(self) -> None:
        self._written: dict[str, Any] = {}

    def write(self, saved: Any, live: Any, path: str) -> Any:
        """Put a value back; what stands there afterwards."""
        kind = saved.get(_TAG) if isinstance(saved, dict) else None
        if kind == "code":
            return live
        if kind == "same":
            return self._written.get(saved["path"], live)
        if kind == "dict":
            there = live if isinstance(live, dict) else {}
            return {
                key: self.write(item, there.get(key), f"{path}[{key!r}]")
                for key, item in saved["pairs"]
            }
        if kind in ("list", "tuple", "deque", "named tuple"):
            return self._sequence(saved, live, path)
        if kind == "generator":
            written = _restored(saved, live, path)
        elif kind == "space":
            written = self._space(saved, live, path)
        elif kind == "object":
            written = self._object(saved, live, path)
        else:
            written = copy.deepcopy(saved)
        self._written[path] = written
        return written

    def _sequence(self, saved: Any, live: Any, path: str) -> Any:
        there = list(live) if isinstance(live, _SEQUENCES) else []
        there += [None] * (len(saved["items"]) - len(there))
        parts = [
            self.write(part, there[n], f"{path}[{n}]") for n, part in enumerate(saved["items"])
        ]
        if saved[_TAG] == "named tuple":
            return type(live)(*parts)
        if saved[_TAG] == "deque":
            return deque(parts, saved["maxlen"])
        return tuple(parts) if saved[_TAG] == "tuple" else parts

    def _space(self, saved: Any, live: Any, path: str) -> Any:
        _require_class(saved, live, path)
        own = saved["generator"]
        vars(live)["_np_random"] = (
            None
            if own is None
            else self.write(own, vars(live).get("_np_random"), path + ".np_random")
        )
        inner = vars(live).get("spaces", ())
        parts = list(inner.values()) if isinstance(inner, dict) else list(inner)
        for n, (part, there) in enumerate(zip(saved["spaces"], parts, strict=True)):
            self.write(part, there, f"{path}.spaces[{n}]")
        return live

    def _object(self, saved: Any, live: Any, path: str) -> Any:
        _require_class(saved, live, path)
        self._written[path] = live  # before its attributes, which may lead back to it
        attributes = saved["attributes"]
        for name in [*vars(live)]:
            if name not in attributes and name not in _LEFT_OUT:
                del vars(live)[name]
        for name, item in attributes.items():
            vars(live)[name] = self.write(item, vars(live).get(name), f"{path}.{name}")
        return live


def is_space(value: object) -> bool:
    """Whether it is a space of gymnasium."""
    return any(kind.__module__.startswith("gymnasium.spaces") for kind in type(value).__mro__)


def _is_specification(value: object) -> bool:
    return type(value).__module__ == "gymnasium.envs.registration"


def _slots(value: object) -> bool:
    return any(
        isinstance(member, types.MemberDescriptorType)
        for kind in type(value).__mro__
        for member in vars(kind).values()
    )


def _generator(generator: Generator, path: str) -> dict[str, Any]:
    if not has_state(generator):
        raise _refusal(generator, path, "draws from the operating system")
    bits = getattr(generator, "bit_generator", None)
    kind = class_of(generator) if bits is None else type(bits).__name__
    return {_TAG: "generator", "class": kind, "state": dict(generator_leaves(generator))}


def _restored(saved: Any, live: Any, path: str) -> Any:
    bits = getattr(live, "bit_generator", None)
    kind = class_of(live) if bits is None else type(bits).__name__
    if kind != saved["class"] and saved["class"] in _BIT_GENERATORS:
        live = np.random.Generator(getattr(np.random, saved["class"])(0))
    elif kind != saved["class"]:
        raise _mismatch(path, saved["class"], kind)
    restore_generator(live, saved["state"])
    return live


def _require_class(saved: Any, live: Any, path: str) -> None:
    if class_of(live) != saved["class"]:
        raise _mismatch(path, saved["class"], class_of(live))


def _mismatch(path: str, expected: str, found: str) -> RestoreMismatch:
    return RestoreMismatch(
        f"{path} is of another kind than when it was captured",
        component="extras",
        expected=expected,
        found=found,
        hint="let the factory build all that the environment consists of",
    )


def _refusal(
    value: object, path: str, why: str = "cannot be read as plain data", hint: str | None = None
) -> UncapturedState:
    return UncapturedState(
        f"{path} is a {class_of(value)}, which {why}",
        component="extras",
        hint=hint
        or "take an environment that is plain Python (a SyncVectorEnv for a vector, no "
        "render_mode), or give an extra with state_dict and load_state_dict that knows it",
    )
