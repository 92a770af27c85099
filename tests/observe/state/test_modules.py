from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_programs import batchnorm_net, digests, frozen
from torch import Tensor, nn

from auditkit.errors import RestoreMismatch, UncapturedState
from auditkit.observe.state.modules import (
    ModuleState,
    copy_tensors,
    has_batchnorm,
    parameters,
    restore_buffers,
    restore_flags,
    restore_gradients,
    restore_whole_module,
)
from auditkit.observe.values.codec import flatten
from auditkit.observe.values.digests import digest_leaves
from auditkit.records.digest import EVIDENCE_RECIPE


def whole(module: nn.Module) -> dict[str, Any]:
    return frozen({"m": ModuleState(module).whole()})["m"]  # type: ignore[return-value]


MODELS: dict[str, nn.Module] = {
    "batchnorm": batchnorm_net(),
    "transformer": nn.TransformerEncoderLayer(4, 2, 8),
    "lstm": nn.LSTM(3, 3, 2),
    "parametrised": nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)),
    "twice": nn.Sequential(shared := nn.Linear(2, 2), nn.Sequential(shared)),
    "empty": nn.Identity(),
}


@pytest.mark.parametrize("name", MODELS)
def test_names_are_torchs(name: str) -> None:
    model, state = MODELS[name], ModuleState(MODELS[name])
    named = dict(model.named_parameters(remove_duplicate=False))
    assert list(state.parameters()) == list(named)
    assert all(state.parameters()[key] is tensor for key, tensor in named.items())
    _, parts = state.components()
    buffers = {**parts["batchnorm"], **parts["buffers"]}
    assert sorted(buffers) == sorted(n for n, _ in model.named_buffers(remove_duplicate=False))


def test_batchnorm_is_told_apart() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.InstanceNorm1d(2, track_running_stats=True))
    state = ModuleState(model)
    assert {name.partition(".")[0] for name in state.components()[1]["batchnorm"]} == {"0"}
    assert {name.partition(".")[0] for name in state.components()[1]["buffers"]} == {"1"}
    assert has_batchnorm(model)
    assert not has_batchnorm(nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)))


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_module_comes_back(name: str) -> None:
    model = MODELS[name]
    snapshot = whole(model)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(1)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.eval()
    restore_whole_module(model, snapshot, "averaged/x")
    assert digests({"m": whole(model)}) == digests({"m": snapshot})
    assert model.training


def test_flags_are_read_anew() -> None:
    model = batchnorm_net()
    state = ModuleState(model)

    def digest() -> bytes:
        return digest_leaves(EVIDENCE_RECIPE, state.components()[1]["modules"])

    seen = {digest()}
    for change in (
        model.eval,
        model.train,
        model[0].eval,
        lambda: next(model.parameters()).requires_grad_(False),
    ):
        change()
        seen.add(digest())
    assert len(seen) == 4  # train() undoes eval()


def test_a_flag_that_only_equals_the_one_before_is_another() -> None:
    model = batchnorm_net()
    state = ModuleState(model)
    state.components()
    model[0].__dict__["training"] = 1
    expected = ModuleState(model).components()[1]["modules"]
    assert state.components()[1]["modules"] == expected


def test_a_replaced_layer_with_the_same_names_is_seen() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    state = ModuleState(model)
    state.parameters()
    model[0] = nn.Linear(2, 2)
    assert state.parameters()["0.weight"] is model[0].weight


def test_components_are_the_same_objects_until_something_is_replaced() -> None:
    model = batchnorm_net()
    model.register_buffer("queue", torch.zeros(3))
    state = ModuleState(model)

    before = state.components()[1], state.whole()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(1)
    assert all(state.components()[1][name] is before[0][name] for name in before[0])
    assert state.whole() is before[1]
    changes: list[Any] = [
        lambda: setattr(model, "queue", torch.zeros(3)),
        lambda: setattr(model, "queue", None),
        lambda: model.register_buffer("other", torch.zeros(1)),
        model.eval,
        lambda: setattr(model[0], "weight", nn.Parameter(torch.zeros(6, 4))),
        lambda: model.append(nn.Linear(1, 1)),
    ]
    for change in changes:
        change()
        expected = ModuleState(model)
        assert state.components()[1].keys() == expected.components()[1].keys()
        for name, leaves in expected.components()[1].items():
            assert digest_leaves(EVIDENCE_RECIPE, state.components()[1][name]) == digest_leaves(
                EVIDENCE_RECIPE, leaves
            ), name
        assert state.whole().keys() == expected.whole().keys()


def test_layers_that_call_themselves_equal_are_told_apart() -> None:
    class Same(nn.Linear):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    model = nn.Sequential(Same(2, 2))
    state = ModuleState(model)
    model[0] = Same(2, 2)
    assert state.parameters()["0.weight"] is model[0].weight


def test_buffers_that_only_the_snapshot_has_are_refused() -> None:
    model = batchnorm_net()
    saved = {**ModuleState(model).components()[1]["buffers"], "0.x": torch.ones(1)}
    with pytest.raises(RestoreMismatch, match=r"no buffer '0\.x'"):
        restore_buffers("buffers", model, saved, batchnorm=False)


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ({}, "the snapshot has no 'weight'"),
        ({"weight": torch.ones(2, 2), "x": torch.ones(1)}, "the program has no 'x'"),
        ({"weight": torch.ones(2, 3)}, "another shape or dtype"),
        ({"weight": torch.ones(2, 2).double()}, "float64"),
        ({"weight": b"1"}, "found bytes"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(saved: dict[str, Any], words: str) -> None:
    live = parameters(nn.Linear(2, 2, bias=False))
    with pytest.raises(RestoreMismatch, match=words):
        copy_tensors("params", live, saved)


@pytest.mark.parametrize(
    "tree",
    [
        None,
        {},
        {"training": {}},
        {"training": {"": True}, "requires_grad": {}},
        {"training": {"": True}, "requires_grad": {"weight": True}, "extra_state": {"x": 1}},
        {"training": {"": True}, "requires_grad": {"weight": True}, "extra_state": {"": 1}},
    ],
)
def test_flags_that_do_not_fit_are_refused(tree: object) -> None:
    with pytest.raises(RestoreMismatch):
        restore_flags(nn.Linear(2, 2, bias=False), flatten(tree, where=""))


def test_lazy_and_sparse_tensors_are_refused_by_name() -> None:
    model = nn.Sequential(nn.LazyLinear(2))
    with pytest.raises(UncapturedState, match=r"weight.*not initialised"):
        digests({"params": ModuleState(model).parameters()})
    plain = nn.Linear(1, 1)
    plain.register_buffer("mask", torch.eye(2).to_sparse())
    with pytest.raises(UncapturedState, match="mask"):
        digests({"buffers": ModuleState(plain).components()[1]["buffers"]})


def test_a_buffer_that_is_restored_is_a_copy() -> None:
    model = nn.Module()
    model.register_buffer("later", None)
    value = torch.ones(2)
    restore_buffers("buffers", model, {"later": value}, batchnorm=None)
    model.get_buffer("later").zero_()
    assert value.tolist() == [1, 1]


def test_buffers_that_parted_stay_apart() -> None:
    model = nn.Sequential(nn.Module(), nn.Module())
    shared: Tensor = torch.zeros(1)
    for layer in model:
        layer.register_buffer("b", shared)
    saved = {"0.b": torch.ones(1), "1.b": torch.full((1,), 2.0)}
    restore_buffers("buffers", model, saved, batchnorm=None)
    assert [layer.get_buffer("b").item() for layer in model] == [1, 2]


def test_gradients_that_are_part_of_a_larger_tensor_stay_so() -> None:
    model = nn.Linear(2, 2)
    flat = torch.arange(6.0)
    model.weight.grad, model.bias.grad = flat[:4].view(2, 2), flat[4:]
    parameters = dict(model.named_parameters())
    saved = {name: one.grad.clone() for name, one in parameters.items() if one.grad is not None}
    flat.zero_()
    restore_gradients(parameters, saved)
    assert flat.tolist() == [0, 1, 2, 3, 4, 5]
    assert model.bias.grad.data_ptr() == flat[4:].data_ptr()


@pytest.mark.parametrize(
    "live", [torch.ones(1, 1).expand(2, 2), torch.eye(2).to_sparse(), torch.ones(2, 2).t()]
)
def test_gradients_that_lie_otherwise_are_replaced(live: Tensor) -> None:
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.grad = live
    value = torch.arange(4.0).view(2, 2)
    restore_gradients({"weight": layer.weight}, {"weight": value})
    assert torch.equal(layer.weight.grad, value)
    assert layer.weight.grad is not value


@pytest.mark.parametrize("n_rows", [0, 7])
def test_a_buffer_that_became_a_view_begins_where_it_did(n_rows: int) -> None:
    """A queue that grows at one end and is cut at the other lies behind an alignment."""
    model, other = nn.Linear(6, 2), nn.Linear(6, 2)
    for one in (model, other):
        one.register_buffer("queue", torch.zeros(n_rows, 6))
    model.queue = torch.cat([torch.zeros(n_rows, 6), torch.ones(8, 6)])[1:8]
    saved = frozen({"m": ModuleState(model).whole()})["m"]
    for _ in range(2):
        restore_whole_module(other, saved, "m")
        assert isinstance(other.queue, Tensor)
        assert other.queue.data_ptr() % 64 == model.queue.data_ptr() % 64 != 0
        assert torch.equal(other.queue, model.queue)


def test_a_view_that_lies_as_it_did_is_written_in_place() -> None:
    model, flat = nn.Linear(2, 2), torch.arange(6.0)
    model.weight.data, model.bias.data = flat[:4].view(2, 2), flat[4:]
    saved = whole(model)
    flat.zero_()
    restore_whole_module(model, saved, "m")
    assert flat.tolist() == [0, 1, 2, 3, 4, 5]


def test_an_expanded_buffer_comes_back() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([2.0, 3.0]).expand(3, 2))
    saved, wanted = whole(model), model.state_dict()["mask"].clone()
    model.mask = torch.zeros(2).expand(3, 2)
    restore_whole_module(model, saved, "m")
    assert torch.equal(model.state_dict()["mask"], wanted)
