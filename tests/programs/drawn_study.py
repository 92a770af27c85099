"""Small programs that are put together by name: what ``tests/attacks/test_honest.py`` draws.

``make_program`` is a study's factory; :func:`record` trains the same in a loop of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils import data
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

import auditkit as ak

N_SAMPLES = 18
BATCH_SIZE = 4
N_FEATURES = 8
N_CLASSES = 3

#: Wide enough that torch shares the element-wise work of a batch out to threads.
WIDE = 9_000


class Reshaped(nn.Module):
    """Features in another shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.shape)


class Words(nn.Module):
    """Features as whole numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return (4 * x).long().clamp(-5, 5) + 5


class LastState(nn.Module):
    """What a recurrent network has at the end."""

    def __init__(self, core: nn.RNNBase) -> None:
        super().__init__()
        self.core = core

    def forward(self, x: Tensor) -> Tensor:
        return self.core(x)[0][:, -1]  # type: ignore[no-any-return]


class Attended(nn.Module):
    """A sequence that attends to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0].flatten(1)  # type: ignore[no-any-return]


def _body(name: str) -> tuple[list[nn.Module], int]:
    """The first layers, and the width of what they give."""
    if name == "conv":
        return [Reshaped(2, 4), nn.Conv1d(2, 3, 3, padding=1), nn.Flatten()], 12
    if name == "lstm":
        return [Reshaped(4, 2), LastState(nn.LSTM(2, 5, batch_first=True))], 5
    if name == "gru":
        return [Reshaped(4, 2), LastState(nn.GRU(2, 5, 2, dropout=0.1, batch_first=True))], 5
    if name == "attention":
        return [Reshaped(2, 4), Attended()], 8
    if name == "words":
        return [Words(), nn.Embedding(11, 2), nn.Flatten()], 16
    width = WIDE if name == "wide" else 6
    return [nn.Linear(N_FEATURES, width)], width


def make_model(name: str, parts: set[str]) -> nn.Module:
    """A classifier."""
    layers, width = _body(name)
    if "batchnorm" in parts:
        layers.append(nn.BatchNorm1d(width))
    if "layernorm" in parts:
        layers.append(nn.LayerNorm(width))
    layers.append(nn.GELU())
    if "dropout" in parts:
        layers.append(nn.Dropout(0.2))
    return nn.Sequential(*layers, nn.Linear(width, N_CLASSES))


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-4),
    "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.8, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, foreach=False),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "nadam": lambda p: optim.NAdam(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05),
    "adadelta": optim.Adadelta,
}

SCHEDULERS: dict[str, Any] = {
    "none": lambda o: None,
    "step": lambda o: lr_scheduler.StepLR(o, 2, gamma=0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=7),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=3),
    "one-cycle": lambda o: lr_scheduler.OneCycleLR(
        o, max_lr=0.1, total_steps=99, cycle_momentum=False
    ),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
}


class Points(Dataset[Any]):
    """Points of three classes, with an augmentation that draws from the global streams."""

    def __init__(self, augmentation: str) -> None:
        self.inputs = torch.randn(N_SAMPLES, N_FEATURES, generator=torch.Generator().manual_seed(1))
        self.labels = torch.arange(N_SAMPLES) % N_CLASSES
        self.streams = {"none": (), "all": ("python", "numpy", "torch")}.get(
            augmentation, (augmentation,)
        )

    def __len__(self) -> int:
        return N_SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = self.inputs[index]
        if "python" in self.streams and random.random() < 0.5:
            x = x.flip(0)
        if "numpy" in self.streams:
            x = x * float(np.random.uniform(0.9, 1.1))
        if "torch" in self.streams:
            x = x + 0.1 * torch.randn(N_FEATURES)
        return x, self.labels[index]


class Stream(IterableDataset[Any]):
    """The same points one after the other, shared out to the workers."""

    def __init__(self, points: Points) -> None:
        self.points = points

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, stride = (0, 1) if info is None else (info.id, info.num_workers)
        for index in range(first, N_SAMPLES, stride):
            yield self.points[index]


def make_loader(name: str, points: Points, workers: int, seed: int) -> DataLoader[Any]:
    """A loader by the name of its order."""
    options: dict[str, Any] = {"num_workers": workers, "batch_size": BATCH_SIZE}
    if name == "stream":
        return DataLoader(Stream(points), **options)
    if name == "batches":
        del options["batch_size"]
        order = data.RandomSampler(range(N_SAMPLES))
        options["batch_sampler"] = data.BatchSampler(order, 5, drop_last=True)
    elif name == "weighted":
        weights = [1.0 + index for index in range(N_SAMPLES)]
        options["sampler"] = data.WeightedRandomSampler(weights, N_SAMPLES)
    elif name == "subset":
        options["sampler"] = data.SubsetRandomSampler(range(2, N_SAMPLES))
    elif name == "generator":
        options.update(shuffle=True, generator=torch.Generator().manual_seed(seed % 2**31))
    else:
        options["shuffle"] = name == "shuffle"
    return DataLoader(points, **options)


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """The training loss."""
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels)


def bfloat16_cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """The same in mixed precision."""
    with torch.autocast("cpu", torch.bfloat16):
        return cross_entropy(model, batch)


def make_program(
    seed: int,
    *,
    model: str = "mlp",
    parts: str = "",
    optimizer: str = "sgd",
    scheduler: str = "none",
    interval: str = "step",
    loader: str = "shuffle",
    augmentation: str = "none",
    workers: str = "0",
    accumulate: str = "1",
) -> ak.Program:
    """Put one together; ``parts`` are joined by ``+``, the other names are above."""
    chosen = set(parts.split("+"))
    points = Points(augmentation)
    net = make_model(model, chosen)
    trained = OPTIMIZERS[optimizer](net.parameters())
    averaged: dict[str, nn.Module] = {}
    if "ema" in chosen:
        average = get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]
        averaged["ema"] = AveragedModel(net, multi_avg_fn=average)
    return ak.Program(
        model=net,
        optimizer=trained,
        loader=make_loader(loader, points, int(workers), seed),
        loss=bfloat16_cross_entropy if "amp" in chosen else cross_entropy,
        probe=ak.Probe(points.inputs[:7].clone(), points.labels[:7]),
        scheduler=SCHEDULERS[scheduler](trained),
        scheduler_interval="epoch" if interval == "epoch" else "step",
        scaler=torch.amp.GradScaler("cpu", init_scale=4.0) if "scaler" in chosen else None,
        averaged=averaged,
        accumulate=int(accumulate),
        clip_grad_norm=0.5 if "clip" in chosen else None,
    )


def record(
    out: Path, seed: int, threads: int, epochs: int, checkpoint_every: int, settings: dict[str, str]
) -> None:
    """Train one in a plain loop, with a Recorder around it.

    Args:
        out: Where it records.
        seed: What the streams are seeded with.
        threads: Of torch.
        epochs: How often it goes through its data.
        checkpoint_every: Steps between checkpoints.
        settings: Arguments of :func:`make_program`.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    made = make_program(seed, **settings)
    scheduler: Any = made.scheduler
    scaler: Any = made.scaler or torch.amp.GradScaler("cpu", enabled=False)
    ema: Any = made.averaged.get("ema")
    with ak.Recorder(out, seed=seed, checkpoint_every=checkpoint_every) as recorder:
        model, optimizer, loader = recorder.wrap(
            *(made.model, made.optimizer, made.loader),
            scheduler=scheduler,
            scaler=scaler,
            averaged=made.averaged,
        )
        for _ in range(epochs):
            for n, batch in enumerate(loader):
                assert made.loss is not None
                loss = made.loss(model, batch)
                scaler.scale(loss).backward()
                recorder.log(loss=loss)
                if n % made.accumulate:
                    continue
                if made.clip_grad_norm is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(model.parameters(), made.clip_grad_norm)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                if ema is not None:
                    ema.update_parameters(model)
                if scheduler is not None and made.scheduler_interval == "step":
                    scheduler.step()
            if scheduler is not None and made.scheduler_interval == "epoch":
                scheduler.step()
