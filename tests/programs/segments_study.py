"""Studies of two segments: what is held, what is measured, and what is drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import auditkit as ak

FORK, STEPS = 3, 2

#: What segments see in the study of directions.
DIRECTIONS = {"x": [1.0, 0.0, 0.0], "y": [0.0, 2.0, 0.0], "-x": [-3.0, 0.0, 0.0]}


def of_directions(
    seed: int, first: str = "x", second: str = "y", optimizer: str = "sgd"
) -> ak.Program:
    """The gradient of a batch is its mean, whatever the weights are."""
    inputs = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    model = nn.Linear(3, 2, bias=False)
    kinds: dict[str, Any] = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "plain": lambda: torch.optim.SGD(model.parameters(), lr=0.1),
        "adam": lambda: torch.optim.Adam(model.parameters(), lr=0.1),
    }

    def augment(batch: list[Tensor], step: int, generator: torch.Generator) -> list[Tensor]:
        kind = first if step <= FORK + STEPS else second
        return [torch.tensor(DIRECTIONS[kind]).expand_as(batch[0]).clone()]

    return ak.Program(
        model=model,
        optimizer=kinds[optimizer](),
        loader=DataLoader(TensorDataset(inputs), batch_size=4, shuffle=True),
        loss=lambda model, batch: model(batch[0])[:, 0].mean(),
        augment=augment,
        data_changes={"turn": lambda batch, step, generator: [batch[0].roll(1, dims=1)]},
        probe=ak.Probe(inputs[:6]),
    )


def with_batchnorm(
    seed: int, overlap: float = 0.5, same_classes: str = "yes", mode: str = "kept"
) -> ak.Program:
    """A model with BatchNorm; ``mode`` is forced where every step calls ``model.train()``."""
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(60) % 3
    dataset = TensorDataset(inputs, labels)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    sampler = ak.Segments(
        BatchSampler(RandomSampler(dataset), 8, drop_last=True),
        labels,
        fork_at=FORK,
        steps=STEPS,
        batch_size=8,
        overlap=overlap,
        same_classes=same_classes == "yes",
        seed=seed,
    )

    def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
        if mode == "forced":
            model.train()
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        loader=DataLoader(dataset, batch_sampler=sampler),
        loss=loss,
        recalibrate=lambda model, batch: model(batch[0]),
        data_changes={"shift": lambda batch, step, generator: [batch[0] + 0.5, batch[1]]},
        probe=ak.Probe(inputs[:10], labels[:10]),
    )
