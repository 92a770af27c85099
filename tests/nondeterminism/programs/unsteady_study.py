"""The tiny study with a source of nondeterminism or of drift: a factory each.

A fault shows at step 8, after the fork, where its place can be chosen. ``AUDITKIT_TEST_WORLD`` is
the world outside that no record holds: a file, a variable, a date, a library. It is ``first``
while the study runs and something else while it is verified.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tiny_study
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Sampler, get_worker_info

import auditkit as ak

STUDY = tiny_study.STUDY

VARIABLE = "AUDITKIT_TEST_WORLD"

#: The step at which faults begin.
FAULT_STEP = 8

#: What leaks from branch to branch through the process.
BUILT: list[int] = []
CACHE: dict[int, Tensor] = {}
QUEUE: deque[Tensor] = deque(maxlen=3)

#: The step that is being trained; seen by modules and data sets, kept by nobody.
NOW = SimpleNamespace(step=0)

Change = Callable[[ak.Program], object]


def is_first_world() -> bool:
    """Whether this is the time of the recorded run."""
    return os.environ.get(VARIABLE, "first") == "first"


def noise(shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Numbers around 1 that nobody can repeat."""
    drawn = np.random.default_rng().uniform(0.5, 1.5, size=tuple(shape))
    return torch.from_numpy(drawn).float()


def build(seed: int, **arguments: str) -> ak.Program:
    """The tiny study with every step told to :data:`NOW`."""
    NOW.step = 0
    return tiny_study.make_program(seed, **arguments)


def timed(
    program: ak.Program, before: Change | None = None, after: Change | None = None
) -> ak.Program:
    """Do something before or after each step from the fault's step on."""

    def train(_: ak.Program, batch: Any, t: int) -> float | None:
        NOW.step = t
        if before is not None and t >= FAULT_STEP:
            before(program)
        loss = program.train_on(batch, t)
        if after is not None and t >= FAULT_STEP:
            after(program)
        return loss

    return replace(program, step=train)


class Layer(nn.Module):
    """A layer that changes what it is given, from the fault's step on.

    Args:
        change: What it makes of its input.
        when: Whether it does so while it trains, or while it is looked at.
    """

    def __init__(self, change: Callable[[Tensor], Tensor], *, when: bool = True) -> None:
        super().__init__()
        self.change = change
        self.when = when

    def forward(self, values: Tensor) -> Tensor:
        if self.training is self.when and NOW.step >= FAULT_STEP:
            return self.change(values)
        return values


def with_layer(seed: int, change: Callable[[Tensor], Tensor], *, when: bool = True) -> ak.Program:
    """The tiny study with such a layer for its dropout."""
    program = build(seed)
    program.model.drop = Layer(change, when=when)
    return timed(program)


def with_data(
    seed: int, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], workers: str = "0"
) -> ak.Program:
    """The tiny study with changed samples."""

    class Changed(tiny_study.Points):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return change(*super().__getitem__(index))

    points = tiny_study.make_points()
    program = build(seed)
    loader = DataLoader(
        Changed(points.inputs, points.labels),
        batch_size=tiny_study.BATCH_SIZE,
        shuffle=True,
        num_workers=int(workers),
    )
    return replace(program, loader=loader)


# In a module


def numpy_noise(seed: int) -> ak.Program:
    """Noise from a generator without a seed, on what goes into the model."""
    program = build(seed)
    model: Any = program.model

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model

        def forward(self, inputs: Tensor) -> Tensor:
            noisy = self.training and NOW.step >= FAULT_STEP
            return self.body(inputs * noise(inputs.shape) if noisy else inputs)  # type: ignore[no-any-return]

    return timed(replace(program, model=Noisy()))


def entropy_dropout(seed: int) -> ak.Program:
    """A dropout mask of the operating system's entropy."""

    def drop(values: Tensor) -> Tensor:
        drawn = np.frombuffer(os.urandom(4 * values.numel()), dtype=np.uint32) / 2**32
        kept = torch.from_numpy(drawn.astype(np.float32)).reshape(values.shape)
        return values * kept  # not 0 or 1: two masks of few bits may be one

    return with_layer(seed, drop)


def unseeded_dropout(seed: int) -> ak.Program:
    """Dropout from a generator that seeds itself."""

    def drop(values: Tensor) -> Tensor:
        generator = torch.Generator()
        generator.seed()
        return values * torch.rand(values.shape, generator=generator)

    return with_layer(seed, drop)


def rounding_by_entropy(seed: int) -> ak.Program:
    """Lower precision for values that are chosen by chance."""

    def rounded(values: Tensor) -> Tensor:
        chosen = torch.tensor(list(os.urandom(values.numel()))).reshape(values.shape) > 127
        return torch.where(chosen, values.bfloat16().float(), values)

    return with_layer(seed, rounded)


def order_of_addresses(seed: int) -> ak.Program:
    """Features in the order of objects' addresses."""

    def sort(values: Tensor) -> Tensor:
        # Of other sizes each time, as they are where a process did other things before.
        objects = [bytearray(random.SystemRandom().randrange(100, 100_000)) for _ in range(200)]
        order = sorted(range(len(objects)), key=lambda i: id(objects[i]))
        scale = torch.tensor(order[: values.shape[1]], dtype=torch.float32)
        return values * (1 + scale / 1000)

    return with_layer(seed, sort)


def backward_noise(seed: int) -> ak.Program:
    """Noise on the gradient that flows through one layer."""

    def keep(values: Tensor) -> Tensor:
        if values.requires_grad:
            values.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: gradient * noise(gradient.shape)
            )
        return values * 1.0

    return with_layer(seed, keep)


def noisy_evaluation(seed: int) -> ak.Program:
    """A model that answers differently each time it is asked, and trains alike."""
    return with_layer(seed, lambda values: values * noise(values.shape), when=False)


# In the loss, the gradients, the optimizer


def shuffled_reduction(seed: int) -> ak.Program:
    """A loss whose terms are added up in an order of chance."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        found = tiny_study.cross_entropy(model, batch)
        terms = np.sin(np.arange(20_000, dtype=np.float32))
        np.random.default_rng().shuffle(terms)
        last = float(np.cumsum(terms)[-1])  # one after the other, rounded each time
        return found + last if NOW.step >= FAULT_STEP else found

    return timed(replace(build(seed), loss=loss))


def gradient_noise(seed: int) -> ak.Program:
    """Noise between the backward pass and the optimizer's step."""
    program = build(seed)

    def step(_: ak.Program, batch: Any, t: int) -> Tensor:
        program.optimizer.zero_grad()
        loss = tiny_study.cross_entropy(program.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter in program.model.parameters():
            if t >= FAULT_STEP and parameter.grad is not None:
                parameter.grad *= noise(parameter.shape)
        program.optimizer.step()
        return loss

    return replace(program, step=step)


def weight_noise(seed: int) -> ak.Program:
    """Langevin noise on the weights, from a generator without a seed."""

    def shake(program: ak.Program) -> None:
        with torch.no_grad():
            for parameter in program.model.parameters():
                parameter.mul_(noise(parameter.shape))

    return timed(build(seed), after=shake)


def clock_learning_rate(seed: int) -> ak.Program:
    """A learning rate that falls with the time of day."""

    def slow(program: ak.Program) -> None:
        program.optimizer.param_groups[0]["lr"] = 1 / (1 + time.time_ns() % 1_000_003)

    return timed(build(seed), before=slow)


def clock_batchnorm(seed: int) -> ak.Program:
    """BatchNorm whose statistics move with the time that has passed."""

    def hurry(program: ak.Program) -> None:
        program.model.norm.momentum = 0.1 + time.time_ns() % 1_000_003 / 1e7  # type: ignore[union-attr]

    return timed(build(seed), before=hurry)


def clock_teacher(seed: int) -> ak.Program:
    """A teacher that follows the model as fast as time goes."""
    program = build(seed)
    teacher: Any = AveragedModel(program.model)

    def follow(_: ak.Program) -> None:
        share = time.time_ns() % 1_000_003 / 1e7
        for mine, theirs in zip(teacher.parameters(), program.model.parameters(), strict=True):
            mine.data.lerp_(theirs.data, share)

    # An extra, and no average: those are updated by the study itself.
    return timed(replace(program, extras={"teacher": teacher}), after=follow)


def clock_seed(seed: int) -> ak.Program:
    """A program that seeds itself by the clock in the middle of training."""
    return timed(build(seed), after=lambda _: torch.manual_seed(time.time_ns() % 2**62))


def initialised_by_chance(seed: int) -> ak.Program:
    """Weights from the operating system's entropy."""
    program = build(seed)
    generator = torch.Generator().manual_seed(secrets.randbits(62))
    with torch.no_grad():
        program.model.last.weight.uniform_(-1, 1, generator=generator)  # type: ignore[union-attr, operator]
    return program


# In the data


def clock_augmentation(seed: int) -> ak.Program:
    """Samples that are moved by the clock."""
    return with_data(seed, lambda x, y: (x + time.time_ns() % 1_000_003 / 1e6, y))


def clock_labels(seed: int) -> ak.Program:
    """Labels whose noise is seeded by the clock, each anew, so that no two batches agree."""
    return with_data(seed, lambda x, y: (x, (y + random.Random(time.time_ns()).randrange(3)) % 3))


def process_augmentation(seed: int) -> ak.Program:
    """Workers that seed their augmentation with their process's number."""
    return with_data(seed, lambda x, y: (x + os.getpid() / 1e5, y), workers="2")


class EntropySampler(Sampler[int]):
    """Samples in an order of chance."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.size))
        random.SystemRandom().shuffle(order)
        return iter(order)


def entropy_sampler(seed: int) -> ak.Program:
    """An order of the operating system's entropy."""
    points = tiny_study.make_points()
    sampler = EntropySampler(len(points))
    loader = DataLoader(points, batch_size=tiny_study.BATCH_SIZE, sampler=sampler)
    return replace(build(seed), loader=loader)


class LateSampler(EntropySampler):
    """In the recorded order while the study runs, and in any other afterwards."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size)) if is_first_world() else super().__iter__()


def late_sampler(seed: int) -> ak.Program:
    """An order that nobody can repeat any more."""
    points = tiny_study.make_points()
    sampler = LateSampler(len(points))
    loader = DataLoader(points, batch_size=tiny_study.BATCH_SIZE, sampler=sampler)
    return replace(build(seed), loader=loader)


def unsteady_probe(seed: int) -> ak.Program:
    """A probe that is drawn anew each time."""
    points = tiny_study.make_points()
    inputs = points.inputs[:8] * noise(points.inputs[:8].shape)
    return replace(build(seed), probe=ak.Probe(inputs, points.labels[:8]))


# State that no snapshot holds


def private_generator(seed: int) -> ak.Program:
    """A data set that draws from a generator of its own that nobody registered."""
    generator = random.Random(secrets.randbits(62))

    class Noisy(tiny_study.Points):
        def __init__(self, points: tiny_study.Points) -> None:
            super().__init__(points.inputs, points.labels)
            self.generator = generator

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            inputs, label = super().__getitem__(index)
            return inputs + self.generator.random(), label

    data = Noisy(tiny_study.make_points())
    loader = DataLoader(data, batch_size=tiny_study.BATCH_SIZE, shuffle=True)
    return replace(build(seed), loader=loader)


def worker_augmentation(seed: int) -> ak.Program:
    """Samples that are moved by the number of the worker that loads them."""

    class Moved(tiny_study.Points):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            inputs, label = super().__getitem__(index)
            info = get_worker_info()
            return inputs + (0 if info is None else info.id), label

    points = tiny_study.make_points()
    moved = Moved(points.inputs, points.labels)
    loader = DataLoader(moved, batch_size=tiny_study.BATCH_SIZE, shuffle=True, num_workers=2)
    return replace(tiny_study.make_program(seed), loader=loader)


def closure_generator(seed: int) -> ak.Program:
    """A loss with a numpy generator that nobody registered."""
    generator = np.random.default_rng()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return tiny_study.cross_entropy(model, batch) * float(generator.uniform(0.5, 1.5))

    return replace(build(seed), loss=loss)


def more_threads(seed: int) -> ak.Program:
    """A program that changes the number of threads."""
    torch.set_num_threads(torch.get_num_threads() + 1)
    return build(seed)


def other_precision(seed: int) -> ak.Program:
    """A program that switches deterministic kernels off in the middle of training."""
    return timed(build(seed), before=lambda _: torch.use_deterministic_algorithms(False))


def module_attribute(seed: int) -> ak.Program:
    """A layer that keeps its last result, with the graph that made it."""
    program = build(seed)

    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last: Tensor | None = None

        def forward(self, values: Tensor) -> Tensor:
            scale = 1 if self.last is None else 1 + float(self.last.detach().mean()) / 1000
            if self.training:
                self.last = values
            return values * scale

    program.model.drop = Keeping()
    return program


def counter_of_programs(seed: int) -> ak.Program:
    """A module-level counter that every program of a process raises."""
    BUILT.append(seed)
    scale = 1 + len(BUILT) / 100
    return with_layer(seed, lambda values: values * scale)


def cache_of_draws(seed: int) -> ak.Program:
    """A module-level cache: what one branch has drawn, the next one does not draw."""
    program = build(seed)

    def fill(_: ak.Program) -> None:
        if NOW.step not in CACHE:
            CACHE[NOW.step] = torch.rand(3)

    return timed(program, after=fill)


def queue_in_a_global(seed: int) -> ak.Program:
    """A module-level queue of the last batches, which the loss looks at."""
    QUEUE.clear()
    program = build(seed)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        past = sum(float(inputs.mean()) for inputs in QUEUE)
        if model.training:
            QUEUE.append(batch[0].detach().clone())
        return tiny_study.cross_entropy(model, batch) * (1 + past)

    return replace(program, loss=loss)


# The world outside


def file_that_changes(seed: int, path: str) -> ak.Program:
    """Data from a file."""
    return tiny_study.make_program(seed, path=path)


def files_by_date(seed: int, folder: str) -> ak.Program:
    """Data from the files of a folder, the oldest first."""
    files = sorted(Path(folder).glob("part-*.txt"), key=lambda file: file.stat().st_mtime_ns)
    numbers = [float(word) for file in files for word in file.read_text().split()]
    points = tiny_study.Points(torch.tensor(numbers).reshape(-1, 4), torch.arange(14) % 3)
    loader = DataLoader(points, batch_size=tiny_study.BATCH_SIZE, shuffle=True)
    return replace(build(seed), loader=loader)


def variable_for_learning_rate(seed: int) -> ak.Program:
    """A learning rate from an environment variable that nobody records."""
    program = build(seed)
    program.optimizer.param_groups[0]["lr"] = 0.05 if is_first_world() else 0.04
    return program


def precision_by_date(seed: int) -> ak.Program:
    """Autocast that was switched on after the study was run."""
    program = build(seed)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        on = NOW.step >= FAULT_STEP and not is_first_world()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
            return tiny_study.cross_entropy(model, batch)

    return timed(replace(program, loss=loss))


def place_of_the_program(seed: int) -> ak.Program:
    """Samples that are moved by the name of the folder that the program lies in."""
    moved = sum(Path(__file__).parent.as_posix().encode()) / 1e3
    return with_data(seed, lambda x, y: (x + moved, y))


def rounding_of_a_library(seed: int) -> ak.Program:
    """A layer whose last bits are another library's elsewhere."""

    def round_otherwise(values: Tensor) -> Tensor:
        return values if is_first_world() else values * 1.000_01

    return with_layer(seed, round_otherwise)


def process_initialisation(seed: int) -> ak.Program:
    """Weights that depend on the number of the process."""
    program = build(seed)
    with torch.no_grad():
        program.model.last.bias += os.getpid() / 1e6  # type: ignore[union-attr, operator]
    return program
