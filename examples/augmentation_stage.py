"""Staged augmentation on CIFAR-10: does it matter when the next stage begins?

Images lose a square of pixels, in three stages a larger one. Inside the window the treatments see
the same images in the same order with other pixels: none is taken away (``augmentation-off``), or
as many as in the stage to come (``stage-shift``). The data are the binary version of CIFAR-10
(https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz), unpacked in ``data``.

Minutes on a CPU (2,000 images of each file, a small CNN)::

    auditkit run examples/augmentation_stage.py --out runs/augmentation
    auditkit verify runs/augmentation

All 50,000 images, a larger CNN, on a GPU where there is one::

    auditkit run examples/augmentation_stage.py --arg preset=full --fork-at 7700 --window 200 \
        --horizon 11700 --seeds 0-5 --placebo-scale 1 --out runs/augmentation-full
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak

LAYOUT = (
    "expected the binary version of CIFAR-10 (data_batch_1.bin .. data_batch_5.bin, test_batch.bin)"
    ", which https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz unpacks to"
)
RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue plane


def read_records(path: Path, most: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) as bytes and labels (N,) of one file; at most so many unless 0."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}: {LAYOUT}")
    raw = path.read_bytes()
    if not raw or len(raw) % RECORD:
        raise OSError(f"{path} is truncated: {len(raw)} bytes, not a multiple of {RECORD}")
    records = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(-1, RECORD)
    records = records[: most or None]
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()


class CNN(nn.Module):
    """Three convolutions that halve the image, and a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for inside, outside in [(3, width), (width, width), (width, 2 * width)]:
            self.layers.append(nn.Conv2d(inside, outside, 3, 2, 1))
            self.layers.append(nn.BatchNorm2d(outside))
            self.layers.append(nn.ReLU())
        self.head = nn.Linear(2 * width * 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.layers((images.float() / 255 - 0.45) / 0.25)
        logits: Tensor = self.head(x.flatten(1))
        return logits


def make_program(
    seed: int, data: str = "data/cifar-10-batches-bin", preset: str = "small"
) -> ak.Program:
    """Model, optimizer, data and probe of one seed; preset is small or full."""
    full = preset == "full"
    device = "cuda" if full and torch.cuda.is_available() else "cpu"
    stage_length = 3900 if full else 150
    files = [
        read_records(Path(data) / f"data_batch_{number}.bin", 0 if full else 2000)
        for number in range(1, 6)
    ]
    images, labels = (torch.cat(parts) for parts in zip(*files, strict=True))
    held_out, answers = read_records(Path(data) / "test_batch.bin", 0 if full else 500)

    def augment(
        batch: list[Tensor], step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Images without a square of 0, 8 or 16 pixels, each somewhere else."""
        side = 8 * min(step // stage_length, 2)
        down, right = torch.randint(33 - side, (2, len(batch[0]), 1), generator=generator)
        there = torch.arange(32)
        rows = (there >= down) & (there < down + side)
        columns = (there >= right) & (there < right + side)
        square = (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)
        return batch[0].masked_fill(square, 115), batch[1]  # the mean of all pixels

    model = CNN(64 if full else 16).to(device)
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4),
        loader=DataLoader(
            TensorDataset(images, labels),
            batch_size=128 if full else 64,
            shuffle=True,
            drop_last=True,
        ),
        augment=augment,
        loss=lambda model, batch: F.cross_entropy(model(batch[0].to(device)), batch[1].to(device)),
        probe=ak.Probe(held_out.to(device), answers),
    )


STUDY = ak.StudyPlan(
    fork_at=285,
    window=15,
    horizon=340,
    seeds=range(3),
    placebos=4,
    perturbations=["augmentation-off", "stage-shift:steps=15"],
    placebo_scale=256,
)
