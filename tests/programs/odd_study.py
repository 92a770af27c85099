"""Programs that are wrong, or unusual: a factory each."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from dataclasses import replace
from typing import Any

import tiny_study
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import auditkit as ak

STUDY = tiny_study.STUDY


def raises(seed: int) -> ak.Program:
    """A factory that fails."""
    raise LookupError(f"no data\nfor seed {seed}")


def returns_none(seed: int) -> None:
    """A factory that forgets its return."""


def wrong_model(seed: int) -> ak.Program:
    """A function for a model."""
    return replace(tiny_study.make_program(seed), model=nn.functional.relu)  # type: ignore[arg-type]


def wrong_loader(seed: int) -> ak.Program:
    """An iterator for a loader."""
    return replace(tiny_study.make_program(seed), loader=iter([1, 2]))


def wrong_optimizer(seed: int) -> ak.Program:
    """The optimizer of another model."""
    other = tiny_study.make_optimizer("sgd", nn.Linear(2, 2))
    return replace(tiny_study.make_program(seed), optimizer=other)


def wrong_labels(seed: int) -> ak.Program:
    """Probabilities for labels."""
    return replace(tiny_study.make_program(seed), probe=ak.Probe(torch.ones(3, 4), torch.ones(3)))


def no_probe(seed: int) -> ak.Program:
    """Nothing to compare branches on."""
    return replace(tiny_study.make_program(seed), probe=None)


def no_batches(seed: int) -> ak.Program:
    """An epoch without a batch."""
    points = tiny_study.make_points()
    loader = DataLoader(points, batch_size=20, drop_last=True)
    return replace(tiny_study.make_program(seed), loader=loader)


def dict_of(samples: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Collate a batch with text, numbers and nothing beside its tensors."""
    inputs, labels = zip(*samples, strict=True)
    return {
        "inputs": torch.stack(inputs),
        "labels": torch.stack(labels),
        "text": ["a text"] * len(samples),
        "size": len(samples),
        "weight": None,
    }


def dict_batches(seed: int) -> ak.Program:
    """Batches that are not only tensors."""
    program = tiny_study.make_program(seed)
    loader = DataLoader(program.loader.dataset, batch_size=4, shuffle=True, collate_fn=dict_of)
    return replace(
        program,
        loader=loader,
        loss=lambda model, batch: nn.functional.cross_entropy(
            model(batch["inputs"]), batch["labels"]
        ),
    )


class Opaque:
    """Something that has no bytes."""

    def __init__(self) -> None:
        self.lines = iter("ab")


def opaque_batches(seed: int) -> ak.Program:
    """Batches that hold an object of which no digest can be taken."""
    program = tiny_study.make_program(seed)
    loader = DataLoader(
        program.loader.dataset, batch_size=4, collate_fn=lambda samples: [Opaque(), samples]
    )
    return replace(program, loader=loader)


def talkative(seed: int) -> ak.Program:
    """A program that prints, warns, and writes where answers could be mistaken."""
    program = tiny_study.make_program(seed)

    def train(_: ak.Program, batch: Any, t: int) -> float | None:
        print('{"result": {}}', flush=True)
        os.write(1, b'{"error": {"message": "no"}}\n')
        os.write(2, b"\xff\xfe no text\n")
        warnings.warn(f"step {t}", stacklevel=1)
        return program.train_on(batch, t)

    return replace(program, step=train)


def curious(seed: int) -> ak.Program:
    """A program that asks a question."""
    input("Which data? ")
    return tiny_study.make_program(seed)


def diverging(seed: int, at: str = "10", without_momentum: str = "") -> ak.Program:
    """A loss that is not a number from a step on; perhaps only where the momentum is 0 there."""
    program = tiny_study.make_program(seed)

    def momentum() -> bool:
        return any(
            bool(state["momentum_buffer"].any()) for state in program.optimizer.state.values()
        )

    def train(_: ak.Program, batch: Any, t: int) -> float | None:
        if t == int(at) and not (without_momentum and momentum()):
            with torch.no_grad():
                program.model.last.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
        return program.train_on(batch, t)

    return replace(program, step=train)


def leaves(seed: int) -> ak.Program:
    """A program that ends its process politely."""
    sys.exit("no licence for this data set")


def vanishes(seed: int) -> ak.Program:
    """A program whose library ends its process."""
    os.write(2, b"first\n\nlibrary: fatal error\n")
    os._exit(7)


def is_killed(seed: int) -> ak.Program:
    """A program that is out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def quits(seed: int, at: str, told: str) -> ak.Program:
    """Steps of which those of one process, counted from 1, end it as if all were well."""
    program = tiny_study.make_program(seed)
    numbers: list[int] = []

    def train(_: ak.Program, batch: Any, t: int) -> float | None:
        if not numbers:
            file = os.open(told, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            os.write(file, b".")
            numbers.append(os.fstat(file).st_size)
            os.close(file)
            if numbers == [int(at)]:
                os._exit(0)
        return program.train_on(batch, t)

    return replace(program, step=train)
