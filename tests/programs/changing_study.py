"""A study of changes of the data: an augmentation by schedule, label noise, a blur of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak
from auditkit.perturbations.data import DataPerturbation, WindowBatch


def noisier(batch: Any, step: int, generator: torch.Generator) -> Any:
    """Noise that grows with the step, of both kinds of stream."""
    inputs, labels = batch
    noise = torch.randn(inputs.shape, generator=generator) + torch.randn(inputs.shape)
    return inputs + 0.01 * step * noise, labels


def make_program(seed: int, augment: str = "yes", change: str = "blur") -> ak.Program:
    """Build it.

    Args:
        seed: The study seed.
        augment: Whether batches are augmented.
        change: What the function ``blur`` does: ``blur``, ``nothing``, ``raise``, ``leak``, which
            writes into the data set, ``weights``, or ``hook``, which reach for the model.
    """
    inputs = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    labels = (inputs[:, 0] > 0).long()
    data = TensorDataset(inputs.clone(), labels)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.ReLU(), nn.Linear(6, 2))

    def blur(batch: Any, step: int, generator: torch.Generator) -> Any:
        seen: Tensor = batch[0]
        if change == "raise":
            raise ValueError("no blur today")
        if change == "weights":
            model[0].weight.data.add_(0.5)  # type: ignore[operator]
        if change == "hook":
            model[0].register_forward_hook(lambda layer, given, found: found * 2)
        if change == "leak":
            data.tensors[0].add_(0.1)
        if change != "nothing":
            seen.copy_(seen.mean(1, keepdim=True) + 0.1 * torch.rand(1, generator=generator))
        return batch

    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        loader=DataLoader(data, batch_size=8, shuffle=True),
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        probe=ak.Probe(inputs[:10], labels[:10]),
        augment=noisier if augment == "yes" else None,
        data_changes={"blur": blur},
    )


def fade(batch: Any, step: int, generator: torch.Generator, parameters: dict[str, Any]) -> Any:
    """Inputs nearer to noise, of both kinds of stream."""
    inputs, labels = batch
    noise = torch.randn(inputs.shape, generator=generator) + torch.randn(inputs.shape)
    return inputs.lerp(noise, int(parameters["tenths"]) / 10), labels


FADE = ak.perturb(
    "fade",
    kind="data",
    version=2,
    fn=fade,
    parameters={"tenths": ak.Parameter(default=5, minimum=1)},
)

FLIP = ak.perturb("flip", kind="data", fn=lambda batch, step, generator: (-batch[0], batch[1]))


class Truncate(DataPerturbation):
    """The first input alone."""

    declaration = ak.Declaration("truncate", 1, "data", "other inputs := 0", "nowhere")

    def change(self, batch: WindowBatch, parameters: Any) -> Any:
        inputs, labels = batch.usual()
        inputs[:, 1:] = 0
        return inputs, labels


TRUNCATE = Truncate()
