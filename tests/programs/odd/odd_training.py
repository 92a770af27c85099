"""Training that is not one loss of one model, and programs of an odd make, a factory each."""

# Written as people write programs, without a word for the type checker.
# mypy: disable-error-code="arg-type, assignment, no-any-return, no-untyped-call, operator"

from __future__ import annotations

import copy
import enum
import functools
import logging
import random
import sys
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from odd_kit import (
    N_CLASSES,
    N_FEATURES,
    STUDY,
    classify,
    loader_of,
    mlp,
    points,
    program,
    sgd,
    tokens,
)
from torch import Tensor, nn, optim
from torch.nn import functional as F  # noqa: N812

import auditkit as ak

__all__ = ["STUDY"]

logger = logging.getLogger(__name__)


def _update(this: ak.Program, loss: Tensor) -> Tensor:
    this.optimizer.zero_grad()
    loss.backward()
    this.optimizer.step()
    return loss


class TwoHeads(nn.Module):
    """A body with a classifier and a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(N_FEATURES, 5)
        self.classifier = nn.Linear(5, N_CLASSES)
        self.decoder = nn.Linear(5, N_FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(x).relu())

    def decoded(self, x: Tensor) -> Tensor:
        """What is left of the inputs."""
        return self.decoder(self.body(x).relu())


def two_losses(seed: int) -> ak.Program:
    def loss(model: Any, batch: Any) -> Tensor:
        return classify(model, batch) + 0.5 * F.mse_loss(model.decoded(batch[0]), batch[0])

    return program(TwoHeads(), points(), loss=loss)


def two_backward_passes(seed: int) -> ak.Program:
    """Two losses with a backward pass each, and one step."""

    def train(this: Any, batch: Any, t: int) -> Tensor:
        this.optimizer.zero_grad()
        first, second = classify(this.model, batch), this.model.decoded(batch[0]).abs().mean()
        first.backward(retain_graph=True)
        second.backward()
        this.optimizer.step()
        return first + second

    return program(TwoHeads(), points(), step=train)


def two_views(seed: int) -> ak.Program:
    """Contrastive: two noisy views of a batch must find each other."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        views = [F.normalize(model(batch[0] + 0.1 * torch.randn_like(batch[0]))) for _ in "12"]
        likeness = views[0] @ views[1].T / 0.5
        return F.cross_entropy(likeness, torch.arange(len(likeness)))

    return program(mlp(nn.BatchNorm1d(8)), points(), loss=loss)


def autoencoder(seed: int) -> ak.Program:
    """The probe asks which feature is the largest in what comes back."""
    inputs, labels = points()

    def loss(model: Any, batch: Any) -> Tensor:
        return F.mse_loss(model.decoded(batch[0]), batch[0])

    probe = ak.Probe(
        inputs[:9],
        inputs[:9].argmax(dim=1),
        predict=lambda model, x: model.decoded(x),
    )
    return program(TwoHeads(), (inputs, labels), loss=loss, probe=probe)


def regression(seed: int) -> ak.Program:
    """The probe says how probable a value above and below zero is."""
    inputs, _ = points()
    targets = inputs.sum(dim=1, keepdim=True)
    model = nn.Sequential(nn.Linear(N_FEATURES, 8), nn.Tanh(), nn.Linear(8, 1))

    def above_zero(model: nn.Module, x: Tensor) -> Tensor:
        share = model(x).sigmoid()
        return torch.cat([1 - share, share], dim=1)

    return program(
        *(model, (inputs, targets)),
        loss=lambda model, batch: F.huber_loss(model(batch[0]), batch[1]),
        probe=ak.Probe(
            inputs[:9], (targets[:9, 0] > 0).long(), predict=above_zero, probabilities=True
        ),
    )


class Tagger(nn.Module):
    """Scores of every word of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.core = nn.GRU(4, 5, batch_first=True)
        self.head = nn.Linear(5, N_CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.core(self.embedding(words))[0])


def labels_of_words(seed: int) -> ak.Program:
    """A label a word; in the probe a word is an example."""
    words, _ = tokens()
    labels = words % N_CLASSES
    return program(
        *(Tagger(), (words, labels)),
        loss=lambda model, batch: F.cross_entropy(
            model(batch[0]).flatten(0, 1), batch[1].flatten(), ignore_index=-100
        ),
        probe=ak.Probe(
            words[:3],
            labels[:3].flatten(),
            predict=lambda model, given: model(given).flatten(0, 1),
        ),
    )


def adversaries(seed: int) -> ak.Program:
    """Two networks with an optimizer each; the second pair is kept as extras."""
    discriminator = mlp()
    generator = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, N_FEATURES))
    generating = optim.Adam(generator.parameters(), lr=0.01)

    def train(this: ak.Program, batch: Any, t: int) -> Tensor:
        real, labels = batch
        made = generator(torch.randn(len(real), 2))
        fooled = F.cross_entropy(this.model(made), torch.zeros(len(real), dtype=torch.long))
        generating.zero_grad()
        fooled.backward()
        generating.step()
        wrong = torch.full((len(real),), N_CLASSES - 1)
        loss = classify(this.model, (real, labels)) + F.cross_entropy(
            this.model(made.detach()), wrong
        )
        return _update(this, loss)

    return program(
        *(discriminator, points()),
        step=train,
        extras={"generator": generator, "generating": generating},
    )


def adversaries_of_one_optimizer_each(seed: int) -> ak.Program:
    """The same, where nobody names the second pair."""
    made = adversaries(seed)
    return program(made.model, points(), step=made.step)


def moving_teacher(seed: int) -> ak.Program:
    """A copy that follows the model by a moving average, and teaches it."""
    student = mlp(nn.BatchNorm1d(8))
    teacher = copy.deepcopy(student).requires_grad_(False)

    def train(this: ak.Program, batch: Any, t: int) -> Tensor:
        with torch.no_grad():
            wanted = teacher(batch[0]).softmax(dim=1)
        loss = F.cross_entropy(this.model(batch[0] + 0.1 * torch.randn(N_FEATURES)), wanted)
        _update(this, loss + classify(this.model, batch))
        with torch.no_grad():
            for ours, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
                ours.lerp_(theirs, 0.1)
        return loss

    return program(student, points(), step=train, averaged={"teacher": teacher})


def moving_teacher_unnamed(seed: int) -> ak.Program:
    """The same, where nobody names the copy."""
    made = moving_teacher(seed)
    return program(made.model, points(), optimizer=made.optimizer, step=made.step)


class Queue(nn.Module):
    """A memory of past features, as momentum contrast has it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", F.normalize(torch.randn(8, N_CLASSES)))
        self.register_buffer("place", torch.zeros(1, dtype=torch.long))

    def push(self, keys: Tensor) -> None:
        """Exchange the oldest."""
        place = int(self.place)
        self.memory[torch.arange(place, place + len(keys)) % len(self.memory)] = keys
        self.place[0] = (place + len(keys)) % len(self.memory)


def memory_queue(seed: int) -> ak.Program:
    queue = Queue()

    def train(this: ak.Program, batch: Any, t: int) -> Tensor:
        features = F.normalize(this.model(batch[0]))
        keys = F.normalize(this.model(batch[0].flip(1))).detach()
        near = (features * keys).sum(dim=1, keepdim=True)
        scores = torch.cat([near, features @ queue.memory.T], dim=1)
        loss = F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))
        _update(this, loss)
        queue.push(keys)
        return loss

    return program(mlp(), points(), step=train, extras={"queue": queue})


def gradient_penalty(seed: int) -> ak.Program:
    """A loss of gradients, which needs a second derivative."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs = batch[0].clone().requires_grad_(True)
        scores = model(inputs)
        (gradient,) = torch.autograd.grad(scores.sum(), inputs, create_graph=True)
        return F.cross_entropy(scores, batch[1]) + 0.1 * gradient.square().sum()

    return program(mlp(nn.Tanh()), points(), loss=loss)


def noise_in_the_loss(seed: int) -> ak.Program:
    """Mixing and noise by all three global streams inside the loss."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        share = float(np.random.beta(0.5, 0.5))
        other = batch[0].roll(random.randint(1, 2), dims=0)
        mixed = share * batch[0] + (1 - share) * other + 0.01 * torch.randn(N_FEATURES)
        return F.cross_entropy(model(mixed), batch[1])

    return program(mlp(), points(), loss=loss)


def own_generator(seed: int) -> ak.Program:
    """Noise of a generator of the program's own, which is named as an extra."""
    noise = torch.Generator().manual_seed(seed)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        shift = 0.1 * torch.randn(N_FEATURES, generator=noise)
        return F.cross_entropy(model(batch[0] + shift), batch[1])

    return program(mlp(), points(), loss=loss, extras={"noise": noise})


def own_generator_unnamed(seed: int) -> ak.Program:
    """The same, where nobody names it."""
    made = own_generator(seed)
    return program(made.model, points(), loss=made.loss)


def curriculum(seed: int) -> ak.Program:
    """What is done depends on the step."""

    def train(this: ak.Program, batch: Any, t: int) -> Tensor | None:
        if t % 3 == 2:
            return None
        noise = torch.randn_like(batch[0]) / t
        return _update(this, classify(this.model, (batch[0] + noise, batch[1])))

    return program(mlp(), points(), step=train)


def counter_of_its_own(seed: int) -> ak.Program:
    """Counts its steps in a variable of the factory."""
    steps = 0

    def train(this: ak.Program, batch: Any, t: int) -> Tensor:
        nonlocal steps
        steps += 1
        this.optimizer.param_groups[0]["lr"] = 0.1 / steps
        return _update(this, classify(this.model, batch))

    return program(mlp(), points(), step=train)


def counter_on_the_model(seed: int) -> ak.Program:
    """Counts its batches in a number on the model."""
    model = mlp()
    model.batches_seen = 0

    def train(this: Any, batch: Any, t: int) -> Tensor:
        this.model.batches_seen += 1
        return _update(this, classify(this.model, batch))

    return program(model, points(), step=train)


def best_so_far(seed: int) -> ak.Program:
    """Remembers the best loss and the weights that gave it, and never uses them."""
    best: dict[str, Any] = {"loss": float("inf"), "weights": None}

    def train(this: ak.Program, batch: Any, t: int) -> Tensor:
        loss = _update(this, classify(this.model, batch))
        if loss.item() < best["loss"]:
            best.update(loss=loss.item(), weights=copy.deepcopy(this.model.state_dict()))
        return loss

    return program(mlp(), points(), step=train)


def prints(seed: int) -> ak.Program:
    print("building, seed", seed)

    def train(this: ak.Program, batch: Any, t: int) -> Tensor:
        loss = _update(this, classify(this.model, batch))
        print(f"step {t}: loss {loss.item():.3f}", end="\r", flush=True)
        print("über-progress █", file=sys.stderr)
        return loss

    return program(mlp(), points(), step=train)


def logs(seed: int) -> ak.Program:
    logging.basicConfig(level=logging.DEBUG, force=True)
    warnings.warn("this learning rate is high", stacklevel=1)

    def end(this: ak.Program, epoch: int) -> None:
        logger.info("epoch %d over", epoch)

    logger.warning("building")
    return program(mlp(), points(), on_epoch_end=end)


class Activation(enum.Enum):
    """A choice by name."""

    RELU = "relu"
    GELU = "gelu"

    def make(self) -> nn.Module:
        """The layer."""
        return nn.ReLU() if self is Activation.RELU else nn.GELU(approximate="tanh")


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen."""

    width: int = 7
    activation: Activation = Activation.GELU
    rates: dict[str, float] = field(default_factory=lambda: {"body": 0.05, "head": 0.01})


class Configured(nn.Module):
    """A model that keeps its settings."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.body = nn.Linear(N_FEATURES, settings.width)
        self.activation = settings.activation.make()
        self.head = nn.Linear(settings.width, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.activation(self.body(x)))


def dataclasses_and_enums(seed: int, activation: str = "gelu") -> ak.Program:
    settings = Settings(activation=Activation(activation))
    model = Configured(settings)
    groups = [
        {"params": part.parameters(), "lr": settings.rates[name]}
        for name, part in model.named_children()
        if name in settings.rates
    ]
    return program(model, points(), optimizer=optim.AdamW(groups))


def _weighted(model: nn.Module, batch: Any, *, weight: float) -> Tensor:
    return weight * classify(model, batch)


class Trainer:
    """Everything as methods of an object, the factory included."""

    rate = 0.05

    def __init__(self) -> None:
        self.model = mlp()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss."""
        return _weighted(model, batch, weight=2.0)

    def program(self) -> ak.Program:
        """The program."""
        return program(self.model, points(), loss=self.loss)

    @classmethod
    def build(cls, seed: int) -> ak.Program:
        """The factory."""
        return cls().program()


methods = Trainer.build

partial_loss = functools.partial(
    lambda seed, weight: program(mlp(), points(), loss=functools.partial(_weighted, weight=weight)),
    weight=0.5,
)


def evaluates_while_training(seed: int) -> ak.Program:
    """Looks at held-out data after each epoch, by a loader of its own."""
    held_out = loader_of(*points(), shuffle=False)
    seen: list[float] = []

    def end(this: ak.Program, epoch: int) -> None:
        this.model.eval()
        with torch.no_grad():
            seen.append(sum(classify(this.model, batch).item() for batch in held_out))
        this.model.train()

    return program(mlp(nn.Dropout(0.2)), points(), on_epoch_end=end)


def seeds_itself(seed: int) -> ak.Program:
    """Seeds every stream again, as scripts do."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    return program(mlp(nn.Dropout(0.2)), points())


def alternating_optimizers(seed: int) -> ak.Program:
    """Two optimizers of one model, in turn; the second is an extra."""
    model = TwoHeads()
    first = sgd(model)
    second = optim.Adam(model.decoder.parameters(), lr=0.01)

    def train(this: Any, batch: Any, t: int) -> Tensor:
        if t % 2:
            return _update(this, classify(this.model, batch))
        loss = F.mse_loss(this.model.decoded(batch[0]), batch[0])
        second.zero_grad()
        loss.backward()
        second.step()
        return loss

    return program(model, points(), optimizer=first, step=train, extras={"second": second})
