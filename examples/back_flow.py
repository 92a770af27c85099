"""Back-flow on CIFAR-10: what do two histories leave behind, and what does a break take away?

The experiment of arXiv 2601.16563. A small CNN is trained for three epochs. From there it takes W
steps on one batch (segment A), seen through one augmentation or another, and W steps on a second
batch (segment B), the same for both. The segments have a new optimizer with the learning rate and
momentum of a regime, weight decay 1e-4 and gradients clipped at norm 1; BatchNorm's running
statistics are held, and a causal break resets the optimizer before B. The data are the binary
version of CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz), unpacked in ``data``.

Minutes on a CPU (2,000 images of each file)::

    auditkit run examples/back_flow.py --design back-flow:resonant-strong --out runs/strong
    auditkit verify runs/strong

All 50,000 images at four times the width, on a GPU where there is one::

    auditkit run examples/back_flow.py --design back-flow:resonant-strong --arg preset=full \
        --fork-at 585 --seeds 5-24 --out runs/strong-full
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import auditkit as ak

LAYOUT = (
    "expected the binary version of CIFAR-10 (data_batch_1.bin .. data_batch_5.bin, test_batch.bin)"
    ", which https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz unpacks to"
)
RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue plane
BATCH = 256
EPOCHS = 3


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


# Augmentations of whole batches, as the paper describes them; images (N, 3, 32, 32) in 0 .. 1


def none(images: Tensor, draw: torch.Generator) -> Tensor:
    """As they are."""
    return images


def weak(images: Tensor, draw: torch.Generator) -> Tensor:
    """A square of 32 out of the image with 4 reflected pixels around it; half of them mirrored."""
    size = images.shape[-1]
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    there = torch.arange(size)
    down, right = torch.randint(9, (2, len(images), 1), generator=draw)
    columns = right + there
    mirrored = torch.rand((len(images), 1), generator=draw) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    each = torch.arange(len(images)).view(-1, 1, 1)
    cut = padded.permute(0, 2, 3, 1)[each, (down + there).unsqueeze(2), columns.unsqueeze(1)]
    return cut.permute(0, 3, 1, 2).contiguous()


def color(images: Tensor, draw: torch.Generator) -> Tensor:
    """Weak; brightness, contrast and saturation by up to 0.4; a fifth of them grey."""
    images = weak(images, draw)
    brightness, contrast, saturation = 0.6 + 0.8 * torch.rand(
        (3, len(images), 1, 1, 1), generator=draw
    )
    images = (images * brightness).clamp(0, 1)
    mean = grey(images).mean(dim=(2, 3), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 1)
    images = (grey(images) + saturation * (images - grey(images))).clamp(0, 1)
    is_grey = torch.rand((len(images), 1, 1, 1), generator=draw) < 0.2
    return torch.where(is_grey, grey(images).expand_as(images), images)


def grey(images: Tensor) -> Tensor:
    """Their luminance, (N, 1, 32, 32)."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (weights * images).sum(dim=1, keepdim=True)


def blur(images: Tensor, draw: torch.Generator) -> Tensor:
    """Weak; a Gaussian of 3x3 pixels with a sigma of 0.1 to 2, each its own."""
    images = weak(images, draw)
    n, channels, height, _ = images.shape
    sigma = 0.1 + 1.9 * torch.rand((n, 1), generator=draw)
    line = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0]) ** 2) / (2 * sigma**2))
    line = line / line.sum(dim=1, keepdim=True)
    kernel = (line.unsqueeze(2) * line.unsqueeze(1)).repeat_interleave(channels, dim=0)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect").view(1, n * channels, height + 2, -1)
    return F.conv2d(padded, kernel.unsqueeze(1), groups=n * channels).view(images.shape)


AUGMENTATIONS = {"none": none, "weak": weak, "color": color, "blur": blur}


class CNN(nn.Module):
    """Three convolutions that halve the image, and a linear layer on their mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for inside, outside in [(3, width), (width, 2 * width), (2 * width, 4 * width)]:
            self.layers.append(nn.Conv2d(inside, outside, 3, 2, 1))
            self.layers.append(nn.BatchNorm2d(outside))
            self.layers.append(nn.ReLU())
        self.head = nn.Linear(4 * width, 10)

    def features(self, images: Tensor) -> Tensor:
        """What the linear layer is given."""
        hidden: Tensor = self.layers((images - 0.45) / 0.25)
        return hidden.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


def penultimate(model: Any, images: Tensor) -> Tensor:
    """What a probe of embeddings asks."""
    features: Tensor = model.features(images)
    return features


def view(kind: str, batch: Sequence[Tensor], draw: torch.Generator) -> tuple[Tensor, ...]:
    """The images through an augmentation, and as they are, for the other history."""
    raw = batch[2] if len(batch) == 3 else batch[0]
    return AUGMENTATIONS[kind](raw.float() / 255, draw), batch[1], raw


def another(kind: str) -> Callable[[Sequence[Tensor], int, torch.Generator], tuple[Tensor, ...]]:
    """A change of the data: the same images through another augmentation."""
    return lambda batch, t, draw: view(kind, batch, draw)


@dataclass(frozen=True)
class Micro:
    """A step of the base stage, or of a segment, for ``Program(step=)``."""

    fork_at: int
    lr: float
    momentum: float
    device: str

    def __call__(self, program: ak.Program, batch: Sequence[Tensor], t: int) -> Tensor:
        images, labels = (part.to(self.device) for part in batch[:2])
        optimizer, is_base = program.optimizer, t <= self.fork_at
        cosine = 0.05 * (1 + math.cos(math.pi * (t - 1) / self.fork_at))
        for group in optimizer.param_groups:
            group["lr"] = cosine if is_base else self.lr
        loss = F.cross_entropy(program.model(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if not is_base:
            nn.utils.clip_grad_norm_(program.model.parameters(), 1.0)
        optimizer.step()
        if t == self.fork_at:  # the segments begin with a new optimizer
            optimizer.state.clear()
            for group in optimizer.param_groups:
                group.update(lr=self.lr, momentum=self.momentum, weight_decay=1e-4)
        return loss


def make_program(  # noqa: PLR0913, PLR0917 # one argument a column of the paper's table
    seed: int,
    data: str = "data/cifar-10-batches-bin",
    preset: str = "small",
    steps: int = 6,
    lr: float = 0.03,
    momentum: float = 0.99,
    history: str = "color",
    segment: str = "weak",
    overlap: float = 1.0,
    same_classes: str = "yes",
) -> ak.Program:
    """Model, optimizer, data and probe of one seed; all from ``steps`` on is a regime's."""
    full = preset == "full"
    device = "cuda" if full and torch.cuda.is_available() else "cpu"
    files = [
        read_records(Path(data) / f"data_batch_{number}.bin", 0 if full else 2000)
        for number in range(1, 6)
    ]
    images, labels = (torch.cat(parts) for parts in zip(*files, strict=True))
    held_out, answers = read_records(Path(data) / "test_batch.bin", 2000)
    dataset, fork_at = TensorDataset(images, labels), EPOCHS * (len(labels) // BATCH)
    sampler = ak.Segments(
        BatchSampler(RandomSampler(dataset), BATCH, drop_last=True),
        labels,
        fork_at=fork_at,
        steps=steps,
        batch_size=BATCH,
        overlap=overlap,
        same_classes=same_classes == "yes",
        seed=seed,
    )

    def augment(batch: Sequence[Tensor], t: int, draw: torch.Generator) -> tuple[Tensor, ...]:
        kind = "weak" if t <= fork_at else history if t <= fork_at + steps else segment
        return view(kind, batch, draw)

    model, probe = CNN(64 if full else 16).to(device), held_out.to(device).float() / 255
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4),
        loader=DataLoader(dataset, batch_sampler=sampler),
        augment=augment,
        data_changes={kind: another(kind) for kind in ("color", "blur")},
        step=Micro(fork_at, lr, momentum, device),
        probes={
            "classes": ak.Probe(probe, answers),
            "penultimate": ak.Probe(probe, predict=penultimate, outputs="embedding"),
        },
    )


STUDY = ak.StudyPlan(
    fork_at=117,
    window=6,
    horizon=129,
    seeds=range(5, 15),
    placebos=1,
    perturbations=["data-change:name=blur"],
    margins={"tv": 0.001},
    causal_break="optimizer-reset",
    segments=ak.SegmentPlan(overlap=1.0, same_classes=True, hold_batchnorm=True, alignment=True),
)
