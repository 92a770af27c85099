"""Samples with noise from a generator of the data set's own; ``--arg kind`` says which.

16 samples in batches of 4, the fork between two epochs: an order branch moves the samples of the
second one.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

import auditkit as ak

N = 16
#: Kinds whose samples are objects.
_OBJECTS = ("unplain", "object", "counted object")


class Noisy(Dataset[Any]):
    """Numbers with noise."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.rng: Any = {
            "numpy": np.random.default_rng(0),
            "legacy": np.random.RandomState(0),
            "python": random.Random(0),
            "torch": torch.Generator().manual_seed(0),
        }.get(kind)
        self.calls = 0

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        self.calls += 1
        return torch.full((2,), float(index)) + self.noise(index), index % 2

    def noise(self, index: int) -> float:
        """What is added to a sample."""
        if self.kind == "lazy" and self.rng is None:
            info = get_worker_info()
            self.rng = np.random.default_rng(0 if info is None else info.seed)
        if self.kind == "rare" and index > 9:  # none of the samples that are looked at first
            self.rng = self.rng or np.random.RandomState(0)
        info = get_worker_info()
        drawn: Any
        if self.kind == "torch":
            drawn = torch.randn((), generator=self.rng)
        elif self.kind == "python":
            drawn = self.rng.gauss(0, 1)
        elif self.kind in ("counted", "counted object", "worker"):
            is_place = self.kind == "worker"
            drawn = self.calls if not is_place else 0 if info is None else info.id
        elif self.rng is None or (self.kind == "rare" and index <= 9):
            drawn = 0.0 if self.kind == "rare" else self.honest()
        else:
            drawn = self.rng.normal()
        return float(drawn)

    def honest(self) -> float:
        """Drawn from the streams that everybody has."""
        return float(np.random.normal() + random.random() + torch.rand(()))


class Sample:
    """A sample that is a plain object."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y


class Odd(Sample):
    """One that has no digest."""

    def __init__(self, x: Any, y: Any) -> None:
        super().__init__(x, y)
        self.lines = iter("ab")


class NoisyObjects(Noisy):
    """The same, as objects."""

    def __getitem__(self, index: int) -> Any:
        kind = Odd if self.kind == "unplain" else Sample
        return kind(*super().__getitem__(index))


def collated(samples: list[Any]) -> Any:
    """A batch of objects as tensors."""
    return torch.stack([sample.x for sample in samples]), torch.tensor([s.y for s in samples])


def make_program(
    seed: int, kind: str = "honest", workers: str = "0", registered: str = ""
) -> ak.Program:
    """A linear model."""
    model = torch.nn.Linear(2, 2)
    data = NoisyObjects(kind) if kind in _OBJECTS else Noisy(kind)
    extras: dict[str, Any] = {}
    if registered:
        extras = {"rng": ak.PerSample(data.rng) if registered == "per-sample" else data.rng}
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9),
        loader=DataLoader(
            data,
            batch_size=4,
            shuffle=True,
            num_workers=int(workers),
            collate_fn=collated if kind in _OBJECTS else None,
        ),
        loss=lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1]),
        probe=ak.Probe(torch.eye(2), torch.tensor([0, 1])),
        extras=extras,
    )
