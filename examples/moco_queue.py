"""Momentum contrast (MoCo) on CIFAR-10: a queue of negatives and a teacher that trails the student.

The student learns to tell another view of the same image, as the teacher sees it, from the
images in the queue. The teacher's weights are a moving average of the student's; the queue holds
what the teacher made of the last batches. At step t0 the queue is emptied, or its rows are put
into another order, or the teacher becomes the student. The probe is a vote of the nearest labelled
images or, without any label, what the student makes of the held-out ones. The data are the binary
version of CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz), unpacked in ``data``.

Minutes on a CPU (2,000 images of each file, a small encoder)::

    auditkit run examples/moco_queue.py --out runs/moco
    auditkit verify runs/moco

Without labels::

    auditkit run examples/moco_queue.py --arg probe=embedding --primary relative_distance \
        --out runs/moco-embeddings

All 50,000 images, on a GPU where there is one::

    auditkit run examples/moco_queue.py --arg preset=full --fork-at 20000 --window 390 \
        --horizon 25000 --seeds 0-4 --placebo-scale 1 --out runs/moco-full
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
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


class TwoViews(Dataset[tuple[Tensor, Tensor]]):
    """Every image twice: cut anew, perhaps mirrored, and lighter or darker."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.view(index), self.view(index)

    def view(self, index: int) -> Tensor:
        image = self.images[index]
        down, right, mirrored = (torch.rand(3) * torch.tensor([13, 13, 2])).long().tolist()
        image = image[:, down : down + 20, right : right + 20].float() / 255
        image = (image.flip(2) if mirrored else image) * (0.6 + 0.8 * torch.rand(3, 1, 1))
        return F.interpolate(image.unsqueeze(0), size=(32, 32)).squeeze(0)


def make_encoder(width: int, features: int) -> nn.Sequential:
    """Four convolutions that halve the image, and a linear layer."""
    layers: list[nn.Module] = []
    for inside, outside in [(3, width), (width, width), (width, 2 * width), (2 * width, 4 * width)]:
        layers += [nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width * 4, features))


class MoCo(nn.Module):
    """Student, teacher, queue, and where the queue is written next."""

    queue: Tensor
    place: Tensor

    def __init__(self, width: int, features: int, length: int) -> None:
        super().__init__()
        self.student = make_encoder(width, features)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(length, features), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        """Features of length 1."""
        return F.normalize(self.student((images - 0.45) / 0.25), dim=1)

    @torch.no_grad()
    def keys(self, images: Tensor, momentum: float = 0.99) -> Tensor:
        """What the teacher makes of images, once it has followed the student."""
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            slow.lerp_(fast, 1 - momentum)
        return F.normalize(self.teacher((images - 0.45) / 0.25), dim=1)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        place = int(self.place)
        self.queue[place : place + len(keys)] = keys
        self.place.fill_((place + len(keys)) % len(self.queue))


def train_step(program: ak.Program, batch: tuple[Tensor, Tensor], t: int) -> float:
    """Another view of the same image against all that is in the queue."""
    moco = program.model
    assert isinstance(moco, MoCo)  # noqa: S101
    first, second = (views.to(moco.queue.device) for views in batch)
    queries, keys = moco(first), moco.keys(second)
    same = (queries * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([same, queries @ moco.queue.clone().T], dim=1) / 0.1
    loss = -logits.log_softmax(dim=1)[:, 0].mean()
    program.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    program.optimizer.step()
    moco.enqueue(keys)
    return float(loss.detach())


def make_program(
    seed: int,
    data: str = "data/cifar-10-batches-bin",
    preset: str = "small",
    probe: str = "vote",
) -> ak.Program:
    """Student and teacher, optimizer, data and probe of one seed.

    The preset is small or full, the probe vote or embedding.
    """
    full = preset == "full"
    device = "cuda" if full and torch.cuda.is_available() else "cpu"
    files = [
        read_records(Path(data) / f"data_batch_{number}.bin", 0 if full else 2000)
        for number in range(1, 6)
    ]
    images, labels = (torch.cat(parts) for parts in zip(*files, strict=True))
    held_out, answers = read_records(Path(data) / "test_batch.bin", 0 if full else 500)
    bank, bank_labels = images[:2000].to(device), F.one_hot(labels[:2000], 10).to(device)

    def vote(model: nn.Module, queries: Tensor) -> Tensor:
        """Shares of the classes among the 20 nearest of the labelled images, the nearest most."""
        near = model(queries.to(device).float() / 255) @ model(bank.float() / 255).T
        likeness, which = near.topk(20, dim=1)
        weights = (likeness / 0.1).softmax(dim=1).unsqueeze(2)
        shares: Tensor = 0.99 * (weights * bank_labels[which]).sum(dim=1) + 0.001
        return shares

    def embed(model: nn.Module, queries: Tensor) -> Tensor:
        found: Tensor = model(queries.to(device).float() / 255)
        return found

    model = MoCo(64, 128, 4096) if full else MoCo(16, 64, 1024)
    return ak.Program(
        model=model.to(device),
        optimizer=torch.optim.SGD(
            model.student.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4
        ),
        loader=DataLoader(
            TwoViews(images), batch_size=128 if full else 64, shuffle=True, drop_last=True
        ),
        step=train_step,
        groups={"queue": "queue", "teacher": "teacher.*"},
        recalibrate=lambda model, batch: model(batch[0].to(device)),
        probe=(
            ak.Probe(held_out, predict=embed, outputs="embedding")
            if probe == "embedding"
            else ak.Probe(held_out, answers, predict=vote, probabilities=True)
        ),
    )


STUDY = ak.StudyPlan(
    fork_at=340,
    window=16,
    horizon=380,
    seeds=range(3),
    placebos=4,
    perturbations=["queue-clear", "queue-shuffle", "teacher-reset"],
    placebo_scale=256,
)
