"""A study without a loader: a walker that gathers its own data and learns from a replay buffer.

Which transitions it gathers depends on its weights, as in reinforcement learning. A step takes less
than a millisecond.
"""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor, nn

import auditkit as ak

N_STATES = 6


class Walk:
    """A walk around a circle, one way or the other."""

    def __init__(self) -> None:
        self.at = 3

    def step(self, action: int) -> tuple[int, int]:
        """Move; gives the state before and after."""
        before = self.at
        self.at = (before + (2 if action else -1)) % N_STATES
        return before, self.at

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {"at": self.at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go there."""
        self.at = state_dict["at"]


class Buffer:
    """The last transitions."""

    def __init__(self) -> None:
        self.rows = torch.zeros(16, 3, dtype=torch.int64)
        self.count = 0

    def add(self, row: tuple[int, int, int]) -> None:
        """Keep a transition in place of the oldest one."""
        self.rows[self.count % len(self.rows)] = torch.tensor(row)
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {"rows": self.rows.clone(), "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put it back."""
        self.rows.copy_(state_dict["rows"])
        self.count = state_dict["count"]


def make_program(seed: int, says: str = "both", registered: str = "yes") -> ak.Program:
    """Build it.

    Args:
        seed: The study seed.
        says: What the step says that it consumes: ``both``, ``batch``, ``twice``, ``nothing`` or
            ``sometimes``, when it has come to the left half.
        registered: Whether the walk is among the extras.
    """
    model = nn.Sequential(nn.Embedding(N_STATES, 4), nn.Linear(4, 2))
    walk, buffer = Walk(), Buffer()

    def step(program: ak.Program, batch: Any, t: int) -> Tensor | None:
        with torch.no_grad():
            left, right = model(torch.tensor(walk.at)).tolist()
        action = int(random.random() < 1 / (1 + math.exp(6 * (left - right))))
        before, after = walk.step(action)
        buffer.add((before, action, after))
        indices = torch.randint(min(buffer.count, 16), (4,))
        rows = buffer.rows[indices]
        if says in ("both", "twice") or (says == "sometimes" and after < 3):
            rows = ak.consume(indices, rows)
        if says == "twice":
            rows = torch.cat([rows, ak.consume(indices[:1], rows[:1])])
        if says == "batch":
            rows = ak.consume(batch=rows)
        values = model(rows[:, 0]).gather(1, rows[:, 1:2])[:, 0]
        target = rows[:, 2].float() / N_STATES + 0.2 * model(rows[:, 2]).max(1).values.detach()
        loss = nn.functional.mse_loss(values, target)
        program.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        program.optimizer.step()
        return loss

    extras: dict[str, Any] = {"buffer": buffer}
    if registered == "yes":
        extras["walk"] = walk
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        loader=None,
        step=step,
        extras=extras,
        probe=ak.Probe(torch.arange(N_STATES), torch.ones(N_STATES, dtype=torch.int64)),
    )


STUDY = ak.StudyPlan(
    fork_at=20,
    window=5,
    horizon=90,
    seeds=[0],
    perturbations=["carry", "momentum-reset"],
    placebos=1,
)
