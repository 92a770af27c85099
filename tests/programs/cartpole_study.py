"""DQN on CartPole, without a loader: environment, replay buffer and target net are extras."""

from __future__ import annotations

import random
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

import auditkit as ak


class Player:
    """Plays, and keeps the last transitions."""

    def __init__(self, size: int) -> None:
        self.rows = torch.zeros(size, 11)  # seen (4), action, reward, over, seen next (4)
        self.count = 0
        self.seen = np.zeros(4, dtype=np.float32)

    def play(self, env: Any, net: nn.Module, epsilon: float) -> None:
        """One step in the environment."""
        with torch.no_grad():
            preferred = (20 * net(torch.from_numpy(self.seen))).softmax(0)
        action = int(random.random() < float(preferred[1]))
        if random.random() < epsilon:
            action = int(env.action_space.sample())
        seen, reward, terminated, truncated, _ = env.step(action)
        row = [*self.seen, action, reward, terminated, *seen]
        self.rows[self.count % len(self.rows)] = torch.tensor(row)
        self.count += 1
        self.seen = env.reset()[0] if terminated or truncated else seen

    def state_dict(self) -> dict[str, Any]:
        """All but the environment."""
        return {"rows": self.rows, "count": self.count, "seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put it back."""
        self.rows.copy_(state_dict["rows"])
        self.count, self.seen = state_dict["count"], np.array(state_dict["seen"])


def policy(net: nn.Module, states: Tensor) -> Tensor:
    """Probabilities of its actions in some states, as it plays them."""
    return (20 * net(states)).softmax(1)  # type: ignore[no-any-return]


def make_program(seed: int, registered: str = "yes", asked: str = "answers") -> ak.Program:
    """Build it.

    Args:
        seed: The study seed.
        registered: Whether the environment is among the extras.
        asked: ``answers``, beside those of a policy made by hand, or ``policy``.
    """
    env = gymnasium.make("CartPole-v1")
    env.reset(seed=seed)
    env.action_space.seed(seed)
    player = Player(500)
    player.seen, _ = env.reset()
    net, target = (nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2)) for _ in range(2))
    target.load_state_dict(net.state_dict())

    def step(program: ak.Program, _: None, t: int) -> Tensor | None:
        player.play(env, net, max(0.05, 1 - t / 100))
        if player.count < 16:
            return None
        indices = torch.randint(min(player.count, len(player.rows)), (16,))
        rows = ak.consume(indices, player.rows[indices])
        values = net(rows[:, :4]).gather(1, rows[:, 4:5].long())[:, 0]
        with torch.no_grad():
            following = target(rows[:, 7:]).max(1).values
        wanted = rows[:, 5] + 0.98 * (1 - rows[:, 6]) * following
        loss = nn.functional.smooth_l1_loss(values, wanted)
        program.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        program.optimizer.step()
        if t % 20 == 0:
            target.load_state_dict(net.state_dict())
        return loss

    drawn = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    extras: dict[str, Any] = {"player": player, "target": target}
    if registered == "yes":
        extras["env"] = ak.extras.Gymnasium(env)
    return ak.Program(
        model=net,
        optimizer=torch.optim.Adam(net.parameters(), lr=5e-3),
        loader=None,
        step=step,
        extras=extras,
        probe=(
            ak.Probe(drawn, predict=policy, probabilities=True)
            if asked == "policy"
            else ak.Probe(drawn, (drawn[:, 2] + 0.3 * drawn[:, 3] > 0).long())
        ),
    )
