"""DTensors as the third of four processes has them; nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from auditkit.errors import ProgramError, RecorderMisuse, RestoreMismatch, UncapturedState
from auditkit.files import store
from auditkit.observe.machine.distributed import (
    refuse_sharded,
    refuse_sharded_study,
    sharding_differences,
)
from auditkit.observe.state.components import StateReader, TrainingObjects
from auditkit.observe.state.modules import copy_tensors
from auditkit.observe.state.sharded import kept_part
from auditkit.observe.values.codec import pack, unpack_in_place
from auditkit.observe.values.shards import (
    is_sharded,
    local_part,
    local_state,
    sharding_of,
    whole_state,
)
from auditkit.observe.values.stored import StoredTensor, judge_written
from auditkit.records.recording import WorldRecord
from auditkit.records.sharding import Shard


@pytest.fixture(scope="module")
def mesh() -> Iterator[Any]:
    """Four processes of which this one is the third."""
    from torch.distributed.device_mesh import init_device_mesh  # takes a second
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=2, world_size=4)
    yield init_device_mesh("cpu", (4,))
    dist.destroy_process_group()


def sharded(mesh: Any, local: Tensor, *shape: int, placement: Any = None) -> Any:
    """A tensor of that shape of which this process holds ``local``."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor import Shard as Rows

    return DTensor.from_local(
        local,
        mesh,
        [placement or Rows(0)],
        run_check=False,
        shape=torch.Size(shape),
        stride=torch.empty(shape).stride(),
    )


@pytest.mark.parametrize(
    ("n_rows", "first", "held"), [(8, 4, 2), (7, 4, 2), (5, 4, 1), (4, 2, 1), (2, 2, 0), (1, 1, 0)]
)
def test_rows_are_cut_as_torch_cuts_them(mesh: Any, n_rows: int, first: int, held: int) -> None:
    from torch.distributed.tensor import Shard as Rows

    parts = torch.arange(n_rows).chunk(4)
    assert held == (len(parts[2]) if len(parts) > 2 else 0)
    tensor = sharded(mesh, torch.zeros(held, 3), n_rows, 3, placement=Rows(0))
    assert sharding_of({"params": {"w": tensor}}) == {"params": {"w": Shard((n_rows, 3), first)}}


def test_the_state_of_this_process_is_a_view_of_what_it_holds(mesh: Any) -> None:
    local, plain = torch.ones(2, 3), torch.zeros(2)
    state = {"params": {"w": sharded(mesh, local, 8, 3)}, "buffers": {"b": plain, "t": b"1"}}
    found = local_state(state)
    assert type(found["params"]["w"]) is Tensor
    local += 1
    assert torch.equal(found["params"]["w"], local)
    assert found["buffers"] is state["buffers"]
    assert local_part(plain) is plain
    assert not is_sharded(plain)


def test_it_is_put_back_on_the_mesh(mesh: Any) -> None:
    parameter: Any = nn.Parameter(sharded(mesh, torch.ones(2, 3), 8, 3))
    state = {"optimizer/exp_avg": {"w": sharded(mesh, torch.full((2, 3), 5.0), 8, 3)}}
    saved: Any = local_state(state)
    back = whole_state(saved, sharding_of(state), {"w": parameter})
    tensor: Any = back["optimizer/exp_avg"]["w"]
    assert is_sharded(tensor)
    assert (tensor.shape, tensor.placements) == (parameter.shape, parameter.placements)
    assert torch.equal(local_part(tensor), torch.full((2, 3), 5.0))
    assert local_part(tensor).data_ptr() != saved["optimizer/exp_avg"]["w"].data_ptr()
    assert whole_state(saved, {}, {}) == saved


def test_a_part_in_a_file_is_written_into_the_part_that_is_live(
    mesh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"params": {"weight": sharded(mesh, torch.full((2, 3), 5.0), 8, 3)}}
    store.write_tensors(tmp_path / "f", *pack(local_state(state)))
    judged: list[Any] = []
    live: Any = nn.Parameter(sharded(mesh, torch.ones(2, 3), 8, 3))
    place = local_part(live).data_ptr()
    with store.open_tensors(tmp_path / "f", what="f") as content:
        stored = unpack_in_place(*content, lambda *given: judged.append(given))
        back = whole_state(stored, sharding_of(state), {"weight": live})
        part: Any = back["params"]["weight"]
        made = part.on(torch.device("cpu"))
        monkeypatch.setattr(StoredTensor, "new", None)  # which would be another one in memory
        copy_tensors("params", {"weight": live}, back["params"])
        judge_written(stored)
    ((name, leaves),) = judged
    assert torch.equal(local_part(live), torch.full((2, 3), 5.0))
    assert local_part(live).data_ptr() == place == leaves["weight"].data_ptr()
    assert (name, made.shape, made.placements) == ("params", live.shape, live.placements)
    assert torch.equal(local_part(made), local_part(live))


@pytest.mark.parametrize(
    ("held", "shape", "message"),
    [
        ((2, 3), (7, 3), r"sharded in another way .* \(expected rows 4.. of \(8, 3\)"),
        ((1, 3), (5, 3), r"sharded in another way"),
        (None, (8, 3), "here it is none"),
    ],
)
def test_another_part_of_the_whole_is_refused(
    mesh: Any, held: tuple[int, ...] | None, shape: tuple[int, ...], message: str
) -> None:
    live = sharded(mesh, torch.ones(held), *shape) if held else torch.ones(shape)
    saved = {"params": {"w": torch.ones(2, 3)}}
    with pytest.raises(RestoreMismatch, match=message):
        whole_state(saved, {"params": {"w": Shard((8, 3), 4)}}, {"w": live})


class Net(nn.Module):
    """A parameter and perhaps a buffer."""

    def __init__(self, weight: Tensor, buffer: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.register_buffer("running", buffer)


def test_what_is_not_known_of_sharding_is_refused_by_name(mesh: Any) -> None:
    from torch.distributed.tensor import Partial
    from torch.distributed.tensor import Shard as Rows

    rows = sharded(mesh, torch.ones(2, 3), 8, 3)
    columns = sharded(mesh, torch.ones(8, 1), 8, 4, placement=Rows(1))
    sums = sharded(mesh, torch.ones(8, 3), 8, 3, placement=Partial())
    model = Net(rows)
    own = torch.optim.SGD(model.parameters(), lr=0.1)
    refuse_sharded([model], [own])
    for modules, optimizers, message in [
        ([Net(columns)], [own], "weight is a DTensor, and it is split along dimension 1"),
        ([Net(sums)], [own], "weight is a DTensor, and its placement is Partial"),
        ([Net(torch.ones(2), rows)], [own], "running is a DTensor, and it is no parameter"),
        ([Net(torch.ones(2)), model], [own], "weight is a DTensor, and it is not the model's"),
        ([model], [own, own], "a further optimizer, SGD, trains sharded parameters"),
    ]:
        with pytest.raises(RecorderMisuse, match=message):
            refuse_sharded(modules, optimizers)


def test_what_this_process_holds_is_looked_for_among_what_may_be_sharded(mesh: Any) -> None:
    state = {"a": {"w": sharded(mesh, torch.ones(2, 3), 8, 3)}, "b": {"w": torch.ones(8, 3)}}
    assert local_state(state)["a"]["w"].shape == (2, 3)  # type: ignore[union-attr]
    assert local_state(state, ["a", "gone"])["a"]["w"].shape == (2, 3)  # type: ignore[union-attr]
    assert local_state(state, ["b"])["a"] is state["a"]
    assert local_state(state)["b"] is state["b"]


def test_a_study_is_of_whole_models(mesh: Any) -> None:
    refuse_sharded_study(Net(torch.ones(2)))
    with pytest.raises(ProgramError, match="parameter weight is sharded"):
        refuse_sharded_study(Net(sharded(mesh, torch.ones(2, 3), 8, 3)))


def test_a_parameter_that_is_whole_for_the_moment_is_the_part_that_is_trained(mesh: Any) -> None:
    part, whole = sharded(mesh, torch.ones(2, 3), 8, 3), torch.ones(8, 3)
    assert kept_part(part, whole) is part
    assert kept_part(None, whole) is whole
    assert kept_part(whole, part) is part
    assert kept_part(part, other := torch.ones(4, 3)) is other


def test_gradients_are_looked_for_at_every_read_where_a_parameter_is_sharded(mesh: Any) -> None:
    held = SimpleNamespace(unsharded_accumulated_grad=None)
    group = SimpleNamespace(fsdp_params=[held])

    class Layer(Net):
        def _get_fsdp_state(self) -> Any:
            return SimpleNamespace(_fsdp_param_group=group)

    net = Layer(sharded(mesh, torch.ones(2, 3), 8, 3))
    reader = StateReader(TrainingObjects(net, torch.optim.SGD(net.parameters(), lr=0.1)))
    for _ in range(3):
        assert reader.read()["params"]["weight"].shape == (2, 3)  # type: ignore[union-attr]
    held.unsharded_accumulated_grad = torch.ones(8, 3)
    with pytest.raises(UncapturedState, match="wait to be synchronised"):
        reader.read()


def test_sharding_that_is_not_as_it_was() -> None:
    plain = WorldRecord(2, "gloo", {"bucket_cap_bytes": "1"})
    rows = WorldRecord(2, "gloo", {"fully_shard": "mesh (2,), S(0)"})
    assert sharding_differences(rows, rows) == sharding_differences(plain, plain) == []
    assert sharding_differences(None, plain) == []
    assert sharding_differences(rows, plain) == ["fully_shard: mesh (2,), S(0), now not applied"]
