"""The tiny study with a planted fault.

``AUDITKIT_TEST_FAULT=WHAT:BRANCH:STEP`` makes one branch misbehave at one step: the BRANCH-th
(from 1) of the plan, the replica last; the trunk never misbehaves. Without the variable everything
is as it should be, so that a record can be made with a fault and replayed without.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import tiny_study
import torch
from position import position
from torch import Tensor, nn

import auditkit as ak

STUDY = tiny_study.STUDY

VARIABLE = "AUDITKIT_TEST_FAULT"

#: The first step at which a clock dropout looks at the clock.
CLOCK_STEP = 8


class ClockDropout(nn.Module):
    """Dropout that is seeded by the time of day."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return values
        self.calls += 1
        if int(self.calls) < CLOCK_STEP:
            return values
        clock = torch.Generator().manual_seed(time.time_ns())
        return values * torch.rand(values.shape, generator=clock)


class SwappingSampler(torch.utils.data.Sampler[int]):
    """Exchanges the first two samples of every epoch."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[int]:
        first, second, *others = self.inner
        return iter([second, first, *others])


def make_clock_program(seed: int, **arguments: str) -> ak.Program:
    """A program that can never be replayed."""
    program = tiny_study.make_program(seed, **arguments)
    program.model.drop = ClockDropout()
    return program


def make_program(seed: int, **arguments: str) -> ak.Program:
    """The tiny study's program, with the fault that the environment asks for."""
    program = tiny_study.make_program(seed, **arguments)
    what, branch, step = os.environ.get(VARIABLE, "none:0:0").split(":")
    if not position() or position() != int(branch):
        return program
    dataset: Any = program.loader.dataset
    batch_sampler: Any = program.loader.batch_sampler
    if what == "bytes":
        dataset.inputs = dataset.inputs + 1
    if what == "swap":
        batch_sampler.sampler = SwappingSampler(batch_sampler.sampler)

    def train(_: ak.Program, batch: Any, t: int) -> float | None:
        loss = program.train_on(batch, t)
        if t == int(step):
            misbehave(what, program.model)
        return loss

    return replace(program, step=train)


def misbehave(what: str, model: Any) -> None:
    """Do one thing that no record says, after a step has trained."""
    with torch.no_grad():
        if what == "draw":
            torch.rand(1)
        elif what == "batchnorm":
            model.norm.running_mean += 0.5
        elif what == "weight":
            model.last.bias[0] = torch.nextafter(model.last.bias[0], torch.tensor(9.0))
        elif what == "raise":
            raise RuntimeError("planted")
