"""A study whose sampler ranks the samples by the model's own loss, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak


class Hardest:
    """Yields the batch of which the model is most wrong, among a few that are drawn."""

    def __init__(self, model: nn.Module, inputs: Tensor, labels: Tensor) -> None:
        self.model, self.inputs, self.labels = model, inputs, labels

    def __len__(self) -> int:
        return 100

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(100):
            drawn = torch.randperm(len(self.labels))[:12]
            with torch.no_grad():
                scores = self.model(self.inputs[drawn])
                losses = nn.functional.cross_entropy(scores, self.labels[drawn], reduction="none")
            yield drawn[losses.argsort(descending=True)[:4]].tolist()


def make_program(seed: int, data_from: str = "model") -> ak.Program:
    """Build it."""
    inputs = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    labels = (inputs[:, 0] > 0).long()
    model = nn.Linear(4, 2)
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        loader=DataLoader(
            TensorDataset(inputs, labels),
            batch_sampler=Hardest(model, inputs, labels),
        ),
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        probe=ak.Probe(inputs[:10], labels[:10]),
        data_from="model" if data_from == "model" else "loader",
    )
