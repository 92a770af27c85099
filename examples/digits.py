"""Branch-and-Hold on scikit-learn's digits: how long does a small CNN remember?

1,797 images of 8x8 pixels; a CNN with BatchNorm and dropout, SGD with momentum, random shifts
as augmentation. Eight seeds; at step 100 the state is forked and one thing is changed: the
momentum buffers, the order of the next 20 batches, or the BatchNorm statistics.

Run it::

    auditkit run examples/digits.py --out runs/digits
    auditkit verify runs/digits/manifest.json
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import auditkit as ak

N_TRAIN = 1000
BATCH_SIZE = 32


class ShiftedDigits(Dataset[tuple[Tensor, Tensor]]):
    """Digits that are moved by up to one pixel each time they are looked at."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images  # (N, 1, 8, 8) float32 in 0 .. 1
        self.labels = labels  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        down, right = torch.randint(-1, 2, (2,)).tolist()
        moved = torch.roll(self.images[index], (down, right), dims=(1, 2))
        return moved, self.labels[index]


def make_model() -> nn.Module:
    """A CNN with two convolutions, about 4,000 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(16 * 4 * 4, 10),
    )


def make_program(seed: int) -> ak.Program:
    """Model, optimizer, data and probe of one seed."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)
    labels = torch.from_numpy(digits.target)
    model = make_model()
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4),
        loader=DataLoader(
            ShiftedDigits(images[:N_TRAIN], labels[:N_TRAIN]), batch_size=BATCH_SIZE, shuffle=True
        ),
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        probe=ak.Probe(images[N_TRAIN:], labels[N_TRAIN:]),
    )


STUDY = ak.StudyPlan(
    fork_at=100,
    window=20,
    horizon=300,
    seeds=range(8),
    perturbations=["momentum-reset", "order-reverse", "batchnorm-reset"],
    # One unit in the last place is often absorbed by this small network within 200 steps; 256
    # of them (a relative change of about 2e-5) have grown by T in nearly every seed.
    placebo_scale=256,
)
