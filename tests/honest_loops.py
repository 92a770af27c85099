"""Honest loops of the kinds that look odd from outside: none may be warned of.

A loop is a function of a recorder; it trains for some epochs and returns what it trained.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from loop_styles import loss_of, network, update
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.data import DataLoader, TensorDataset, random_split

Loop = Callable[[Any], Any]

_DRAWN = torch.Generator().manual_seed(3)
INPUTS, LABELS = torch.randn(20, 6, generator=_DRAWN), torch.randint(3, (20,), generator=_DRAWN)
DATA = TensorDataset(INPUTS, LABELS)
#: A generator of the module's that nothing draws from while a loop is under way.
SPLITTER = np.random.default_rng(0)


def loader_of(size: int = 20, **options: Any) -> DataLoader[Any]:
    """Five batches of four."""
    data = TensorDataset(INPUTS[:size], LABELS[:size])
    return DataLoader(data, **{"batch_size": 4, "shuffle": True, **options})


def parts(**options: Any) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    """A model, momentum and a loader."""
    model = network(batchnorm=False)
    return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), loader_of(**options)


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """One ordinary update; returns the loss."""
    loss = loss_of(model(x), y)
    update(optimizer, loss)
    return loss.item()


def plain(rec: Any) -> Any:
    """The ordinary loop."""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(3):
        for x, y in loader:
            learn(model, optimizer, x, y)
    return model


def last_accumulation(rec: Any) -> Any:
    """What is left over of an epoch is trained on after its end."""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(3):
        for number, (x, y) in enumerate(loader, start=1):
            loss_of(model(x), y).backward()  # type: ignore[no-untyped-call]
            if number % 2 == 0:
                optimizer.step()
                optimizer.zero_grad()
        optimizer.step()
        optimizer.zero_grad()
    return model


def critic(rec: Any) -> Any:
    """Two models and optimizers; one steps every third time and once more at the end."""
    judge, maker = nn.Linear(6, 1), nn.Linear(2, 6)
    first, second = (torch.optim.Adam(m.parameters(), lr=0.01) for m in (judge, maker))
    rec.wrap(judge, maker, first, second, loader := loader_of())
    for _ in range(2):
        for number, (x, _) in enumerate(loader):
            made = maker(torch.randn(len(x), 2))
            update(first, judge(made.detach()).mean() - judge(x).mean())
            with torch.no_grad():
                for weight in judge.parameters():
                    weight.clamp_(-0.1, 0.1)
            if number % 3 == 2:
                update(second, -judge(maker(torch.randn(4, 2))).mean())
        update(second, -judge(maker(torch.randn(4, 2))).mean())
    return maker


def schedule_by_batch(rec: Any) -> Any:
    """A schedule of the batches."""
    model, optimizer, loader = parts()
    scheduler = OneCycleLR(optimizer, 0.1, total_steps=15)
    rec.wrap(model, optimizer, loader, scheduler=scheduler)
    for _ in range(3):
        for x, y in loader:
            learn(model, optimizer, x, y)
            scheduler.step()
    return model


def plateau(rec: Any) -> Any:
    """A schedule of what validation says, over a loader of no concern."""
    model, optimizer, loader = parts()
    scheduler = ReduceLROnPlateau(optimizer, patience=0)
    rec.wrap(model, optimizer, loader, scheduler=scheduler)
    drawn = torch.Generator().manual_seed(1)
    held_out = loader_of(generator=drawn)
    for _ in range(3):
        model.train()
        for x, y in loader:
            learn(model, optimizer, x, y)
        model.eval()
        with torch.no_grad():
            scheduler.step(sum(float(loss_of(model(x), y)) for x, y in held_out))
    return model


def averaged(rec: Any) -> Any:
    """An average of every step, and its BatchNorm from the recorded loader at the end."""
    model = network()
    ema = AveragedModel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    rec.wrap(model, optimizer, loader := loader_of(), averaged={"ema": ema})
    for _ in range(2):
        for x, y in loader:
            learn(model, optimizer, x, y)
            ema.update_parameters(model)
    update_bn(loader, ema)
    return ema


def copies_kept(rec: Any) -> Any:
    """Tensors of the parameters' shapes that move at each step, and none of them is forgotten."""
    model = network()
    ema = AveragedModel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    averages = list(ema.module.parameters())
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    gradients = [torch.zeros_like(one) for one in model.parameters()]
    rec.wrap(model, optimizer, loader := loader_of(), averaged={"ema": ema})
    for _ in range(2):
        for x, y in loader:
            for name, one in model.named_parameters():
                before[name].copy_(one.detach())
            start = {name: one.clone() for name, one in model.state_dict().items()}
            learn(model, optimizer, x, y)
            for kept, one in zip(gradients, model.parameters(), strict=True):
                kept.copy_(one.grad if one.grad is not None else one)
            for mine, its in zip(averages, model.parameters(), strict=True):
                mine.data.lerp_(its.detach(), 0.1)
            after = [one.detach().clone() for one in model.parameters()]
    assert len(after) <= len(start)
    return ema


def best_kept(rec: Any) -> Any:
    """The best model is copied at each epoch's end, and put back at the end."""
    model, optimizer, loader = rec.wrap(*parts())
    best, lowest = copy.deepcopy(model), float("inf")
    for _ in range(5):
        score = sum(learn(model, optimizer, x, y) for x, y in loader)
        if score < lowest:
            lowest = score
            best.load_state_dict(model.state_dict())
    model.load_state_dict(best.state_dict())
    return model


def stopped_early(rec: Any) -> Any:
    """Left in mid-epoch."""
    model, optimizer, loader = rec.wrap(*parts())
    for number, (x, y) in enumerate(loader):
        learn(model, optimizer, x, y)
        if number == 3:
            break
    return model


def endless(loader: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from loader


def by_steps(rec: Any) -> Any:
    """As many steps as wanted, over an endless iterator that goes through the loader."""
    model, optimizer, loader = rec.wrap(*parts())
    for _, (x, y) in zip(range(13), endless(loader), strict=False):
        learn(model, optimizer, x, y)
    return model


def passes_over(rec: Any) -> Any:
    """Some batches are not trained on, the first one among them."""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(3):
        for number, batch in enumerate(loader):
            if number in (0, 3):
                continue
            learn(model, optimizer, *batch)
    return model


def example_first(rec: Any) -> Any:
    """One batch is drawn to look at, and kept."""
    model, optimizer, loader = rec.wrap(*parts())
    example, _ = next(iter(loader))
    for _ in range(2):
        for x, y in loader:
            learn(model, optimizer, x, y)
    with torch.no_grad():
        model(example)
    return model


def mixed(rec: Any) -> Any:
    """A registered generator."""
    model, optimizer, loader = parts()
    rng = np.random.default_rng(5)
    rec.wrap(model, optimizer, loader, extras={"rng": rng})
    for _ in range(2):
        for x, y in loader:
            share = float(rng.beta(1, 1))
            learn(model, optimizer, share * x + (1 - share) * x.flip(0), y)
    return model


class Mixup:
    """Draws, and says where it stands."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def __call__(self, x: Tensor) -> Tensor:
        share = self.rng.random()
        return share * x + (1 - share) * x.flip(0)

    def state_dict(self) -> dict[str, Any]:
        """The generator's."""
        return {"state": self.rng.getstate()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The generator's."""
        self.rng.setstate(state_dict["state"])


def mixed_by_object(rec: Any) -> Any:
    """A registered object answers for the generator in it, which the script knows, too."""
    model, optimizer, loader = parts()
    rng = random.Random(5)
    mixup = Mixup(rng)
    rec.wrap(model, optimizer, loader, extras={"mixup": mixup})
    for x, y in loader:
        learn(model, optimizer, mixup(x), y)
    return model


def drawn_before(rec: Any) -> Any:
    """Generators that are used up before training starts."""
    rng, split = np.random.default_rng(1), torch.Generator().manual_seed(2)
    chosen, _ = random_split(DATA, [16, 4], generator=split)
    model, optimizer, _ = parts()
    for weight in model.parameters():
        weight.data.mul_(float(rng.uniform(0.9, 1.1)))
    rec.wrap(model, optimizer, loader := DataLoader(chosen, batch_size=4, shuffle=True))
    for _ in range(2):
        for x, y in loader:
            learn(model, optimizer, x, y)
    return model


class Sample(TensorDataset):
    """Rows that a generator chose, which it keeps."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)
        rows = self.rng.choice(20, 16, replace=False)
        super().__init__(INPUTS[rows], LABELS[rows])


def kept_generators(rec: Any) -> Any:
    """Data set and model keep generators that they are done with."""
    model, optimizer, _ = parts()
    model.noise = torch.Generator().manual_seed(1)  # type: ignore[assignment]
    rec.wrap(model, optimizer, loader := DataLoader(Sample(), batch_size=4, shuffle=True))
    for _ in range(2):
        for x, y in loader:
            learn(model, optimizer, x, y)
    return model


def own_order(rec: Any) -> Any:
    """A generator that belongs to the loader."""
    drawn = torch.Generator().manual_seed(2)
    model, optimizer, loader = rec.wrap(*parts(generator=drawn))
    for _ in range(2):
        for x, y in loader:
            learn(model, optimizer, x, y)
    return model


class Meter(nn.Module):
    """A metric as torchmetrics makes them: a module whose sums are in no state_dict."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(()), persistent=False)
        self.n = 0

    def update(self, value: float) -> None:
        """Add one."""
        self.total += value
        self.n += 1


def metered(rec: Any) -> Any:
    """Metrics that nobody registers: training does not hang on them."""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(2):
        meter = Meter()
        for x, y in loader:
            meter.update(learn(model, optimizer, x, y))
    return model


class Trainer:
    """As people write them."""

    def __init__(self, rec: Any) -> None:
        self.model, self.optimizer, self.loader = parts()
        self.scheduler = StepLR(self.optimizer, 1, 0.5)
        self.losses: list[float] = []
        self.global_step, self.epoch = 0, 0
        rec.wrap(self.model, self.optimizer, self.loader, scheduler=self.scheduler)

    def fit(self) -> None:
        """Some epochs."""
        for self.epoch in range(3):
            self.run_epoch()
            self.scheduler.step()

    def run_epoch(self) -> None:
        """One."""
        for x, y in self.loader:
            self.losses.append(learn(self.model, self.optimizer, x, y))
            self.global_step += 1


def trainer(rec: Any) -> Any:
    """Everything hangs on an object."""
    made = Trainer(rec)
    made.fit()
    return made.model


def several_steps(rec: Any) -> Any:
    """Three steps a batch, as proximal policy optimisation takes, and after the last one, too."""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(2):
        for x, y in loader:
            for _ in range(3):
                learn(model, optimizer, x, y)
        for _ in range(3):
            learn(model, optimizer, x, y)
    return model


def until_good(rec: Any) -> Any:
    """As many steps a batch as it takes."""
    model, optimizer, loader = rec.wrap(*parts())
    for number, (x, y) in enumerate(loader):
        for _ in range((1, 4, 2, 5, 3)[number]):
            learn(model, optimizer, x, y)
    return model


def calibrated(rec: Any) -> Any:
    """After training a temperature is fitted, by an optimizer of its own."""
    model, optimizer, loader = rec.wrap(*parts())
    for x, y in loader:
        learn(model, optimizer, x, y)
    temperature = torch.ones((), requires_grad=True)
    fitting = torch.optim.Adam([temperature], lr=0.1)
    logits = model(INPUTS).detach()
    for _ in range(5):
        update(fitting, loss_of(logits / temperature, LABELS))
    return model


def probed(rec: Any) -> Any:
    """After every epoch a linear probe is trained on other batches."""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(2):
        for x, y in loader:
            learn(model, optimizer, x, y)
        probe = nn.Linear(3, 3)
        fitting = torch.optim.SGD(probe.parameters(), lr=0.1)
        for x, y in loader_of():
            update(fitting, loss_of(probe(model(x).detach()), y))
    return model


def group_at_once(rec: Any) -> Any:
    """All batches of an update are fetched before the first is trained on."""
    model, optimizer, loader = rec.wrap(*parts(size=16))
    for _ in range(4):
        batches = iter(loader)
        for _ in range(2):
            for x, y in [next(batches) for _ in range(2)]:
                (loss_of(model(x), y) / 2).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
    return model


def distilled(rec: Any) -> Any:
    """A frozen teacher of the same shape."""
    model, optimizer, loader = rec.wrap(*parts())
    teacher = network(batchnorm=False).eval().requires_grad_(False)
    for _ in range(2):
        for x, y in loader:
            update(optimizer, loss_of(model(x), y) + (model(x) - teacher(x)).square().mean())
    return model


def rate_by_hand(rec: Any) -> Any:
    """A learning rate that the loop sets."""
    model, optimizer, loader = rec.wrap(*parts())
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.05 / (epoch + 1)
        for x, y in loader:
            learn(model, optimizer, x, y)
    return model


def measured_on_training_set(rec: Any) -> Any:
    """The recorded loader is gone through for a score, too."""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(2):
        model.train()
        for x, y in loader:
            learn(model, optimizer, x, y)
        model.eval()
        with torch.no_grad():
            assert sum(float(loss_of(model(x), y)) for x, y in loader) > 0
    return model


def unfrozen(rec: Any) -> Any:
    """Layers that begin to learn later."""
    model, optimizer, loader = rec.wrap(*parts())
    for epoch in range(2):
        model[0].requires_grad_(epoch > 0)
        for x, y in loader:
            learn(model, optimizer, x, y)
    return model


def line_search(rec: Any) -> Any:
    """LBFGS."""
    model = network(batchnorm=False).eval()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    rec.wrap(model, optimizer, loader := loader_of())
    for x, y in loader:

        def again(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(again)  # type: ignore[no-untyped-call]
    return model


def scaled(rec: Any) -> Any:
    """Mixed precision; some steps are skipped, and there are two schedules."""
    model, optimizer, loader = parts()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    warm = [LambdaLR(optimizer, lambda step: min(1, (step + 1) / 4)), StepLR(optimizer, 8)]
    rec.wrap(model, optimizer, loader, scaler=scaler, scheduler=warm)
    for number, (x, y) in enumerate(endless(loader)):
        if number == 9:
            break
        optimizer.zero_grad()
        loss = loss_of(model(x), y) * (float("inf") if number in (0, 4) else 1.0)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        for scheduler in warm:
            scheduler.step()
    return model


def remembers_names(rec: Any, seed: int = 3) -> Any:
    """``locals()`` as a dict of settings: looking around must not write into it."""
    settings = locals()
    model, optimizer, loader = rec.wrap(*parts())
    for x, y in loader:
        learn(model, optimizer, x, y)
    assert set(settings) == {"rec", "seed"}
    return model


def two_phases(rec: Any) -> Any:
    """A second phase with the same optimizer, put back by hand, and the same loader."""
    model, optimizer, loader = rec.wrap(*parts())
    for phase in range(2):
        optimizer.state.clear()
        optimizer.param_groups[0]["lr"] = 0.05 / (phase + 1)
        for x, y in loader:
            learn(model, optimizer, x, y)
    return model


LOOPS: dict[str, Loop] = {
    loop.__name__: loop
    for loop in (
        *(plain, last_accumulation, critic, schedule_by_batch, plateau, averaged, copies_kept),
        best_kept,
        *(stopped_early, by_steps, passes_over, example_first, mixed, mixed_by_object),
        *(drawn_before, own_order, metered, trainer, several_steps, until_good, calibrated),
        *(probed, group_at_once, distilled, rate_by_hand, measured_on_training_set, unfrozen),
        *(line_search, scaled, remembers_names, two_phases, kept_generators),
    )
}
