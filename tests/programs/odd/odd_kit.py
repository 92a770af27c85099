"""What the odd programs have in common: points of three classes, and a program around a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak

N_SAMPLES = 24
BATCH_SIZE = 4
N_FEATURES = 6
N_CLASSES = 3

#: Six batches an epoch: the window runs across the end of the first.
STUDY = ak.StudyPlan(
    fork_at=4,
    window=3,
    horizon=9,
    seeds=[0],
    perturbations=["optimizer-reset", "order-reverse"],
    placebos=1,
)


def points(*shape: int) -> tuple[Tensor, Tensor]:
    """Inputs of a shape, (6,) by default, and labels; the same for every seed."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(N_SAMPLES, *(shape or (N_FEATURES,)), generator=generator)
    return inputs, torch.arange(N_SAMPLES) % N_CLASSES


def tokens(length: int = 5, words: int = 11) -> tuple[Tensor, Tensor]:
    """Sequences of whole numbers, and labels."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(words, (N_SAMPLES, length), generator=generator)
    return inputs, torch.arange(N_SAMPLES) % N_CLASSES


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a program to which it does not matter."""
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def loader_of(inputs: Tensor, labels: Tensor, **options: Any) -> DataLoader[Any]:
    """A shuffled loader."""
    chosen = {"batch_size": BATCH_SIZE, "shuffle": True, **options}
    return DataLoader(TensorDataset(inputs, labels), **chosen)


def classify(model: nn.Module, batch: Any) -> Tensor:
    """The usual loss of ``(inputs, labels)``."""
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


def program(model: nn.Module, data: tuple[Tensor, Tensor], **fields: Any) -> ak.Program:
    """A program that classifies; each field may be another."""
    inputs, labels = data
    given = dict(fields)
    if "optimizer" not in given:
        given["optimizer"] = sgd(model)
    if "loader" not in given:
        given["loader"] = loader_of(inputs, labels)
    if "probe" not in given:
        given["probe"] = ak.Probe(inputs[:9], labels[:9])
    if "step" not in given and "loss" not in given:
        given["loss"] = classify
    return ak.Program(model=model, **given)


def mlp(*more: nn.Module, width: int = 8) -> nn.Sequential:
    """A small network, with more layers in its middle."""
    return nn.Sequential(
        nn.Linear(N_FEATURES, width), *more, nn.ReLU(), nn.Linear(width, N_CLASSES)
    )
