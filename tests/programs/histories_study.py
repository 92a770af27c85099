"""A study of histories: the same samples with other bytes, for a learner with or without memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak


def make_program(seed: int, momentum: str = "0.9", data_from: str = "loader") -> ak.Program:
    """Build it; plain SGD with momentum 0 keeps nothing but the weights."""
    inputs = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    labels = (inputs[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))

    def shift(batch: Any, step: int, generator: torch.Generator) -> Any:
        return batch[0] + 0.5, batch[1]

    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.2, momentum=float(momentum)),
        loader=DataLoader(TensorDataset(inputs, labels), batch_size=8, shuffle=True),
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        probe=ak.Probe(inputs[:10], labels[:10]),
        data_changes={"shift": shift} if data_from == "loader" else {},
        data_from=data_from,  # type: ignore[arg-type]
    )
