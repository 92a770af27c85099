"""Q-learning on CartPole: how much of an optimizer's memory acts through the data it leads to?

There is no loader: every step plays, keeps what it saw in a replay buffer, and learns from a draw
of it. At step t0 Adam's moments are reset. From then on the treatment plays otherwise and sees
other states, so its effect is a *total* one; with ``yoked=yes`` it learns from what the control
has drawn, which leaves the *direct* effect. Environment, replay buffer and target network belong
to the state that is forked. The probe is what the network would do in states of random play, the
measure its return: how long its best actions keep the pole up.

Minutes on a CPU::

    pip install ".[examples-rl]"
    auditkit run examples/dqn_cartpole.py --out runs/dqn
    auditkit verify runs/dqn

Longer, with larger networks::

    auditkit run examples/dqn_cartpole.py --arg preset=full --fork-at 30000 --window 1000 \
        --horizon 50000 --seeds 0-9 --out runs/dqn-full
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import auditkit as ak

PLAYS_A_STEP, BATCH_SIZE, DISCOUNT, TARGET_EVERY = 2, 64, 0.99, 100


class Memory:
    """The last transitions, and the state that the environment is in."""

    def __init__(self, length: int, now: Tensor) -> None:
        self.rows = torch.zeros(length, 4 + 1 + 1 + 4)  # state, action, whether it goes on, next
        self.count = 0
        self.now = now

    def add(self, action: int, goes_on: bool, after: Tensor) -> None:
        row = torch.cat([self.now, torch.tensor([float(action), float(goes_on)]), after])
        self.rows[self.count % len(self.rows)] = row
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows.clone(), "count": self.count, "now": self.now.clone()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows.copy_(state_dict["rows"])
        self.count, self.now = state_dict["count"], state_dict["now"].clone()


def make_network(width: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(4, width), nn.ReLU()),
        *(nn.Linear(width, width), nn.ReLU()),
        nn.Linear(width, 2),
    )


def play_return(model: nn.Module, episodes: int = 5) -> float:
    """Mean number of steps for which the best actions keep the pole up; 500 at most."""
    env, total = gymnasium.make("CartPole-v1"), 0.0
    for episode in range(episodes):
        state, _ = env.reset(seed=1000 + episode)
        over = False
        while not over:
            with torch.no_grad():
                action = int(model(torch.as_tensor(state)).argmax())
            state, reward, fallen, cut, _ = env.step(action)
            total, over = total + float(reward), fallen or cut
    return total / episodes


def random_states(number: int) -> Tensor:
    """States of random play, the same in every branch and seed."""
    env = gymnasium.make("CartPole-v1")
    env.action_space.seed(0)
    state, _ = env.reset(seed=0)
    states = []
    for _ in range(number):
        states.append(torch.as_tensor(state))
        state, _, fallen, cut, _ = env.step(env.action_space.sample())
        if fallen or cut:
            state, _ = env.reset()
    return torch.stack(states)


def make_program(seed: int, preset: str = "small") -> ak.Program:
    """Network, target network, optimizer, environment and probe of one seed."""
    width, length, explore = (256, 100_000, 10_000) if preset == "full" else (64, 10_000, 1500)
    env = gymnasium.make("CartPole-v1")
    first, _ = env.reset(seed=seed)
    model = make_network(width)
    target = copy.deepcopy(model).requires_grad_(False)
    memory = Memory(length, torch.as_tensor(first))

    def play(chance: float) -> None:
        if float(torch.rand(())) < chance:
            action = int(torch.randint(2, ()))
        else:
            with torch.no_grad():
                action = int(model(memory.now).argmax())
        state, _, fallen, cut, _ = env.step(action)
        after = torch.as_tensor(state)
        memory.add(action, not fallen, after)
        memory.now = torch.as_tensor(env.reset()[0]) if fallen or cut else after

    def step(program: ak.Program, _: Any, t: int) -> Tensor:
        for _ in range(PLAYS_A_STEP):
            play(max(1 - t / explore, 0.05))
        drawn = torch.randint(min(memory.count, length), (BATCH_SIZE,))
        rows = ak.consume(drawn, memory.rows[drawn])
        state, action, goes_on, after = rows.split([4, 1, 1, 4], dim=1)
        with torch.no_grad():  # the best action by the network, its value by the target network
            value = target(after).gather(1, model(after).argmax(1, keepdim=True))
        loss = F.smooth_l1_loss(
            model(state).gather(1, action.long()), 1 + DISCOUNT * goes_on * value
        )
        program.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        program.optimizer.step()
        if t % TARGET_EVERY == 0:
            target.load_state_dict(model.state_dict())
        return loss

    return ak.Program(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-3),
        loader=None,
        step=step,
        extras={"target": target, "memory": memory, "env": ak.extras.Gymnasium(env)},
        probe=ak.Probe(random_states(300)),
        measures={
            "return": ak.Measure(lambda p: play_return(p.model), better="higher", low=0, high=500)
        },
    )


STUDY = ak.StudyPlan(
    fork_at=2500,
    window=50,
    horizon=2800,
    seeds=range(3),
    perturbations=["adam-reset", "adam-reset:yoked=yes"],
    placebo_scale=256,
)
