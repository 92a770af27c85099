"""Training loops drawn at random: what people write, and what goes wrong in it.

A loop is a plan; :func:`train` carries it out with a Recorder, or with :class:`NoRecorder`. The
honest parts are those that a resumed recording must carry over. A flaw is state, randomness or an
order of events that the Recorder is not told of: a resume must end in the same weights all the
same, or be refused.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, WeightedRandomSampler

N_FEATURES, N_CLASSES, BATCH_SIZE = 5, 3, 4

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda params: torch.optim.Adam(params, lr=0.02),
    "amsgrad": lambda params: torch.optim.AdamW(params, lr=0.02, amsgrad=True),
    "rmsprop": lambda params: torch.optim.RMSprop(params, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.05),
    "nadam": lambda params: torch.optim.NAdam(params, lr=0.02),
    "asgd": lambda params: torch.optim.ASGD(params, lr=0.05, t0=3),
    "rprop": lambda params: torch.optim.Rprop(params, lr=0.01),
    "lbfgs": lambda params: torch.optim.LBFGS(params, lr=0.05, max_iter=2),
}

SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any] | None] = {
    "none": None,
    "epoch": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.7),
    "batch": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20),
    "plateau": lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
}

#: What the Recorder is not told of.
FLAWS = (
    "reads one batch ahead",
    "cycles over kept batches",
    "makes a new loader every round",
    "counts by itself",
    "draws from a numpy generator of its own",
    "draws from a torch generator of its own",
    "draws from a generator in the data set",
    "keeps an average that is not registered",
    "keeps a scheduler that is not registered",
    "sets the sampler's weights",
    "changes the batch size",
    "lets the data set grow",
    "shuffles the data in place",
    "adds a group of parameters",
    "holds an optimizer in an optimizer",
    "keeps a loss for the next step",
)


@dataclass(frozen=True)
class LoopPlan:
    """A loop.

    Attributes:
        optimizer: One of :data:`OPTIMIZERS`.
        schedule: One of :data:`SCHEDULES`.
        sampler: ``sequential``, ``shuffle``, ``generator`` (of its own), ``weighted`` or
            ``replacement``.
        noise: Where augmentation draws from: ``none``, ``python``, ``numpy``, ``torch`` or
            ``registered`` (a generator that is an extra).
        workers: Of the loader.
        accumulate: Batches a step of the optimizer.
        n_epochs: Epochs.
        stop_after: Batches after which every epoch is left, or 0.
        average: Whether an average of the weights is kept, and registered.
        validate: ``no``, ``wrapped`` (a further loader of the Recorder's) or ``plain``.
        skips_epochs: Whether the loop uses ``rec.epochs``.
        flaw: One of :data:`FLAWS`, or None.
    """

    optimizer: str
    schedule: str
    sampler: str
    noise: str
    workers: int
    accumulate: int
    n_epochs: int
    stop_after: int
    average: bool
    validate: str
    skips_epochs: bool
    flaw: str | None


def plans(flaw: str | None) -> st.SearchStrategy[LoopPlan]:
    """Plans that are honest, or have one flaw."""
    return st.builds(
        LoopPlan,
        optimizer=st.sampled_from(sorted(OPTIMIZERS)),
        schedule=st.sampled_from(sorted(SCHEDULES)),
        sampler=st.sampled_from(["sequential", "shuffle", "generator", "weighted", "replacement"]),
        noise=st.sampled_from(["none", "python", "numpy", "torch", "registered"]),
        workers=st.sampled_from([*[0] * 16, 1, 2]),
        accumulate=st.sampled_from([1, 1, 2, 3]),
        n_epochs=st.integers(2, 4),
        stop_after=st.sampled_from([0, 0, 3]),
        average=st.booleans(),
        validate=st.sampled_from(["no", "wrapped", "plain"]),
        skips_epochs=st.booleans(),
        flaw=st.just(flaw),
    )


class NoRecorder:
    """Records nothing."""

    step = 0

    def wrap(self, *objects: Any, **_: Any) -> Any:
        """Nothing is wrapped."""
        return objects

    def epochs(self, rounds: Any) -> Iterator[Any]:
        """All of them."""
        yield from rounds

    def enumerate(self, loader: Any) -> Iterator[Any]:
        """As the built-in."""
        yield from enumerate(loader)

    def log(self, **_: Any) -> None:
        """Nothing is kept."""


class Examples(Dataset[tuple[Tensor, int]]):
    """Random points; their noise is drawn when they are looked at."""

    def __init__(self, noise: Callable[[], float], n_known: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.points = torch.randn(40, N_FEATURES, generator=generator)
        self.labels = torch.randint(N_CLASSES, (40,), generator=generator).tolist()
        self.noise = noise
        self.known = list(range(n_known))

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        found = self.known[index]
        return self.points[found] + 0.1 * self.noise(), self.labels[found]


class Sharp(torch.optim.Optimizer):
    """An optimizer around another one, as SAM is."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1, "momentum": 0.9})
        self.base_optimizer = torch.optim.SGD(self.param_groups, lr=0.1, momentum=0.9)
        self.param_groups = self.base_optimizer.param_groups

    def step(self, closure: Any = None) -> Any:
        """As the one inside."""
        return self.base_optimizer.step(closure)


def train(plan: LoopPlan, rec: Any, tick: Callable[[nn.Module], None]) -> nn.Module:
    """Carry out a plan.

    Args:
        plan: The plan.
        rec: The Recorder.
        tick: Called with the model before every batch that is trained on; it may kill the process.
    """
    return _Loop(plan, rec, tick).run()


class _Loop:
    def __init__(self, plan: LoopPlan, rec: Any, tick: Callable[[nn.Module], None]) -> None:
        self.plan, self.rec, self.tick = plan, rec, tick
        self.own = np.random.default_rng(5)
        self.own_torch = torch.Generator().manual_seed(6)
        self.registered = np.random.default_rng(7)
        self.data = Examples(self._noise(), 16 if plan.flaw == "lets the data set grow" else 20)
        self.model = nn.Sequential(
            nn.Linear(N_FEATURES, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, N_CLASSES)
        )
        self.taken, self.kept = 0, torch.zeros(())
        self.loader = self._make_loader()
        self.held_out = DataLoader(Examples(lambda: 0.0, 8), batch_size=4)
        self.optimizer = self._make_optimizer()
        make = SCHEDULES[plan.schedule]
        self.scheduler = None if make is None else make(self.optimizer)
        self.average = copy.deepcopy(self.model)
        self._wrap()

    def _wrap(self) -> None:
        plan, extras, options = self.plan, {}, {}
        if plan.noise == "registered":
            extras["noise"] = self.registered
        if self.scheduler is not None and not self._flaw("keeps a scheduler"):
            options["scheduler"] = self.scheduler
        if plan.average and not self._flaw("keeps an average"):
            options["averaged"] = {"mean": self.average}
        further = [self.held_out] if plan.validate == "wrapped" else []
        self.rec.wrap(self.model, self.optimizer, self.loader, *further, extras=extras, **options)

    def _flaw(self, beginning: str) -> bool:
        return self.plan.flaw is not None and self.plan.flaw.startswith(beginning)

    def _noise(self) -> Callable[[], float]:
        if self._flaw("draws from a generator in the data set"):
            return np.random.default_rng(8).normal
        registered = self.registered
        return {
            "none": lambda: 0.0,
            "python": random.random,
            "numpy": np.random.rand,
            "torch": lambda: float(torch.rand(())),
            "registered": lambda: float(registered.normal()),
        }[self.plan.noise]

    def _make_loader(self) -> DataLoader[Any]:
        n, name = len(self.data), self.plan.sampler
        sampler: Sampler[int] | None = None
        generator = torch.Generator().manual_seed(9) if name == "generator" else None
        if self._flaw("sets the sampler's weights") or name == "weighted":
            sampler = WeightedRandomSampler([1.0] * n, n)
        elif name == "replacement":
            sampler = RandomSampler(self.data, replacement=True, num_samples=n)
        return DataLoader(
            self.data,
            batch_size=BATCH_SIZE,
            shuffle=sampler is None and name != "sequential",
            sampler=sampler,
            generator=generator,
            num_workers=self.plan.workers,
            drop_last=True,
        )

    def _make_optimizer(self) -> torch.optim.Optimizer:
        if self._flaw("holds an optimizer"):
            return Sharp(self.model.parameters())
        if self._flaw("adds a group"):
            self.model[0].requires_grad_(False)
            return OPTIMIZERS[self._optimizer()](self.model[3].parameters())
        return OPTIMIZERS[self._optimizer()](self.model.parameters())

    def _optimizer(self) -> str:
        # LBFGS takes one group only.
        lbfgs = self.plan.optimizer == "lbfgs" and self._flaw("adds a group")
        return "adam" if lbfgs else self.plan.optimizer

    def run(self) -> nn.Module:
        rounds = range(self.plan.n_epochs)
        if self._flaw("cycles"):
            n_batches = 2 * len(self.loader) + 3
            batches = itertools.islice(itertools.cycle(self.loader), n_batches)
            for number, batch in enumerate(batches, start=1):
                self._train_on(batch, number)
            return self.model
        for number in self.rec.epochs(rounds) if self.plan.skips_epochs else rounds:
            self._epoch(number)
        return self.model

    def _epoch(self, number: int) -> None:
        self.model.train()
        for position, batch in self._batches():
            self._train_on(batch, position + 1)
            if position + 1 == self.plan.stop_after:
                break
        loss = self._validate()
        if self.scheduler is not None and self.plan.schedule != "batch":
            self.scheduler.step(*([loss] if self.plan.schedule == "plateau" else []))
        self._between_epochs(number)

    def _batches(self) -> Iterator[tuple[int, Any]]:
        if not self._flaw("reads one batch ahead"):
            yield from self.rec.enumerate(self.loader)
            return
        batches = iter(self.loader)
        following = next(batches, None)
        for position in itertools.count():
            if following is None:
                return
            batch, following = following, next(batches, None)
            yield position, batch

    def _train_on(self, batch: Any, number: int) -> None:
        self.tick(self.model)
        inputs, labels = batch
        self.taken += 1
        inputs = self._before_step(inputs)

        def loss_of() -> Tensor:
            loss = functional.cross_entropy(self.model(inputs), labels) / self.plan.accumulate
            if self._flaw("keeps a loss"):
                loss = loss * (1 + self.kept)
            torch.autograd.backward(loss)
            return loss

        def closure() -> Any:
            self.optimizer.zero_grad()
            return loss_of()

        optimizer: Any = self.optimizer
        if self._optimizer() == "lbfgs" and not self._flaw("holds an optimizer"):
            self.kept = torch.as_tensor(optimizer.step(closure)).detach()
        else:
            self.kept = loss_of().detach()
            if number % self.plan.accumulate == 0:
                self.optimizer.step()
                self.optimizer.zero_grad()
        self._after_step()

    def _before_step(self, inputs: Tensor) -> Tensor:
        if self._flaw("counts by itself"):
            for group in self.optimizer.param_groups:
                group["weight_decay"] = 0.1 / self.taken
        if self._flaw("adds a group") and self.taken == 6:
            self.model[0].requires_grad_(True)
            self.optimizer.add_param_group({"params": list(self.model[0].parameters())})
        if self._flaw("draws from a numpy"):
            return inputs * float(self.own.beta(1, 1))
        if self._flaw("draws from a torch"):
            return inputs * torch.rand((), generator=self.own_torch)
        return inputs

    def _after_step(self) -> None:
        if self.plan.schedule == "batch" and self.scheduler is not None:
            self.scheduler.step()
        if self.plan.average:
            pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
            with torch.no_grad():
                for mine, new in pairs:
                    mine.lerp_(new, 0.1)

    def _validate(self) -> float:
        if self.plan.validate == "no":
            return 1.0
        model = self.average if self.plan.average else self.model
        model.eval()
        with torch.no_grad():
            losses = [float(functional.cross_entropy(model(x), y)) for x, y in self.held_out]
        model.train()
        return sum(losses) / max(len(losses), 1)

    def _between_epochs(self, number: int) -> None:
        loader: Any = self.loader
        if self._flaw("makes a new loader"):
            self.loader = self._make_loader()
        elif self._flaw("sets the sampler's weights"):
            self.model.eval()
            with torch.no_grad():
                outputs = self.model(self.data.points[: len(self.data)])
                labels = torch.tensor(self.data.labels[: len(self.data)])
                loader.sampler.weights = functional.cross_entropy(
                    outputs, labels, reduction="none"
                ).double()
        elif self._flaw("changes the batch size"):
            loader.batch_sampler.batch_size = 2 + number % 3
        elif self._flaw("lets the data set grow"):
            self.data.known += [len(self.data.known), len(self.data.known) + 1]
        elif self._flaw("shuffles the data"):
            random.shuffle(self.data.known)
        if self.plan.average and self._flaw("keeps an average"):
            self.model.load_state_dict(self.average.state_dict())
