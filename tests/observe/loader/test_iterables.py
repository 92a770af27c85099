"""Loaders that are no DataLoader, and DataLoaders that count by themselves, are resumed exactly."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from auditkit.errors import UnsupportedLoader
from auditkit.observe.loader.attributes import WatchedAttributes
from auditkit.observe.loader.driver import LoaderDriver
from auditkit.observe.loader.iterables import as_data_loader, is_loader, loaders_in
from auditkit.observe.loader.owners import owners_of
from auditkit.observe.loader.position import MAX_CALLS, IterationStart
from auditkit.observe.loader.refusals import refuse_without_class
from auditkit.observe.rng.streams import capture_streams
from auditkit.observe.values.codec import unflatten
from auditkit.observe.values.flatten import batch_leaves, flatten

N = 4


class Counting:
    """A pipeline that shuffles by the number of the epoch, which it counts, and by a stream."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self) -> Iterator[Any]:
        self.epoch += 1
        order = random.Random(self.epoch).sample(range(N), N)
        return (torch.tensor([i, self.epoch, int(torch.randint(99, ()))]) for i in order)


class Hidden(Counting):
    """One that counts where nobody looks."""

    def __init__(self) -> None:
        super().__init__()
        self.count = iter(range(99)).__next__

    def __iter__(self) -> Iterator[Any]:
        self.epoch = self.count()
        return super().__iter__()


#: A data set is whatever can be asked for samples.
NUMBERS: Any = torch.arange(N)


class OwnLoader(DataLoader[Any]):
    """A loader of another library's kind, with an epoch of its own."""

    current = 0

    def __iter__(self) -> Any:
        self.current += 1
        return (batch + self.current for batch in super().__iter__())


class Shuffler:
    """Holds a seed."""

    seed = 0


class Lazy(IterableDataset[Any]):
    """Makes what it shuffles with when it is first iterated, and counts its epochs there."""

    def __init__(self) -> None:
        self.shuffler: Any = None
        self.epoch = 0

    def __iter__(self) -> Iterator[Any]:
        if self.shuffler is None:
            self.shuffler = Shuffler()
        self.epoch += 1
        self.shuffler.seed = self.epoch
        return iter(random.Random(self.shuffler.seed).sample(range(N), N))


class LazyCount(Lazy):
    """One whose count lies in what is made while it is iterated."""

    def __iter__(self) -> Iterator[Any]:
        self.epoch = 0 if self.shuffler is None else self.shuffler.seed
        return super().__iter__()


class Drawing(IterableDataset[Any]):
    """Draws its order from a generator of its own when an epoch begins."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rng.permutation(N).tolist())


def driver_of(loader: Any, **registered: Any) -> LoaderDriver:
    return LoaderDriver(as_data_loader(loader), 0, "per-sample", registered=registered)


def batches(driver: LoaderDriver, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        delivery = driver.next(capture_streams()) if driver.epoch >= 0 else None
        if delivery is None:
            driver.begin_epoch()
        else:
            found.append(torch.as_tensor(delivery.batch).tolist())
    return found


def gone_on(make: Callable[[], Any]) -> tuple[list[Any], list[Any]]:
    """Batches after the middle of the second epoch: straight on, and by a fresh loader."""
    first = driver_of(make())
    batches(first, N + 2)
    position = first.capture()
    second = driver_of(make())
    second.restore(position)
    return batches(first, N), batches(second, N)


@pytest.mark.parametrize(
    "make",
    [
        Counting,
        lambda: [torch.ones(2), torch.zeros(2)],
        lambda: OwnLoader(NUMBERS),
        lambda: DataLoader(Lazy()),
    ],
    ids=["counting", "list", "own class", "lazy"],
)
def test_what_gives_its_batches_anew_is_gone_on_with(make: Callable[[], Any]) -> None:
    here, there = gone_on(make)
    assert here == there


@pytest.mark.parametrize("make", [Hidden, lambda: DataLoader(LazyCount())], ids=["hidden", "lazy"])
def test_what_counts_where_nobody_looks_is_not(make: Callable[[], Any]) -> None:
    here, there = gone_on(make)
    assert here != there


def test_an_order_from_a_registered_generator_is_gone_through_again() -> None:
    found = []
    for registered in (True, False):
        first = Drawing()
        driver = driver_of(DataLoader(first), **({"rng": first.rng} if registered else {}))
        batches(driver, N + 2)
        position, state = driver.capture(), first.rng.bit_generator.state
        second = Drawing()
        again = driver_of(DataLoader(second), **({"rng": second.rng} if registered else {}))
        again.restore(position)
        second.rng.bit_generator.state = state  # as the state is written after the position
        found.append(batches(driver, N) == batches(again, N))
    assert found == [True, False]


@pytest.mark.parametrize(
    "value",
    [iter([1]), (n for n in [1]), {"a": 1}, "text", torch.ones(2), TensorDataset(torch.ones(2)), 3],
)
def test_what_is_no_loader_is_refused(value: object) -> None:
    assert not is_loader(value)
    with pytest.raises(UnsupportedLoader, match="is no loader"):
        as_data_loader(value)


def test_the_loader_itself_is_found_again() -> None:
    pipeline, loader = Counting(), DataLoader(NUMBERS)
    assert as_data_loader(loader) is loader
    assert loaders_in(loader) == (loader,)
    assert loaders_in(as_data_loader(pipeline))[1] is pipeline


def test_of_torch_s_own_loader_nothing_is_watched_but_what_it_draws_from() -> None:
    own, plain = OwnLoader(NUMBERS), DataLoader(NUMBERS)
    own.current = 3
    assert dict(owners_of(own))["self"] == {"current": 3}
    assert "self" not in dict(owners_of(plain))


def test_a_list_cannot_tell_when_it_is_iterated() -> None:
    refuse_without_class(Counting())
    with pytest.raises(UnsupportedLoader, match="DataLoader\\(batches, batch_size=None\\)"):
        refuse_without_class([1])


class SharedArray(np.ndarray[Any, Any]):
    """As loaders hand them out that load in other processes."""


def test_an_array_of_a_class_of_its_own_is_evidence_and_no_state() -> None:
    array = np.arange(3).view(SharedArray)
    masked: Any = np.ma.masked_less([1, 2], 2)
    assert set(batch_leaves({"x": array})) == set(batch_leaves({"x": np.arange(3)}))
    assert batch_leaves({"x": array})[""] == batch_leaves({"x": np.arange(3)})[""]
    refusals: list[Callable[[], Any]] = [
        lambda: flatten(array, where="x"),
        lambda: batch_leaves(masked),
    ]
    for refused in refusals:
        with pytest.raises(Exception, match="cannot be captured"):
            refused()


@pytest.mark.parametrize("draws", [False, True])
def test_what_draws_nothing_may_have_more_calls_than_are_kept(draws: bool) -> None:
    loader: DataLoader[Any] = DataLoader(NUMBERS)
    start = IterationStart.capture(loader, {}, WatchedAttributes(loader))
    for call in range(MAX_CALLS + 5):
        streams = capture_streams()
        start.record_call(call, streams, every=True)
        if draws:
            random.random()
        if start.is_full:
            start.record_loaded(streams)
    assert start.overflowed is draws
    assert len(start.tree()["calls"]) <= MAX_CALLS + 1


SOURCE = """
from torch.utils.data import IterableDataset
class Clock(IterableDataset):
    epoch = 0
    def __init__(self):
        self.started = 0
    def __iter__(self):
        self.started += 1
        self.last_time = self.started * 0.5
        return iter(range(4))
"""


@pytest.mark.parametrize(("folder", "captured"), [("site-packages", False), ("mine", True)])
def test_what_a_library_notes_while_it_is_iterated_is_no_position(
    folder: str, captured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"a_clock_in_{folder.replace('-', '_')}"
    module = ModuleType(name)
    module.__file__ = str(tmp_path / folder / f"{name}.py")
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(SOURCE, module.__file__, "exec"), vars(module))  # noqa: S102 # our own
    driver = driver_of(DataLoader(module.Clock()))
    batches(driver, N + 2)
    kept = unflatten(driver.capture(), where="loader")["epoch-start attributes"]
    assert ("dataset.last_time" in kept) is captured
    assert kept["dataset.started"] == (False, 1)  # which was there when it was built


class Elsewhere(Counting):
    """Keeps its epoch where no attribute tells it, but can be told it."""

    def __init__(self) -> None:
        super().__init__()
        self.told = Told()

    def set_epoch(self, epoch: int) -> None:
        self.told.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        self.epoch = self.told.epoch
        return super().__iter__()


class Told:
    """Has slots and no dictionary."""

    __slots__ = ("epoch",)
    epoch: int


def test_an_epoch_that_is_told_is_told_again() -> None:
    here, there = gone_on(Elsewhere)
    assert here == there
