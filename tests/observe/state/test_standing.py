from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from auditkit.observe.state.attributes import MODULES
from auditkit.observe.state.components import StateReader, TrainingObjects, as_built
from auditkit.observe.state.standing import Standing
from auditkit.observe.values.digests import digest_leaves
from auditkit.records.digest import EVIDENCE_RECIPE


def make() -> tuple[Any, torch.optim.Adam, Standing]:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[0].defaults = 0  # type: ignore[assignment]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    standing = Standing([optimizer])
    standing.note(model.modules(), model.parameters())
    return model, optimizer, standing


CHANGES: dict[str, Callable[[Any, torch.optim.Adam], object]] = {
    "flag": lambda m, _: m[1].eval(),
    "frozen": lambda m, _: m[0].weight.requires_grad_(False),
    "parameter": lambda m, _: setattr(m[0], "weight", nn.Parameter(torch.zeros(2, 2))),
    "buffer": lambda m, _: setattr(m[1], "running_mean", torch.zeros(2)),
    "new buffer": lambda m, _: m[0].register_buffer("b", torch.zeros(1)),
    "layer": lambda m, _: m.append(nn.ReLU()),
    "other layer": lambda m, _: m.__setitem__(0, nn.Linear(2, 2)),
    "class": lambda m, _: setattr(m[0], "__class__", type("Own", (nn.Linear,), {})),
    "attribute": lambda m, _: setattr(m[0], "counter", 1),
    "number": lambda m, _: setattr(m[1], "momentum", 0.2),
    "all attributes": lambda m, _: setattr(m[1], "__dict__", {**vars(m[1]), "momentum": 0.2}),
    "removed": lambda m, _: delattr(m[1], "momentum"),
    "a name of optimizers": lambda m, _: setattr(m[0], "defaults", m[0].defaults + 1),
    "rate": lambda _, o: o.param_groups[0].update(lr=0.2),
    "group": lambda _, o: o.add_param_group({"params": [nn.Parameter(torch.zeros(1))]}),
    "member": lambda _, o: o.param_groups[0]["params"].append(nn.Parameter(torch.zeros(1))),
    "order": lambda _, o: o.param_groups[0]["params"].reverse(),
    "other list": lambda _, o: o.param_groups[0].update(params=o.param_groups[0]["params"][::-1]),
    "slot": lambda m, o: o.state[m[0].weight].update(exp_avg=torch.zeros(2, 2)),
    "no slot": lambda m, o: o.state.pop(m[0].weight),
    "cleared": lambda _, o: o.state.clear(),
    "optimizer's own": lambda _, o: setattr(o, "own", 3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_becomes_another_object_is_seen(change: str) -> None:
    model, optimizer, standing = make()
    assert standing.holds()
    model[1].momentum = model[1].momentum  # what was there: nothing has changed
    assert standing.holds()
    with torch.no_grad():
        model[0].weight.add_(1)  # contents are the digests' business
    assert standing.holds()
    assert standing.numbers_hold
    CHANGES[change](model, optimizer)
    assert standing.holds() == (change == "rate")
    if change == "rate":
        assert not standing.numbers_hold


@pytest.mark.parametrize("change", CHANGES)
def test_a_reader_that_has_read_gives_what_a_new_one_gives(change: str) -> None:
    model, optimizer, _ = make()
    objects = as_built(TrainingObjects(model, optimizer))
    assert objects.built is not None
    reader = StateReader(objects)
    for _ in range(3):
        reader.read()
        assert reader.attributes() == {}
    if change in ("member", "group", "parameter", "other layer"):  # trains what nothing holds
        return
    CHANGES[change](model, optimizer)
    for _ in range(3):
        found, expected = reader.read(), StateReader(objects).read()
        assert list(found) == list(expected)
        for name, leaves in expected.items():
            assert list(found[name]) == list(leaves)
            assert all(found[name][k] is v or found[name][k] == v for k, v in leaves.items())
        assert reader.attributes() == objects.built.attributes.changed()


def test_attributes_are_of_now_where_they_were_not_asked_for_in_between() -> None:
    model, optimizer, _ = make()
    objects = as_built(TrainingObjects(model, optimizer))
    assert objects.built is not None
    reader = StateReader(objects)
    for _ in range(2):
        reader.read()
        assert reader.attributes() == {}
    model[1].momentum = 0.2
    for _ in range(2):
        reader.read()
    assert reader.attributes() == objects.built.attributes.changed() != {}


@pytest.mark.parametrize("value", [[0], {"n": 0}, torch.zeros(2), (0, [0]), [object()]])
def test_what_came_while_training_and_is_written_to_is_seen_at_every_step(value: Any) -> None:
    model, optimizer, _ = make()
    objects = as_built(TrainingObjects(model, optimizer))
    assert objects.built is not None
    reader = StateReader(objects)
    model[0].came = value
    for number in range(1, 6):
        reader.read()
        found = digest_leaves(EVIDENCE_RECIPE, reader.attributes().get(MODULES, {"": b"{}"}))
        new = objects.built.attributes.changed().get(MODULES, {"": b"{}"})
        assert found == digest_leaves(EVIDENCE_RECIPE, new)
        if isinstance(value, dict):
            value["n"] = number
        else:
            place = value[1] if isinstance(value, tuple) else value
            place[0] = number


def test_where_numbers_of_groups_move_all_else_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer, _ = make()
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    objects = TrainingObjects(model, optimizer, extras={"other": other})
    reader, looks = StateReader(objects), [0]
    look = reader._look

    def counted() -> None:
        looks[0] += 1
        look()

    monkeypatch.setattr(reader, "_look", counted)
    group, further = optimizer.param_groups[0], other.param_groups[0]
    steps: list[Callable[[], object]] = [
        *[partial(group.update, lr=0.1 * n) for n in range(9)],
        *[partial(further.update, lr=0.1 * n) for n in range(9)],
        lambda: None,
        partial(group.update, own=1),
        partial(group.pop, "own"),
        partial(group.update, eps=True),
        partial(group.update, eps=1),
    ]
    for step in steps:
        step()
        assert reader.read() == StateReader(objects).read()
    assert looks == [1]
    group["own"] = [1]  # what is written to in place is looked at at every step
    for n in range(5):
        assert reader.read() == StateReader(objects).read()
        group["own"][0] = n
    group["params"] = group["params"][::-1]
    assert reader.read() == StateReader(objects).read()
    assert looks[0] > 5


def test_what_moves_at_every_step_is_not_asked_for_long() -> None:
    model, _, standing = make()
    asked = 0
    for step in range(200):
        model[1].momentum = 0.1 * step
        if not standing.holds():
            asked += standing._left_out == 0
            standing.note(model.modules(), model.parameters())
    assert asked < 60
    for _ in range(600):
        if not standing.holds():
            standing.note(model.modules(), model.parameters())
    assert standing.holds()
