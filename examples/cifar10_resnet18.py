"""A ResNet-18 on CIFAR-10: what do momentum, data order and BatchNorm statistics carry?

At step t0 the state is forked and one thing is changed: the momentum buffers, the order of the
next W batches, or the running statistics of BatchNorm. The data are the binary version of
CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz), unpacked in ``data``.

Minutes on a CPU (2,000 images of each file, an eighth of the width)::

    auditkit run examples/cifar10_resnet18.py --out runs/cifar10
    auditkit verify runs/cifar10

All 50,000 images at full width, on a GPU where there is one::

    auditkit run examples/cifar10_resnet18.py --arg preset=full --fork-at 7000 --window 390 \
        --horizon 11700 --seeds 0-5 --placebos 3 --placebo-scale 1 --out runs/cifar10-full
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import auditkit as ak

PRESETS = {
    "small": {"width": 8, "stride": 2, "batch": 64, "steps": 400, "per_file": 2000, "probe": 500},
    "full": {"width": 64, "stride": 1, "batch": 128, "steps": 11700, "per_file": 0, "probe": 10000},
}
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


class Flipped(Dataset[tuple[Tensor, Tensor]]):
    """Images that are mirrored half of the times they are looked at."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        return image.flip(2) if torch.rand(()) < 0.5 else image, self.labels[index]


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.around = nn.Sequential()
        if stride != 1 or inside != outside:
            self.around.append(nn.Conv2d(inside, outside, 1, stride, bias=False))
            self.around.append(nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(hidden)) + self.around(x))


class ResNet18(nn.Module):
    """The ResNet-18 for small images: no pooling at the entry."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, width, 3, stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        widths = [width, width, width * 2, width * 4, width * 8]
        self.blocks = nn.Sequential()
        for stage in range(4):
            self.blocks.append(Block(widths[stage], widths[stage + 1], 1 if stage == 0 else 2))
            self.blocks.append(Block(widths[stage + 1], widths[stage + 1], 1))
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, images: Tensor) -> Tensor:
        x = (images.float() / 255 - 0.45) / 0.25
        x = self.blocks(F.relu(self.bn(self.entry(x))))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def make_program(
    seed: int, data: str = "data/cifar-10-batches-bin", preset: str = "small"
) -> ak.Program:
    """Model, optimizer, data and probe of one seed."""
    size = PRESETS[preset]
    device = "cuda" if preset == "full" and torch.cuda.is_available() else "cpu"
    files = [
        read_records(Path(data) / f"data_batch_{number}.bin", size["per_file"])
        for number in range(1, 6)
    ]
    images, labels = (torch.cat(parts) for parts in zip(*files, strict=True))
    held_out, answers = read_records(Path(data) / "test_batch.bin", size["probe"])

    model = ResNet18(size["width"], size["stride"]).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    rise, steps = size["steps"] // 5, size["steps"]
    return ak.Program(
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda t: max(min((t + 1) / rise, (steps - t) / (steps - rise)), 0.01)
        ),
        loader=DataLoader(
            Flipped(images, labels), batch_size=size["batch"], shuffle=True, drop_last=True
        ),
        loss=lambda model, batch: F.cross_entropy(model(batch[0].to(device)), batch[1].to(device)),
        probe=ak.Probe(held_out.to(device), answers),
    )


STUDY = ak.StudyPlan(
    fork_at=340,
    window=20,
    horizon=400,
    seeds=range(4),
    perturbations=["momentum-reset", "order-reverse", "batchnorm-reset"],
    placebo_scale=256,
)
