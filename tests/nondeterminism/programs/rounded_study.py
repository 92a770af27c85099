"""A study whose last bits are the machine's: a convolution, and a sum that threads share out.

Its data are fractions of 16 and its weights are uniform, which every processor draws alike: what
differs elsewhere is arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak

N_SAMPLES = 64
N_SIDE = 8

#: Torch shares out a sum of more than 32,768 terms.
LONG = (torch.arange(40_000) * 7 % 17).float() / 17


def loss(model: Any, batch: Any) -> Tensor:
    """Cross-entropy, and a penalty whose gradient holds the long sum."""
    inputs, labels = batch
    penalty = (LONG * model[0].weight.mean()).exp().mean()
    found: Tensor = nn.functional.cross_entropy(model(inputs), labels) + penalty
    return found


def make_program(seed: int) -> ak.Program:
    """A small convolutional model."""
    numbers = torch.arange(N_SAMPLES * N_SIDE * N_SIDE) * 7 % 17
    inputs = numbers.reshape(N_SAMPLES, 1, N_SIDE, N_SIDE).float() / 16
    labels = torch.arange(N_SAMPLES) % 3
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(256, 3)
    )
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        loader=DataLoader(TensorDataset(inputs, labels), batch_size=16, shuffle=True),
        loss=loss,
        probe=ak.Probe(inputs[:16].clone(), labels[:16]),
    )
