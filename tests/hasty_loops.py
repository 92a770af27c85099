"""Loops that do what no checkpoint can hold, each with what the remedy makes of it.

A loop is a function of a recorder and of what to call before each of its own steps. ``FAULTS`` are
``(what is wrong, what the message names, what is right)``; the third one does what the message
advises, and a resumed run of it must end in the bits of one that was never interrupted.
"""

from __future__ import annotations

import copy
import itertools
import queue
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import honest_loops
import numpy as np
import torch
from honest_loops import endless, learn, loader_of, parts
from loop_styles import loss_of, network, update
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

Tick = Callable[[], None]
Loop = Callable[[Any, Tick], Any]


def epochs_of(rec: Any, tick: Tick, *objects: Any, around: Any = None, **named: Any) -> Any:
    """Three ordinary epochs; ``around(model, x)`` is done before each step."""
    model, optimizer, loader = objects[0], objects[1], objects[-1]
    rec.wrap(*objects, **named)
    for _ in range(3):
        for x, y in loader:
            tick()
            learn(model, optimizer, x if around is None else around(x), y)
    return model


def cycled(rec: Any, tick: Tick) -> Any:
    """The batches of the first pass again and again."""
    model, optimizer, loader = rec.wrap(*parts())
    for x, y in itertools.islice(itertools.cycle(loader), 15):
        tick()
        learn(model, optimizer, x, y)
    return model


def through_the_loader(rec: Any, tick: Tick) -> Any:
    """Every pass is one of the loader's."""
    model, optimizer, loader = rec.wrap(*parts())
    for x, y in endless(loader):
        tick()
        learn(model, optimizer, x, y)
        if rec.step + 1 == 15:  # the one that is under way is not counted
            return model
    raise AssertionError("it is endless")


def listed(rec: Any, tick: Tick) -> Any:
    """All batches are fetched, then trained on."""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(3):
        for x, y in list(loader):
            tick()
            learn(model, optimizer, x, y)
    return model


def renewed(rec: Any, tick: Tick) -> Any:
    """A new loader every round."""
    model, optimizer, loader = rec.wrap(*parts(size=12))
    for size in (16, 20, 20):
        for x, y in loader:
            tick()
            learn(model, optimizer, x, y)
        loader = loader_of(size)
    return model


def one_ahead(loader: Any) -> Iterator[Any]:
    """Fetches one more than it gives."""
    batches = iter(loader)
    following = next(batches, None)
    while following is not None:
        batch, following = following, next(batches, None)
        yield batch, following is None


def ahead(rec: Any, tick: Tick) -> Any:
    """Which batch is the last?"""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(3):
        for (x, y), _is_last in one_ahead(loader):
            tick()
            learn(model, optimizer, x, y)
    return model


def ahead_with_copies(rec: Any, tick: Tick) -> Any:
    """A prefetcher that keeps copies, as those that fill a device do."""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(3):
        moved = ([x.clone(), y.clone()] for x, y in loader)
        for (x, y), _is_last in one_ahead(moved):
            tick()
            learn(model, optimizer, x, y)
    return model


def by_length(rec: Any, tick: Tick) -> Any:
    """The loader's length tells which batch is the last."""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(3):
        for number, (x, y) in enumerate(loader, start=1):
            tick()
            learn(model, optimizer, x, y)
            assert number <= len(loader)
    return model


def threaded(rec: Any, tick: Tick) -> Any:
    """A thread fetches what is trained on here."""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(3):
        waiting: queue.Queue[Any] = queue.Queue(1)

        def fetch(waiting: queue.Queue[Any] = waiting) -> None:
            for batch in loader:
                waiting.put(batch)
            waiting.put(None)

        # A loop that is killed leaves it waiting.
        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        while (batch := waiting.get()) is not None:
            tick()
            learn(model, optimizer, *batch)
        thread.join()
    return model


def replaced_optimizer(rec: Any, tick: Tick) -> Any:
    """A new optimizer for each epoch."""
    model, optimizer, loader = rec.wrap(*parts())
    for epoch in range(3):
        for x, y in loader:
            tick()
            learn(model, optimizer, x, y)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05 / (epoch + 2), momentum=0.9)
    return model


def changed_optimizer(rec: Any, tick: Tick) -> Any:
    """The same by changing the one."""
    model, optimizer, loader = rec.wrap(*parts())
    for epoch in rec.epochs(range(3)):
        for x, y in loader:
            tick()
            learn(model, optimizer, x, y)
        optimizer.state.clear()
        optimizer.param_groups[0]["lr"] = 0.05 / (epoch + 2)
    return model


class Sharp(torch.optim.Optimizer):
    """Climbs, then has its base optimizer descend."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"rho": 0.05})
        self.base = torch.optim.SGD(self.param_groups, lr=0.05, momentum=0.9)
        self.param_groups = self.base.param_groups

    def step(self, closure: Any = None) -> Any:
        """A step of the base."""
        return self.base.step(closure)


def nested(rec: Any, tick: Tick) -> Any:
    """An optimizer in an optimizer."""
    model = network(batchnorm=False)
    return epochs_of(rec, tick, model, Sharp(model.parameters()), loader_of())


def nested_given(rec: Any, tick: Tick) -> Any:
    """Both are given to wrap."""
    model = network(batchnorm=False)
    optimizer = Sharp(model.parameters())
    return epochs_of(rec, tick, model, optimizer, optimizer.base, loader_of())


def drawing(make: Callable[[], Any], draw: Callable[[Any], float], *, given: bool) -> Loop:
    """A generator in the loop's own frame."""

    def loop(rec: Any, tick: Tick) -> Any:
        rng = make()

        def around(x: torch.Tensor) -> torch.Tensor:
            return x + draw(rng)

        return epochs_of(rec, tick, *parts(), around=around, extras={"rng": rng} if given else None)

    return loop


GENERATORS: dict[str, tuple[Callable[[], Any], Callable[[Any], float]]] = {
    "python": (lambda: random.Random(1), lambda rng: rng.random()),
    "numpy": (lambda: np.random.default_rng(1), lambda rng: float(rng.random())),
    "RandomState": (lambda: np.random.RandomState(1), lambda rng: float(rng.random_sample())),
    "torch": (
        lambda: torch.Generator().manual_seed(1),
        lambda rng: float(torch.rand((), generator=rng)),
    ),
}

MODULE_RNG = np.random.default_rng(1)


def drawing_globally(rec: Any, tick: Tick) -> Any:
    """A generator of the module's, registered nowhere."""
    return epochs_of(rec, tick, *parts(), around=lambda x: x + float(MODULE_RNG.random()))


def drawing_from_module(rec: Any, tick: Tick) -> Any:
    """A generator of another module's."""
    return epochs_of(
        rec, tick, *parts(), around=lambda x: x + float(honest_loops.SPLITTER.random())
    )


class Augment:
    """A generator that a class holds."""

    noise = random.Random(1)


def drawing_from_class(rec: Any, tick: Tick) -> Any:
    """A generator of a class's."""
    return epochs_of(rec, tick, *parts(), around=lambda x: x + Augment.noise.random())


def drawing_between(rec: Any, tick: Tick) -> Any:
    """A generator function between the loader and the loop holds the generator."""
    model, optimizer, loader = rec.wrap(*parts())

    def noisy() -> Iterator[Any]:
        inner = np.random.default_rng(1)
        for x, y in loader:
            yield x + float(inner.random()), y

    for _ in range(3):
        for x, y in noisy():
            tick()
            learn(model, optimizer, x, y)
    return model


def drawing_beside_eval(rec: Any, tick: Tick) -> Any:
    """A generator of a function that calls a method named eval."""
    model, optimizer, loader = rec.wrap(*parts())
    coin = random.Random(1)
    for _ in range(3):
        for x, y in loader:
            tick()
            learn(model, optimizer, x + coin.random(), y)
        model.eval()
        model.train()
    return model


class NoisyData(TensorDataset):
    """A generator that a data set holds; ``anew`` makes another one for every sample."""

    def __init__(self, *, anew: bool) -> None:
        super().__init__(honest_loops.INPUTS, honest_loops.LABELS)
        self.rng, self.anew, self.n_drawn = random.Random(1), anew, itertools.count(2)

    def __getitem__(self, index: Any) -> Any:
        if self.anew:
            self.rng = random.Random(next(self.n_drawn))
        x, y = self.tensors[0][index], self.tensors[1][index]
        return x + self.rng.random(), y


def drawing_from_data(rec: Any, tick: Tick, *, anew: bool) -> Any:
    """A generator that the data set holds."""
    model, optimizer, _ = parts()
    loader = DataLoader(NoisyData(anew=anew), batch_size=4, shuffle=True)
    return epochs_of(rec, tick, model, optimizer, loader)


def hanging_on(owner: str, rec: Any, tick: Tick) -> Any:
    """A schedule that nobody but the optimizer or the model knows."""
    model, optimizer, loader = parts()
    target: Any = {"optimizer": optimizer, "model": model}[owner]
    target.helpers = [StepLR(optimizer, 2, 0.9)]

    def around(x: torch.Tensor) -> torch.Tensor:
        if optimizer.state:
            target.helpers[0].step()
        return x

    return epochs_of(rec, tick, model, optimizer, loader, around=around)


#: What is found elsewhere; the remedy is the same as for the others.
PLACES: dict[str, tuple[Loop, str]] = {
    "a global": (drawing_globally, "MODULE_RNG"),
    "another module": (drawing_from_module, "honest_loops.SPLITTER"),
    "a class": (drawing_from_class, "Augment.noise"),
    "between": (drawing_between, "noisy's inner"),
    "beside eval": (drawing_beside_eval, "drawing_beside_eval's coin"),
    "the data set": (partial(drawing_from_data, anew=False), "rng: loader.dataset.rng"),
    "the data set's latest": (partial(drawing_from_data, anew=True), "rng: loader.dataset.rng"),
    "on the optimizer": (partial(hanging_on, "optimizer"), "optimizer.helpers[0]"),
    "on the model": (partial(hanging_on, "model"), "model.helpers[0]"),
}


class Noisy:
    """A trainer with a generator."""

    def __init__(self, rec: Any, *, given: bool) -> None:
        self.model, self.optimizer, self.loader = parts()
        self.noise = np.random.default_rng(1)
        extras = {"noise": self.noise} if given else None
        rec.wrap(self.model, self.optimizer, self.loader, extras=extras)

    def fit(self, tick: Tick) -> Any:
        """Three epochs."""
        for _ in range(3):
            for x, y in self.loader:
                tick()
                learn(self.model, self.optimizer, x + float(self.noise.random()), y)
        return self.model


def scheduled(rec: Any, tick: Tick, *, given: bool = False) -> Any:
    """A schedule by batches."""
    model, optimizer, loader = parts()
    schedule = StepLR(optimizer, 2, 0.9)

    def around(x: torch.Tensor) -> torch.Tensor:
        if optimizer.state:
            schedule.step()
        return x

    named = {"scheduler": schedule} if given else {}
    return epochs_of(rec, tick, model, optimizer, loader, around=around, **named)


def scaled(rec: Any, tick: Tick, *, given: bool = False) -> Any:
    """A scaler whose growth is counted."""
    model, optimizer, loader = parts()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
    rec.wrap(model, optimizer, loader, **({"scaler": scaler} if given else {}))
    for _ in range(3):
        for x, y in loader:
            tick()
            optimizer.zero_grad()
            scaler.scale(loss_of(model(x), y)).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
    return model


class Smoothed(nn.Module):
    """An average as people write them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = copy.deepcopy(model).requires_grad_(False)

    def take(self, model: nn.Module) -> None:
        """Follow the model."""
        for mine, its in zip(self.inner.parameters(), model.parameters(), strict=True):
            mine.data.mul_(0.9).add_(its.data, alpha=0.1)


def smoothed(
    rec: Any, tick: Tick, make: Callable[[nn.Module], Any] = Smoothed, *, given: bool = False
) -> Any:
    """An average of every step."""
    model, optimizer, loader = parts()
    ema = make(model)
    rec.wrap(model, optimizer, loader, averaged={"ema": ema} if given else None)
    for _ in range(3):
        for x, y in loader:
            tick()
            learn(model, optimizer, x, y)
            (ema.take if isinstance(ema, Smoothed) else ema.update_parameters)(model)
    return ema


class Shadow:
    """An average in a dict of tensors, as people write them, too."""

    def __init__(self, model: nn.Module) -> None:
        self.shadow = {name: one.data.clone() for name, one in model.named_parameters()}

    def update(self, model: nn.Module) -> None:
        """Follow the model."""
        for name, one in model.named_parameters():
            self.shadow[name] = (0.9 * self.shadow[name] + 0.1 * one.data).clone()

    def state_dict(self) -> dict[str, Any]:
        """The average."""
        return self.shadow

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take one up."""
        self.shadow = dict(state)


def shadowed(rec: Any, tick: Tick, *, given: bool = False) -> Any:
    """Such an average, which the model becomes at the end."""
    model, optimizer, loader = parts()
    ema = Shadow(model)
    rec.wrap(model, optimizer, loader, extras={"ema": ema} if given else None)
    for _ in range(3):
        for x, y in loader:
            tick()
            learn(model, optimizer, x, y)
            ema.update(model)
    model.load_state_dict(ema.shadow, strict=False)
    return model


def averaged_in_list(rec: Any, tick: Tick) -> Any:
    """An average in a list of tensors that are written in place."""
    model, optimizer, loader = rec.wrap(*parts())
    mean = [one.detach().clone() for one in model.parameters()]
    for _ in range(3):
        for x, y in loader:
            tick()
            learn(model, optimizer, x, y)
            for mine, its in zip(mean, model.parameters(), strict=True):
                mine.lerp_(its.detach(), 0.1)
    with torch.no_grad():
        for mine, its in zip(mean, model.parameters(), strict=True):
            its.copy_(mine)
    return model


class OrderedShadow(Shadow):
    """One that holds another container, of another kind, once it took up its state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take one up."""
        self.shadow = OrderedDict((name, one.clone()) for name, one in state.items())


def averaged_under_two_names(rec: Any, tick: Tick) -> Any:
    """A registered average whose tensors the loop and a layer of the installed kind name, too."""
    model, optimizer, loader = parts()
    ema = OrderedShadow(model)
    ema.load_state_dict(ema.state_dict())
    trailing = nn.Module()
    trailing.kept = {name: one.data.clone() for name, one in model.named_parameters()}  # type: ignore[assignment]
    rec.wrap(model, optimizer, loader, extras={"ema": ema, "trailing": trailing})
    for _ in range(3):
        for x, y in loader:
            tick()
            learn(model, optimizer, x, y)
            ema.update(model)
            mean, kept = ema.shadow, trailing.kept
            for name, one in model.named_parameters():
                kept[name].lerp_(one.data, 0.1)  # type: ignore[index]
    model.load_state_dict(mean, strict=False)
    return model


def another_model(rec: Any, tick: Tick) -> Any:
    """A copy is trained, and not what was given to wrap."""
    model, _, loader = rec.wrap(*parts())
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(3):
        for x, y in loader:
            tick()
            learn(model, optimizer, x, y)
    return model


def copied_first(rec: Any, tick: Tick) -> Any:
    """The copy is given."""
    model = copy.deepcopy(parts()[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return epochs_of(rec, tick, model, optimizer, loader_of())


FAULTS: dict[str, tuple[Loop, str, Loop]] = {
    "cycle": (cycled, "went on after the loader's last batch", through_the_loader),
    "list": (listed, "went on after the loader's last batch", through_the_loader),
    "one ahead": (ahead, "asks for a batch before it has trained", by_length),
    "one ahead, copies": (ahead_with_copies, "asks for a batch before it has trained", by_length),
    "thread": (threaded, "another thread", by_length),
    "replaced optimizer": (
        replaced_optimizer,
        "not the optimizer that wrap was",
        changed_optimizer,
    ),
    **{
        f"{name} generator": (
            drawing(make, draw, given=False),
            "rng",
            drawing(make, draw, given=True),
        )
        for name, (make, draw) in GENERATORS.items()
    },
    "generator of a trainer": (
        lambda rec, tick: Noisy(rec, given=False).fit(tick),
        "self.noise",
        lambda rec, tick: Noisy(rec, given=True).fit(tick),
    ),
    "scheduler": (
        scheduled,
        "scheduler=schedule)",
        lambda rec, tick: scheduled(rec, tick, given=True),
    ),
    "scaler": (scaled, "scaler=scaler)", lambda rec, tick: scaled(rec, tick, given=True)),
    "average": (
        smoothed,
        "averaged={'ema': ema})",
        lambda rec, tick: smoothed(rec, tick, given=True),
    ),
    "torch's average": (
        lambda rec, tick: smoothed(rec, tick, AveragedModel),
        "averaged={'ema': ema})",
        lambda rec, tick: smoothed(rec, tick, AveragedModel, given=True),
    ),
    "average in a dict": (
        shadowed,
        "ema.shadow, a dict of tensors, is an average of the model",
        lambda rec, tick: shadowed(rec, tick, given=True),
    ),
    "average in a list": (
        averaged_in_list,
        "mean, a list of tensors, is an average of the model",
        averaged_under_two_names,
    ),
    "another model": (another_model, "give wrap the model and the optimizer", copied_first),
}


class Queued(nn.Module):
    """Keeps a queue that grows at one end and is cut at the other: a view in other memory."""

    queue: Tensor

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.width = model, width
        self.register_buffer("queue", torch.zeros(3 * width))

    def forward(self, x: Tensor) -> Tensor:
        """The output, moved by that of the queue."""
        rows = self.queue.view(3, self.width)
        found: Tensor = self.inner(x) + self.inner(rows).square().mean()
        self.queue = torch.cat([self.queue, x[0].detach(), x[1, :1].detach()])[-len(self.queue) :]
        return found


def queued(rec: Any, tick: Tick) -> Any:
    """Such a queue is used at each step."""
    inner, _, loader = parts()
    model = Queued(inner, next(inner.parameters()).shape[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rec.wrap(model, optimizer, loader)
    for _ in range(3):
        for x, y in loader:
            tick()
            learn(model, optimizer, x, y)
    return model


def flattened(rec: Any, tick: Tick) -> Any:
    """Parameters and gradients are views of one flat tensor each."""
    model, optimizer, loader = parts()
    weights = list(model.parameters())
    flat = torch.cat([one.detach().flatten() for one in weights])
    gradients, begin = torch.zeros_like(flat), 0
    for one in weights:
        end = begin + one.numel()
        one.data, one.grad = flat[begin:end].view_as(one), gradients[begin:end].view_as(one)
        begin = end
    rec.wrap(model, optimizer, loader)
    for _ in range(3):
        for x, y in loader:
            tick()
            gradients.zero_()
            loss_of(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            flat.mul_(0.999)
    return model


def reloaded(rec: Any, tick: Tick) -> Any:
    """An optimizer takes up its own state, which puts its hyper-parameters in another order."""
    model, optimizer, loader = rec.wrap(*parts())
    for _ in range(3):
        for x, y in loader:
            tick()
            if rec.step == 2:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            learn(model, optimizer, x, y)
    return model


#: What is captured as it is, given to wrap or not: optimizers in optimizers, memory and order.
NESTED: dict[str, Loop] = {
    **{"held": nested, "given": nested_given},
    **{"queue": queued, "flat": flattened, "reloaded": reloaded},
}


def by_arithmetic(rec: Any, tick: Tick) -> Any:
    """What moves the parameters is no optimizer that wrap was given."""
    model, _, loader = rec.wrap(*parts())
    for x, y in loader:
        tick()
        model.zero_grad()
        loss_of(model(x), y).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for weight in model.parameters():
                weight.sub_(weight.grad, alpha=0.05)
    return model


def left_for_another(rec: Any, tick: Tick) -> Any:
    """The loop leaves its loader in mid-epoch, and trains on with another one."""
    model, optimizer, loader = rec.wrap(*parts())
    for number, (x, y) in enumerate(loader):
        tick()
        learn(model, optimizer, x, y)
        if number == 2:
            break
    for _ in range(4):
        for x, y in loader_of():
            tick()
            update(optimizer, loss_of(model(x), y))
    return model
