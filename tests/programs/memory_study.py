"""A tiny study with every kind of memory: teacher and queue in the model, average, schedule.

14 samples in batches of 4, as in ``tiny_study.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak

N_SAMPLES, N_FEATURES, N_HIDDEN, N_CLASSES = 14, 4, 6, 3
LENGTH = 10


class Contrast(nn.Module):
    """A student that is pulled towards what its slow teacher made of earlier batches."""

    queue: Tensor
    queue_pointer: Tensor
    usage: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Linear(N_FEATURES, N_HIDDEN), nn.BatchNorm1d(N_HIDDEN))
        self.teacher = nn.Sequential(nn.Linear(N_FEATURES, N_HIDDEN), nn.BatchNorm1d(N_HIDDEN))
        self.teacher.requires_grad_(False)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(N_HIDDEN, N_CLASSES))
        self.register_buffer("queue", torch.randn(LENGTH, N_HIDDEN))
        self.register_buffer("queue_pointer", torch.zeros(1, dtype=torch.long))
        self.register_buffer("usage", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.student(inputs))  # type: ignore[no-any-return]

    @torch.no_grad()
    def remember(self, inputs: Tensor) -> None:
        """Move the teacher and put what it says into the queue."""
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for slow, fast in pairs:
            slow.mul_(0.9).add_(fast, alpha=0.1)
        for row in self.teacher(inputs):
            self.queue[self.queue_pointer] = row
            self.queue_pointer.add_(1).remainder_(LENGTH)
        self.usage += 1


class Bank:
    """Rows that were seen, as a plain object with a state."""

    def __init__(self) -> None:
        self.rows, self.labels = torch.zeros(8, N_FEATURES), torch.zeros(8)
        self.next = torch.zeros((), dtype=torch.long)

    def add(self, inputs: Tensor, labels: Tensor) -> None:
        for row, label in zip(inputs, labels, strict=True):
            self.rows[self.next], self.labels[self.next] = row, label
            self.next = (self.next + 1) % len(self.rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "labels": self.labels, "next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.labels, self.next = state["rows"], state["labels"], state["next"]


def make_optimizer(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if kind == "sgd":
        return torch.optim.SGD(weights, lr=0.05, momentum=0.9)
    return torch.optim.AdamW(weights, lr=0.01)


def step(program: ak.Program, batch: Any, t: int) -> Tensor:
    inputs, labels = batch
    model: Any = program.model
    agreement = (model.student(inputs) @ model.queue.T).square().mean()
    loss = nn.functional.cross_entropy(model(inputs), labels) + 0.1 * agreement
    loss.backward()
    program.optimizer.step()
    program.optimizer.zero_grad()
    model.remember(inputs)
    bank: Any = program.extras["bank"]
    bank.add(inputs, labels)
    for average in program.averaged.values():
        average.update_parameters(model)  # type: ignore[operator]
    if program.scheduler is not None:
        program.scheduler.step()  # type: ignore[attr-defined]
    return loss  # type: ignore[no-any-return]


def make_program(seed: int, optimizer: str = "sgd", groups: str = "named") -> ak.Program:
    drawn = torch.Generator().manual_seed(1)
    inputs = torch.randn(N_SAMPLES, N_FEATURES, generator=drawn)
    labels = torch.arange(N_SAMPLES) % N_CLASSES
    model = Contrast()
    trained = make_optimizer(optimizer, model)
    named = {"teacher": "teacher.*", "queue": ("queue", "queue_pointer")}
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))  # type: ignore[no-untyped-call]
    return ak.Program(
        model=model,
        optimizer=trained,
        loader=DataLoader(TensorDataset(inputs, labels), batch_size=4, shuffle=True),
        probe=ak.Probe(inputs[:8].clone(), labels[:8]),
        step=step,
        recalibrate=lambda model, batch: model(batch[0]),
        scheduler=torch.optim.lr_scheduler.StepLR(trained, 2, gamma=0.5),
        averaged={"ema": ema},
        extras={"bank": Bank()},
        groups=named if groups == "named" else groups if groups == "children" else {},
    )
