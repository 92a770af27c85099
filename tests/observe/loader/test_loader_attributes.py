"""What a loop sets on samplers and data sets while it trains goes on with the position."""

from __future__ import annotations

import multiprocessing
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import auditkit as ak
from auditkit.errors import UnsupportedLoader
from auditkit.observe.loader import attributes
from auditkit.observe.loader.attributes import WatchedAttributes
from auditkit.observe.loader.driver import LoaderDriver
from auditkit.observe.rng.streams import capture_streams, seed_everything


class Cropped:
    """A transform with a size, which the loop may change."""

    def __init__(self) -> None:
        self.size = 4


class Labelled(Dataset[Any]):
    """Rows of a table that are known already."""

    sign = 1

    def __init__(self) -> None:
        self.table = torch.arange(24.0).reshape(12, 2)
        self.known = list(range(12))
        self.transform = Cropped()
        self.settings = SimpleNamespace(epoch=0)
        self.shared = multiprocessing.Value("i", 0)

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, k: int) -> torch.Tensor:
        row = self.table[self.known[k]][: self.transform.size] * self.sign
        return row + self.shared.value  # type: ignore[no-any-return]


class Curriculum:
    """A sampler that holds an object with what it goes by."""

    def __init__(self) -> None:
        self.schedule = Cropped()

    def __iter__(self) -> Any:
        return iter(torch.randperm(12)[: self.schedule.size].tolist())

    def __len__(self) -> int:
        return self.schedule.size


def weighted() -> DataLoader[Any]:
    return DataLoader(Labelled(), 3, sampler=WeightedRandomSampler([1.0] * 12, 12))


def subset() -> DataLoader[Any]:
    return DataLoader(Labelled(), 3, sampler=SubsetRandomSampler(list(range(12))))


def batched() -> DataLoader[Any]:
    inner = BatchSampler(SequentialSampler(range(12)), 2, False)
    return DataLoader(Labelled(), batch_sampler=inner)


def curriculum() -> DataLoader[Any]:
    return DataLoader(Labelled(), 2, sampler=Curriculum())


def shuffled() -> DataLoader[Any]:
    return DataLoader(Labelled(), 3, shuffle=True)


def listed() -> DataLoader[Any]:
    return DataLoader([torch.tensor(float(n)) for n in range(12)], 3)  # type: ignore[arg-type]


def nested() -> DataLoader[Any]:
    return DataLoader(Subset(Labelled(), list(range(12))), 3, shuffle=True)


def set_weights(loader: Any) -> None:
    loader.sampler.weights = torch.arange(12.0)


def weights_in_place(loader: Any) -> None:
    loader.sampler.weights[:6] *= 0


def fewer(loader: Any) -> None:
    loader.sampler.num_samples = 6


def other_indices(loader: Any) -> None:
    loader.sampler.indices = list(range(12))[::-1]


def larger_batches(loader: Any) -> None:
    loader.batch_sampler.batch_size = 4


def other_schedule(loader: Any) -> None:
    loader.sampler.schedule.size = 7


def grown(loader: Any) -> None:
    loader.dataset.known += [0, 1, 2, 3]


def table_in_place(loader: Any) -> None:
    loader.dataset.table.mul_(-1)


def other_crop(loader: Any) -> None:
    loader.dataset.transform.size = 1


def another_sign(loader: Any) -> None:
    type(loader.dataset).sign = -1


def told_to_workers(loader: Any) -> None:
    loader.dataset.shared.value = 3


def list_in_place(loader: Any) -> None:
    random.Random(0).shuffle(loader.dataset)


def other_subset(loader: Any) -> None:
    loader.dataset.dataset.known.reverse()
    loader.dataset.indices = [*loader.dataset.indices[3:], 0, 1, 2]


CHANGES: list[tuple[Callable[[], Any], Callable[[Any], None]]] = [
    (weighted, set_weights),
    (weighted, weights_in_place),
    (weighted, fewer),
    (subset, other_indices),
    (batched, larger_batches),
    (shuffled, larger_batches),
    (curriculum, other_schedule),
    (shuffled, grown),
    (shuffled, table_in_place),
    (shuffled, other_crop),
    (shuffled, another_sign),
    (shuffled, told_to_workers),
    (listed, list_in_place),
    (nested, other_subset),
]
NAMES = [f"{make.__name__}-{change.__name__}" for make, change in CHANGES]


def rows(driver: LoaderDriver, n: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < n:
        delivery = driver.next(capture_streams())
        if delivery is None:
            driver.begin_epoch()
            continue
        assert delivery.order is not None
        found.append((delivery.order.tolist(), delivery.batch.tolist()))
    return found


@pytest.mark.parametrize("mode", ["per-sample", "inherit"])
@pytest.mark.parametrize("at", [1, "next"])
@pytest.mark.parametrize(("make", "change"), CHANGES, ids=NAMES)
def test_what_was_set_goes_on_with_the_position(
    make: Callable[[], Any], change: Callable[[Any], None], at: Any, mode: str
) -> None:
    seed_everything(1)
    loader = make()
    driver = LoaderDriver(loader, 1, mode)
    n_batches = len(loader)
    driver.begin_epoch()
    rows(driver, 1 if at == 1 else n_batches)
    if at == "next":
        assert driver.next(capture_streams()) is None
    change(loader)
    if at == "next":
        driver.begin_epoch()
    saved, streams = driver.capture(), capture_streams()
    expected = rows(driver, 12)
    driver.close()
    Labelled.sign = 1
    seed_everything(2)
    again = LoaderDriver(make(), 1, mode)
    again.restore(saved)
    streams.restore()
    assert again.capture().keys() == saved.keys()
    assert rows(again, 12) == expected
    again.close()
    Labelled.sign = 1
    # The twin: without what was set the rest is another.
    without = LoaderDriver(make(), 1, mode)
    for name in ("put", "reset"):
        setattr(without._watched, name, lambda *_, **__: None)
    without.restore(saved)
    streams.restore()
    try:
        assert rows(without, 12) != expected
    finally:
        without.close()
        Labelled.sign = 1


def test_what_persistent_workers_do_not_know_is_refused() -> None:
    loader = DataLoader(Labelled(), 6, num_workers=1, persistent_workers=True)
    driver = LoaderDriver(loader, 1, "per-sample")
    driver.begin_epoch()
    rows(driver, 2)
    other_crop(loader)
    driver.capture()
    assert driver.next(capture_streams()) is None
    driver.begin_epoch()
    with pytest.raises(UnsupportedLoader, match=r"loader\.dataset\.transform\.size has changed"):
        driver.capture()
    driver.close()


def test_what_does_not_change_takes_no_room() -> None:
    driver = LoaderDriver(weighted(), 1, "per-sample")
    driver.begin_epoch()
    rows(driver, 2)
    assert not any("attributes" in str(leaf) for leaf in driver.capture().values())
    driver.close()


def test_it_comes_back_to_what_it_was_at_first() -> None:
    loader = shuffled()
    dataset: Any = loader.dataset
    watched, known = WatchedAttributes(loader), dataset.known
    grown(loader)
    other_crop(loader)
    assert watched.changed_names() == ["loader.dataset.known", "loader.dataset.transform.size"]
    watched.reset({}, but={})
    assert dataset.known is known
    assert (known, dataset.transform.size) == (list(range(12)), 4)
    assert watched.changed_names() == []


def test_tensors_of_a_data_set_are_written_where_the_loop_holds_them() -> None:
    """A loop's own name for them goes on leading to what is loaded."""

    def made() -> tuple[torch.Tensor, WatchedAttributes, DataLoader[Any]]:
        rows = torch.arange(6.0)
        data = TensorDataset(rows, torch.zeros(6))
        loader: DataLoader[Any] = DataLoader(data)
        return rows, WatchedAttributes(loader), loader

    rows, watched, _ = made()
    rows.mul_(0.5)
    changes = watched.changes({})
    again, other, loader = made()
    other.put(changes)
    assert torch.equal(again, rows)
    again.add_(1)
    assert loader.dataset[2][0] == again[2] == 2


@pytest.mark.parametrize("kind", ["tensor", "array", "list"])
def test_a_large_thing_that_the_loop_shuffles_is_named(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(attributes, "_MAX_BYTES", 64)
    monkeypatch.setattr(attributes, "_MAX_ITEMS", 8)
    loader = shuffled()
    dataset: Any = loader.dataset
    dataset.more = {"tensor": torch.arange(99), "array": np.arange(99), "list": list(range(99))}[
        kind
    ]
    watched = WatchedAttributes(loader)
    watched.begin()
    dataset.more[3] = 5  # while batches are loaded: a cache
    watched.end()
    watched.begin()
    watched.refuse_too_large()
    assert watched.changes(but={}) == {}
    watched.end()
    random.Random(0).shuffle(dataset.more)
    watched.begin()
    with pytest.raises(UnsupportedLoader, match=r"loader\.dataset\.more was changed between"):
        watched.refuse_too_large()


def shuffling(rec: Any) -> None:
    """The loop shuffles a large table between its epochs."""
    model = torch.nn.Linear(2, 1)
    model, optimizer, loader = rec.wrap(
        model, torch.optim.SGD(model.parameters(), lr=0.1), shuffled()
    )
    for _ in range(3):
        for batch in loader:
            optimizer.zero_grad()
            model(batch[:, :2]).sum().backward()
            optimizer.step()
        loader.dataset.table = loader.dataset.table.flip(0)


def test_a_recording_of_it_goes_on_without_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    monkeypatch.setattr(attributes, "_MAX_BYTES", 64)
    told: list[str] = []
    monkeypatch.setattr(warnings, "warn", lambda text, *_, **__: told.append(str(text)))
    with ak.Recorder(tmp_path / "run", checkpoint_every=3) as rec:
        shuffling(rec)
    assert any("loader.dataset.table was changed between" in text for text in told), told
    assert [file.name for file in (tmp_path / "run").glob("checkpoint-*")] == [
        "checkpoint-00000003.safetensors"
    ]


class Killed(Exception):
    """Ends a loop between two statements."""


def warmed_up(rec: Any, workers: int, kill_at: int = 99) -> bytes:
    """The batch size grows in the midst of each epoch, and works at once."""
    torch.manual_seed(3)
    model = torch.nn.Linear(2, 1)
    loader: Any = DataLoader(Labelled(), 1, shuffle=True, num_workers=workers)
    model, optimizer, loader = rec.wrap(model, torch.optim.SGD(model.parameters(), lr=1e-3), loader)
    for _ in rec.epochs(range(2)):
        for batch in loader:
            optimizer.zero_grad()
            model(batch[:, :2]).square().sum().backward()
            optimizer.step()
            if rec.step % 2:
                loader.batch_sampler.batch_size = rec.step % 3 + 1
            if rec.step + 1 == kill_at:
                raise Killed
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


@pytest.mark.parametrize("workers", [0, 2])
def test_what_works_at_once_is_gone_through_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    with ak.Recorder(tmp_path / "whole", checkpoint_every=4) as rec:
        whole = warmed_up(rec, workers)
    for kill_at in (6, 10):
        out = tmp_path / str(kill_at)
        with pytest.raises(Killed), ak.Recorder(out, checkpoint_every=4) as rec:
            warmed_up(rec, workers, kill_at)
        with ak.Recorder.resume(out, checkpoint_every=4) as rec:
            assert warmed_up(rec, workers) == whole


def validated(rec: Any, left: str, kill_at: int = 99) -> bytes:
    """Three epochs of four steps; after each another loader, whole or its first batches."""
    torch.manual_seed(3)
    model = torch.nn.Linear(2, 1)
    side = DataLoader(Labelled(), 4, shuffle=True, generator=torch.Generator().manual_seed(4))
    model, optimizer, loader, side = rec.wrap(
        model, torch.optim.SGD(model.parameters(), lr=1e-3), shuffled(), side
    )
    for _ in rec.epochs(range(3)):
        for batch in loader:
            optimizer.zero_grad()
            model(batch[:, :2]).square().sum().backward()
            optimizer.step()
            if rec.step + 1 == kill_at:
                raise Killed
        for n, batch in enumerate(side):
            model.bias.data += float(batch[0, 0])
            if left == "broken off" and n == 1:
                break
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


@pytest.mark.parametrize("left", ["ended", "broken off"])
def test_a_side_loader_that_is_over_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    with ak.Recorder(tmp_path / "whole", checkpoint_every=3) as rec:
        whole = validated(rec, left)
    with pytest.raises(Killed), ak.Recorder(tmp_path / "out", checkpoint_every=3) as rec:
        validated(rec, left, kill_at=8)
    with ak.Recorder.resume(tmp_path / "out", checkpoint_every=3) as rec:
        assert validated(rec, left) == whole
