"""Loops as people write them. A style is a function of a recorder and a log; it trains.

``rec`` is a real Recorder or a :class:`NullRecorder` with the same methods that does nothing, so
that one source is both the bare and the recorded run. The log is kept by the loop itself, from
indices that travel with the samples and from clones of ``state_dict()``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from torch.utils.data.distributed import DistributedSampler

from auditkit.formats.recipes import digest_raw
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.tensor import RawTensor

Style = Callable[[Any, "Log"], list[nn.Module]]
loss_of = nn.functional.cross_entropy


class NullRecorder:
    """A Recorder that does nothing."""

    def wrap(self, *objects: Any, **_: Any) -> Any:
        """The same objects."""
        return objects

    def log(self, **_: Any) -> None:
        """Nothing."""


@dataclass
class Log:
    """What the loop itself saw.

    Attributes:
        indices: Samples of every step; None where they have no index.
        params: Digest of the first model's parameters at the start of every step.
        batchnorm: The same of its BatchNorm buffers, where it has any.
    """

    indices: list[list[int]] = field(default_factory=list)
    params: list[bytes] = field(default_factory=list)
    batchnorm: list[bytes] = field(default_factory=list)

    def step(self, batch: Any, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Note a step that begins; returns inputs and labels."""
        inputs, labels, index = map(torch.as_tensor, batch)
        self.indices.append(index.tolist() if index.ndim else [int(index)])
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        buffers = {name: state[name] for name in state if name not in trained}
        self.params.append(digest_of({name: state[name] for name in sorted(trained)}))
        self.batchnorm.append(digest_of(buffers) if buffers else bytes(16))
        return inputs, labels


def digest_of(tensors: dict[str, Tensor]) -> bytes:
    """The recipe from numpy's bytes: nothing of the observers."""
    raw: dict[str, RawTensor | bytes] = {}
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        raw[name] = RawTensor(kind, tuple(tensor.shape), tensor.numpy().tobytes())
    return digest_raw(EVIDENCE_RECIPE, raw, {})


class Samples(Dataset[Any]):
    """24 samples with an augmentation that draws from all three global streams."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        clean = torch.randn(6, generator=torch.Generator().manual_seed(index))
        noise = random.random() + float(np.random.rand())
        return clean + 0.1 * torch.randn(6) + 0.01 * noise, index % 3, index


class Stream(IterableDataset[Any]):
    """The same samples in a row, a part for each worker."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, every = (info.id, info.num_workers) if info else (0, 1)
        for index in range(first, 24, every):
            yield Samples()[index]


class Eager:
    """A batch sampler that draws its whole epoch at ``iter()``."""

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(24).tolist()
        return iter([order[start : start + 5] for start in range(0, 20, 5)])

    def __len__(self) -> int:
        return 4


def network(*, batchnorm: bool = True) -> nn.Module:
    """A small network with dropout."""
    middle: list[nn.Module] = [nn.BatchNorm1d(8)] if batchnorm else []
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def loader_of(**options: Any) -> DataLoader[Any]:
    """A loader; shuffled unless something else decides the order."""
    ordered = {"sampler", "batch_sampler", "shuffle", "dataset"} & set(options)
    chosen = {} if ordered else {"shuffle": True}
    sized = {} if {"batch_size", "batch_sampler"} & set(options) else {"batch_size": 4}
    return DataLoader(options.pop("dataset", Samples()), **{**chosen, **sized, **options})


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One ordinary update."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def plain(rec: Any, log: Log, epochs: int = 2, **options: Any) -> list[nn.Module]:
    """The ordinary loop over any loader."""
    model = network(batchnorm=options.get("batch_size", 4) is not None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model, optimizer, loader = rec.wrap(model, optimizer, loader_of(**options))
    for epoch in range(epochs):
        if isinstance(loader.sampler, DistributedSampler):
            loader.sampler.set_epoch(epoch)
        for batch in loader:
            x, y = log.step(batch, model)
            loss = loss_of(model(x.reshape(-1, 6).float()), y.reshape(-1))
            update(optimizer, loss)
            rec.log(loss=loss)
    return [model]


def accumulation(rec: Any, log: Log) -> list[nn.Module]:
    """Two batches an update, two backward passes a batch, clipping, gradients set to zero."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model, optimizer, loader = rec.wrap(model, optimizer, loader_of())
    for number, batch in enumerate(loader, start=1):
        x, y = log.step(batch, model)
        loss_of(model(x), y).backward()  # type: ignore[no-untyped-call]
        (0.1 * loss_of(model(2 * x), y)).backward()  # type: ignore[no-untyped-call]
        if number % 2 == 0:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
    return [model]


def closure(rec: Any, log: Log) -> list[nn.Module]:
    """LBFGS calls the model several times a step."""
    model = network(batchnorm=False).eval()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    model, optimizer, loader = rec.wrap(model, optimizer, loader_of())
    for batch in loader:
        x, y = log.step(batch, model)

        def again(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(again)
    return [model]


def scaled(rec: Any, log: Log) -> list[nn.Module]:
    """Mixed precision with a scaler that has to skip steps."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    model, optimizer, loader = rec.wrap(model, optimizer, loader_of(), scaler=scaler)
    for number, batch in enumerate(loader):
        x, y = log.step(batch, model)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model(x).float(), y)
        optimizer.zero_grad()
        scaler.scale(loss * (float("inf") if number in (1, 4) else 1.0)).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
    return [model]


def evaluated(rec: Any, log: Log) -> list[nn.Module]:
    """Evaluation between epochs over a loader that draws, a schedule, EMA, early stopping."""
    model = network()
    ema = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    held_out, best = loader_of(), float("inf")
    objects = (model, optimizer, loader_of())
    model, optimizer, loader = rec.wrap(*objects, scheduler=scheduler, averaged={"ema": ema})
    for _ in range(6):
        model.train()
        for batch in loader:
            x, y = log.step(batch, model)
            update(optimizer, loss_of(model(x), y))
            ema.update_parameters(model)
        scheduler.step()
        model.eval()
        with torch.no_grad():
            score = sum(float(loss_of(model(x), y)) for x, y, _ in held_out)
        if score > best - 0.05:
            break
        best = score
    return [model, ema]


def compiled(rec: Any, log: Log) -> list[nn.Module]:
    """A compiled model, recorded as what it is."""
    model = network(batchnorm=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model, optimizer, loader = rec.wrap(torch.compile(model), optimizer, loader_of())
    for batch in loader:
        x, y = log.step(batch, model)
        update(optimizer, loss_of(model(x), y))
    return [model]


def together(rec: Any, log: Log) -> list[nn.Module]:
    """One loader iterated twice at a time: each pair is two steps."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model, optimizer, loader = rec.wrap(model, optimizer, loader_of())
    for left, right in zip(loader, loader, strict=True):
        x, y = log.step(left, model)
        more, labels = log.step(right, model)
        update(optimizer, loss_of(model(torch.cat([x, more])), torch.cat([y, labels])))
    return [model]


def broken_off(rec: Any, log: Log) -> list[nn.Module]:
    """A loop left in mid-epoch, with batches fetched ahead, and begun again."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model, optimizer, loader = rec.wrap(model, optimizer, loader_of(num_workers=2))
    for _ in range(2):
        for number, batch in enumerate(loader):
            x, y = log.step(batch, model)
            update(optimizer, loss_of(model(x), y))
            if number == 2:
                break
    return [model]


def by_hand(rec: Any, log: Log) -> list[nn.Module]:
    """An iterator that the loop advances by itself, and renews when it is exhausted."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model, optimizer, loader = rec.wrap(model, optimizer, loader_of())
    iterator = iter(loader)
    for _ in range(9):
        batch = next(iterator, None)
        if batch is None:
            iterator = iter(loader)
            batch = next(iterator)
        x, y = log.step(batch, model)
        update(optimizer, loss_of(model(x), y))
    return [model]


def two_loaders(rec: Any, log: Log) -> list[nn.Module]:
    """Labelled and unlabelled batches side by side."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    unlabelled = loader_of(batch_size=3)
    model, optimizer, loader, more = rec.wrap(model, optimizer, loader_of(), unlabelled)
    for batch, (other, _, _) in zip(loader, more, strict=False):
        x, y = log.step(batch, model)
        update(optimizer, loss_of(model(x), y) + 0.1 * model(other).square().mean())
    return [model]


def adversarial(rec: Any, log: Log) -> list[nn.Module]:
    """Two models, two optimizers, two updates a batch."""
    judge, maker = nn.Linear(6, 1), nn.Linear(2, 6)
    first = torch.optim.Adam(judge.parameters(), lr=0.01)
    second = torch.optim.Adam(maker.parameters(), lr=0.01)
    judge, maker, first, second, loader = rec.wrap(judge, maker, first, second, loader_of())
    for batch in loader:
        x, _ = log.step(batch, judge)
        made = maker(torch.randn(len(x), 2))
        update(first, judge(made.detach()).mean() - judge(x).mean())
        update(second, -judge(made).mean())
    return [judge, maker]
