"""Named groups of the model's tensors are components of their own, and come back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_programs import batchnorm_net, build, digests, follow, frozen, supervised
from torch import nn

from auditkit.errors import ProgramError, RestoreMismatch
from auditkit.observe.state.components import TrainingObjects, capture
from auditkit.observe.state.named_groups import NamedGroups, group_patterns
from auditkit.observe.state.restoring import restore


class Queued(nn.Module):
    """A teacher, a student and a queue with its pointer."""

    queue: torch.Tensor
    queue_pointer: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.student = batchnorm_net(), batchnorm_net()
        self.register_buffer("queue", torch.randn(5, 3))
        self.register_buffer("queue_pointer", torch.zeros(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.queue.copy_(self.queue.roll(1, 0))
            self.queue_pointer.add_(1)
        return self.teacher(inputs) - self.student(inputs)  # type: ignore[no-any-return]


NAMED: dict[str, Any] = {"teacher": ("teacher.*",), "queue": ("queue",)}


def made(groups: Any = NAMED) -> Any:
    model = Queued()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return supervised(model, optimizer, groups=group_patterns(model, groups))


def test_groups_are_cut_out_and_nothing_else_changes() -> None:
    plain, grouped = (capture(build(partial(made, groups), 1)[0]) for groups in ({}, NAMED))
    assert set(grouped) - set(plain) == {"params/teacher", "buffers/queue"}
    assert set(plain) <= set(grouped)
    assert {name.partition(".")[0] for name in grouped["params/teacher"]} == {"teacher"}
    assert {name.partition(".")[0] for name in grouped["params"]} == {"student"}
    assert set(grouped["buffers"]) == {"queue_pointer"}
    same = set(plain) - {"params", "buffers"}
    here, there = digests(plain), digests(grouped)
    assert all(here[name] == there[name] for name in same)


def test_without_groups_the_leaves_are_the_same() -> None:
    model = Queued()
    components = {"params": dict(model.named_parameters())}
    assert NamedGroups(model, {}).divided(components) == components
    assert NamedGroups(model, {}).gathered(components) == components


@pytest.mark.parametrize("groups", [NAMED, "children", {"all": "*"}])
def test_a_restored_program_goes_on_as_the_original(groups: Any) -> None:
    original = build(lambda: made(groups), 1)
    follow(original, 1, 3)
    state = frozen(capture(original[0]))
    rows = follow(original, 4, 3)
    other = build(lambda: made(groups), 2)
    restore(other[0], state)
    assert follow(other, 4, 3) == rows


def test_a_snapshot_with_groups_fits_no_program_without() -> None:
    state = frozen(capture(build(made, 1)[0]))
    with pytest.raises(RestoreMismatch) as error:
        restore(build(lambda: made({}), 1)[0], state)
    assert error.value.component == "buffers/queue"


def test_children_are_those_with_tensors() -> None:
    model = nn.ModuleDict({"actor": nn.Linear(2, 2), "act": nn.ReLU(), "critic": nn.Linear(2, 1)})
    assert group_patterns(model, "children") == {"actor": ("actor.*",), "critic": ("critic.*",)}


def test_tied_weights_go_along_under_all_their_names() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    objects = TrainingObjects(
        model, torch.optim.SGD(model.parameters()), groups=group_patterns(model, {"a": "a.*"})
    )
    state = capture(objects)
    assert set(state["params/a"]) == {"a.weight", "a.bias", "b.weight"}
    assert set(state["params"]) == {"b.bias"}
    with pytest.raises(ProgramError, match=r"groups 'a' and 'b' both match b\.weight"):
        group_patterns(model, "children")


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"bank": "bank*"}, "group 'bank': no parameter or buffer matches bank"),
        ({"norm": "*.running_mean"}, "BatchNorm's buffers are the component batchnorm"),
        ({"a": "teacher.*", "b": "*.weight"}, "both match teacher.0.weight"),
        ({"a/b": "queue"}, "no group can be called"),
        ({"a": ()}, "needs a pattern"),
        ({"a": [3]}, "needs a pattern"),
        ("parents", "groups is"),
    ],
)
def test_what_is_no_group_is_refused(groups: Any, words: str) -> None:
    with pytest.raises(ProgramError, match=words):
        group_patterns(Queued(), groups)


def test_a_refusal_lists_what_there_is() -> None:
    with pytest.raises(ProgramError) as error:
        group_patterns(Queued(), {"x": "y"})
    assert "teacher.0.weight" in str(error.value.expected)


def test_a_buffer_that_comes_while_training_joins_its_group() -> None:
    model: Any = Queued()
    groups = NamedGroups(model, group_patterns(model, {"queue": "queue*"}))
    grown = {
        "buffers": {"queue": model.queue, "queue_labels": torch.zeros(5), "seen": torch.ones(1)}
    }
    divided = groups.divided(grown)
    assert {name: set(leaves) for name, leaves in divided.items()} == {
        "buffers/queue": {"queue", "queue_labels"},
        "buffers": {"seen"},
    }
    assert groups.gathered(divided) == grown


NAMES = [name for name, _ in Queued().named_parameters()]


@given(st.lists(st.sampled_from([None, "a", "b"]), min_size=len(NAMES), max_size=len(NAMES)))
def test_dividing_and_gathering_are_inverse(chosen: list[str | None]) -> None:
    patterns: dict[str, tuple[str, ...]] = {}
    for name, group in zip(NAMES, chosen, strict=True):
        if group is not None:
            patterns[group] = (*patterns.get(group, ()), name)
    model = Queued()
    groups = NamedGroups(model, patterns)
    state = {"params": dict(model.named_parameters()), "grad": {}}
    divided = groups.divided(state)
    assert groups.gathered(divided) == state
    assert set(divided) - {"grad", "params"} == {f"params/{group}" for group in patterns}


def changed_by(change: Callable[[Any], None]) -> set[str]:
    objects, _ = build(made, 1)
    before = digests(capture(objects))
    with torch.no_grad():
        change(objects.model)
    after = digests(capture(objects))
    return {name for name in before if before[name] != after[name]}


def test_a_queue_is_told_from_its_pointer_and_a_teacher_from_its_student() -> None:
    assert changed_by(lambda model: model.queue.zero_()) == {"buffers/queue"}
    assert changed_by(lambda model: model.queue_pointer.fill_(9)) == {"buffers"}
    assert changed_by(lambda model: model.teacher[0].weight.zero_()) == {"params/teacher"}
    assert changed_by(lambda model: model.student[0].weight.zero_()) == {"params"}
