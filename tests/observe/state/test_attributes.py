"""Plain attributes that training changes are state: captured, restored, reset; or named."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_components import CASES
from tiny_programs import build, digests, follow, frozen, small_net
from torch import Tensor, nn

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.state.attributes import MODULES, OPTIMIZER
from auditkit.observe.state.components import TrainingObjects, as_built
from auditkit.observe.state.restoring import restore
from auditkit.observe.values.codec import unflatten


def changed(objects: TrainingObjects, *, strict: bool = True) -> dict[str, Any]:
    """What was changed, by path."""
    assert objects.built is not None
    found = objects.built.attributes.changed(strict=strict)
    return {
        path: value
        for component in found
        for path, value in unflatten(found[component])["values"].items()
    }


def built(model: nn.Module, optimizer: Any = None, **held: Any) -> TrainingObjects:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    return as_built(TrainingObjects(model, optimizer, **held))


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


def _with_pointer(place: str) -> tuple[TrainingObjects, Any, str]:
    module, model = Pointer(), small_net()
    model.add_module("inner", module if place == "model" else nn.ReLU())
    held: Any = {} if place == "model" else {place: {"x": nn.Sequential(module)}}
    path = "model.inner" if place == "model" else f"{place}['x'].0"
    return built(model, **held), module, path


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("place", ["model", "averaged", "extras"])
def test_a_changed_attribute_is_captured_and_comes_back(name: str, place: str) -> None:
    objects, module, path = _with_pointer(place)
    assert objects.built is not None
    attributes = objects.built.attributes
    assert not attributes.changed()
    CHANGES[name](module)
    assert list(changed(objects)) == [f"{path}.{name}"]
    saved = frozen(attributes.changed())

    other, fresh, _ = _with_pointer(place)
    fresh.number = 77  # what a fresh object did in the meantime
    assert other.built is not None
    other.built.attributes.restore(saved)
    assert digests(other.built.attributes.changed()) == digests(saved)
    assert fresh.number == getattr(module, "number", None)
    other.built.attributes.restore({})
    assert not other.built.attributes.changed()


def test_containers_stay_the_same_objects() -> None:
    objects, module, _ = _with_pointer("model")
    items, tensor = module.items, module.tensor
    module.items.append(3)
    module.tensor.add_(1)
    assert objects.built is not None
    saved = frozen(objects.built.attributes.changed())
    module.items.clear()
    module.tensor.zero_()
    objects.built.attributes.restore(saved)
    assert module.items is items
    assert items == [1, 2, 3]
    assert module.tensor is tensor
    assert tensor.tolist() == [1, 1]


def test_an_attribute_that_went_is_absent() -> None:
    objects, module, _ = _with_pointer("model")
    del module.number
    assert objects.built is not None
    saved = frozen(objects.built.attributes.changed())
    other, fresh, _ = _with_pointer("model")
    assert other.built is not None
    other.built.attributes.restore(saved)
    assert not hasattr(fresh, "number")


class Schedule:
    def __init__(self) -> None:
        self.calls = 0
        self.seen: list[float] = []


class Held(torch.optim.SGD):
    """Counts in an object, in a list of objects, and in an attribute of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.schedule, self.more, self._calls = Schedule(), [{"a": Schedule()}], 0


def test_what_an_optimizer_holds_is_looked_into() -> None:
    model = small_net()
    optimizer = Held(model.parameters(), lr=0.1)
    objects = built(model, optimizer)
    optimizer.schedule.calls = 4
    optimizer.more[0]["a"].seen.append(0.5)
    optimizer._calls = 2
    assert changed(objects) == {
        "optimizer.schedule.calls": 4,
        "optimizer.more[0]['a'].seen": [0.5],
        "optimizer._calls": 2,
    }
    optimizer.schedule = Schedule()  # another object in its place
    optimizer.schedule.calls = 5
    assert changed(objects)["optimizer.schedule.calls"] == 5


def test_reset_makes_attributes_what_they_were() -> None:
    model = small_net()
    optimizer = Held(model.parameters(), lr=0.1)
    objects = built(model, optimizer)
    optimizer.schedule.calls, optimizer._calls = 4, 3
    optimizer.schedule.seen.append(1.0)
    assert objects.built is not None
    found = objects.built.attributes.reset(OPTIMIZER, kept={"calls"})
    assert sorted(found) == ["optimizer._calls", "optimizer.schedule.seen"]
    assert (optimizer.schedule.calls, optimizer._calls, optimizer.schedule.seen) == (4, 0, [])
    assert objects.built.attributes.reset(MODULES) == []


class Mode(enum.Enum):
    A = 1
    B = 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "no plain value"),
        ([object()], "no plain value"),
        (torch.ones(2, requires_grad=True) * 2, "detach it"),
    ],
)
def test_what_became_something_that_cannot_be_held_is_named(value: object, words: str) -> None:
    objects, module, _ = _with_pointer("model")
    module.nothing = value
    assert changed(objects, strict=False) == {}
    with pytest.raises(UncapturedState, match=rf"model\.inner\.nothing .*{words}"):
        changed(objects)


def test_another_member_of_an_enumeration_is_named() -> None:
    model = small_net()
    optimizer: Any = Held(model.parameters(), lr=0.1)
    optimizer.mode = Mode.A
    objects = built(model, optimizer)
    optimizer.mode = Mode.B
    with pytest.raises(UncapturedState, match=r"optimizer\.mode"):
        changed(objects)


def test_addresses_of_parameters_are_named() -> None:
    model = small_net()
    optimizer: Any = Held(model.parameters(), lr=0.1)
    optimizer.by_address = {}
    objects = built(model, optimizer)
    optimizer.by_address[id(model[0].weight)] = 1
    with pytest.raises(UncapturedState, match=r"by_address is keyed by addresses of parameters"):
        changed(objects)


def test_code_is_no_state() -> None:
    objects, module, _ = _with_pointer("model")
    module.nothing = lambda: 1
    assert changed(objects) == {}


def test_a_snapshot_of_other_objects_is_refused() -> None:
    model = small_net()
    optimizer = Held(model.parameters(), lr=0.1)
    objects = built(model, optimizer)
    optimizer.schedule.calls = 4
    assert objects.built is not None
    saved = frozen(objects.built.attributes.changed())
    other = built(small_net())
    assert other.built is not None
    with pytest.raises(RestoreMismatch, match=r"no optimizer\.schedule whose calls"):
        other.built.attributes.restore(saved)


def test_what_has_a_component_is_no_plain_attribute() -> None:
    model = nn.Sequential(Pointer())
    pointer: Any = model[0]
    objects = built(model)
    with torch.no_grad():
        pointer.linear.weight.add_(1)
        pointer.buffer.add_(1)
    pointer.eval()
    pointer.objects.append(object())
    objects.optimizer.param_groups[0]["lr"] = 0.3
    assert changed(objects) == {}


def test_layers_with_extra_state_keep_their_own_books() -> None:
    class Own(Pointer):
        def get_extra_state(self) -> int:
            return int(self.number)

        def set_extra_state(self, state: int) -> None:
            self.number = state

    model: Any = nn.Sequential(Own())
    objects = built(model)
    model[0].number = 5
    assert changed(objects) == {}


@pytest.mark.parametrize(
    ("old", "new"), [(1, True), (0.0, None), (1, 1.0), (False, 0), (0.0, -0.0), ([0.0], [-0.0])]
)
def test_another_type_or_sign_is_another_value(old: object, new: object) -> None:
    objects, module, _ = _with_pointer("model")
    module.number = old
    objects = built(objects.model)
    module.number = new
    assert list(changed(objects)) == ["model.inner.number"]


def test_nan_is_nan() -> None:
    objects, module, _ = _with_pointer("model")
    module.number = float("nan")
    objects = built(objects.model)
    module.number = float("nan")
    assert changed(objects) == {}


def test_restoring_writes_attributes_of_a_snapshot() -> None:
    objects, module, _ = _with_pointer("model")
    from auditkit.observe.state.components import capture

    module.number = 9
    assert objects.built is not None
    saved = frozen({**capture(objects), **objects.built.attributes.changed()})
    module.number = 3
    restore(objects, saved)
    assert module.number == 9
    with pytest.raises(RestoreMismatch, match="no such component"):
        restore(TrainingObjects(objects.model, objects.optimizer), saved)


# -- no false alarm -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
@pytest.mark.filterwarnings("ignore:To get the last learning rate:UserWarning")
@pytest.mark.parametrize("name", [name for name in CASES if name != "extras"])
def test_optimizers_and_schedulers_raise_no_alarm(name: str) -> None:
    made = build(CASES[name], seed=0)
    objects = as_built(made[0])
    follow(made, 1, 4)
    # A count that LBFGS looks up once; its list of parameters is none.
    assert changed(objects) == ({"optimizer._numel_cache": 51} if "lbfgs" in name else {})


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
    objects = built(model, optimizer)
    for training in (True, True, False):
        model.train(training)
        found = model["layer"](torch.randn(shape))
        result = found[0] if isinstance(found, tuple) else found
        if result.requires_grad:
            result.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert changed(objects) == {}


class Installed(Pointer):
    """A class of an installed package."""

    __module__ = np.__name__


@pytest.mark.parametrize(("place", "told"), [("extras", True), ("averaged", False)])
def test_what_an_installed_layer_hides_is_state_where_it_was_registered_for_its_state(
    place: str, told: bool
) -> None:
    module = Installed()
    objects = built(small_net(), **{place: {"x": module}})
    assert objects.built is not None
    attributes = objects.built.attributes
    module._hidden = -0.5
    assert changed(objects) == ({"extras['x']._hidden": -0.5} if told else {})
    kept = frozen(attributes.changed())
    module._hidden = 7.0
    attributes.restore(kept)
    assert module._hidden == (-0.5 if told else 7.0)


def test_of_torch_s_own_layers_in_an_extra_nothing_hidden_is_looked_at() -> None:
    layer = nn.LSTM(2, 2)
    objects = built(small_net(), extras={"x": nn.Sequential(layer)})
    layer._note = 1
    assert changed(objects) == {}
