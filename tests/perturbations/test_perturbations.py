"""Every perturbation changes what it declares, and nothing else, and the same way each time."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from record_examples import MANIFEST
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
from torch.optim.swa_utils import AveragedModel

from auditkit.errors import NothingToPerturb, UnknownPerturbation
from auditkit.observe.rng.streams import capture_streams
from auditkit.observe.state.components import TrainingObjects, as_built, capture
from auditkit.perturbations import registry
from auditkit.perturbations.base import Material, Perturbation
from auditkit.perturbations.registry import perturbation_of
from auditkit.perturbations.ulp import nudge
from auditkit.records.declaration import DECLARATIONS, PLUGINS, Declaration, matches
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.records.plug_in import PlugIn
from auditkit.study.plug_ins import plug_ins_of
from auditkit.verification.own_perturbations import plug_in_notes


def _sgd(**options: Any) -> Callable[[], ObjectsAndStep]:
    def make() -> ObjectsAndStep:
        model = batchnorm_net()
        return supervised(model, torch.optim.SGD(model.parameters(), lr=0.1, **options))

    return make


def _adam() -> ObjectsAndStep:
    model = batchnorm_net()
    return supervised(model, torch.optim.AdamW(model.parameters(), lr=0.01, amsgrad=True))


def _other(kind: str) -> Callable[[], ObjectsAndStep]:
    def make() -> ObjectsAndStep:
        model = batchnorm_net()
        optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.01)
        objects, step = supervised(model, optimizer)
        return as_built(objects), step

    return make


def _remembering() -> ObjectsAndStep:
    """An average, a queue with a teacher in the model, and a schedule."""
    model = nn.ModuleDict({"student": batchnorm_net(), "teacher": batchnorm_net()})
    model.register_buffer("queue", torch.randn(5, 3))
    model.register_buffer("queue_pointer", torch.zeros((), dtype=torch.long))
    average = AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    groups = {"teacher": ("teacher.*",), "queue": ("queue*",)}

    def step(t: int) -> None:
        optimizer.zero_grad()
        model["student"](torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        average.update_parameters(model)
        scheduler.step()
        queue: Any = model.queue
        queue[model.queue_pointer] = torch.randn(3)
        model.queue_pointer.add_(1).remainder_(5)  # type: ignore[operator]

    return as_built(
        TrainingObjects(model, optimizer, scheduler, averaged={"ema": average}, groups=groups)
    ), step


def apply(name: str, objects: TrainingObjects, seed: int = 5, /, **parameters: Any) -> Any:
    perturbation = perturbation_of(name)
    spec = perturbation.declaration.resolve(PerturbationSpec(name, parameters))

    def recalibrate() -> None:
        for layer in objects.model.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer(torch.ones(3, 6))

    material = Material(recalibrate=recalibrate)
    perturbation.apply_with(objects, spec.parameters, seed, material)
    return spec


CASES: list[tuple[str, dict[str, Any], Callable[[], ObjectsAndStep]]] = [
    ("carry", {}, _adam),
    ("order-reverse", {}, _adam),
    ("order-shuffle", {"draw": 1}, _adam),
    ("order-swap", {}, _adam),
    ("order-swap", {"unit": "batch"}, _adam),
    ("order-with-replacement", {}, _adam),
    ("order-curriculum", {}, _adam),
    ("label-noise", {}, _adam),
    ("augmentation-off", {}, _adam),
    ("stage-shift", {}, _adam),
    ("data-change", {"name": "blur"}, _adam),
    ("ulp", {}, _adam),
    ("ulp", {"scale": 64, "draw": 3}, _sgd()),
    ("momentum-reset", {}, _sgd(momentum=0.9)),
    ("optimizer-reset", {}, _sgd(momentum=0.9)),
    ("optimizer-reset", {}, _adam),
    ("batchnorm-reset", {}, _sgd()),
    ("batchnorm-recalibrate", {}, _sgd()),
    *(
        (name, {}, _remembering)
        for name in (
            *("average-reset", "average-restart", "teacher-reset", "scheduler-reset"),
            *("queue-clear", "queue-shuffle", "queue-stale", "rng-reseed"),
        )
    ),
    ("teacher-reset", {"name": "ema"}, _remembering),
    ("average-reset", {"name": "ema"}, _remembering),
    ("queue-shuffle", {"draw": 3, "dim": 1}, _remembering),
    ("momentum-scale", {}, _sgd(momentum=0.9)),
    ("momentum-scale", {"factor": 0}, _adam),
    ("second-moment-scale", {"factor": "0.25"}, _adam),
    ("momentum-reset", {"params": "0.*"}, _sgd(momentum=0.9)),
    ("adam-reset", {"params": "*.weight"}, _adam),
    ("optimizer-reset", {"params": "3.bias"}, _adam),
    *(
        ("second-moment-reset", {"step": step}, _other(kind))
        for kind in ("RMSprop", "Adagrad", "Adadelta", "Adafactor", "Adamax", "ASGD")
        for step in ("keep", "reset")
    ),
    ("adam-reset", {}, _other("NAdam")),
    ("optimizer-reset", {}, _other("Adagrad")),
    *(
        ("adam-reset", {"moments": moments, "step": step}, _adam)
        for moments in ("m", "v", "mv")
        for step in ("keep", "reset")
    ),
]


def test_every_own_perturbation_has_a_case() -> None:
    assert {name for name, _, _ in CASES} == {kind.declaration.name for kind in registry._OWN}
    for kind in registry._OWN:
        assert DECLARATIONS[kind.declaration.name] is kind.declaration


@pytest.mark.parametrize(("name", "parameters", "make"), CASES)
def test_exactly_the_declared_components_change(
    name: str, parameters: dict[str, Any], make: Callable[[], ObjectsAndStep]
) -> None:
    results = []
    for _ in range(2):
        made = build(make, seed=1)
        follow(made, 1, 4)
        before, streams = digests(capture(made[0])), capture_streams()
        spec = apply(name, made[0], **parameters)
        after = digests(capture(made[0]))
        assert capture_streams().same_as(streams) == (name != "rng-reseed")
        declaration = perturbation_of(name).declaration
        patterns, allowed = declaration.touches(spec), declaration.may_touch(spec)
        changed = {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)}
        assert all(matches(component, allowed) for component in changed)
        assert bool(changed) == (declaration.kind == "state")
        for pattern in patterns:
            assert any(matches(component, (pattern,)) for component in changed), pattern
        results.append((after, follow(made, 5, 3)))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("momentum-reset", _sgd()),
        ("momentum-reset", _adam),
        ("adam-reset", _sgd(momentum=0.9)),
        ("optimizer-reset", _sgd()),
        ("batchnorm-reset", lambda: supervised(m := small_net(), torch.optim.SGD(m.parameters()))),
    ],
)
def test_nothing_to_perturb_is_said(name: str, make: Callable[[], ObjectsAndStep]) -> None:
    made = build(make, seed=1)
    follow(made, 1, 3)
    with pytest.raises(NothingToPerturb):
        apply(name, made[0])


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("momentum-reset", _sgd(momentum=0.9)),
        ("adam-reset", _adam),
        ("optimizer-reset", _adam),
        ("batchnorm-reset", _sgd()),
    ],
)
def test_what_is_reset_already_cannot_be_reset(
    name: str, make: Callable[[], ObjectsAndStep]
) -> None:
    made = build(make, seed=1)
    follow(made, 1, 3)
    apply(name, made[0])
    with pytest.raises(NothingToPerturb):
        apply(name, made[0])


def test_frozen_models_have_nothing_to_nudge() -> None:
    made = build(_adam, seed=1)
    made[0].model.requires_grad_(False)
    with pytest.raises(NothingToPerturb, match="trainable"):
        apply("ulp", made[0])
    made[0].model.requires_grad_(True)
    with torch.no_grad():
        for parameter in made[0].model.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(NothingToPerturb, match="finite"):
        apply("ulp", made[0])


def test_a_reset_optimizer_is_a_fresh_one() -> None:
    made = build(_adam, seed=1)
    follow(made, 1, 4)
    apply("optimizer-reset", made[0])
    fresh = torch.optim.AdamW(made[0].model.parameters(), lr=0.01, amsgrad=True)
    fresh_objects = TrainingObjects(made[0].model, fresh)
    assert digests(capture(fresh_objects)) == digests(capture(made[0]))


STOCK = ("Adagrad", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Rprop", "ASGD", "Adafactor")


@pytest.mark.parametrize("kind", STOCK)
def test_a_reset_optimizer_goes_on_as_a_newly_built_one(kind: str) -> None:
    made = build(_other(kind), seed=1)
    objects, step = made
    follow(made, 1, 4)
    apply("optimizer-reset", objects)
    weights = [parameter.detach().clone() for parameter in objects.model.parameters()]
    torch.manual_seed(7)
    step(5)
    found = [parameter.detach().clone() for parameter in objects.model.parameters()]

    other = build(_other(kind), seed=1)
    with torch.no_grad():
        for parameter, value in zip(other[0].model.parameters(), weights, strict=True):
            parameter.copy_(value)
    torch.manual_seed(7)
    other[1](5)
    for value, parameter in zip(found, other[0].model.parameters(), strict=True):
        assert torch.equal(value, parameter)


class Counting(torch.optim.Optimizer):
    """Counts in its groups, in an attribute and in an object, and changes its own rate."""

    def __init__(self, params: Any, lr: float = 0.1, decay: float = 0.5) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "calls": 0})
        self.total, self.inner = 0, torch.optim.SGD(self.param_groups, lr=lr, momentum=0.9)
        self.inner.param_groups = self.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.total += 1
        for group in self.param_groups:
            group["calls"] += 1
            group["seen"] = group.get("seen", 0) + 1
            group["lr"] *= 0.9
        self.inner.step()


def _counting() -> ObjectsAndStep:
    model = batchnorm_net()
    optimizer = Counting(model.parameters())

    def step(t: int) -> None:
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()

    return as_built(TrainingObjects(model, optimizer)), step


def test_optimizer_reset_covers_groups_attributes_and_what_is_held() -> None:
    made = build(_counting, seed=1)
    optimizer: Any = made[0].optimizer
    for t in range(3):
        made[1](t)
    lr = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["decay"] = 0.7  # what the constructor was given is the loop's
    before = digests(capture(made[0]))
    apply("optimizer-reset", made[0])
    after = digests(capture(made[0]))
    group = optimizer.param_groups[0]
    assert (group["calls"], optimizer.total, "seen" in group) == (0, 0, False)
    assert (group["lr"], group["decay"]) == (lr, 0.7)
    assert not any(optimizer.inner.state.values())
    changed = {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)}
    assert changed == {"param_groups", "optimizer/inner/momentum_buffer"}
    with pytest.raises(NothingToPerturb):
        apply("optimizer-reset", made[0])


def test_version_1_leaves_what_it_left() -> None:
    made = build(_other("NAdam"), seed=1)
    follow(made, 1, 3)
    spec = PerturbationSpec("adam-reset", {"moments": "mv", "step": "reset"})
    perturbation_of("adam-reset", 1).apply(made[0], spec.parameters, 5)
    states = list(made[0].optimizer.state.values())
    assert all(state["exp_avg"].count_nonzero() == 0 for state in states)
    assert all(float(state["mu_product"]) != 1 for state in states)
    made = build(_other("NAdam"), seed=1)
    follow(made, 1, 3)
    apply("adam-reset", made[0])
    assert all(float(s["mu_product"]) == 1 for s in made[0].optimizer.state.values())
    with pytest.raises(UnknownPerturbation, match="no version 7"):
        perturbation_of("adam-reset", 7)


class _Accumulating(torch.optim.Adam):
    """Adam with an accumulator of its own, which the constructor makes or the first step."""

    def __init__(self, parameters: Any, *, at_once: bool) -> None:
        super().__init__(parameters, lr=0.01)
        if at_once:
            for parameter in self.param_groups[0]["params"]:
                slots = {slot: torch.zeros_like(parameter) for slot in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": torch.zeros(()), **slots}
            self._accumulate()

    def _accumulate(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["mine"] = state.get("mine", torch.zeros_like(parameter)) + 1

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        self._accumulate()


@pytest.mark.parametrize("at_once", [False, True])
def test_adam_reset_clears_what_it_does_not_know_or_says_what_fits(at_once: bool) -> None:
    def make() -> ObjectsAndStep:
        model = batchnorm_net()
        objects, step = supervised(model, _Accumulating(model.parameters(), at_once=at_once))
        return as_built(objects), step

    made = build(make, seed=1)
    follow(made, 1, 3)
    if not at_once:
        apply("adam-reset", made[0])
        assert not any(made[0].optimizer.state.values())
        return
    with pytest.raises(NothingToPerturb, match="is built with mine") as error:
        apply("adam-reset", made[0])
    assert error.value.component == "optimizer/mine"
    assert error.value.hint == "optimizer-reset fits"
    apply("optimizer-reset", made[0])


def test_amsgrad_is_reset_with_its_second_moment() -> None:
    made = build(_adam, seed=1)
    follow(made, 1, 3)
    apply("adam-reset", made[0], moments="m", step="keep")
    states = list(made[0].optimizer.state.values())
    assert all(state["max_exp_avg_sq"].count_nonzero() for state in states)
    apply("adam-reset", made[0], moments="v", step="keep")
    assert not any(state["max_exp_avg_sq"].count_nonzero() for state in states)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("momentum-reset", "Adam", "adam-reset or optimizer-reset fits"),
        ("momentum-reset", "RMSprop", "second-moment-reset or optimizer-reset fits"),
        ("adam-reset", "Adamax", "second-moment-reset or optimizer-reset fits"),
        ("adam-reset", "Rprop", "prev, step, step_size: optimizer-reset fits"),
        (
            "second-moment-reset",
            "Adam",
            "no running squares of RMSprop's.* adam-reset:moments=v or optimizer-reset fits",
        ),
    ],
)
def test_a_refusal_names_what_fits(name: str, kind: str, words: str) -> None:
    made = build(_other(kind), seed=1)
    follow(made, 1, 3)
    with pytest.raises(NothingToPerturb, match=words):
        apply(name, made[0])


# -- by hand: one weight, gradients of 1, lr 0.1 ----------------------------------------------


def _one_weight(kind: Callable[..., torch.optim.Optimizer], **options: Any) -> TrainingObjects:
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
    return TrainingObjects(model, kind(model.parameters(), **options))


def _step(objects: TrainingObjects, gradient: float = 1.0) -> float:
    (weight,) = objects.model.parameters()
    before = float(weight.detach())
    weight.grad = torch.full_like(weight, gradient)
    objects.optimizer.step()
    return float(weight.detach()) - before


@pytest.mark.parametrize("moments", ["m", "v", "mv"])
@pytest.mark.parametrize("step", ["keep", "reset"])
def test_adam_by_hand(moments: str, step: str) -> None:
    objects = _one_weight(torch.optim.Adam, lr=0.1, betas=(0.9, 0.99), eps=0.0)
    m = v = 0.0
    for gradient in (1.0, 2.0, 3.0):
        _step(objects, gradient)
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient**2
    apply("adam-reset", objects, moments=moments, step=step)
    m, v = 0.0 if "m" in moments else m, 0.0 if "v" in moments else v
    t = 1 if step == "reset" else 4
    m, v = 0.9 * m + 0.1, 0.99 * v + 0.01
    expected = -0.1 * (m / (1 - 0.9**t)) / math.sqrt(v / (1 - 0.99**t))
    assert _step(objects) == pytest.approx(expected, rel=1e-9)


def test_zeroed_and_absent_momentum_differ_where_there_is_dampening() -> None:
    moves = {}
    for name in ("momentum-reset", "optimizer-reset"):
        objects = _one_weight(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.9)
        for _ in range(3):
            _step(objects)
        apply(name, objects)
        moves[name] = _step(objects)
    assert moves["momentum-reset"] == pytest.approx(-0.1 * 0.1)  # 0.9 * 0 + (1 - 0.9) * 1
    assert moves["optimizer-reset"] == pytest.approx(-0.1)  # the first step takes it whole


def test_batchnorm_is_as_newly_built() -> None:
    made = build(_sgd(), seed=1)
    follow(made, 1, 4)
    apply("batchnorm-reset", made[0])
    layer: Any = made[0].model[1]  # type: ignore[index]
    assert layer.running_mean.tolist() == [0] * 6
    assert layer.running_var.tolist() == [1] * 6
    assert layer.num_batches_tracked.item() == 0


# -- units in the last place -------------------------------------------------------------------

DTYPES = {torch.float32: "i", torch.float64: "q", torch.float16: "h", torch.bfloat16: "h"}
_VIEWS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _ordered(values: Tensor) -> list[int]:
    """Position of each value among all values of its dtype."""
    bits = values.view(_VIEWS[values.element_size()]).to(torch.int64).tolist()
    width = 8 * values.element_size() - 1
    return [bit if bit >= 0 else -(bit + 2**width) for bit in bits]


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_nudge_moves_by_so_many_representable_values(dtype: torch.dtype, data: Any) -> None:
    size = torch.empty((), dtype=dtype).element_size()
    words = st.integers(-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1)
    bits = data.draw(st.lists(words, min_size=1, max_size=20))
    values = torch.tensor(bits, dtype=_VIEWS[size]).view(dtype)
    moves = data.draw(
        st.lists(st.integers(-70_000, 70_000), min_size=len(bits), max_size=len(bits))
    )
    moved = nudge(values, torch.tensor(moves))
    limit = _ordered(torch.tensor([torch.finfo(dtype).max], dtype=dtype))[0]
    for old, new, move, was, now in zip(
        _ordered(values),
        _ordered(moved),
        moves,
        bits,
        moved.view(_VIEWS[size]).tolist(),
        strict=True,
    ):
        if move == 0 or abs(old) > limit or abs(old + move) > limit:
            assert now == was, "not a bit may move"
        else:
            assert new == old + move


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    tiny = info.smallest_normal * info.eps  # the smallest denormal
    values = torch.tensor(
        [0.0, -0.0, -0.0, tiny, -tiny, info.max, -info.max, math.inf, -math.inf, math.nan, 1.0],
        dtype=dtype,
    )
    moves = torch.tensor([1, -1, 0, -1, 1, 1, -1, -1, 1, 1, 1])
    found = nudge(values, moves)
    expected = torch.tensor(
        [tiny, -tiny, -0.0, 0, 0, info.max, -info.max, math.inf, -math.inf, math.nan, 1 + info.eps],
        dtype=dtype,
    )
    assert torch.equal(found.nan_to_num(nan=7), expected.nan_to_num(nan=7))
    assert torch.equal(found.signbit()[2:3], torch.tensor([True]))


def test_far_moves_stay_finite_or_do_nothing() -> None:
    for dtype in DTYPES:
        values = torch.tensor([1.0, -1.0, torch.finfo(dtype).max], dtype=dtype)
        for far in (2**31, 2**51, 2**62, -(2**62)):
            assert torch.isfinite(nudge(values, torch.tensor([far, -far, far]))).all()


def test_complex_and_strided_weights() -> None:
    values = torch.randn(3, 4, dtype=torch.complex64)
    moved = nudge(values.mT, torch.ones(4, 3, dtype=torch.int64))
    assert moved.shape == (4, 3)
    assert not torch.equal(moved, values.mT)
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = nn.Conv2d(3, 4, 3)
    plain.load_state_dict(model.state_dict())
    for module in (model, plain):
        apply("ulp", TrainingObjects(module, torch.optim.SGD(module.parameters())))
    assert torch.equal(model.weight, plain.weight)
    assert model.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_placebo_moves_trainable_weights_only_and_by_its_scale() -> None:
    for scale in (1, 8):
        made = build(_adam, seed=1)
        model = made[0].model
        model[0].weight.requires_grad_(False)  # type: ignore[index]
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        apply("ulp", made[0], scale=scale)
        moves = set()
        for name, parameter in model.named_parameters():
            pairs = zip(
                _ordered(before[name].reshape(-1)),
                _ordered(parameter.detach().reshape(-1)),
                strict=True,
            )
            found = {new - old for old, new in pairs}
            assert name != "0.weight" or found == {0}
            moves |= found
        assert moves == {-scale, 0, scale}


def test_draws_and_seeds_give_other_placebos() -> None:
    found = []
    for seed, draw in ((1, 0), (1, 1), (2, 0), (1, 0)):
        made = build(_adam, seed=1)
        apply("ulp", made[0], seed, draw=draw)
        found.append(digests(capture(made[0]))["params"])
    assert len(set(found)) == 3
    assert found[0] == found[3]


def test_a_single_weight_moves_at_every_draw() -> None:
    for draw in range(12):
        objects = _one_weight(torch.optim.SGD)
        apply("ulp", objects, draw=draw)
        assert next(objects.model.parameters()).item() != 0


def test_golden_placebo() -> None:
    # Pinned: another digest would mean that recorded placebos no longer replay.
    objects = _one_weight(torch.optim.SGD)
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters()))
    apply("ulp", objects, 7, draw=2)
    assert [new - 0x3F800000 for new in _ordered(model.weight.detach().reshape(-1))] == GOLDEN


GOLDEN = [0, -1, 1, 1, 1, 1, 0, 0]


# -- plug-ins ----------------------------------------------------------------------------------


class ZeroBias(Perturbation):
    """The one of the documentation."""

    declaration = Declaration(
        "zero-bias", 1, "state", "every bias := 0", "a test", touched=lambda _: ("params",)
    )

    def apply(self, objects: TrainingObjects, parameters: Mapping[str, Any], seed: int) -> None:
        for name, parameter in objects.model.named_parameters():
            if name.endswith("bias"):
                parameter.data.zero_()


class _Entry:
    def __init__(self, kind: Any) -> None:
        self.name, self._kind = "plug-in", kind

    def load(self) -> Any:
        if isinstance(self._kind, Exception):
            raise self._kind
        return self._kind


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Any:
    def plug(kind: Any) -> None:
        registry.registry.cache_clear()
        entries = lambda group: [_Entry(kind)] if group == PLUGINS else []  # noqa: E731
        monkeypatch.setattr("importlib.metadata.entry_points", entries)

    yield plug
    monkeypatch.undo()
    registry.registry.cache_clear()


def test_that_there_is_no_plug_in_is_looked_up_once(
    monkeypatch: pytest.MonkeyPatch, plugged: Callable[[Any], None]
) -> None:
    plugged(ValueError("loaded"))
    registry.look_up_plug_ins()  # loads none: that is for the process that needs it
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    registry.look_up_plug_ins()
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [_Entry(ZeroBias)])
    assert "zero-bias" not in registry.registry()


def test_a_plug_in_is_found_and_applied(plugged: Callable[[Any], None]) -> None:
    plugged(ZeroBias)
    made = build(_adam, seed=1)
    before = digests(capture(made[0]))
    apply("zero-bias", made[0])
    after = digests(capture(made[0]))
    assert {name for name in before if before[name] != after[name]} == {"params"}


def test_where_a_plug_in_comes_from_is_recorded(plugged: Callable[[Any], None]) -> None:
    plugged(ZeroBias)
    plan = StudyPlan(1, 1, 3, [0], ["carry+zero-bias", "momentum-reset"])
    (found,) = plug_ins_of(plan)
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    assert found == PlugIn("zero-bias", "", "", __name__, source)
    assert plug_ins_of(plan.changed(perturbations=["carry"])) == ()


def test_another_plug_in_is_told_from_the_one_that_was_recorded() -> None:
    recorded = PlugIn("zero-bias", "resets", "1.2", "resets.bias", "a" * 64)
    manifest = replace(MANIFEST, plug_ins=(recorded,))
    assert list(plug_in_notes(manifest, {"zero-bias": recorded})) == []
    (text,) = plug_in_notes(manifest, {})
    assert text == "the plug-in zero-bias of resets is not installed here"
    (text,) = plug_in_notes(manifest, {"zero-bias": replace(recorded, sha256="b" * 64)})
    assert text.endswith("was of resets 1.2, resets.bias; here it is another source of resets.bias")
    (text,) = plug_in_notes(manifest, {"zero-bias": replace(recorded, version="1.3")})
    assert text.endswith("here it is resets 1.3, resets.bias")


class _Thief(ZeroBias):
    declaration = DECLARATIONS["momentum-reset"]


class _Mover(ZeroBias):
    declaration = Declaration("mine", 1, "order", "another order", "nowhere")


class _Changer(ZeroBias):
    declaration = Declaration("mine", 1, "data", "other bytes", "nowhere")


class _Undeclared(Perturbation):
    def apply(self, objects: TrainingObjects, parameters: Mapping[str, Any], seed: int) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (_Thief, "takes the name 'momentum-reset' again"),
        (_Mover, "is of kind order, which only auditkit's own may be"),
        (_Changer, "is of kind data; kind data, and no other, is a subclass of DataPerturb"),
        (_Undeclared, "cannot be loaded"),
        (int, "no Perturbation"),
        (3, "no Perturbation"),
        (ImportError("gone"), "plug-in plug-in cannot be loaded: ImportError: gone"),
    ],
)
def test_bad_plug_ins_are_refused(plugged: Callable[[Any], None], kind: Any, words: str) -> None:
    plugged(kind)
    with pytest.raises(UnknownPerturbation, match=words):
        perturbation_of("carry")


def test_unknown_names_are_refused_with_what_there_is() -> None:
    with pytest.raises(UnknownPerturbation, match="momentum-reset"):
        perturbation_of("momentum-rest")


def test_perturbing_restored_state_leaves_the_snapshot_alone() -> None:
    made = build(_adam, seed=1)
    follow(made, 1, 3)
    snapshot = frozen(capture(made[0]))
    first = digests(snapshot)
    for name in ("ulp", "adam-reset", "batchnorm-reset"):
        apply(name, made[0])
    assert digests(snapshot) == first


def test_bits_are_bits() -> None:
    assert _ordered(torch.tensor([0.0, -0.0, 1.0])) == [
        0,
        0,
        struct.unpack("i", struct.pack("f", 1))[0],
    ]
