"""A Vision Transformer on CIFAR-10: how long do Adam's moments last in an averaged model?

At step t0 the moments of AdamW are reset, and its count of steps with them, or the exponential
moving average of the weights becomes the weights. What is compared are the answers of that average,
as one would deploy them. The data are the
binary version of CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz), unpacked in
``data``.

Minutes on a CPU (2,000 images of each file, a small model)::

    auditkit run examples/cifar10_vit.py --out runs/vit
    auditkit verify runs/vit

All 50,000 images and a ViT of 12 layers, on a GPU where there is one::

    auditkit run examples/cifar10_vit.py --arg preset=full --fork-at 7000 --window 390 \
        --horizon 11700 --seeds 0-5 --placebo-scale 1 --out runs/vit-full
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

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


class Flipped(Dataset[tuple[Tensor, Tensor]]):
    """Images that are mirrored half of the times they are looked at."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        return image.flip(2) if torch.rand(()) < 0.5 else image, self.labels[index]


class ViT(nn.Module):
    """Square patches, a transformer with dropout, and the mean of what it gives for them."""

    def __init__(self, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.places = nn.Parameter(0.02 * torch.randn(1, (32 // patch) ** 2, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches((images.float() / 255 - 0.45) / 0.25)
        x = self.layers(x.flatten(2).transpose(1, 2) + self.places)
        logits: Tensor = self.head(self.norm(x).mean(dim=1))
        return logits


def make_program(
    seed: int, data: str = "data/cifar-10-batches-bin", preset: str = "small"
) -> ak.Program:
    """Model, optimizer, average, data and probe of one seed; preset is small or full."""
    full = preset == "full"
    device = "cuda" if full and torch.cuda.is_available() else "cpu"
    files = [
        read_records(Path(data) / f"data_batch_{number}.bin", 0 if full else 2000)
        for number in range(1, 6)
    ]
    images, labels = (torch.cat(parts) for parts in zip(*files, strict=True))
    held_out, answers = read_records(Path(data) / "test_batch.bin", 0 if full else 500)

    model = (ViT(4, 384, 12, 6) if full else ViT(8, 64, 3, 2)).to(device)
    average = get_ema_multi_avg_fn(0.999 if full else 0.9)  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4 if full else 2e-3, weight_decay=0.05)
    rise = 1000 if full else 50
    return ak.Program(
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min((t + 1) / rise, 1.0)),
        clip_grad_norm=1.0,
        averaged={"ema": AveragedModel(model, multi_avg_fn=average)},
        loader=DataLoader(
            Flipped(images, labels), batch_size=128 if full else 64, shuffle=True, drop_last=True
        ),
        loss=lambda model, batch: F.cross_entropy(model(batch[0].to(device)), batch[1].to(device)),
        probe=ak.Probe(held_out.to(device), answers, of="ema"),
    )


STUDY = ak.StudyPlan(
    fork_at=300,
    window=20,
    horizon=340,
    seeds=range(3),
    placebos=4,
    perturbations=["adam-reset", "average-reset"],
    # A smooth network hardly makes a nudge larger, so this one is: at most 0.8 % of a weight.
    placebo_scale=65536,
)
