"""A stream that drifts: does it matter when exactly the new kind of data begins to come?

Scikit-learn's digits come one after the other, each once, first white on black, and from step 300
on black on white. The fork lies half a window before the drift, and ``order-swap:unit=batch`` then
brings the first batches of the new kind before the last ones of the old: the same batches, but the
drift comes in two waves. Branches are compared on the new kind (adaptation) and on the old one
(forgetting)::

    auditkit run examples/drifting_stream.py --out runs/drift
    auditkit verify runs/drift
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import auditkit as ak

N_TRAIN = 1000
BATCH_SIZE = 16
DRIFT, END, WINDOW = 300, 480, 40  # in steps


class Stream(Dataset[tuple[Tensor, Tensor]]):
    """Digits drawn at random, moved by up to one pixel; from the drift on as negatives."""

    def __init__(self, images: Tensor, labels: Tensor, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.chosen = torch.randint(len(labels), (END * BATCH_SIZE,), generator=draw)
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        chosen = self.chosen[index]
        down, right = torch.randint(-1, 2, (2,)).tolist()
        image = torch.roll(self.images[chosen], (down, right), dims=(1, 2))
        return -image if index >= DRIFT * BATCH_SIZE else image, self.labels[chosen]


def make_model() -> nn.Module:
    """A CNN with two convolutions, about 4,000 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(16 * 4 * 4, 10),
    )


def make_program(seed: int) -> ak.Program:
    """Model, optimizer, stream and probes of one seed."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div(8).sub(1).unsqueeze(1)  # -1 .. 1
    labels = torch.from_numpy(digits.target)
    held_out, answers = images[N_TRAIN:], labels[N_TRAIN:]
    model = make_model()
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9),
        loader=DataLoader(Stream(images[:N_TRAIN], labels[:N_TRAIN], seed), batch_size=BATCH_SIZE),
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        probes={"new": ak.Probe(-held_out, answers), "old": ak.Probe(held_out, answers)},
    )


STUDY = ak.StudyPlan(
    fork_at=DRIFT - WINDOW // 2,
    window=WINDOW,
    horizon=END,
    seeds=range(4),
    perturbations=["order-swap:unit=batch"],
    placebo_scale=4096,
)
