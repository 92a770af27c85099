"""A restored program goes on as the original did, bit for bit; what is left out is noticed."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_programs import (
    ObjectsAndStep,
    batchnorm_net,
    build,
    digests,
    follow,
    frozen,
    small_net,
    supervised,
)
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.machine.determinism import deterministic
from auditkit.observe.rng.streams import capture_streams
from auditkit.observe.state.components import StateReader, TrainingObjects, capture
from auditkit.observe.state.restoring import restore

N_BEFORE, N_AFTER = 5, 8

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam of a tensor lr": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True, fused=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3, history_size=3),
}

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "step": lambda o: schedulers.StepLR(o, 3),
    "one-cycle": lambda o: schedulers.OneCycleLR(o, 0.3, total_steps=20),
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, 10),
    "warm restarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 4),
    "sequential": lambda o: schedulers.SequentialLR(
        o,
        [schedulers.LinearLR(o, 0.1, total_iters=6), schedulers.ExponentialLR(o, 0.9)],
        [6],
    ),
    "chained": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o), schedulers.ExponentialLR(o, 0.9)]
    ),
    "plateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=1),
    "lambda": lambda o: schedulers.LambdaLR(o, lambda t: 0.9**t),
    "multi-step": lambda o: schedulers.MultiStepLR(o, [2, 4, 4, 7]),
    "cyclic": lambda o: schedulers.CyclicLR(o, 0.01, 0.2, step_size_up=3),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with deterministic(threads=1):
        yield


def _optimizer(name: str) -> ObjectsAndStep:
    model = small_net()
    return supervised(model, OPTIMIZERS[name](model.parameters()))


def _scheduled(name: str) -> ObjectsAndStep:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = SCHEDULERS[name](optimizer)

    def after(t: int) -> None:
        scheduler.step(*([1.0] if name == "plateau" else []))

    return supervised(model, optimizer, after=after, scheduler=scheduler)


def _bfloat16() -> ObjectsAndStep:
    """Momentum is float32, parameters are bfloat16: load_state_dict would lose bits."""
    model = small_net().to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    slots: dict[Any, Any] = optimizer.state

    def after(t: int) -> None:
        for n, parameter in enumerate(model.parameters()):
            held = slots[parameter].setdefault("momentum", torch.zeros(parameter.shape))
            held.mul_(0.9).add_(parameter.detach().float() * 0.01)
            slots[parameter]["momentum_buffer"] = None if n else held + 1
            slots[parameter]["count"] = slots[parameter].get("count", 0) + 1
            with torch.no_grad():
                parameter.sub_(held.to(torch.bfloat16))

    def inputs() -> Tensor:
        return torch.randn(8, 4).to(torch.bfloat16)

    return supervised(model, optimizer, after=after, inputs=inputs)


def _batchnorm(momentum: float | None) -> ObjectsAndStep:
    model = batchnorm_net()
    layer: Any = model[1]
    layer.momentum = momentum
    return supervised(model, torch.optim.SGD(model.parameters(), lr=0.1))


class Queue(nn.Module):
    """Buffers of every kind, and state of its own."""

    plain: Tensor
    hidden: Tensor
    grown: Tensor
    later: Any
    sooner: Any

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        self.register_buffer("plain", torch.zeros(4))
        self.register_buffer("hidden", torch.zeros(4), persistent=False)
        self.register_buffer("grown", torch.zeros(1, 4))
        self.register_buffer("later", None)
        self.register_buffer("sooner", torch.ones(1))
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.pointer = 0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.linear(x))
        with torch.no_grad():
            self.plain.add_(y.mean(0))
            self.hidden.mul_(0.9).add_(y[0])
            self.grown = torch.cat([self.grown, y[:1]])[-4:]
            self.later = y.sum().reshape(1) if self.later is None else self.later * 0.5
            self.sooner = None
        self.pointer += 1
        result: Tensor = (
            y + self.hidden + self.grown.mean(0) * self.pointer + self.plain + self.later
        )
        return result

    def get_extra_state(self) -> dict[str, int]:
        return {"pointer": self.pointer}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.pointer = state["pointer"]


def _queue() -> ObjectsAndStep:
    model = Queue()
    return supervised(model, torch.optim.SGD(model.parameters(), lr=0.1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight
        shared = torch.zeros(1)
        self.encoder.register_buffer("shared", shared)
        self.decoder.register_buffer("shared", shared)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.encoder.get_buffer("shared").add_(1)
        y: Tensor = self.decoder(self.encoder(x))
        return y * self.decoder.get_buffer("shared")


def _tied() -> ObjectsAndStep:
    model = Tied()
    return supervised(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))


def _channels_last() -> ObjectsAndStep:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def after(t: int) -> None:  # the layout is changed after the factory, as some scripts do
        if t == 1:
            model[0].to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    return supervised(model, optimizer, after=after, inputs=lambda: torch.randn(4, 3, 5, 5))


def _scaler() -> ObjectsAndStep:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, growth_interval=3)

    def step(t: int) -> None:
        loss = model(torch.randn(8, 4)).square().mean()
        scaler.scale(loss * (torch.inf if t % 4 == 0 else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return TrainingObjects(model, optimizer, scaler=scaler), step


def _averaged() -> ObjectsAndStep:
    model = batchnorm_net()
    averages = {
        "ema": AveragedModel(
            model,
            multi_avg_fn=get_ema_multi_avg_fn(0.9),  # type: ignore[no-untyped-call]
            use_buffers=True,
        ),
        "swa": AveragedModel(model),
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def after(t: int) -> None:
        for average in averages.values():
            average.update_parameters(model)

    return supervised(model, optimizer, after=after, averaged=averages)


def _accumulated() -> ObjectsAndStep:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(t: int) -> None:
        model(torch.randn(8, 4)).square().mean().backward()
        if t % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()

    return TrainingObjects(model, optimizer), step


def _flags() -> ObjectsAndStep:
    model: Any = batchnorm_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def after(t: int) -> None:
        model[1].train(t % 2 == 0)
        model[0].weight.requires_grad_(t % 3 == 0)

    return supervised(model, optimizer, after=after)


class Counter:
    """A user's own stateful object."""

    def __init__(self) -> None:
        self.n = 0
        self.history: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"n": self.n, "history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.n, self.history = state["n"], state["history"]


def _extras() -> ObjectsAndStep:
    model: Any = small_net()
    critic = nn.Linear(4, 1)
    second = torch.optim.Adam(critic.parameters(), lr=0.01)
    extras: dict[str, Any] = {
        "counter": Counter(),
        "critic": critic,
        "second optimizer": second,
        "torch": torch.Generator().manual_seed(int(torch.randint(1 << 30, ()))),
        "numpy": np.random.default_rng(np.random.randint(1 << 30)),
        "legacy": np.random.RandomState(np.random.randint(1 << 30)),
        "python": random.Random(random.random()),
    }

    def after(t: int) -> None:
        counter = extras["counter"]
        counter.n += 1
        counter.history.append(torch.rand(2))
        x = torch.randn(4, 4, generator=extras["torch"]) + extras["python"].gauss(0, 1)
        x = x + extras["numpy"].normal() + extras["legacy"].randn() + counter.n
        (critic(x).square().mean() + critic(x).sum() * 0.01).backward()
        if t % 2 == 0:
            second.step()
            second.zero_grad()
        with torch.no_grad():
            model[0].weight.mul_(1 + 0.01 * critic.weight.sum() + counter.history[-1].sum() / 100)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return supervised(model, optimizer, after=after, extras=extras)


def _streams() -> ObjectsAndStep:
    model: Any = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def after(t: int) -> None:
        with torch.no_grad():
            model[0].bias.add_(random.gauss(0, 1) * 0.1 + np.random.randn() * 0.1)

    return supervised(model, optimizer, after=after)


CASES: dict[str, Callable[[], ObjectsAndStep]] = {
    **{f"optimizer: {name}": lambda n=name: _optimizer(n) for name in OPTIMIZERS},  # type: ignore[misc]
    **{f"scheduler: {name}": lambda n=name: _scheduled(n) for name in SCHEDULERS},  # type: ignore[misc]
    "bfloat16": _bfloat16,
    "batchnorm": lambda: _batchnorm(0.1),
    "cumulative batchnorm": lambda: _batchnorm(None),
    "buffers": _queue,
    "tied": _tied,
    "channels last": _channels_last,
    "scaler": _scaler,
    "averaged": _averaged,
    "accumulated": _accumulated,
    "flags": _flags,
    "extras": _extras,
    "streams": _streams,
}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
@pytest.mark.filterwarnings("ignore:To get the last learning rate:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_resumed_run_is_bit_identical_and_every_component_counts(name: str) -> None:
    original = build(CASES[name], seed=1)
    follow(original, 1, N_BEFORE)
    snapshot = frozen(capture(original[0]))
    expected = follow(original, N_BEFORE + 1, N_AFTER)

    resumed = build(CASES[name], seed=2)
    initial = frozen(capture(resumed[0]))
    restore(resumed[0], snapshot)
    assert follow(resumed, N_BEFORE + 1, N_AFTER) == expected
    assert digests(frozen(snapshot)) == expected[0], "training wrote into the snapshot"

    for component in snapshot:
        if digests(initial).get(component) == expected[0][component]:
            continue
        without = {name: leaves for name, leaves in snapshot.items() if name != component}
        if component in initial:
            without[component] = initial[component]
        other = build(CASES[name], seed=2)
        try:
            restore(other[0], without)
            rows = follow(other, N_BEFORE + 1, N_AFTER)
        except (RestoreMismatch, LookupError, AttributeError, AssertionError, TypeError):
            # Refused, or the optimizer misses a slot of its own.
            continue
        assert rows != expected, f"{component} is not noticed"


@pytest.mark.parametrize(
    ("case", "components"),
    [
        ("optimizer: momentum", {"params", "modules", "optimizer/momentum_buffer", "param_groups"}),
        ("optimizer: adamw", {"optimizer/exp_avg", "optimizer/max_exp_avg_sq", "optimizer/step"}),
        ("optimizer: lbfgs", {"optimizer/old_dirs", "optimizer/prev_flat_grad"}),
        ("batchnorm", {"batchnorm"}),
        ("buffers", {"buffers"}),
        ("scaler", {"scaler"}),
        ("scheduler: step", {"scheduler"}),
        ("averaged", {"averaged/ema", "averaged/swa"}),
        ("accumulated", {"grad"}),
        ("streams", {"rng/python", "rng/numpy", "rng/torch"}),
        ("extras", {"extras/counter", "extras/critic", "extras/second optimizer", "grad"}),
        ("extras", {f"rng/extras/{kind}" for kind in ("torch", "numpy", "legacy", "python")}),
    ],
)
def test_components_are_named(case: str, components: set[str]) -> None:
    made = build(CASES[case], seed=1)
    follow(made, 1, N_BEFORE)
    assert components <= set(capture(made[0]))


def test_float32_momentum_of_a_bfloat16_parameter_keeps_its_dtype() -> None:
    original = build(_bfloat16, 1)
    follow(original, 1, 2)
    snapshot = frozen(capture(original[0]))
    resumed = build(_bfloat16, 2)
    restore(resumed[0], snapshot)
    for state in resumed[0].optimizer.state.values():
        assert state["momentum"].dtype is torch.float32
    held = [state["momentum_buffer"] for state in resumed[0].optimizer.state.values()]
    assert held[0] is not None
    assert held[1:] == [None] * 3


def test_memory_layout_is_restored() -> None:
    original = build(_channels_last, 1)
    follow(original, 1, 2)
    resumed = build(_channels_last, 2)
    restore(resumed[0], frozen(capture(original[0])))
    weight = next(resumed[0].model.parameters())
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_ties_and_shared_buffers_stay() -> None:
    original = build(_tied, 1)
    follow(original, 1, 2)
    resumed = build(_tied, 2)
    restore(resumed[0], frozen(capture(original[0])))
    model: Any = resumed[0].model
    assert model.decoder.weight is model.encoder.weight
    assert model.decoder.shared is model.encoder.shared


def test_parameters_inside_a_flat_buffer_stay_there() -> None:
    flat = torch.arange(40.0).reshape(4, 10)
    model = nn.Linear(5, 4, bias=False)
    model.weight = nn.Parameter(flat[:, :5])  # a view that is not dense
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    snapshot = frozen(capture(objects))
    with torch.no_grad():
        model.weight.zero_()
    restore(objects, snapshot)
    assert flat[1, :5].tolist() == [10, 11, 12, 13, 14]
    assert model.weight.data_ptr() == flat.data_ptr()


def test_restoring_twice_from_one_snapshot_gives_the_same() -> None:
    original = build(_queue, 1)
    follow(original, 1, N_BEFORE)
    snapshot = frozen(capture(original[0]))
    runs = []
    for seed in (2, 3):
        resumed = build(_queue, seed)
        restore(resumed[0], snapshot)
        runs.append(follow(resumed, N_BEFORE + 1, 3))
    assert runs[0] == runs[1]


def test_capture_changes_nothing() -> None:
    watched, alone = build(_extras, 1), build(_extras, 1)
    build(_extras, 1)
    watched = build(_extras, 1)
    for t in range(1, 5):
        capture(watched[0])
        watched[1](t)
    last = digests(capture(watched[0]))
    alone = build(_extras, 1)
    for t in range(1, 5):
        alone[1](t)
    assert digests(capture(alone[0])) == last


class Hostile(Counter):
    """Draws whenever it is asked for its state."""

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": (random.random(), float(np.random.rand()), torch.rand(2))}


@pytest.mark.parametrize("place", ["extras", "scheduler", "scaler"])
def test_a_state_dict_that_draws_is_harmless(place: str) -> None:
    model = small_net()
    hostile: Any = Hostile()
    held: Any = {place: {"hostile": hostile} if place == "extras" else hostile}
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1), **held)
    before = capture_streams()
    first = digests(capture(objects))
    assert capture_streams().same_as(before)
    assert digests(capture(objects)) == first
    assert digests(capture(objects, capture_streams())) == first
    assert capture_streams().same_as(before)


def test_an_extra_state_that_draws_is_harmless() -> None:
    class Drawing(nn.Linear):
        def get_extra_state(self) -> Tensor:
            return torch.rand(1)

        def set_extra_state(self, state: Tensor) -> None: ...

    model = nn.Sequential(Drawing(2, 2))
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    before = capture_streams()
    capture(objects)
    assert capture_streams().same_as(before)


def test_a_load_state_dict_that_draws_is_harmless() -> None:
    class Drawing(Counter):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            super().load_state_dict(state)
            torch.rand(3)

    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    objects = TrainingObjects(model, optimizer, extras={"x": Drawing()})
    snapshot = frozen(capture(objects))
    restore(objects, snapshot)
    assert digests(capture(objects)) == digests(snapshot)


def test_reader_sees_what_changes_between_steps() -> None:
    model: Any = batchnorm_net()
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    reader = StateReader(objects)

    def changes(action: Callable[[], object]) -> None:
        before = digests(reader.read())
        assert digests(reader.read()) == before == digests(capture(objects))
        action()
        after = digests(reader.read())
        assert after == digests(capture(objects))
        assert after != before

    group = objects.optimizer.param_groups[0]
    changes(lambda: group.update(lr=0.2))
    changes(lambda: group.update(lr=np.float64(0.2)))
    changes(lambda: group.update(lr=torch.tensor(0.2)))
    changes(lambda: group["lr"].fill_(0.3))
    changes(lambda: group.update(lr=1))
    changes(lambda: group.update(lr=True))
    changes(lambda: group.update(weight_decay=0.0))
    changes(lambda: group.update(weight_decay=-0.0))
    changes(model[1].eval)
    changes(lambda: model[0].weight.requires_grad_(False))
    changes(lambda: model.add_module("new", nn.Linear(1, 1)))
    changes(lambda: model.new.register_buffer("b", torch.ones(1)))
    changes(lambda: model.new.register_parameter("p", nn.Parameter(torch.ones(1))))
    changes(lambda: delattr(model.new, "p"))
    changes(lambda: setattr(model, "new", nn.Linear(1, 1)))
    changes(lambda: model.new.add_module("inner", nn.Dropout()))
    changes(lambda: model.add_module("again", model.new))
    changes(lambda: nn.utils.parametrizations.weight_norm(model.new))
    changes(lambda: delattr(model, "again"))
    changes(lambda: delattr(model, "new"))
    changes(lambda: setattr(model[1], "running_mean", torch.ones(6)))
    changes(lambda: setattr(model[0].weight, "data", torch.zeros(6, 4)))
    model[0].weight = nn.Parameter(torch.zeros(6, 4))
    with pytest.raises(UncapturedState, match="neither the model"):
        reader.read()


def _other_model(objects: TrainingObjects) -> TrainingObjects:
    model = nn.Sequential(nn.Linear(4, 7), nn.Linear(7, 3))
    return TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))


def _other_optimizer(objects: TrainingObjects) -> TrainingObjects:
    parameters = list(objects.model.parameters())
    groups = [{"params": parameters[:1]}, {"params": parameters[1:]}]
    return TrainingObjects(objects.model, torch.optim.SGD(groups, lr=0.1))


def _swapped(objects: TrainingObjects) -> TrainingObjects:
    """Two parameters of one shape in another order: matched by position, they would load."""
    parameters = list(objects.model.parameters())[::-1]
    return TrainingObjects(objects.model, torch.optim.SGD(parameters, lr=0.1))


def _with_more(objects: TrainingObjects) -> TrainingObjects:
    return TrainingObjects(objects.model, objects.optimizer, extras={"new": Counter()})


@pytest.mark.parametrize(
    ("other", "component"),
    [
        (_other_model, "params"),
        (_other_optimizer, "param_groups"),
        (_swapped, "param_groups"),
        (_with_more, "extras/new"),
    ],
)
def test_another_program_is_refused(
    other: Callable[[TrainingObjects], TrainingObjects], component: str
) -> None:
    original = build(lambda: _optimizer("momentum"), 1)
    follow(original, 1, 2)
    snapshot = frozen(capture(original[0]))
    with pytest.raises(RestoreMismatch) as error:
        restore(other(build(lambda: _optimizer("momentum"), 2)[0]), snapshot)
    assert error.value.component == component


def test_a_component_that_the_program_lacks_is_refused() -> None:
    original = build(_averaged, 1)
    snapshot = frozen(capture(original[0]))
    lacking = TrainingObjects(original[0].model, original[0].optimizer)
    with pytest.raises(RestoreMismatch, match="no such component"):
        restore(lacking, snapshot)


@pytest.mark.parametrize(
    ("extra", "words"),
    [(object(), "no state_dict"), (random.SystemRandom(), "operating system")],
)
def test_extras_without_state_are_refused(extra: Any, words: str) -> None:
    model = small_net()
    with pytest.raises(UncapturedState, match=words):
        TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1), extras={"x": extra})


def test_a_parameter_that_nothing_holds_is_refused() -> None:
    model, scale = small_net(), nn.Parameter(torch.ones(1))
    objects = TrainingObjects(model, torch.optim.SGD([*model.parameters(), scale], lr=0.1))
    with pytest.raises(UncapturedState, match="neither the model nor an extra"):
        capture(objects)


def test_errors_of_the_users_own_objects_name_the_component() -> None:
    class Broken(Counter):
        def state_dict(self) -> dict[str, Any]:
            raise ValueError("no")

    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UncapturedState, match="extras/x: state_dict raised ValueError: no"):
        capture(TrainingObjects(model, optimizer, extras={"x": Broken()}))


def test_sparse_gradients_are_refused_by_name() -> None:
    model = nn.Embedding(3, 2, sparse=True)
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    model(torch.tensor([1])).sum().backward()
    with pytest.raises(UncapturedState, match="weight"):
        digests(capture(objects))


def test_a_deep_copy_of_the_model_has_the_same_digest() -> None:
    model = batchnorm_net()
    copied = copy.deepcopy(model)
    first, second = (
        digests(capture(TrainingObjects(m, torch.optim.SGD(m.parameters(), lr=0.1))))
        for m in (model, copied)
    )
    assert first == second


def test_a_stream_that_moves_is_seen_where_all_else_stands() -> None:
    model = nn.Linear(2, 2)
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    reader = StateReader(objects)
    for _ in range(4):
        torch.rand(1)
        found, expected = reader.read(), capture(objects)
        assert list(found) == list(expected)
        for name in ("rng/torch", "rng/numpy", "rng/python"):
            assert found[name] == expected[name]
    assert reader._stands
