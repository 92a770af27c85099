"""ResNets on ImageNet: how long do BatchNorm's running statistics remember?

At step t0 the running means and variances are reset, or averaged anew over the first batches.
Training itself never looks at them, so the weights go on as if nothing had happened; only what the
model answers in eval mode changes, until the statistics are those of the last batches again.
``data`` is a folder of images by class
(``train/CLASS/*.JPEG``, ``val/CLASS/*.JPEG``, as for torchvision's ImageFolder), or Tiny ImageNet
as http://cs231n.stanford.edu/tiny-imagenet-200.zip unpacks it.

Minutes on a CPU (the first ten classes of Tiny ImageNet)::

    auditkit run examples/imagenet_bn.py --out runs/imagenet
    auditkit verify runs/imagenet

A ResNet-50 on ImageNet, on a GPU where there is one::

    auditkit run examples/imagenet_bn.py --arg preset=full --arg data=data/imagenet \
        --fork-at 25000 --window 50 --horizon 25500 --placebos 3 --out runs/imagenet-full
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import auditkit as ak

LAYOUT = (
    "expected train/CLASS/*.JPEG and val/CLASS/*.JPEG, or Tiny ImageNet as "
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip unpacks it"
)


def list_images(data: Path, part: str, classes: int) -> list[tuple[Path, int]]:
    """Files and labels of ``train`` or ``val``, in the order of their names."""
    if not (data / part).is_dir():
        raise FileNotFoundError(f"{data} has no {part}: {LAYOUT}")
    names = sorted(path.name for path in (data / "train").iterdir() if path.is_dir())[:classes]
    labels = {name: label for label, name in enumerate(names)}
    table = data / part / "val_annotations.txt"  # Tiny ImageNet's images to be tested on
    if table.is_file():
        rows = [line.split("\t")[:2] for line in table.read_text().splitlines()]
        named = [(data / part / "images" / file, name) for file, name in rows]
    else:
        named = [
            (file, name) for name in names for file in sorted((data / part / name).rglob("*.JPEG"))
        ]
    found = [(file, labels[name]) for file, name in named if name in labels]
    if not found:
        raise FileNotFoundError(f"{data / part} has no images: {LAYOUT}")
    return found


class Images(Dataset[tuple[Tensor, int]]):
    """Images cut to a square: anywhere and perhaps mirrored for training, else in the middle."""

    def __init__(self, files: list[tuple[Path, int]], side: int, *, augment: bool) -> None:
        self.files, self.side, self.augment = files, side, augment

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except OSError as error:
            raise OSError(f"{path} is no whole image: {error}") from error
        share = 0.7 + 0.3 * float(torch.rand(())) if self.augment else 1.0
        across, down = torch.rand(2).tolist() if self.augment else (0.5, 0.5)
        edge = min(image.size) * share
        left, top = (image.width - edge) * across, (image.height - edge) * down
        cut = image.resize((self.side, self.side), box=(left, top, left + edge, top + edge))
        pixels = torch.frombuffer(bytearray(cut.tobytes()), dtype=torch.uint8)
        pixels = pixels.view(self.side, self.side, 3).permute(2, 0, 1)
        return pixels.flip(2) if self.augment and torch.rand(()) < 0.5 else pixels, label


def conv_bn(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside))


class Block(nn.Module):
    """Two 3x3 convolutions, or a 3x3 between two 1x1, and a way around them."""

    def __init__(self, inside: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        outside = width * 4 if bottleneck else width
        if bottleneck:
            kernels = [(inside, width, 1, 1), (width, width, 3, stride), (width, outside, 1, 1)]
        else:
            kernels = [(inside, width, 3, stride), (width, outside, 3, 1)]
        layers = [layer for kernel in kernels for layer in (conv_bn(*kernel), nn.ReLU())]
        self.layers = nn.Sequential(*layers[:-1])
        same = stride == 1 and inside == outside
        self.around = nn.Identity() if same else conv_bn(inside, outside, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.around(x))


def make_resnet(depth: int, width: int, classes: int) -> nn.Sequential:
    """A ResNet-18 or, with bottlenecks, a ResNet-50."""
    layers = [conv_bn(3, width, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
    inside = width
    for stage, blocks in enumerate({18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]):
        for number in range(blocks):
            stride = 2 if stage > 0 and number == 0 else 1
            layers.append(Block(inside, width * 2**stage, stride, bottleneck=depth == 50))
            inside = width * 2**stage * (4 if depth == 50 else 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes))


def make_program(
    seed: int, data: str = "data/tiny-imagenet-200", preset: str = "small", workers: str = "2"
) -> ak.Program:
    """Model, optimizer, data and probe of one seed; preset is small or full."""
    full = preset == "full"
    device = "cuda" if full and torch.cuda.is_available() else "cpu"
    classes, side, batch_size, n_probe = (1000, 224, 256, 5000) if full else (10, 64, 50, 200)
    train = Images(list_images(Path(data), "train", classes), side, augment=True)
    held_out = Images(list_images(Path(data), "val", classes), side, augment=False)
    step = max(len(held_out) // n_probe, 1)  # from all classes, which may lie one after the other
    images, labels = zip(*(held_out[i] for i in range(0, len(held_out), step)), strict=True)

    model = make_resnet(50, 64, classes) if full else make_resnet(18, 16, classes)
    model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    steps = 450_000 if full else 160  # the learning rate falls to a hundredth by then
    return ak.Program(
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: max(1 - t / steps, 0.01)),
        loader=DataLoader(
            train, batch_size=batch_size, shuffle=True, drop_last=True, num_workers=int(workers)
        ),
        loss=lambda model, batch: F.cross_entropy(scores(model, batch[0]), batch[1].to(device)),
        probe=ak.Probe(torch.stack(images), torch.tensor(labels), predict=scores, batch_size=100),
    )


def scores(model: nn.Module, images: Tensor) -> Tensor:
    """Class scores of images as bytes."""
    device = next(model.parameters()).device
    logits: Tensor = model((images.to(device).float() / 255 - 0.45) / 0.25)
    return logits


STUDY = ak.StudyPlan(
    fork_at=130,
    window=8,
    horizon=160,
    seeds=range(3),
    placebos=4,
    perturbations=["batchnorm-reset", "batchnorm-recalibrate"],
    placebo_scale=256,
)
