"""A state that is put back straight from its file is the one that is put back from memory."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from auditkit.errors import RestoreMismatch, StoreError
from auditkit.files import store
from auditkit.observe.state.components import TrainingObjects, capture
from auditkit.observe.state.restoring import restore
from auditkit.observe.state.state_dicts import load_state
from auditkit.observe.values import unflatten
from auditkit.observe.values.codec import Leaves, flatten, pack, unpack_in_place
from auditkit.observe.values.digests import commitments
from auditkit.observe.values.stored import (
    Check,
    Saved,
    StoredTensor,
    _is_plain,
    judge_written,
    write,
)
from auditkit.observe.values.tensors import host_bytes


class Odd(nn.Module):
    """Tensors of every kind that a state may have."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.plain = nn.Parameter(torch.randn(3, 5))
        self.scalar = nn.Parameter(torch.randn(()))
        self.nothing = nn.Parameter(torch.randn(0, 4))
        self.short = nn.Parameter(torch.randn(7).to(torch.bfloat16))
        self.complex = nn.Parameter(torch.randn(4, dtype=torch.complex64))
        self.image = nn.Parameter(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last))
        self.turned = nn.Parameter(torch.randn(4, 6).t())
        base = torch.randn(6, 8)
        self.part = nn.Parameter(base[:, 2:5])  # neither dense nor contiguous
        self.tied = self.plain
        small = torch.randn(9).to(torch.float8_e5m2)
        self.register_buffer("small", small)
        self.register_buffer("flags", torch.rand(5) > 0.5)
        self.register_buffer("same", small)
        self.register_buffer("tail", base[1])  # of the memory of a parameter
        self.register_buffer("grown", torch.randn(seed % 3 + 1))
        self.norm = nn.BatchNorm1d(2)


def objects_of(seed: int, *, trained: bool) -> TrainingObjects:
    model, average = Odd(seed), Odd(seed + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    if trained:
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        model.norm(torch.randn(4, 2))
    extras: dict[str, Any] = {
        "net": nn.Linear(2, 2),
        "other": torch.optim.SGD(average.parameters(), lr=0.1),
    }
    if trained:
        average.plain.grad = torch.ones_like(average.plain)
        extras["other"].param_groups[0]["momentum"] = 0.9
        extras["other"].step()
    return TrainingObjects(
        model=model, optimizer=optimizer, averaged={"ema": average}, extras=extras
    )


@contextmanager
def in_file(
    path: Path, state: dict[str, Leaves], check: Check | None = None
) -> Iterator[dict[str, Saved]]:
    store.write_tensors(path, *pack(state))
    with store.open_tensors(path, what="state") as content:
        yield unpack_in_place(*content, check)


def strides(objects: TrainingObjects) -> dict[str, Any]:
    return {
        f"{component}/{name}": (leaf.stride(), leaf.dtype)
        for component, leaves in capture(objects).items()
        for name, leaf in leaves.items()
        if isinstance(leaf, torch.Tensor)
    }


def weight_bytes(model: nn.Linear) -> bytes:
    return model.weight.detach().numpy().tobytes()


def test_every_kind_of_tensor_comes_back_from_the_file(tmp_path: Path) -> None:
    saved = objects_of(1, trained=True)
    state = dict(capture(saved))
    live = objects_of(6, trained=False)
    places = {name: one.data_ptr() for name, one in live.model.named_parameters()}
    checked: dict[str, str] = {}

    def check(name: str, leaves: Leaves) -> None:
        checked.update(commitments({name: leaves}))

    with in_file(tmp_path / "f", state, check) as stored:
        restore(live, stored)
    expected = commitments(state)
    assert commitments(capture(live)) == expected == checked
    assert strides(live) == strides(saved)
    assert places == {name: one.data_ptr() for name, one in live.model.named_parameters()}
    assert live.model.tied is live.model.plain
    assert live.model.same is live.model.small


def test_what_lies_in_the_file_as_in_memory_is_read_into_the_live_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(5, 3)
    saved = {"params": {"weight": torch.randn(3, 5), "bias": torch.randn(3)}}
    monkeypatch.setattr(StoredTensor, "new", None)  # which would be another one in memory
    with in_file(tmp_path / "f", dict(saved)) as stored:
        for name, live in model.named_parameters():
            seen = live._version
            with torch.no_grad():
                stored["params"][name].write(live)  # type: ignore[union-attr]
            assert torch.equal(live, saved["params"][name])
            assert live._version > seen  # autograd, and whoever goes by versions, are told


def test_nothing_of_a_state_that_is_judged_is_run_or_kept(tmp_path: Path) -> None:
    class Telling(nn.Linear):
        def get_extra_state(self) -> Any:
            return 1

        def set_extra_state(self, state: Any) -> None:
            ran.append(state)

    def refuse(name: str, leaves: Leaves) -> None:
        if name == "params":
            raise RestoreMismatch("another", component=name)

    ran: list[Any] = []
    model = Telling(2, 2)
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with (
        in_file(tmp_path / "f", dict(capture(objects)), refuse) as stored,
        pytest.raises(RestoreMismatch, match="another"),
    ):
        restore(objects, stored)
    assert ran == []
    with in_file(tmp_path / "f", dict(capture(objects)), lambda *_: None) as stored:
        restore(objects, stored)
        leaves = [leaf for part in stored.values() for leaf in part.values()]
    assert ran == [1]
    assert all(leaf.written is None for leaf in leaves if isinstance(leaf, StoredTensor))


def test_what_is_judged_is_what_was_written_and_not_the_file(tmp_path: Path) -> None:
    model = nn.Linear(40, 40)
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    state = dict(capture(objects))
    expected, path = commitments(state), tmp_path / "f"
    whole: list[bytes] = []

    def check(name: str, leaves: Leaves) -> None:
        if name == "params":
            path.write_bytes(whole[0])  # as it was: too late
        if commitments({name: leaves})[name] != expected[name]:
            raise RestoreMismatch("another", component=name)

    with in_file(path, state, check) as stored:
        whole.append(path.read_bytes())
        path.write_bytes(whole[0].replace(weight_bytes(model)[:16], bytes(16)))
        with pytest.raises(RestoreMismatch, match="another"):
            restore(objects, stored)


def test_one_tensor_for_two_live_ones_is_read_once(tmp_path: Path) -> None:
    weight, path = torch.arange(9.0), tmp_path / "f"
    live = [torch.zeros(9), torch.zeros(9)]
    judged: list[bytes] = []

    def check(name: str, leaves: Leaves) -> None:
        judged.append(bytes(host_bytes(leaves["a"])))  # type: ignore[arg-type]

    with in_file(path, {"params": {"a": weight, "b": weight}}, check) as stored:
        for entry, tensor in zip("ab", live, strict=True):
            write(stored["params"][entry], tensor)  # type: ignore[arg-type]
            path.write_bytes(path.read_bytes().replace(bytes(host_bytes(weight)), bytes(36)))
        judge_written(stored)
    assert judged == [bytes(host_bytes(weight))]
    assert all(torch.equal(tensor, weight) for tensor in live)


@pytest.mark.parametrize("n_left", [None, 0, 1, 4000])
def test_a_file_that_ends_early_is_an_error(tmp_path: Path, n_left: int | None) -> None:
    model = nn.Linear(40, 40)
    objects = TrainingObjects(model, torch.optim.SGD(model.parameters(), lr=0.1))
    path = tmp_path / "f"
    with in_file(path, dict(capture(objects))) as stored:
        begin = path.read_bytes().index(weight_bytes(model))
        os.truncate(path, 0 if n_left is None else begin + n_left)
        with pytest.raises(StoreError, match="changed meanwhile"):
            restore(objects, stored)


def test_no_more_is_written_than_a_live_tensor_has_memory(tmp_path: Path) -> None:
    shared = torch.zeros(1).expand(4)  # four elements in one place
    freed = torch.zeros(4)
    freed.untyped_storage().resize_(8)
    assert not _is_plain(freed)
    with (
        in_file(tmp_path / "f", {"params": {"w": torch.arange(4.0)}}) as stored,
        pytest.raises(RuntimeError),
    ):
        stored["params"]["w"].write(shared)  # type: ignore[union-attr]
    assert shared.tolist() == [0, 0, 0, 0]


class Memory:
    """What a program registers: it keeps what it is given."""

    def __init__(self) -> None:
        self.held: Any = None

    def state_dict(self) -> Any:
        return self.held

    def load_state_dict(self, state: Any) -> None:
        self.held = state


def test_a_tree_is_read_once_and_kept_by_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = torch.rand(5, 3)
    saved = {"extras/m": flatten({"rows": rows, "same": rows}, where="m")}
    monkeypatch.setattr(unflatten, "clone_aligned", None)
    memory = Memory()
    with in_file(tmp_path / "f", dict(saved), lambda *_: None) as stored:
        load_state(memory, stored["extras/m"], "extras/m")
        assert torch.equal(memory.held["rows"], rows)
        assert memory.held["same"] is memory.held["rows"]
        held = weakref.ref(memory.held["rows"])
        memory.held = None
        assert held() is None


def test_a_tree_that_is_another_is_given_to_nobody(tmp_path: Path) -> None:
    def refuse(name: str, leaves: Leaves) -> None:
        raise RestoreMismatch("another", component=name)

    memory, saved = Memory(), {"extras/m": flatten({"rows": torch.rand(2)}, where="m")}
    with (
        in_file(tmp_path / "f", dict(saved), refuse) as stored,
        pytest.raises(RestoreMismatch, match="another"),
    ):
        load_state(memory, stored["extras/m"], "extras/m")
    assert memory.held is None
