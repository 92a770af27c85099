"""A study whose steps take less than a millisecond; ``--arg`` selects variants.

14 samples in batches of 4, 4, 4 and 2, so that the fork (step 6), the window's end (9) and the
horizon (14) all lie in the middle of an epoch and the window runs across the end of one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

import auditkit as ak

N_SAMPLES = 14
BATCH_SIZE = 4
N_FEATURES = 4
N_HIDDEN = 6
N_CLASSES = 3


class Points(Dataset[tuple[Tensor, Tensor]]):
    """Points that jitter each time they are looked at."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs = inputs  # (N, 4) float32
        self.labels = labels  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index] + 0.1 * torch.randn(N_FEATURES), self.labels[index]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """The same points, one after the other, shared out to the workers."""

    def __init__(self, points: Points) -> None:
        self.points = points

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        info = get_worker_info()
        first, stride = (0, 1) if info is None else (info.id, info.num_workers)
        for index in range(first, len(self.points), stride):
            yield self.points[index]


def make_points(path: str = "") -> Points:
    """Points of three classes: the same for every seed, from a file where one is named."""
    if path:
        numbers = [float(word) for word in Path(path).read_text().split()]
        inputs = torch.tensor(numbers).reshape(-1, N_FEATURES)
    else:
        inputs = torch.randn(N_SAMPLES, N_FEATURES, generator=torch.Generator().manual_seed(1))
    return Points(inputs, torch.arange(len(inputs)) % N_CLASSES)


def make_model(parts: set[str]) -> nn.Module:
    """About 60 parameters."""
    layers: list[tuple[str, nn.Module | None]] = [
        ("first", nn.Linear(N_FEATURES, N_HIDDEN)),
        ("norm", nn.BatchNorm1d(N_HIDDEN) if "batchnorm" in parts else None),
        ("relu", nn.ReLU()),
        ("drop", nn.Dropout(0.25) if "dropout" in parts else None),
        ("last", nn.Linear(N_HIDDEN, N_CLASSES)),
    ]
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers if layer is not None))


def make_optimizer(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer by name."""
    if kind == "rmsprop":
        return torch.optim.RMSprop(model.parameters(), lr=1e-3)
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    adam = torch.optim.Adam if kind == "adam" else torch.optim.AdamW
    return adam(model.parameters(), lr=0.01)


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """The training loss."""
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels)


def make_program(
    seed: int,
    optimizer: str = "sgd",
    parts: str = "batchnorm+dropout",
    scheduler: str = "none",
    data: str = "map",
    path: str = "",
    workers: str = "0",
    accumulate: str = "1",
) -> ak.Program:
    """Build one variant.

    Args:
        seed: The study seed.
        optimizer: ``sgd``, ``adam``, ``adamw`` or ``rmsprop``.
        parts: Of ``batchnorm``, ``dropout``, ``ema``, ``scaler``, joined by ``+``.
        scheduler: ``none``, ``step`` or ``epoch``: when the learning rate is halved.
        data: ``map`` or ``iterable``.
        path: File of numbers to train on.
        workers: Loader workers.
        accumulate: Batches an optimizer step.
    """
    chosen = set(parts.split("+"))
    points = make_points(path)
    model = make_model(chosen)
    trained = make_optimizer(optimizer, model)
    is_map = data == "map"
    averaged: dict[str, nn.Module] = {}
    if "ema" in chosen:
        averaged["ema"] = AveragedModel(
            model,
            multi_avg_fn=get_ema_multi_avg_fn(0.9),  # type: ignore[no-untyped-call]
        )
    return ak.Program(
        model=model,
        optimizer=trained,
        loader=DataLoader(
            points if is_map else Stream(points),
            batch_size=BATCH_SIZE,
            shuffle=True if is_map else None,
            num_workers=int(workers),
        ),
        loss=cross_entropy,
        probe=ak.Probe(points.inputs[:8].clone(), points.labels[:8]),
        scheduler=(
            None if scheduler == "none" else torch.optim.lr_scheduler.StepLR(trained, 2, gamma=0.5)
        ),
        scheduler_interval="epoch" if scheduler == "epoch" else "step",
        scaler=(
            torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
            if "scaler" in chosen
            else None
        ),
        averaged=averaged,
        accumulate=int(accumulate),
    )


STUDY = ak.StudyPlan(
    fork_at=6,
    window=3,
    horizon=14,
    seeds=[0, 1],
    perturbations=["carry", "momentum-reset", "batchnorm-reset", "order-reverse"],
    placebos=1,
)
