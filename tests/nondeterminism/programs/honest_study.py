"""Programs that draw, average, schedule and queue as real ones do, and repeat all of it."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tiny_study
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, WeightedRandomSampler

import auditkit as ak

STUDY = tiny_study.STUDY


def tiny(seed: int, **arguments: str) -> ak.Program:
    """The tiny study in one of its variants."""
    return tiny_study.make_program(seed, **arguments)


def with_model(seed: int, model: nn.Module) -> ak.Program:
    """The tiny study with another model."""
    program = tiny_study.make_program(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return replace(program, model=model, optimizer=optimizer)


def weighted_sampler(seed: int) -> ak.Program:
    """Samples drawn with replacement."""
    points = tiny_study.make_points()
    sampler = WeightedRandomSampler([1.0 + n % 3 for n in range(len(points))], len(points))
    loader = DataLoader(points, batch_size=tiny_study.BATCH_SIZE, sampler=sampler)
    return replace(tiny_study.make_program(seed), loader=loader)


def own_generators(seed: int) -> ak.Program:
    """A loss that draws from generators of its own, all registered."""
    held: dict[str, Any] = {
        "numpy": np.random.default_rng(seed),
        "python": random.Random(seed),
        "torch": torch.Generator().manual_seed(seed),
    }

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, labels = batch
        scale = held["numpy"].uniform() + held["python"].random()
        moved = inputs * scale + torch.rand(inputs.shape, generator=held["torch"])
        return nn.functional.cross_entropy(model(moved), labels)

    program = tiny_study.make_program(seed)

    def step(_: ak.Program, batch: Any, t: int) -> Tensor:
        program.optimizer.zero_grad()
        found = loss(program.model, batch)
        found.backward()  # type: ignore[no-untyped-call]
        program.optimizer.step()
        return found

    return replace(program, step=step, extras=held)


def all_global_streams(seed: int) -> ak.Program:
    """A step that draws from every global stream, as mixup does."""
    program = tiny_study.make_program(seed)

    def step(_: ak.Program, batch: Any, t: int) -> Tensor:
        inputs, labels = batch
        share = float(np.random.beta(0.4, 0.4)) * random.uniform(0.5, 1.0)
        other = torch.randperm(len(inputs))
        program.optimizer.zero_grad()
        found = program.model(share * inputs + (1 - share) * inputs[other])
        loss = share * nn.functional.cross_entropy(found, labels)
        loss = loss + (1 - share) * nn.functional.cross_entropy(found, labels[other])
        loss.backward()  # type: ignore[no-untyped-call]
        program.optimizer.step()
        return loss

    return replace(program, step=step)


class Queue:
    """The last batches, with a state."""

    def __init__(self) -> None:
        self.batches: deque[Tensor] = deque(maxlen=3)

    def state_dict(self) -> dict[str, Any]:
        return {"batches": list(self.batches)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.batches = deque(state["batches"], maxlen=3)


def queue_in_extras(seed: int) -> ak.Program:
    """A loss that looks at a registered queue of the last batches."""
    program, queue = tiny_study.make_program(seed), Queue()

    def step(_: ak.Program, batch: Any, t: int) -> Tensor:
        program.optimizer.zero_grad()
        past = sum(float(inputs.mean()) for inputs in queue.batches)
        loss = tiny_study.cross_entropy(program.model, batch) * (1 + past)
        loss.backward()  # type: ignore[no-untyped-call]
        program.optimizer.step()
        queue.batches.append(batch[0].detach().clone())
        return loss

    return replace(program, step=step, extras={"queue": queue})


class Sequence(nn.Module):
    """Numbers as words of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 5)
        self.lstm = nn.LSTM(5, 6, num_layers=2, dropout=0.2, batch_first=True)
        self.last = nn.Linear(6, tiny_study.N_CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        words = (inputs * 4).long().clamp(-8, 7) + 8
        return self.last(self.lstm(self.embedding(words))[0][:, -1])  # type: ignore[no-any-return]


def sequence_model(seed: int) -> ak.Program:
    """An embedding and an LSTM."""
    return with_model(seed, Sequence())


class Attention(nn.Module):
    """A transformer's layer over the features, recomputed in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(1, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.last = nn.Linear(8, tiny_study.N_CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs.unsqueeze(-1))
        if self.training:
            hidden = checkpoint(self.layer, hidden, use_reentrant=False)
        else:
            hidden = self.layer(hidden)
        return self.last(hidden.mean(dim=1))  # type: ignore[no-any-return]


def attention_model(seed: int) -> ak.Program:
    """A transformer with dropout under activation checkpointing."""
    return with_model(seed, Attention())


def normalised_model(seed: int) -> ak.Program:
    """Spectral norm, and BatchNorm with a cumulative average."""
    first = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6))
    model = nn.Sequential(first, nn.BatchNorm1d(6, momentum=None), nn.ReLU(), nn.Linear(6, 3))
    return with_model(seed, model)


def clipped_gradients(seed: int) -> ak.Program:
    """Gradients of two batches, clipped, with a rate that falls every epoch."""
    program = tiny_study.make_program(seed, scheduler="epoch", accumulate="2")
    return replace(program, clip_grad_norm=0.1)


def plateau(seed: int) -> ak.Program:
    """A learning rate that looks at the loss."""
    program = tiny_study.make_program(seed)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(program.optimizer, patience=1)

    def step(_: ak.Program, batch: Any, t: int) -> Tensor:
        program.optimizer.zero_grad()
        loss = tiny_study.cross_entropy(program.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        program.optimizer.step()
        scheduler.step(loss.detach())
        return loss

    return replace(program, step=step, scheduler=scheduler)


def two_kinds_of_groups(seed: int) -> ak.Program:
    """Parameter groups with settings of their own, and RMSprop."""
    program = tiny_study.make_program(seed)
    model: Any = program.model
    groups = [
        {"params": [model.first.weight, model.last.weight], "weight_decay": 0.01},
        {"params": [model.first.bias, model.last.bias, *model.norm.parameters()], "lr": 0.02},
    ]
    return replace(program, optimizer=torch.optim.RMSprop(groups, lr=0.01, momentum=0.5))


def order_of_a_set(seed: int) -> ak.Program:
    """Scales in the order of a set of words, which PYTHONHASHSEED fixes."""
    words = {"alpha", "beta", "gamma", "delta"}
    scale = torch.tensor([float(len(word)) for word in words])

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0] * scale), batch[1])

    return replace(tiny_study.make_program(seed), loss=loss)


def clock_that_only_watches(seed: int) -> ak.Program:
    """A program that times itself and trains on nothing of it."""
    program = tiny_study.make_program(seed)
    begun = time.perf_counter()

    def train(_: ak.Program, batch: Any, t: int) -> float | None:
        assert time.perf_counter() >= begun
        return program.train_on(batch, t)

    return replace(program, step=train)
