from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import auditkit as ak
from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.values.codec import flatten, unflatten
from auditkit.observe.values.tensors import Leaves


class Inner:
    """What an environment is made of: plain values, containers, objects, generators."""

    def __init__(self) -> None:
        self.history: deque[Any] = deque(maxlen=3)
        self.rng = random.Random(1)
        self.where: dict[str, Any] = {"at": np.zeros(2), "moves": [self.rng]}


class World:
    """An environment without gymnasium."""

    def __init__(self) -> None:
        self._np_random: Any = None
        self.inner = Inner()
        self.again = self.inner
        self.reward: Callable[[float], float] = lambda at: -at
        self.state: Any = None
        self.memory = torch.zeros(2)

    def reset(self, seed: int | None = None) -> None:
        """Begin."""
        self._np_random = np.random.Generator(np.random.PCG64(seed))
        self.state = (0.0, np.float32(1))

    def step(self, action: int) -> float:
        """Go on."""
        drawn = float(self._np_random.random()) + self.inner.rng.random() + action
        self.inner.history.append(drawn)
        self.again.where["at"] = self.inner.where["at"] + drawn
        self.memory = self.memory + drawn
        self.state = (drawn, np.float32(drawn))
        return self.reward(drawn) + float(sum(self.inner.history))


def seeded(world: World) -> World:
    world.reset(seed=1)
    return world


def frozen(extra: Any) -> Leaves:
    leaves = flatten(extra.state_dict(), where="env")
    return {
        key: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf
        for key, leaf in leaves.items()
    }


def test_an_environment_goes_on_where_it_stood() -> None:
    world = seeded(World())
    extra = ak.extras.Gymnasium(world)
    for _ in range(5):
        world.step(1)
    kept = frozen(extra)
    wanted = [world.step(1) for _ in range(5)]
    other = seeded(World())
    there = ak.extras.Gymnasium(other)
    there.load_state_dict(unflatten(kept))
    assert frozen(there)[""] == kept[""]
    assert other.again is other.inner
    assert other.inner.where["moves"][0] is other.inner.rng
    assert [other.step(1) for _ in range(5)] == wanted


def test_what_was_restored_shares_nothing_with_the_snapshot() -> None:
    extra = ak.extras.Gymnasium(world := seeded(World()))
    tree = unflatten(frozen(extra))
    extra.load_state_dict(tree)
    world.inner.where["at"] += 1
    extra.load_state_dict(tree)
    assert world.inner.where["at"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (threading.Lock(), r"env\.inner\.engine is a _thread\.lock, which cannot be read as plain"),
        (nn.Linear(1, 1), r"env\.inner\.engine is a .*Linear, which is trained state of its own"),
        (random.SystemRandom(), "env.inner.engine is a .*, which draws from the operating system"),
        ({threading.current_thread}, r"env\.inner\.engine is a set, which holds objects"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_path(value: object, said: str) -> None:
    world = seeded(World())
    vars(world.inner)["engine"] = value
    with pytest.raises(UncapturedState, match=said):
        ak.extras.Gymnasium(world)


def test_an_environment_that_no_seed_decides_is_refused() -> None:
    with pytest.raises(UncapturedState, match=r"call env\.reset\(seed=seed\) in the factory"):
        ak.extras.Gymnasium(World())
    with pytest.raises(UncapturedState, match="is no environment"):
        ak.extras.Gymnasium(Inner())


def test_a_state_of_another_environment_is_refused() -> None:
    tree = ak.extras.Gymnasium(seeded(World())).state_dict()
    other = seeded(World())
    other.inner = Inner  # type: ignore[assignment]
    with pytest.raises(RestoreMismatch, match=r"env\.inner is of another kind"):
        ak.extras.Gymnasium(other).load_state_dict(tree)


# With gymnasium itself


def rolled(env: Any, n_steps: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(n_steps):
        action = env.action_space.sample()
        seen, reward, terminated, truncated, _ = env.step(action)
        found += [np.array(part).tolist() for part in (action, seen, reward, terminated)]
        if not hasattr(env, "num_envs") and (terminated or truncated):
            env.reset()
    return found


ENVIRONMENTS: dict[str, Callable[[Any], Any]] = {
    "CartPole": lambda gym: gym.make("CartPole-v1"),
    "statistics": lambda gym: gym.wrappers.RecordEpisodeStatistics(gym.make("CartPole-v1")),
    "stacked": lambda gym: gym.wrappers.FrameStackObservation(
        gym.wrappers.NormalizeObservation(gym.make("Acrobot-v1")), 2
    ),
    "Blackjack": lambda gym: gym.make("Blackjack-v1"),
    "sync": lambda gym: gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_gymnasium_environments_go_on_where_they_stood(name: str) -> None:
    gym = pytest.importorskip("gymnasium", reason="gymnasium is not installed")

    def built() -> tuple[Any, Any]:
        env = ENVIRONMENTS[name](gym)
        env.reset(seed=3)
        env.action_space.seed(4)
        return env, ak.extras.Gymnasium(env)

    env, extra = built()
    rolled(env, 25)
    kept = frozen(extra)
    wanted = rolled(env, 60)
    other, there = built()
    there.load_state_dict(unflatten(kept))
    assert frozen(there)[""] == kept[""]
    assert rolled(other, 60) == wanted


def test_a_space_that_nobody_seeded_must_not_be_drawn_from() -> None:
    gym = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    env = gym.make("CartPole-v1")
    env.reset(seed=1)
    extra = ak.extras.Gymnasium(env)
    extra.state_dict()
    env.action_space.sample()
    with pytest.raises(UncapturedState, match=r"action_space had no generator when .* was built"):
        extra.state_dict()
