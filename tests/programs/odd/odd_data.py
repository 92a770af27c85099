"""Batches, samplers, workers and augmentations beyond the usual, a factory each."""

# Written as people write programs, without a word for the type checker.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import random
from collections import UserDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from odd_kit import (
    BATCH_SIZE,
    N_CLASSES,
    N_FEATURES,
    N_SAMPLES,
    STUDY,
    loader_of,
    mlp,
    points,
    program,
    tokens,
)
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.rnn import pad_sequence
from torch.utils import data
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

import auditkit as ak

__all__ = ["STUDY"]


class Items(Dataset[Any]):
    """Samples of any form."""

    def __init__(self, form: Any) -> None:
        self.inputs, self.labels = points()
        self.form = form

    def __len__(self) -> int:
        return N_SAMPLES

    def __getitem__(self, index: int) -> Any:
        return self.form(self.inputs[index], self.labels[index], index)


def _formed(form: Any, read: Any, **options: Any) -> ak.Program:
    """A program whose samples have a form; ``read`` gives inputs and labels of a batch."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, labels = read(batch)
        return F.cross_entropy(model(inputs), labels)

    loader = DataLoader(Items(form), **{"batch_size": BATCH_SIZE, "shuffle": True, **options})
    return program(mlp(), points(), loader=loader, loss=loss)


def dict_batches(seed: int) -> ak.Program:
    return _formed(
        lambda x, y, i: {"x": x, "target": {"y": y}}, lambda b: (b["x"], b["target"]["y"])
    )


class Sample(NamedTuple):
    """A sample with names."""

    x: Tensor
    y: Tensor
    weight: float


def namedtuple_batches(seed: int) -> ak.Program:
    return _formed(lambda x, y, i: Sample(x, y, i / 2), lambda b: (b.x, b.y))


class Encoding(UserDict[str, Any]):
    """A batch that is asked by attribute, as a tokenizer's is."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class Pairs:
    """A batch with fields."""

    x: Tensor
    y: Tensor


def _stacked(samples: list[Any]) -> dict[str, Tensor]:
    return {name: torch.stack([s[name == "y"] for s in samples]) for name in ("x", "y")}


def _normalized(form: Any) -> ak.Program:
    """Batches of a class of their own, on which BatchNorm is recalibrated, too."""
    made = _formed(
        lambda x, y, i: (x, y), lambda b: (b.x, b.y), collate_fn=lambda s: form(_stacked(s))
    )
    layers = [nn.Linear(N_FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, N_CLASSES)]
    model = nn.Sequential(*layers)
    return replace(made, model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1, 0.9))


def mapping_batches(seed: int) -> ak.Program:
    return _normalized(Encoding)


def dataclass_batches(seed: int) -> ak.Program:
    return _normalized(lambda items: Pairs(**items))


def nested_tuples(seed: int) -> ak.Program:
    return _formed(lambda x, y, i: ((x, [x * 2]), (y, ())), lambda b: (b[0][0], b[1][0]))


def text_beside_tensors(seed: int) -> ak.Program:
    return _formed(
        lambda x, y, i: {"x": x, "y": y, "id": f"sample-{i}", "path": f"images/{i}.png"},
        lambda b: (b["x"], b["y"]),
    )


def numpy_samples(seed: int) -> ak.Program:
    return _formed(lambda x, y, i: (x.numpy(), np.int64(y), np.float32(i)), lambda b: (b[0], b[1]))


def lists_of_samples(seed: int) -> ak.Program:
    """The batch is a list of dicts, as detection has it, with as many boxes as there are."""
    return _formed(
        lambda x, y, i: {"x": x, "y": y, "boxes": torch.ones(i % 3, 4)},
        lambda b: (torch.stack([s["x"] for s in b]), torch.stack([s["y"] for s in b])),
        collate_fn=list,
    )


def single_samples(seed: int) -> ak.Program:
    """No batches: the loader gives one sample after another."""
    return _formed(
        lambda x, y, i: (x, y), lambda b: (b[0].unsqueeze(0), b[1].unsqueeze(0)), batch_size=None
    )


class Ready(Dataset[Any]):
    """A data set whose items are batches."""

    def __len__(self) -> int:
        return N_SAMPLES // BATCH_SIZE

    def __getitem__(self, index: int) -> Any:
        inputs, labels = points()
        rows = slice(index * BATCH_SIZE, (index + 1) * BATCH_SIZE)
        return inputs[rows], labels[rows]


def ready_batches(seed: int) -> ak.Program:
    loader = DataLoader(Ready(), batch_size=None, shuffle=True)
    return program(mlp(), points(), loader=loader)


def _sampled(sampler: Any = None, batch_sampler: Any = None, dataset: Any = None) -> ak.Program:
    chosen = dataset or data.TensorDataset(*points())
    loader: DataLoader[Any] = (
        DataLoader(chosen, batch_sampler=batch_sampler)
        if batch_sampler
        else DataLoader(chosen, batch_size=BATCH_SIZE, sampler=sampler)
    )
    return program(mlp(), points(), loader=loader)


def batch_sampler(seed: int) -> ak.Program:
    order = data.RandomSampler(range(N_SAMPLES))
    return _sampled(batch_sampler=data.BatchSampler(order, 5, drop_last=True))


class Buckets(data.Sampler[list[int]]):
    """Batches of one class each, in an order of its own generator."""

    def __init__(self) -> None:
        self.labels = points()[1]

    def __len__(self) -> int:
        return 2 * N_CLASSES

    def __iter__(self) -> Iterator[list[int]]:
        batches = []
        for label in range(N_CLASSES):
            members = (self.labels == label).nonzero().flatten().tolist()
            random.shuffle(members)
            batches += [members[:4], members[4:]]
        order = np.random.permutation(len(batches))
        yield from (batches[n] for n in order)


def buckets(seed: int) -> ak.Program:
    return _sampled(batch_sampler=Buckets())


def weighted_sampler(seed: int) -> ak.Program:
    weights = (1 + torch.arange(N_SAMPLES)).tolist()
    return _sampled(data.WeightedRandomSampler(weights, N_SAMPLES))


def subset_sampler(seed: int) -> ak.Program:
    return _sampled(data.SubsetRandomSampler(range(2, 22)))


def sampler_with_generator(seed: int) -> ak.Program:
    own = torch.Generator().manual_seed(seed + 7)
    return _sampled(data.RandomSampler(range(N_SAMPLES), replacement=True, generator=own))


def split_and_joined(seed: int) -> ak.Program:
    whole = data.TensorDataset(*points())
    first, second = data.random_split(whole, [16, 8], torch.Generator().manual_seed(0))
    joined: Any = data.ConcatDataset([data.Subset(first, range(0, 16, 2)), second])
    return program(mlp(), points(), loader=DataLoader(joined, batch_size=BATCH_SIZE, shuffle=True))


class Stream(IterableDataset[Any]):
    """Samples one after the other, shared out to the workers, through a small shuffle buffer."""

    def __iter__(self) -> Iterator[Any]:
        inputs, labels = points()
        info = get_worker_info()
        first, stride = (0, 1) if info is None else (info.id, info.num_workers)
        buffer: list[int] = []
        for index in range(first, N_SAMPLES, stride):
            buffer.append(index)
            if len(buffer) == 3:
                chosen = buffer.pop(random.randrange(3))
                yield inputs[chosen], labels[chosen]
        yield from ((inputs[index], labels[index]) for index in buffer)


def stream(seed: int) -> ak.Program:
    return program(mlp(), points(), loader=DataLoader(Stream(), batch_size=BATCH_SIZE))


def stream_by_workers(seed: int) -> ak.Program:
    return program(
        mlp(), points(), loader=DataLoader(Stream(), batch_size=BATCH_SIZE, num_workers=2)
    )


class Jittered(Dataset[Any]):
    """An augmentation that draws from all three global streams."""

    def __init__(self) -> None:
        self.inputs, self.labels = points()

    def __len__(self) -> int:
        return N_SAMPLES

    def __getitem__(self, index: int) -> Any:
        x = self.inputs[index]
        if random.random() < 0.5:
            x = x.flip(0)
        noise = torch.from_numpy(np.random.normal(scale=0.1, size=N_FEATURES))
        return x + noise.float() + 0.1 * torch.randn(N_FEATURES), self.labels[index]


def _jittered(**options: Any) -> ak.Program:
    loader = DataLoader(Jittered(), batch_size=BATCH_SIZE, shuffle=True, **options)
    return program(mlp(), points(), loader=loader)


def augmented_by_three_streams(seed: int) -> ak.Program:
    return _jittered()


def persistent_workers(seed: int) -> ak.Program:
    return _jittered(num_workers=2, persistent_workers=True, prefetch_factor=3)


def spawned_workers(seed: int) -> ak.Program:
    return _jittered(num_workers=1, multiprocessing_context="spawn")


def _seed_worker(worker: int) -> None:
    """As torch's page on reproducibility has it."""
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)


def seeded_workers(seed: int) -> ak.Program:
    """The recipe of torch's page on reproducibility."""
    own = torch.Generator()
    own.manual_seed(seed)
    return _jittered(num_workers=2, worker_init_fn=_seed_worker, generator=own)


def padded(seed: int) -> ak.Program:
    """Sequences of several lengths, padded in a batch."""
    words, labels = tokens(7)
    sequences = [row[: 2 + n % 6] for n, row in enumerate(words)]

    def collate(samples: list[Any]) -> Any:
        rows, targets = zip(*samples, strict=True)
        lengths = torch.tensor([len(row) for row in rows])
        return pad_sequence(list(rows), batch_first=True), lengths, torch.stack(targets)

    model = nn.Sequential(nn.EmbeddingBag(11, N_CLASSES, padding_idx=0))
    pairs: Any = list(zip(sequences, labels, strict=True))
    return program(
        *(model, (words, labels)),
        loader=DataLoader(pairs, batch_size=BATCH_SIZE, shuffle=True, collate_fn=collate),
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[2]),
    )


def mixed_up(seed: int) -> ak.Program:
    """Pairs of samples are mixed where the batch is put together."""

    def collate(samples: list[Any]) -> Any:
        inputs, labels = data.default_collate(samples)
        share = float(np.random.beta(0.4, 0.4))
        order = torch.randperm(len(inputs))
        mixed = share * inputs + (1 - share) * inputs[order]
        return mixed, labels, labels[order], share

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, first, second, share = batch
        scores = model(inputs)
        return share * F.cross_entropy(scores, first) + (1 - share) * F.cross_entropy(
            scores, second
        )

    loader = loader_of(*points(), collate_fn=collate)
    return program(mlp(), points(), loader=loader, loss=loss)


class TwoInputs(nn.Module):
    """A model of named inputs that returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.Linear(N_FEATURES, N_CLASSES) for _ in range(2))

    def forward(self, *, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"logits": self.left(left) + self.right(right)}


def dict_inputs(seed: int) -> ak.Program:
    """The model takes and gives dicts, in the probe too."""
    inputs, labels = points()

    def scores(model: nn.Module, given: Any) -> Tensor:
        return model(**given)["logits"]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(scores(model, {"left": x, "right": x.flip(1)}), y)

    probe = ak.Probe({"left": inputs[:9], "right": inputs[:9]}, labels[:9], predict=scores)
    return program(TwoInputs(), (inputs, labels), loss=loss, probe=probe)


def data_file(seed: int, path: str) -> ak.Program:
    """Reads its numbers from a file that the command line names."""
    with Path(path).open(newline="") as file:
        rows = [[float(word) for word in line.split(",")] for line in file]
    table = torch.tensor(rows)
    inputs, labels = table[:, :N_FEATURES], table[:, N_FEATURES].long()
    return program(mlp(), (inputs, labels), data_version="1.0")


def mapped_file(seed: int, path: str) -> ak.Program:
    """Maps an array of a file into memory."""
    table = np.load(path, mmap_mode="r")
    inputs = torch.from_numpy(table[:, :N_FEATURES].copy())
    labels = torch.from_numpy(table[:, N_FEATURES].astype(np.int64))
    return program(mlp(), (inputs, labels))


def cached(seed: int) -> ak.Program:
    """A data set that keeps what it has computed once; the result is a sample's own."""
    inputs, labels = points()

    class Cached(Dataset[Any]):
        def __init__(self) -> None:
            self.kept: dict[int, Tensor] = {}

        def __len__(self) -> int:
            return N_SAMPLES

        def __getitem__(self, index: int) -> Any:
            if index not in self.kept:
                self.kept[index] = inputs[index].sin()
            return self.kept[index], labels[index]

    loader = DataLoader(Cached(), batch_size=BATCH_SIZE, shuffle=True)
    return program(mlp(), (inputs, labels), loader=loader)
