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
from test_components import CASES
from tiny_programs import Numbers, batchnorm_net, build, follow, small_net
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Subset, WeightedRandomSampler

from auditkit.errors import UncapturedState
from auditkit.observe.state.components import TrainingObjects
from auditkit.observe.state.uncaptured import (
    plain_attributes,
    refuse_changed_attributes,
    refuse_unregistered_generators,
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
    refuse_unregistered_generators(objects, loader, functions)


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


# -- attributes ---------------------------------------------------------------------------------


class Pointer(nn.Module):
    """State in plain attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.number = 0
        self._hidden = 0.5
        self.words = "a"
        self.nothing: Any = None
        self.items = [1, 2]
        self.queue = deque([1.0], maxlen=3)
        self.array = np.zeros(2)
        self.tensor = torch.zeros(2)
        self.same = [torch.ones(2), {"a": 1}]
        self.alias = self.linear.weight
        self.objects = [object()]
        self.register_buffer("buffer", torch.zeros(1))


CHANGES: dict[str, Callable[[Any], object]] = {
    "number": lambda m: setattr(m, "number", 1),
    "_hidden": lambda m: setattr(m, "_hidden", -0.5),
    "words": lambda m: setattr(m, "words", "b"),
    "nothing": lambda m: setattr(m, "nothing", 3),
    "items": lambda m: m.items.append(3),
    "queue": lambda m: m.queue.append(2.0),
    "array": lambda m: m.array.__setitem__(0, 1.0),
    "tensor": lambda m: m.tensor.add_(1),
    "new": lambda m: setattr(m, "new", 1),
    "same": lambda m: m.same[1].update(a=2),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("place", ["model", "averaged", "extras"])
def test_a_changed_attribute_is_named(name: str, place: str) -> None:
    module, model = Pointer(), small_net()
    model.add_module("inner", module if place == "model" else nn.ReLU())
    held: Any = {} if place == "model" else {place: {"x": nn.Sequential(module)}}
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1), **held)
    before = plain_attributes(objects)
    refuse_changed_attributes(before, plain_attributes(objects))
    CHANGES[name](module)
    path = f"model.inner.{name}" if place == "model" else rf"{place}\['x'\].0.{name}"
    with pytest.raises(UncapturedState, match=f"{path} changed from"):
        refuse_changed_attributes(before, plain_attributes(objects))


def test_what_has_a_component_is_no_plain_attribute() -> None:
    model = nn.Sequential(Pointer())
    pointer: Any = model[0]
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    before = plain_attributes(objects)
    with torch.no_grad():
        pointer.linear.weight.add_(1)
        pointer.buffer.add_(1)
    pointer.eval()
    pointer.objects.append(object())
    objects.optimizer.param_groups[0]["lr"] = 0.3
    refuse_changed_attributes(before, plain_attributes(objects))


def test_layers_with_extra_state_keep_their_own_books() -> None:
    class Own(Pointer):
        def get_extra_state(self) -> int:
            return int(self.number)

        def set_extra_state(self, state: int) -> None:
            self.number = state

    model: Any = nn.Sequential(Own())
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    before = plain_attributes(objects)
    model[0].number = 5
    refuse_changed_attributes(before, plain_attributes(objects))


def test_an_optimizer_that_counts_in_an_attribute_is_named() -> None:
    class Counting(torch.optim.SGD):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._calls = 0

    model = small_net()
    optimizer = Counting(model.parameters(), lr=0.1)
    objects = TrainingObjects(model, optimizer)
    before = plain_attributes(objects)
    optimizer._calls += 1
    with pytest.raises(UncapturedState, match=r"optimizer\._calls changed from 0 to 1"):
        refuse_changed_attributes(before, plain_attributes(objects))


@pytest.mark.parametrize(("old", "new"), [(1, True), (0.0, None), (1, 1.0), (False, 0)])
def test_another_type_is_another_value(old: object, new: object) -> None:
    with pytest.raises(UncapturedState):
        refuse_changed_attributes({"x": old}, {"x": new})


def test_nan_is_nan() -> None:
    refuse_changed_attributes({"x": float("nan")}, {"x": float("nan")})


# -- no false alarm -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
@pytest.mark.filterwarnings("ignore:To get the last learning rate:UserWarning")
@pytest.mark.parametrize("name", [name for name in CASES if name != "extras"])
def test_optimizers_and_schedulers_raise_no_alarm(name: str) -> None:
    made = build(CASES[name], seed=0)
    before = plain_attributes(made[0])
    refuse_unregistered_generators(made[0], DataLoader(Numbers()), {})
    follow(made, 1, 4)
    refuse_changed_attributes(before, plain_attributes(made[0]))
    refuse_unregistered_generators(made[0], DataLoader(Numbers()), {})


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lstm": (lambda: nn.LSTM(4, 3, 2, dropout=0.1), (5, 2, 4)),
    "gru": (lambda: nn.GRU(4, 3, bidirectional=True), (5, 2, 4)),
    "rnn": (lambda: nn.RNN(4, 3), (5, 2, 4)),
    "transformer": (lambda: nn.TransformerEncoderLayer(4, 2, 8), (5, 2, 4)),
    "encoder": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(4, 2, 8), 2, enable_nested_tensor=False
        ),
        (5, 2, 4),
    ),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3), (2, 2, 7)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3), (2, 2, 7, 7)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2), (1, 1, 3, 3, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 2), (1, 2, 3, 3)),
    "batchnorm": (lambda: nn.BatchNorm2d(2), (2, 2, 3, 3)),
    "instancenorm": (lambda: nn.InstanceNorm2d(2, track_running_stats=True), (2, 2, 3, 3)),
    "groupnorm": (lambda: nn.GroupNorm(1, 2), (2, 2, 3, 3)),
    "layernorm": (lambda: nn.LayerNorm(3), (2, 3)),
    "rmsnorm": (lambda: nn.RMSNorm(3), (2, 3)),
    "pooling": (lambda: nn.AdaptiveMaxPool2d(2), (1, 2, 4, 4)),
    "dropout": (lambda: nn.Dropout2d(0.2), (1, 2, 3, 3)),
    "alpha dropout": (nn.AlphaDropout, (3, 3)),
    "prelu": (nn.PReLU, (3, 3)),
    "rrelu": (nn.RReLU, (3, 3)),
    "upsample": (lambda: nn.Upsample(scale_factor=2), (1, 2, 3, 3)),
    "bilinear": (lambda: _Twice(nn.Bilinear(3, 3, 2)), (4, 3)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), (2, 3)),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)), (2, 3)),
    "old spectral norm": (lambda: nn.utils.spectral_norm(nn.Linear(3, 3)), (2, 3)),
    "orthogonal": (lambda: nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)), (2, 3)),
    "pruned": (lambda: _pruned(nn.Linear(3, 3)), (2, 3)),
    "own subclass": (lambda: _OwnLSTM(4, 3), (5, 2, 4)),
}


class _Twice(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, x)


class _OwnLSTM(nn.LSTM):
    """A user's class, whose underscored attributes are looked at, torch's own among them."""


def _pruned(layer: nn.Module) -> nn.Module:
    from torch.nn.utils import prune

    return prune.l1_unstructured(layer, "weight", 0.3)  # type: ignore[no-any-return,no-untyped-call]


@pytest.mark.parametrize("name", LAYERS)
def test_stock_layers_raise_no_alarm(name: str) -> None:
    make, shape = LAYERS[name]
    model = nn.ModuleDict({"layer": make(), "head": nn.Linear(1, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    objects = TrainingObjects(model, optimizer)
    before = plain_attributes(objects)
    refuse_unregistered_generators(objects, DataLoader(Numbers()), {"loss": model.forward})
    for training in (True, True, False):
        model.train(training)
        found = model["layer"](torch.randn(shape))
        result = found[0] if isinstance(found, tuple) else found
        if result.requires_grad:
            result.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    refuse_changed_attributes(before, plain_attributes(objects))
    refuse_unregistered_generators(objects, DataLoader(Numbers()), {"loss": model.forward})
