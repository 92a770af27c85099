"""A loop that seeds torch alone, and draws from nothing else: what most scripts are like."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak


@dataclass(frozen=True)
class IdleLoop:
    """Six steps of SGD; call it to train.

    Attributes:
        out: Where it records.
        lr: Its learning rate.
        halved_at: The step in which that is halved; 0 for none.
        every: Steps between its checkpoints; 0 for none.
    """

    out: Path
    lr: float = 0.5
    halved_at: int = 0
    every: int = 0

    def __call__(self) -> None:
        random.seed()
        np.random.seed()
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)
        loader = DataLoader(TensorDataset(torch.randn(12, 3)), batch_size=2, shuffle=True)
        with ak.Recorder(self.out, seed=0, checkpoint_every=self.every) as recorder:
            recorder.wrap(model, optimizer, loader)
            for number, (x,) in enumerate(loader, start=1):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
                if number == self.halved_at:
                    optimizer.param_groups[0]["lr"] /= 2
