from __future__ import annotations

import enum
from typing import Any, cast

import numpy as np
import pytest
import torch
from tiny_programs import digests, frozen
from torch import nn

from auditkit.errors import FormatError, RestoreMismatch, UncapturedState
from auditkit.observe.state.families import OptimizerFamily
from auditkit.observe.state.groups import GroupsState, parameter_names, restore_groups
from auditkit.observe.state.optimizers import SlotsState, restore_slots, slots
from auditkit.observe.values.codec import flatten, unflatten


def made(n_steps: int = 2, **options: Any) -> tuple[nn.Linear, torch.optim.Optimizer]:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})
    for _ in range(n_steps):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    return model, optimizer


def names_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[int, str]:
    return parameter_names(optimizer, dict(model.named_parameters()))


def test_slots_are_components_by_parameter() -> None:
    model, optimizer = made()
    found = slots(optimizer, names_of(model, optimizer))
    assert set(found) == {"optimizer/momentum_buffer"}
    assert set(found["optimizer/momentum_buffer"]) == {"weight", "bias"}


def test_slots_asked_for_at_every_step_are_those_of_the_moment() -> None:
    model, optimizer = made()
    state, names = SlotsState(optimizer), names_of(model, optimizer)
    first = state.slots(names)
    optimizer.step()
    assert state.slots(names) is first
    weight = model.weight

    def put(slot: str, value: Any) -> Any:
        return lambda: optimizer.state[weight].update({slot: value})

    changes: list[Any] = [
        put("momentum_buffer", torch.zeros(2, 2)),
        put("count", 1),
        put("count", True),
        put("history", [torch.zeros(1)]),
        lambda: optimizer.state[weight]["history"].append(torch.ones(1)),
        lambda: optimizer.state[weight].pop("history"),
        lambda: optimizer.state[weight].pop("count"),
        lambda: optimizer.state.pop(weight),
        lambda: cast(Any, optimizer.state).update({"shared": 3}),
    ]
    for change in changes:
        change()
        found, expected = state.slots(names), slots(optimizer, names)
        assert digests(found) == digests(expected)
    assert "optimizer/~shared" in state.slots(names)


def test_slots_of_frozen_parameters_are_absent() -> None:
    model, optimizer = made(0)
    model.bias.requires_grad_(False)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    found = slots(optimizer, names_of(model, optimizer))
    assert set(found["optimizer/momentum_buffer"]) == {"weight"}


def test_state_under_a_name_comes_back() -> None:
    model, optimizer = made()
    names, state = names_of(model, optimizer), cast(dict[Any, Any], optimizer.state)
    state["shared"], state[3] = {"x": torch.ones(2)}, 1
    saved = frozen(slots(optimizer, names))
    assert set(saved) == {"optimizer/momentum_buffer", "optimizer/~shared"}
    state["shared"]["x"].zero_()
    state[3] = 2
    restore_slots(optimizer, names, saved)
    assert digests(slots(optimizer, names)) == digests(saved)
    assert (state["shared"]["x"].tolist(), state[3]) == ([1, 1], 1)


def test_state_under_a_name_that_is_keyed_by_parameters_comes_back_to_another_model() -> None:
    model, optimizer = made()
    state = cast(dict[Any, Any], optimizer.state)
    state["trac"] = {"~s": 1, "step": 2, model.weight: torch.ones(2), model.bias: None}
    saved = frozen(slots(optimizer, names_of(model, optimizer)))
    other, fresh = made(0)
    restore_slots(fresh, names_of(other, fresh), saved)
    found = cast(dict[Any, Any], fresh.state)["trac"]
    assert list(found) == ["~s", "step", other.weight, other.bias]
    assert found[other.weight].tolist() == [1, 1]
    assert digests(slots(fresh, names_of(other, fresh))) == digests(saved)
    less = torch.optim.SGD([other.weight], lr=0.1)
    with pytest.raises(RestoreMismatch, match="no parameter 'bias'"):
        restore_slots(less, names_of(other, less), {k: saved[k] for k in ("optimizer/~shared",)})
    state["trac"] = {nn.Parameter(torch.ones(1)): 1}
    with pytest.raises(UncapturedState):
        slots(optimizer, names_of(model, optimizer))


@pytest.mark.parametrize(
    ("key", "words"), [("address", "by the address of the parameter weight"), ((1,), "a tuple")]
)
def test_state_under_a_key_that_no_other_process_has_is_refused(key: Any, words: str) -> None:
    model, optimizer = made(0)
    state: dict[Any, Any] = optimizer.state
    state[id(model.weight) if key == "address" else key] = {"x": 1}
    with pytest.raises(UncapturedState, match=words):
        slots(optimizer, names_of(model, optimizer))


@pytest.mark.parametrize("slot", [0, "0", "~0", "a/b", "~s1", "-1", "~shared"])
def test_slots_keep_their_names(slot: Any) -> None:
    model, optimizer = made()
    names = names_of(model, optimizer)
    optimizer.state[model.weight][slot] = 5
    restore_slots(optimizer, names, frozen(slots(optimizer, names)))
    assert optimizer.state[model.weight][slot] == 5


def test_numbers_keep_the_order_of_the_state() -> None:
    model, optimizer = made(0)
    names = names_of(model, optimizer)
    for parameter in (model.weight, model.bias):  # by name it is the other way round
        optimizer.state[parameter] = {"calls": 1, "average": torch.ones(2)}
    saved = frozen(slots(optimizer, names))
    restore_slots(optimizer, names, saved)
    assert list(optimizer.state) == [model.weight, model.bias]
    assert digests(slots(optimizer, names)) == digests(saved)
    # State that came to be in another order than that of the groups has that, too.
    optimizer.state[model.weight] = optimizer.state.pop(model.weight)
    other = frozen(slots(optimizer, names))
    assert digests(other) != digests(saved)
    restore_slots(optimizer, names, other)
    assert list(optimizer.state) == [model.bias, model.weight]


def test_orders_that_contradict_are_refused() -> None:
    model, optimizer = made(0)
    names = names_of(model, optimizer)
    saved = {
        "optimizer/a": flatten({"weight": 1, "bias": 1}, where=""),
        "optimizer/b": flatten({"bias": 1, "weight": 1}, where=""),
    }
    with pytest.raises(RestoreMismatch, match="contradict"):
        restore_slots(optimizer, names, saved)


def test_a_tensor_that_parameters_share_is_shared_again() -> None:
    model, optimizer = made(0)
    names, shared = names_of(model, optimizer), torch.ones(3)
    for parameter in (model.weight, model.bias):
        optimizer.state[parameter] = {"qmap": shared}
    saved = frozen(slots(optimizer, names))
    restore_slots(optimizer, names, saved)
    assert digests(slots(optimizer, names)) == digests(saved)


class Scaled(torch.Tensor):
    """Codes and a scale, as 8-bit states are kept."""

    @staticmethod
    def __new__(cls, codes: torch.Tensor, scale: torch.Tensor, name: str) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)

    def __init__(self, codes: torch.Tensor, scale: torch.Tensor, name: str) -> None:
        self.codes, self.scale, self.kind = codes, scale, name

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["codes", "scale"], [self.kind]

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, context: Any, size: Any, stride: Any) -> Any:
        return cls(inner["codes"], inner["scale"], *context)

    @classmethod
    def __torch_dispatch__(cls, *call: Any, **named: Any) -> Any:
        raise NotImplementedError


def scaled() -> Any:
    return Scaled(torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8), torch.ones(1), "signed")


def test_a_tensor_subclass_is_its_inner_tensors() -> None:
    model, optimizer = made(0)
    names, value = names_of(model, optimizer), scaled()
    optimizer.state[model.weight] = {"exp_avg": value}
    optimizer.state[model.bias] = {"exp_avg": torch.ones(2)}  # small ones are kept as they are
    saved = frozen(slots(optimizer, names))
    value.codes.zero_()
    assert digests(slots(optimizer, names)) != digests(saved)
    restore_slots(optimizer, names, saved)
    assert digests(slots(optimizer, names)) == digests(saved)
    found: Any = optimizer.state[model.weight]["exp_avg"]
    assert type(found) is Scaled
    assert (found.codes.tolist(), found.kind) == ([[1, 2], [3, 4]], "signed")


def test_a_subclass_that_is_not_loaded_or_does_not_fit_is_refused() -> None:
    leaves = flatten({"w": scaled()}, where="")
    text = leaves[""]
    assert isinstance(text, bytes)
    with pytest.raises(FormatError, match="not loaded here"):
        unflatten({**leaves, "": text.replace(b"test_optimizers.Scaled", b"elsewhere.Scaled")})
    with pytest.raises(FormatError, match="no Scaled of these parts"):
        unflatten({**leaves, "": text.replace(b'"scale"', b'"scalf"', 1)})


class Mode(enum.Enum):
    FAST = 1


def test_classes_and_functions_in_groups_are_recorded_by_name() -> None:
    model, optimizer = made()
    names = names_of(model, optimizer)
    group = optimizer.param_groups[0]
    group.update(kind=nn.Linear, function=made, mode=Mode.FAST, names={"a", "b"})
    saved = frozen({"g": GroupsState(optimizer).groups(names)})["g"]
    group["names"], group["lr"] = {"c"}, 3
    restore_groups(optimizer, names, saved)
    assert (group["kind"], group["function"], group["mode"]) == (nn.Linear, made, Mode.FAST)
    assert (group["names"], group["lr"]) == ({"a", "b"}, 0.1)
    group["kind"] = nn.ReLU
    with pytest.raises(RestoreMismatch, match="kind is another"):
        restore_groups(optimizer, names, saved)


def test_a_further_group_is_named() -> None:
    model, optimizer = made()
    names = names_of(model, optimizer)
    other = torch.optim.SGD([model.weight], lr=0.1)
    other.add_param_group({"params": [model.bias]})
    saved = frozen({"g": GroupsState(other).groups(names_of(model, other))})["g"]
    with pytest.raises(
        RestoreMismatch, match=r"had 2 parameter groups .* has 1 .* holds bias.*rec"
    ):
        restore_groups(torch.optim.SGD([model.weight]), names, saved)


class Sharp(torch.optim.Optimizer):
    """Holds another optimizer, as SAM does."""

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, options)
        self.base = torch.optim.SGD(self.param_groups, **options)
        self.param_groups = self.base.param_groups
        self.others = [torch.optim.Adam([self.param_groups[0]["params"][0]])]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.base.step()
        self.others[0].step()


def test_optimizers_that_an_optimizer_holds_are_components() -> None:
    model = nn.Linear(2, 2)
    optimizer: Any = Sharp(model.parameters(), lr=0.1, momentum=0.9)
    family, trained = OptimizerFamily(optimizer), dict(model.named_parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    saved = frozen(family.state(trained))
    assert set(saved) == {
        *("param_groups", "optimizer/base/momentum_buffer", "param_groups/others[0]"),
        *(f"optimizer/others[0]/{slot}" for slot in ("exp_avg", "exp_avg_sq", "step")),
    }
    optimizer.step()
    optimizer.others[0].param_groups[0]["lr"] = 5
    assert digests(family.state(trained)) != digests(saved)
    family.restore(trained, saved)
    assert digests(family.state(trained)) == digests(saved)
    plain = OptimizerFamily(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(RestoreMismatch, match="holds no optimizer 'base'"):
        plain.restore(trained, {k: v for k, v in saved.items() if "others" not in k})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (0.0, -0.0),
        (1, 1.0),
        (1, True),
        ((0.9, 0.99), (0.9, 0.999)),
        ((0.9, 1), (0.9, 1.0)),
        ([0.9], (0.9,)),
        (None, 0),
        ("1", 1),
        (0.1, np.float64(0.1)),
        (torch.tensor(1.0), torch.tensor(2.0)),
        ({"a": 1}, {"a": 2}),
    ],
)
def test_hyper_parameters_that_differ_have_other_digests(old: object, new: object) -> None:
    model, optimizer = made()
    names, state = names_of(model, optimizer), GroupsState(optimizer)
    found = []
    for value in (old, new, old):
        optimizer.param_groups[0]["x"] = value
        found.append(digests({"groups": state.groups(names)}))
    assert found[0] != found[1]
    assert found[0] == found[2]


def test_a_tensor_that_is_changed_in_place_is_seen() -> None:
    model, optimizer = made(lr=torch.tensor(0.1))
    names, state = names_of(model, optimizer), GroupsState(optimizer)
    before = digests({"groups": state.groups(names)})
    optimizer.param_groups[0]["lr"].fill_(0.2)
    assert digests({"groups": state.groups(names)}) != before


def test_groups_come_back_whole() -> None:
    model, optimizer = made()
    names = names_of(model, optimizer)
    saved = frozen({"g": GroupsState(optimizer).groups(names)})["g"]
    optimizer.param_groups[0].update(lr=5, added=1)
    del optimizer.param_groups[0]["nesterov"]
    restore_groups(optimizer, names, saved)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.param_groups[0]["nesterov"] is False
    assert "added" not in optimizer.param_groups[0]


def test_groups_come_back_in_the_order_that_load_state_dict_gave_them() -> None:
    model, optimizer = made()
    optimizer.load_state_dict(optimizer.state_dict())
    state = GroupsState(optimizer)
    saved = frozen({"g": state.groups(names_of(model, optimizer))})["g"]
    other_model, other = made()
    other_names = names_of(other_model, other)
    restore_groups(other, other_names, saved)
    assert [*other.param_groups[0]] == [*optimizer.param_groups[0]]
    assert other.param_groups[0]["params"][0] is other_model.weight
    assert digests({"g": GroupsState(other).groups(other_names)}) == digests({"g": saved})


def test_defaults_that_are_in_no_group_are_asked_of_no_snapshot() -> None:
    """Those of an optimizer that wraps another and shares its groups."""
    model, optimizer = made()
    names = names_of(model, optimizer)
    saved = frozen({"g": GroupsState(optimizer).groups(names)})["g"]
    optimizer.defaults["alpha"] = 0.5
    restore_groups(optimizer, names, saved)
    optimizer.param_groups[0]["alpha"] = 0.5
    with pytest.raises(RestoreMismatch, match="it has no 'alpha'"):
        restore_groups(optimizer, names, saved)


def test_a_slot_of_an_unknown_parameter_is_refused() -> None:
    model, optimizer = made()
    with pytest.raises(RestoreMismatch, match="no parameter 'other'"):
        restore_slots(
            optimizer,
            names_of(model, optimizer),
            {"optimizer/momentum_buffer": {"other": torch.ones(1)}},
        )


def test_a_whole_optimizer_comes_back() -> None:
    model, optimizer = made()
    family, trained = OptimizerFamily(optimizer), dict(model.named_parameters())
    saved = frozen({"o": family.whole(trained)})["o"]
    expected = digests({"o": saved})
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 3
    assert digests({"o": family.whole(trained)}) != expected
    family.restore_whole(trained, saved)
    assert digests({"o": family.whole(trained)}) == expected


def test_tied_parameters_go_by_their_first_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    known = dict(model.named_parameters(remove_duplicate=False))
    optimizer = torch.optim.SGD(model.parameters())
    assert sorted(parameter_names(optimizer, known).values()) == ["0.bias", "0.weight", "1.bias"]
