"""A study of histories: the same samples with other bytes, for a learner with or without memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import auditkit as ak

#: Steps of the trunk in the test of regimes.
FORK = 6


def of_regime(  # one argument a column of the paper's table
    seed: int,
    steps: int,
    lr: str,
    momentum: str,
    history: str,
    segment: str,
    overlap: float,
    same_classes: str,
) -> ak.Program:
    """Build it for a regime."""
    program = make_program(seed, momentum)
    dataset = program.loader.dataset
    sampler = ak.Segments(
        BatchSampler(RandomSampler(dataset), 8, drop_last=True),
        dataset.tensors[1],
        fork_at=FORK,
        steps=steps,
        batch_size=8,
        overlap=overlap,
        same_classes=same_classes == "yes",
        seed=seed,
    )
    program.optimizer.param_groups[0]["lr"] = float(lr)
    kinds = {"none": 0.0, "weak": 0.01, "color": 0.1, "blur": -0.3}

    def augment(batch: Any, step: int, generator: torch.Generator) -> Any:
        kind = history if step <= FORK + steps else segment
        return batch[0] + kinds[kind], batch[1]

    def change(kind: str) -> Any:
        return lambda batch, step, generator: (batch[0] + kinds[kind], batch[1])

    changes = {kind: change(kind) for kind in ("color", "blur")}
    loader = DataLoader(dataset, batch_sampler=sampler)
    return dataclasses.replace(program, loader=loader, augment=augment, data_changes=changes)


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
