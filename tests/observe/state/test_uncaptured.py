"""State that no snapshot would hold is named with its path; what is held raises no alarm."""

from __future__ import annotations

import functools
import logging
import random
import types
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from tiny_programs import Numbers, batchnorm_net, small_net
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Subset, WeightedRandomSampler

from auditkit.errors import UncapturedState
from auditkit.observe.state.components import TrainingObjects
from auditkit.observe.state.uncaptured import (
    HeldGenerators,
    private_generators,
    refuse_moved_generators,
)

RNG = np.random.default_rng(0)
HELD = {"augment": [random.Random(1)]}


def _helper(x: Any) -> Any:
    return x + RNG.normal()


class Augment:
    """A transform with a generator of its own."""

    def __init__(self, rng: Any) -> None:
        self.rng = rng

    def __call__(self, x: Any) -> Any:
        return x


class Data(Numbers):
    """A data set with something in it."""

    def __init__(self, **held: Any) -> None:
        super().__init__()
        vars(self).update(held)


class GlobalData(Numbers):
    def __getitem__(self, index: int) -> Tensor:
        return super().__getitem__(index) + RNG.normal()


class HelpedData(Numbers):
    def __getitem__(self, index: int) -> Tensor:
        def inner() -> Any:
            return _helper(index)

        return torch.tensor(inner())


class ClassData(Numbers):
    rng = torch.Generator()


class Slotted:
    __slots__ = ("rng", "unset")

    def __init__(self) -> None:
        self.rng = random.Random(0)


class Noisy(nn.Module):
    """A layer with a generator."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        return x


def _nested(depth: int, layer: nn.Module) -> nn.Module:
    for _ in range(depth):
        layer = nn.Sequential(nn.ReLU(), layer)
    return layer


def _closure() -> Callable[[Any, Any], Any]:
    rng = np.random.RandomState(3)
    return lambda model, batch: model(batch) * rng.rand()


def _default(model: Any, batch: Any, rng: Any = RNG) -> Any:
    return model(batch)


def _from_container(model: Any, batch: Any) -> Any:
    return HELD["augment"][0].random()


def search(
    model: nn.Module | None = None,
    data: Any = None,
    loader: DataLoader[Any] | None = None,
    functions: Mapping[str, Any] = types.MappingProxyType({}),
    **held: Any,
) -> None:
    model = small_net() if model is None else model
    parameters = [*model.parameters(), *small_net().parameters()]
    objects = TrainingObjects(model, torch.optim.SGD(parameters, lr=0.1), **held)
    loader = DataLoader(Numbers() if data is None else data) if loader is None else loader
    for private in private_generators(objects, loader, functions):
        raise private.refuse()


UNREGISTERED: dict[str, tuple[dict[str, Any], str]] = {
    "dataset": ({"data": Data(rng=np.random.default_rng())}, "loader.dataset.rng is a numpy"),
    "dict": ({"data": Data(a={"b": [random.Random()]})}, r"loader.dataset.a\['b'\]\[0\] is a"),
    "set": ({"data": Data(a={random.Random()})}, r"loader.dataset.a\[0\]"),
    "deque": ({"data": Data(a=deque([torch.Generator()]))}, r"loader.dataset.a\[0\]"),
    "transform": (
        {"data": Subset(Data(transform=Augment(torch.Generator())), [1])},
        "loader.dataset.dataset.transform.rng is a torch",
    ),
    "method": ({"data": Data(t=Augment(random.Random()).__call__)}, "__self__.rng is a random"),
    "built-in method": ({"data": Data(t=random.Random().random)}, "t.__self__ is a random"),
    "cached function": ({"data": Data(t=functools.lru_cache(_from_container))}, "global HELD"),
    "partial": ({"data": Data(t=functools.partial(_default, rng=RNG))}, "t.rng is a"),
    "slots": ({"data": Data(t=Slotted())}, "t.rng is a random"),
    "global of a method": ({"data": GlobalData()}, "__getitem__'s global RNG is a numpy"),
    "global of a helper": ({"data": HelpedData()}, "global _helper's global RNG is a numpy"),
    "class attribute": ({"data": ClassData()}, "loader.dataset.rng is a torch"),
    "layer": ({"model": nn.Sequential(Noisy())}, r"model.0.generator is a torch"),
    "deep layer": ({"model": _nested(12, Noisy())}, "generator is a torch"),
    "average": ({"averaged": {"ema": nn.Sequential(Noisy())}}, r"averaged\['ema'\].0.generator"),
    "extra module": ({"extras": {"critic": Noisy()}}, r"extras\['critic'\].generator"),
    "closure": ({"functions": {"loss": _closure()}}, "loss's rng is a numpy"),
    "default": ({"functions": {"loss": _default}}, "loss's default is a numpy"),
    "global": ({"functions": {"step": _helper}}, "step's global RNG is a numpy"),
    "global container": ({"functions": {"step": _from_container}}, "step's global HELD"),
    "collate": (
        {"loader": DataLoader(Numbers(), collate_fn=Augment(random.Random()))},
        "loader.collate_fn.rng",
    ),
    "worker_init_fn": (
        {"loader": DataLoader(Numbers(), worker_init_fn=Augment(random.Random()))},
        "loader.worker_init_fn.rng",
    ),
    "operating system": ({"data": Data(rng=random.SystemRandom())}, "SystemRandom"),
}


@pytest.mark.parametrize("name", UNREGISTERED)
def test_unregistered_generators_are_named(name: str) -> None:
    arguments, words = UNREGISTERED[name]
    with pytest.raises(UncapturedState, match=words):
        search(**arguments)


def test_the_advice_fits_the_workers() -> None:
    data = Data(rng=random.Random())
    with pytest.raises(UncapturedState, match=r"register it: extras=\{'rng'"):
        search(loader=DataLoader(data))
    with pytest.raises(UncapturedState, match="worker processes draw from copies"):
        search(loader=DataLoader(data, num_workers=1))


def test_registered_generators_pass() -> None:
    rng, other = np.random.default_rng(), torch.Generator()
    search(data=Data(rng=rng, more=[other]), extras={"a": rng, "b": other})


def test_what_a_registered_object_holds_is_its_own_business() -> None:
    class Pool(Augment):
        def state_dict(self) -> dict[str, Any]:
            return {"rng": self.rng.getstate()}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.rng.setstate(state["rng"])

    pool = Pool(random.Random())
    search(data=Data(transform=pool), extras={"pool": pool})


def test_generators_of_samplers_pass() -> None:
    class Mine:
        def __init__(self) -> None:
            self.rng = np.random.default_rng()

        def __iter__(self) -> Any:
            return iter([[1]])

    search(loader=DataLoader(Numbers(), shuffle=True, generator=torch.Generator()))
    search(
        loader=DataLoader(
            Numbers(), sampler=WeightedRandomSampler([1.0], 1, generator=torch.Generator())
        )
    )
    search(loader=DataLoader(Numbers(), batch_sampler=Mine()))


def test_the_global_streams_pass() -> None:
    instances = [torch.default_generator, getattr(random.random, "__self__", None)]
    search(data=Data(held=instances, numpy=getattr(np.random.rand, "__self__", None)))


def test_ordinary_programs_pass() -> None:
    logger = logging.getLogger("auditkit.test")

    def loss(model: nn.Module, batch: Any) -> Any:
        logger.debug("numbers %s", np.random.rand())
        return nn.functional.cross_entropy(model(batch), torch.rand(3)) + random.random()

    search(
        model=batchnorm_net(),
        averaged={"ema": AveragedModel(batchnorm_net())},
        functions={"loss": loss, "print": print, "bound": small_net().forward},
    )


def test_a_search_ends_in_cycles_and_large_data() -> None:
    ring: list[Any] = []
    ring.append(ring)
    search(data=Data(ring=ring, many=list(range(10**6)), rows=np.zeros((1000, 1000))))


# -- generators that are watched ------------------------------------------------------------------


def _watched(generator: Any, n_workers: int = 0) -> Any:
    model = small_net()
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    loader = DataLoader(Data(rng=generator), num_workers=n_workers)
    return private_generators(objects, loader, {})


@pytest.mark.parametrize(
    ("generator", "draw"),
    [
        (torch.Generator(), lambda g: torch.rand(1, generator=g)),
        (np.random.default_rng(0), lambda g: g.random()),
        (np.random.RandomState(0), lambda g: g.rand()),
        (random.Random(0), lambda g: g.random()),
    ],
)
def test_a_generator_is_refused_once_somebody_drew_from_it(generator: Any, draw: Any) -> None:
    found = _watched(generator)
    refuse_moved_generators(found)
    draw(generator)
    with pytest.raises(UncapturedState, match=r"dataset.rng .* register it"):
        refuse_moved_generators(found)


def test_what_cannot_be_watched_is_refused_at_once() -> None:
    with pytest.raises(UncapturedState, match="worker processes draw from copies"):
        _watched(random.Random(0), n_workers=1)
    with pytest.raises(UncapturedState, match="SystemRandom"):
        _watched(random.SystemRandom())


def test_copies_in_the_workers_of_a_loop_are_no_matter_and_the_one_here_is() -> None:
    rng, model = torch.Generator(), small_net()
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    held = HeldGenerators(objects, DataLoader(Data(rng=rng), num_workers=2))
    assert held.moved() is None
    torch.rand(1, generator=rng)
    moved = held.moved()
    assert moved is not None
    told = str(moved.refuse())
    assert "loader.dataset.rng is a torch.Generator whose" in told
    assert told.endswith("; register it: extras={'rng': <that generator>}")
    with pytest.raises(UncapturedState, match="SystemRandom"):
        HeldGenerators(objects, DataLoader(Data(rng=random.SystemRandom())))


@pytest.mark.parametrize(
    ("data", "name"),
    [(HelpedData(), "RNG"), (Data(a={"b": [random.Random()]}), "a"), (ClassData(), "rng")],
)
def test_the_name_to_register_it_by_is_the_last_of_its_path(data: Any, name: str) -> None:
    with pytest.raises(UncapturedState, match=rf"register it: extras=\{{'{name}': <"):
        search(data=data)


def test_a_generator_that_takes_the_place_of_another_has_moved() -> None:
    data: Any = Data(rng=random.Random(0))
    model = small_net()
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    held = HeldGenerators(objects, DataLoader(data))
    data.rng = random.Random(0)
    assert held.moved() is None
    data.late = random.Random(5)
    assert held.moved() is None
    data.rng = random.Random(1)
    moved = held.moved()
    assert moved is not None
    assert "loader.dataset.rng is a random.Random" in str(moved.refuse())
    data.rng = random.Random(0)
    data.late.random()
    moved = held.moved()
    assert moved is not None
    assert moved.path == "loader.dataset.late"


class _Unspeakable:
    """A key whose text is not to be asked for."""

    def __repr__(self) -> str:
        raise AssertionError


def test_a_path_does_not_hold_the_text_of_a_key_which_changes_with_what_it_holds() -> None:
    weight = torch.zeros(3)
    data: Any = Data(rngs={weight: random.Random(0), _Unspeakable(): [random.Random(1)]})
    model = small_net()
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    held = HeldGenerators(objects, DataLoader(data))
    assert held.moved() is None
    weight += 1
    data.rngs[weight].random()
    moved = held.moved()
    assert moved is not None
    assert moved.path == "loader.dataset.rngs[<Tensor 0>]"
