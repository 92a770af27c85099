"""Programs of a few numbers: what they hold is spelled out, what they train on does not matter."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import auditkit as ak
from auditkit.observe.rng.streams import seed_everything
from auditkit.observe.state.components import State, TrainingObjects, capture
from auditkit.observe.values.codec import pack, unpack
from auditkit.observe.values.digests import digest_leaves
from auditkit.observe.values.tensors import Leaves
from auditkit.records.digest import EVIDENCE_RECIPE

Step = Callable[[int], None]
ObjectsAndStep = tuple[TrainingObjects, Step]


def digests(state: Mapping[str, Leaves]) -> dict[str, str]:
    """Evidence of every component."""
    return {name: digest_leaves(EVIDENCE_RECIPE, leaves).hex() for name, leaves in state.items()}


def frozen(state: Mapping[str, Leaves]) -> State:
    """What a snapshot file would give back: nothing in it is live."""
    return dict(unpack(*pack(state)))


def follow(made: ObjectsAndStep, first: int, n_steps: int) -> list[dict[str, str]]:
    """Train, and the evidence before every step and at the end."""
    objects, step = made
    rows = [digests(capture(objects))]
    for t in range(first, first + n_steps):
        step(t)
        rows.append(digests(capture(objects)))
    return rows


def build(factory: Callable[[], ObjectsAndStep], seed: int) -> ObjectsAndStep:
    """A program, with every global stream seeded before."""
    seed_everything(seed)
    return factory()


def small_net() -> nn.Sequential:
    """Linear layers with dropout, so that training draws."""
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3))


def batchnorm_net() -> nn.Sequential:
    """The same with BatchNorm."""
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def supervised(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    after: Callable[[int], None] | None = None,
    inputs: Callable[[], Tensor] = lambda: torch.randn(8, 4),
    **others: Any,
) -> ObjectsAndStep:
    """A model that is trained on noise."""

    def step(t: int) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(x).float().square().mean()
            loss.backward()
            return loss  # type: ignore[no-any-return]

        x = inputs()
        optimizer.step(closure)  # type: ignore[arg-type] # torch wants a float
        optimizer.zero_grad()
        if after is not None:
            after(t)

    return TrainingObjects(model, optimizer, **others), step


@dataclass
class Log:
    """What a data set was asked for, with what it drew: (index, draws of three streams)."""

    seen: list[tuple[int, float, float, float]] = field(default_factory=list)


class Numbers(Dataset[Tensor]):
    """Sample i is (i, and a number drawn from each stream), so that a batch tells all."""

    def __init__(self, n: int = 10) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Tensor:
        return row(int(index))


def row(index: int) -> Tensor:
    """A sample with its augmentation, float64 (4,)."""
    drawn = [random.random(), float(np.random.random()), float(torch.rand(()))]
    return torch.tensor([float(index), *drawn], dtype=torch.float64)


def indices(batch: Tensor) -> list[int]:
    """The indices that a batch of :class:`Numbers` was made of."""
    return [int(index) for index in batch.reshape(-1, 4)[:, 0].tolist()]


class FixedBatchSampler:
    """A batch sampler that yields given batches."""

    def __init__(self, batches: Sequence[Sequence[int]]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def make_program(seed: int, hidden: str = "6") -> ak.Program:
    """A program in the sense of a study."""
    torch.manual_seed(seed)
    inputs = torch.randn(20, 4)
    labels = (inputs.sum(dim=1) > 0).long()
    width = int(hidden)
    model = nn.Sequential(
        nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2)
    )
    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        loader=DataLoader(
            torch.utils.data.TensorDataset(inputs, labels), batch_size=5, shuffle=True
        ),
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        probe=ak.Probe(inputs, labels),
    )


STUDY = ak.StudyPlan(
    fork_at=3, window=2, horizon=7, seeds=range(2), perturbations=["momentum-reset"], placebos=1
)
