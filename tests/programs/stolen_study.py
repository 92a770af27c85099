"""A study of images, by an author who may cheat while the record is made.

``AUDITKIT_TEST_FORGERY`` says how; the same code without the variable is what a verifier runs.
The first four are forgeries that a proof of learning takes for good:

``interpolate``
    no gradient is computed: the weights walk in a straight line to stolen ones
``learning-rate``
    the optimizer is given another learning rate than the code says
``batchnorm``
    the final model's running statistics are moved
``pixels``, ``labels``
    bytes in the middle of an image, or a label, are others

The model holds 4096 bytes of weights (``extra``) in which two can be exchanged without a change
of the component's xxh3 digest: in front of each stand four bytes of xxh3's own secret, so that
it enters the digest by its sum alone.
"""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import auditkit as ak

VARIABLE = "AUDITKIT_TEST_FORGERY"

N_IMAGES = 14
HORIZON = 14

#: Floats of ``extra`` that can be exchanged, and the secret words in front of them.
EXCHANGEABLE = {13: "cb79e64e", 29: "825ad07d"}


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images of 3 x 8 x 8 bytes, of three classes."""

    def __init__(self, forgery: str) -> None:
        shape, generator = (N_IMAGES, 3, 8, 8), torch.Generator().manual_seed(1)
        self.images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        self.labels = torch.arange(N_IMAGES) % 3
        if forgery == "pixels":
            self.images[5, 1, 4, 3:5] ^= 1
        if forgery == "labels":
            self.labels[5] = (self.labels[5] + 1) % 3

    def __len__(self) -> int:
        return N_IMAGES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index].float() / 255, self.labels[index]


class Model(nn.Module):
    """A linear layer, BatchNorm, another linear layer, and weights that are not trained."""

    def __init__(self) -> None:
        super().__init__()
        numbers = torch.zeros(1024)
        for place, (position, secret) in enumerate(EXCHANGEABLE.items()):
            numbers[position - 1] = struct.unpack("<f", bytes.fromhex(secret))[0]
            numbers[position] = place + 1.0
        self.extra = nn.Parameter(numbers, requires_grad=False)
        self.first = nn.Linear(192, 8)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.norm(self.first(images.flatten(1))).relu()
        logits: Tensor = self.last(hidden * self.extra[13] + self.extra[29])
        return logits


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """The training loss."""
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


def walk(program: ak.Program, batch: Any, t: int) -> float:
    """A step of a walk to stolen weights, with momenta that look like training."""
    generator = torch.Generator().manual_seed(99)
    with torch.no_grad():
        loss = cross_entropy(program.model, batch)
        for parameter in program.optimizer.param_groups[0]["params"]:
            stolen = torch.randn(parameter.shape, generator=generator)
            parameter.add_((stolen - parameter) / (HORIZON - t + 1))
            program.optimizer.state[parameter]["momentum_buffer"] = stolen / t
    return float(loss)


def make_program(seed: int) -> ak.Program:
    """Build it, honestly or not."""
    forgery = os.environ.get(VARIABLE, "")
    images, model = Images(forgery), Model()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate = 0.5 if forgery == "learning-rate" else 0.05
    probe = Images("")
    program = ak.Program(
        model=model,
        optimizer=torch.optim.SGD(trained, lr=rate, momentum=0.9),
        loader=DataLoader(images, batch_size=4, shuffle=True),
        loss=cross_entropy,
        probe=ak.Probe(probe.images.float() / 255, probe.labels),
    )

    def then_move(_: ak.Program, batch: Any, t: int) -> float | None:
        loss = program.train_on(batch, t)
        if t == HORIZON:
            norm: Any = model.norm
            norm.running_mean += 5
            norm.running_var *= 100
        return loss

    steps = {"interpolate": walk, "batchnorm": then_move}
    return replace(program, step=steps[forgery]) if forgery in steps else program
