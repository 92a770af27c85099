"""Whatever the loader: what is recorded is what was consumed, and any position can be resumed."""

from __future__ import annotations

import copy
import multiprocessing
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_programs import FixedBatchSampler, Numbers, digests, indices, row
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    WeightedRandomSampler,
    get_worker_info,
)
from torch.utils.data.distributed import DistributedSampler

from auditkit.errors import OrderDrift, RestoreMismatch, UnsupportedLoader
from auditkit.formats.ordering import Batch
from auditkit.observe.loader.driver import Delivery, LoaderDriver
from auditkit.observe.loader.interception import Interception
from auditkit.observe.rng.streams import capture_streams, seed_everything, streams_from_leaves
from auditkit.observe.values.codec import flatten, pack, unflatten, unpack

SEED = 3
N = 10


class Eager:
    """Draws its whole order when it is iterated."""

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(N).tolist()
        random.shuffle(order)
        return iter([order[i : i + 3] for i in range(0, N, 3)])

    def __len__(self) -> int:
        return 4


class Lazy:
    """Draws at each batch, and its batches have different sizes."""

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(4):
            yield np.random.randint(N, size=random.randint(1, 4)).tolist()


class OneList:
    """Yields one and the same list object, refilled."""

    def __iter__(self) -> Iterator[list[int]]:
        batch = [0, 0]
        for start in range(0, N, 2):
            batch[:] = [start, start + 1]
            yield batch


class Stateful:
    """Holds a generator, a counter and a list that it shuffles in place."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(5)
        self.epochs = 0
        self.order = list(range(N))
        self.groups = {"a": [1, 2], "b": (3, np.arange(2), torch.arange(2))}

    def __iter__(self) -> Iterator[list[int]]:
        self.epochs += 1
        self.rng.shuffle(self.order)
        self.groups["a"].append(self.epochs)  # type: ignore[attr-defined]
        for i in range(0, N, 3):
            yield [(j + len(self.groups["a"])) % N for j in self.order[i : i + 3]]


class WithStateDict(FixedBatchSampler):
    """Says itself what it holds."""

    def __init__(self) -> None:
        super().__init__([])
        self.shift = [0]

    def __iter__(self) -> Iterator[list[int]]:
        self.shift[0] += 1
        yield from [[(self.shift[0] + i) % N, i] for i in range(4)]

    def state_dict(self) -> dict[str, Any]:
        return {"shift": self.shift}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shift = state["shift"]


class Arrays:
    """Yields tensors and arrays in place of lists."""

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(N)
        yield order[:3]
        yield order[3:5].numpy()
        yield tuple(order[5:8].tolist())


def _noisy_collate(samples: list[Tensor]) -> Tensor:
    return torch.stack(samples) + torch.rand(1) * 0.25 + random.random() * 0.25


def _distributed(data: Any) -> DistributedSampler[Any]:
    return DistributedSampler(data, num_replicas=2, rank=1, shuffle=True)


def _weighted() -> WeightedRandomSampler:
    return WeightedRandomSampler([float(i) for i in range(1, N + 1)], 9)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


Make = Callable[..., DataLoader[Any]]

LOADERS: dict[str, Make] = {
    "sequential": lambda **k: DataLoader(Numbers(N), batch_size=3, **k),
    "shuffle": lambda **k: DataLoader(Numbers(N), batch_size=3, shuffle=True, **k),
    "drop last": lambda **k: DataLoader(
        Numbers(N), batch_size=3, shuffle=True, drop_last=True, **k
    ),
    "generator": lambda **k: DataLoader(
        Numbers(N), batch_size=3, shuffle=True, generator=_generator(), **k
    ),
    "eager": lambda **k: DataLoader(Numbers(N), batch_sampler=Eager(), **k),
    "lazy": lambda **k: DataLoader(Numbers(N), batch_sampler=Lazy(), **k),
    "one list": lambda **k: DataLoader(Numbers(N), batch_sampler=OneList(), **k),
    "stateful": lambda **k: DataLoader(Numbers(N), batch_sampler=Stateful(), **k),
    "state_dict": lambda **k: DataLoader(Numbers(N), batch_sampler=WithStateDict(), **k),
    "arrays": lambda **k: DataLoader(Numbers(N), batch_sampler=Arrays(), **k),
    "weighted": lambda **k: DataLoader(Numbers(N), batch_size=3, sampler=_weighted(), **k),
    "distributed": lambda **k: DataLoader(
        (data := Numbers(N)), batch_size=2, sampler=_distributed(data), **k
    ),
    "no batches": lambda **k: DataLoader(Numbers(5), batch_size=None, shuffle=True, **k),
    "collate": lambda **k: DataLoader(
        Numbers(N), batch_size=3, shuffle=True, collate_fn=_noisy_collate, **k
    ),
}

WORKERS: dict[str, dict[str, Any]] = {
    "0": {},
    "2": {"num_workers": 2},
    "persistent": {"num_workers": 2, "persistent_workers": True},
}

MODES = ["per-sample", "inherit"]

#: Workers take a while to start: only loaders that they could make a difference to.
_WITH_WORKERS = ("shuffle", "generator", "eager", "lazy", "one list", "stateful", "collate")
LOADERS_AND_WORKERS = [
    *((name, "0") for name in LOADERS),
    *((name, "2") for name in (*_WITH_WORKERS, "no batches", "distributed")),
]

#: Every position is gone back to, with new workers each time: for few loaders in both modes.
_IN_BOTH_MODES = ("shuffle", "stateful", "collate")
RESUMED = [
    *((name, workers, "per-sample") for name, workers in LOADERS_AND_WORKERS),
    *((name, "0", "inherit") for name in LOADERS),
    *((name, "2", "inherit") for name in _IN_BOTH_MODES),
    *(
        pytest.param(name, "2", "inherit", marks=pytest.mark.slow)
        for name in (*_WITH_WORKERS, "no batches", "distributed")
        if name not in _IN_BOTH_MODES
    ),
]


@pytest.fixture(autouse=True)
def _streams_put_back() -> Iterator[None]:
    streams = capture_streams()
    yield
    streams.restore()


def step(driver: LoaderDriver) -> Delivery:
    """The next batch, over the end of epochs, as the training loop asks for it."""
    while True:
        delivery = driver.next(capture_streams())
        if delivery is not None:
            return delivery
        driver.begin_epoch()


def run(driver: LoaderDriver, n_steps: int) -> list[tuple[list[tuple[int, int]], Any]]:
    """Steps with training that draws between them: (order, batch) of each."""
    rows = []
    for _ in range(n_steps):
        delivery = step(driver)
        order = [] if delivery.order is None else [tuple(pair) for pair in delivery.order.tolist()]
        rows.append((order, delivery.batch.tolist()))
        torch.rand(1), random.random(), np.random.rand()  # dropout, say
    return rows


def position_of(driver: LoaderDriver) -> dict[str, Any]:
    """What a snapshot would hold of the data."""
    return {"loader": driver.capture(), **capture_streams().leaves()}


def opened(make: Make, mode: str, seed: int = 0, **options: Any) -> LoaderDriver:
    seed_everything(seed)
    return LoaderDriver(make(**options), SEED, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "workers"), [pair for pair in LOADERS_AND_WORKERS if pair[0] != "collate"]
)
def test_recorded_order_is_what_was_consumed(name: str, workers: str, mode: str) -> None:
    driver = opened(LOADERS[name], mode, **WORKERS[workers])
    try:
        for _ in range(9):
            delivery = step(driver)
            assert delivery.order is not None
            # The indices travel inside the samples: a log that owes nothing to the recorder.
            assert delivery.order[:, 1].tolist() == indices(delivery.batch)
            assert set(delivery.order[:, 0].tolist()) == {delivery.epoch}
    finally:
        driver.close()


@pytest.mark.parametrize("name", LOADERS)
def test_inherited_order_is_the_bare_loaders(name: str) -> None:
    seed_everything(0)
    loader = LOADERS[name]()
    bare = [batch.tolist() for _ in range(2) for batch in loader]
    streams = capture_streams()
    driver = opened(LOADERS[name], "inherit")
    found = []
    for _ in range(2):
        driver.begin_epoch()
        while (delivery := driver.next(capture_streams())) is not None:
            found.append(delivery.batch.tolist())
    driver.close()
    assert _without_epochs(name, found) == _without_epochs(name, bare)
    if name != "distributed":
        assert capture_streams().same_as(streams)


def _without_epochs(name: str, batches: list[Any]) -> list[Any]:
    # A bare loop need not call set_epoch; the driver does.
    return batches[:3] if name == "distributed" else batches


@pytest.mark.parametrize(("name", "workers"), LOADERS_AND_WORKERS)
def test_per_sample_loading_leaves_the_global_streams_alone(name: str, workers: str) -> None:
    driver = opened(LOADERS[name], "per-sample", **WORKERS[workers])
    before = capture_streams()
    for _ in range(8):
        step(driver)
        assert capture_streams().same_as(before)
    driver.close()
    assert capture_streams().same_as(before)


@pytest.mark.parametrize(("name", "workers", "mode"), RESUMED)
def test_resumed_anywhere_the_rest_is_the_same(name: str, workers: str, mode: str) -> None:
    # Workers take long to start: with them, the middle of one epoch and the end of the next.
    positions, end = (range(11), 14) if workers == "0" else ((2,), 7)
    original = opened(LOADERS[name], mode, **WORKERS[workers])
    marks = {}
    rows = []
    for position in range(end):
        if position in positions:
            state = position_of(original)
            marks[position] = unpack(*pack(state))
        rows.extend(run(original, 1))
    original.close()
    for position, state in marks.items():
        _resumed_is(LOADERS[name], mode, workers, state, rows[position:])


def _resumed_is(make: Make, mode: str, workers: str, state: Any, rows: list[Any]) -> None:
    driver = opened(make, mode, seed=99, **WORKERS[workers])
    driver.restore(state["loader"])
    streams_from_leaves(state).restore()
    assert digests({"loader": driver.capture()}) == digests({"loader": state["loader"]})
    assert run(driver, len(rows)) == rows
    driver.close()


@pytest.mark.parametrize("name", LOADERS)
def test_the_end_of_an_epoch_can_be_resumed(name: str) -> None:
    original = opened(LOADERS[name], "per-sample")
    original.begin_epoch()
    while original.next(capture_streams()) is not None:
        pass
    state = position_of(original)
    assert original.next(capture_streams()) is None
    rows = run(original, 6)
    original.close()
    _resumed_is(LOADERS[name], "per-sample", "0", state, rows)


@pytest.mark.parametrize(
    "name", ["shuffle", "generator", "lazy", "one list", "collate", "no batches", "arrays"]
)
def test_the_number_of_workers_does_not_matter_under_per_sample(name: str) -> None:
    # A sampler that draws in __iter__ from a state of its own is iterated twice an epoch by
    # torch where there are workers, and so gives another order with and without auditkit.
    runs = {}
    for workers, options in WORKERS.items():
        driver = opened(LOADERS[name], "per-sample", **options)
        runs[workers] = run(driver, 9)
        driver.close()
    assert runs["0"] == runs["2"]
    # Torch draws a seed for new workers from generator=, and none for persistent ones.
    assert name == "generator" or runs["persistent"] == runs["0"]


def test_persistent_workers_can_be_resumed_under_per_sample() -> None:
    original = opened(LOADERS["collate"], "per-sample", **WORKERS["persistent"])
    run(original, 6)
    state = position_of(original)
    rows = run(original, 5)
    original.close()
    _resumed_is(LOADERS["collate"], "per-sample", "persistent", state, rows)


def test_persistent_workers_are_refused_under_inherit_after_their_first_epoch() -> None:
    driver = opened(LOADERS["shuffle"], "inherit", **WORKERS["persistent"])
    run(driver, 4)
    state = position_of(driver)
    rows = run(driver, 3)
    with pytest.raises(UnsupportedLoader, match="persistent workers"):
        driver.capture()
    driver.close()
    _resumed_is(LOADERS["shuffle"], "inherit", "persistent", state, rows)


@pytest.mark.parametrize("name", ["shuffle", "drop last", "weighted"])
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("mode", MODES)
def test_what_no_snapshot_could_be_taken_of_is_refused_ahead_where_the_length_is_known(
    name: str, workers: str, mode: str
) -> None:
    driver = opened(LOADERS[name], mode, **WORKERS[workers])
    length = len(driver._loader)
    driver.refuse_ahead(length - 1)
    known = name in ("shuffle", "drop last")  # other samplers may give more than they say
    if (known, workers, mode) == (True, "persistent", "inherit"):
        with pytest.raises(UnsupportedLoader, match="epoch 2: persistent workers"):
            driver.refuse_ahead(2 * length)
    else:
        driver.refuse_ahead(2 * length)
    driver.close()


def test_samples_do_not_depend_on_their_order() -> None:
    def by_key(make: Make) -> dict[Any, Any]:
        driver = opened(make, "per-sample")
        rows = run(driver, 8)
        driver.close()
        return {
            key: sample for keys, batch in rows for key, sample in zip(keys, batch, strict=True)
        }

    shuffled, plain = by_key(LOADERS["shuffle"]), by_key(LOADERS["sequential"])
    common = shuffled.keys() & plain.keys()
    assert len(common) == 20
    assert all(shuffled[key] == plain[key] for key in common)
    assert shuffled[0, 1] != shuffled[1, 1]


def test_what_training_draws_does_not_change_the_order() -> None:
    first = opened(LOADERS["lazy"], "per-sample")
    rows = run(first, 7)
    first.close()
    second = opened(LOADERS["lazy"], "per-sample", seed=1)
    torch.rand(100)
    assert run(second, 7) == rows
    second.close()


class Shards(IterableDataset[Tensor]):
    """Ten samples, of which worker 0 has one more than half, unless there are no workers."""

    def __iter__(self) -> Iterator[Tensor]:
        info = get_worker_info()
        if info is None:
            return map(row, range(N))
        return map(row, range(6) if info.id == 0 else range(6, N))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workers", WORKERS)
def test_iterable_datasets_are_recorded_and_resumed(workers: str, mode: str) -> None:
    def make(**options: Any) -> DataLoader[Any]:
        return DataLoader(Shards(), batch_size=2, **options)

    original = opened(make, mode, **WORKERS[workers])
    rows, marks = [], {}
    for position in range(9):
        if position in (0, 2, 5) or (position == 7 and mode == "per-sample"):
            state = position_of(original)
            marks[position] = unpack(*pack(state))
        rows.extend(run(original, 1))
    original.close()
    assert all(order == [] for order, _ in rows)
    assert sorted(indices(torch.tensor([s for _, b in rows[:5] for s in b]))) == list(range(N))
    for position, state in marks.items():
        _resumed_is(make, mode, workers, state, rows[position:])


def test_an_infinite_sampler_is_fine() -> None:
    class Forever:
        def __iter__(self) -> Iterator[int]:
            while True:
                yield random.randrange(N)

    def make(**options: Any) -> DataLoader[Any]:
        return DataLoader(Numbers(N), batch_size=3, sampler=Forever(), **options)

    for mode in MODES:
        original = opened(make, mode)
        run(original, 5)
        state = position_of(original)
        rows = run(original, 5)
        assert original.epoch == 0
        original.close()
        _resumed_is(make, mode, "0", state, rows)


class Many:
    """A data set that can only be asked for many samples at once."""

    def __getitems__(self, keys: list[int]) -> list[Tensor]:
        return [row(key) for key in keys]

    def __len__(self) -> int:
        return N


@pytest.mark.parametrize("mode", MODES)
def test_a_dataset_with_getitems_only(mode: str) -> None:
    driver = opened(lambda: DataLoader(Many(), batch_size=3, shuffle=True), mode)  # type: ignore[arg-type]
    rows = run(driver, 5)
    driver.close()
    assert all([i for _, i in keys] == indices(torch.tensor(batch)) for keys, batch in rows)
    if mode == "per-sample":
        other = opened(LOADERS["shuffle"], mode)
        assert run(other, 5) == rows
        other.close()


def test_lists_of_indices_without_batching() -> None:
    class Pairs:
        def __getitem__(self, key: Any) -> Tensor:
            assert type(key) is list
            return torch.stack([row(index) for index in key])

        def __len__(self) -> int:
            return N

    def make(**options: Any) -> DataLoader[Any]:
        sampler: Any = FixedBatchSampler([[1, 2], [3, 4, 5], [6]])
        return DataLoader(Pairs(), batch_size=None, sampler=sampler, **options)  # type: ignore[arg-type]

    runs = {}
    for workers in ("0", "2"):
        driver = opened(make, "per-sample", **WORKERS[workers])
        runs[workers] = run(driver, 4)
        driver.close()
    assert runs["0"] == runs["2"]
    assert [[i for _, i in keys] for keys, _ in runs["0"]] == [[1, 2], [3, 4, 5], [6], [1, 2]]


class Edited(Numbers):
    """What its workers hold is set by a worker_init_fn."""

    def __init__(self) -> None:
        super().__init__(N)
        self.offset = 0.0
        self.noise = 0.0

    def __getitem__(self, index: int) -> Tensor:
        return super().__getitem__(index) + torch.tensor([0, self.offset, self.noise, 0])


def _edit(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    data: Any = info.dataset
    assert data.n == N
    assert len(data) == N
    data.offset += 2.0
    data.noise = random.random()


@pytest.mark.parametrize("mode", MODES)
def test_worker_init_fn_sees_and_edits_the_dataset(mode: str) -> None:
    def make(**options: Any) -> DataLoader[Any]:
        return DataLoader(Edited(), batch_size=3, worker_init_fn=_edit, **options)

    driver = opened(make, mode, num_workers=1)
    rows = run(driver, 2)
    state = position_of(driver)
    rest = run(driver, 4)
    driver.close()
    assert all(sample[1] > 2 for _, batch in rows for sample in batch)
    resumed = opened(make, mode, seed=5, num_workers=1)
    resumed.restore(state["loader"])
    streams_from_leaves(state).restore()
    assert run(resumed, 4) == rest
    resumed.close()


# -- holding a branch to its control ---------------------------------------------------------


def control_of(make: Make, n_steps: int, **options: Any) -> list[Batch]:
    driver = opened(make, "per-sample", **options)
    found = [step(driver).order for _ in range(n_steps)]
    driver.close()
    return [order for order in found if order is not None]


def test_drift_while_workers_start_leaves_none_behind() -> None:
    driver = opened(LOADERS["sequential"], "per-sample", **WORKERS["2"])
    control = [copy.copy(b) for b in control_of(LOADERS["sequential"], 8)]
    control[0][0, 1] += 1
    driver.pin_order(control, control, 21)
    before = set(multiprocessing.active_children())
    with pytest.raises(OrderDrift) as error:
        run(driver, 8)
    assert error.value.__traceback__ is not None  # it still holds the iterator
    assert set(multiprocessing.active_children()) <= before
    driver.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("where", [0, 3, 6])
def test_drift_of_one_index_names_its_step(where: int, workers: str, mode: str) -> None:
    driver = opened(LOADERS["sequential"], mode, **WORKERS[workers])
    control = [copy.copy(b) for b in control_of(LOADERS["sequential"], 8)]
    control[where][0, 1] += 1
    driver.pin_order(control, control, 21)
    with pytest.raises(OrderDrift) as error:
        run(driver, 8)
    driver.close()
    assert error.value.step == 21 + where
    assert error.value.component == "order"


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("mode", MODES)
def test_delivered_batches_replace_the_samplers_own(workers: str, mode: str) -> None:
    """Across the end of an epoch (4 batches), from the middle of the first."""
    make = LOADERS["shuffle"]
    original = opened(make, mode, **WORKERS[workers])
    run(original, 2)
    state = position_of(original)
    rows = run(original, 8)
    original.close()
    control = [np.array(keys, dtype=np.int64) for keys, _ in rows]
    flat = np.concatenate(control[:5])[::-1]
    cuts = np.cumsum([len(batch) for batch in control[:5]])[:-1]
    delivered = [*np.split(flat, cuts), *control[5:]]
    driver = opened(make, mode, seed=9, **WORKERS[workers])
    driver.pin_order(control, delivered, 3)
    driver.restore(state["loader"])
    streams_from_leaves(state).restore()
    found = run(driver, 8)
    driver.close()
    assert [keys for keys, _ in found] == [
        [tuple(pair) for pair in batch.tolist()] for batch in delivered
    ]
    for keys, batch in found:
        assert [i for _, i in keys] == indices(torch.tensor(batch))
    if mode == "per-sample":  # the epoch travels with the index: the same samples, to the bit
        samples = {k: s for keys, batch in rows for k, s in zip(keys, batch, strict=True)}
        for keys, batch in found:
            assert [samples[key] for key in keys] == batch


def test_beyond_the_controls_steps_the_samplers_own_batches_pass() -> None:
    control = control_of(LOADERS["shuffle"], 8)
    driver = opened(LOADERS["shuffle"], "per-sample")
    driver.pin_order(control[:3], control[:3], 1)
    assert [k for k, _ in run(driver, 8)] == [list(map(tuple, b.tolist())) for b in control]
    driver.close()


# -- the loader stays what it was -------------------------------------------------------------


class OwnLoader(DataLoader[Any]):
    """A user's subclass."""

    def hello(self) -> str:
        return "hello"


def test_the_loader_stays_what_it_was() -> None:
    loader = OwnLoader(Numbers(N), batch_size=3, shuffle=True, generator=_generator())
    before = dict(vars(loader))
    driver = LoaderDriver(loader, SEED, "per-sample")
    assert isinstance(loader, OwnLoader)
    assert type(loader).__name__ == "OwnLoader"
    assert type(loader).__qualname__ == OwnLoader.__qualname__
    assert loader.hello() == "hello"
    assert len(loader) == 4
    run(driver, 3)
    for name, value in before.items():
        assert getattr(loader, name) is value
    driver.close()
    assert type(loader) is OwnLoader
    assert vars(loader) == before
    assert sum(len(batch) for batch in loader) == N


def test_closing_stops_workers_and_lets_the_loader_be_taken_over_again() -> None:
    loader = LOADERS["shuffle"](**WORKERS["persistent"])
    for _ in range(2):
        seed_everything(0)
        driver = LoaderDriver(loader, SEED, "per-sample")
        run(driver, 2)
        driver.close()
        driver.close()
    assert len(list(loader)) == 4


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: [1, 2, 3], "no torch.utils.data.DataLoader"),
        (
            lambda: DataLoader(Numbers(N), num_workers=2, in_order=False),
            "in_order=False",
        ),
    ],
)
def test_loaders_that_cannot_be_recorded_are_refused(make: Any, words: str) -> None:
    with pytest.raises(UnsupportedLoader, match=words):
        Interception(make(), SEED, per_sample=True)


def test_recording_twice_is_refused() -> None:
    loader = LOADERS["shuffle"]()
    driver = LoaderDriver(loader, SEED, "per-sample")
    with pytest.raises(UnsupportedLoader, match="already"):
        LoaderDriver(loader, SEED, "per-sample")
    assert len(run(driver, 2)) == 2
    driver.close()


@pytest.mark.parametrize(
    "batches", [[["a", "b"]], [[0.5]], [[(1, 2)]], [[2**70]], [[None]], ["ab"], [[[1]]]]
)
@pytest.mark.parametrize("mode", MODES)
def test_indices_that_are_no_whole_numbers_are_refused(batches: Any, mode: str) -> None:
    loader: DataLoader[Any] = DataLoader(Numbers(N), batch_sampler=FixedBatchSampler(batches))
    driver = LoaderDriver(loader, SEED, mode)
    with pytest.raises(UnsupportedLoader, match="whole numbers"):
        run(driver, 1)
    driver.close()


def test_keys_of_several_parts_are_refused() -> None:
    sampler: Any = FixedBatchSampler([(1, 2)])
    loader: DataLoader[Any] = DataLoader(Numbers(N), batch_size=None, sampler=sampler)
    driver = LoaderDriver(loader, SEED, "per-sample")
    with pytest.raises(UnsupportedLoader, match="whole numbers"):
        run(driver, 1)
    driver.close()


def test_a_position_beyond_the_epoch_is_refused() -> None:
    for mode in MODES:
        driver = opened(LOADERS["sequential"], mode)
        driver.begin_epoch()
        tree = {**_tree(driver), "position": 9}
        driver.close()
        other = opened(LOADERS["sequential"], mode)
        with pytest.raises(RestoreMismatch, match="epoch ends"):
            _go_on(other, flatten(tree, where="loader"))
        other.close()


def _go_on(driver: LoaderDriver, leaves: Any) -> None:
    driver.restore(leaves)
    driver.next(capture_streams())


def _tree(driver: LoaderDriver) -> Any:
    return unflatten(driver.capture())


def test_state_of_another_sampler_is_refused() -> None:
    driver = opened(LOADERS["stateful"], "per-sample")
    driver.begin_epoch()
    state = driver.capture()
    driver.close()
    other = opened(lambda: DataLoader(Numbers(N), batch_size=None), "per-sample")
    with pytest.raises(RestoreMismatch, match="batch_sampler"):
        other.restore(state)
    other.close()
