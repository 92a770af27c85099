"""Hyper-parameters are read from captured text as they were captured, and from nothing else."""

from __future__ import annotations

import pytest
import torch

from auditkit.formats.group_values import (
    group_values,
    hyper_parameters,
    is_groups,
    numbers,
    parsed_numbers,
)
from auditkit.observe.state.groups import GROUPS, GroupsState
from auditkit.study.stages.describer import _hyper_parameters

WEIGHT = torch.nn.Parameter(torch.zeros(2))


def captured(optimizer: torch.optim.Optimizer) -> bytes:
    text = GroupsState(optimizer).groups({id(WEIGHT): "w"})[""]
    assert isinstance(text, bytes)
    return text


def test_every_plain_value_of_an_optimizer_is_read() -> None:
    optimizer = torch.optim.Adam([{"params": [WEIGHT], "name": "head"}], lr=9.006e-05)
    found = group_values(GROUPS, captured(optimizer))
    assert found["param_groups[0].lr"] == 9.006e-05
    assert found["param_groups[0].betas[1]"] == 0.999
    assert found["param_groups[0].amsgrad"] is False
    assert found["param_groups[0].name"] == "head"
    assert not any("params" in name.partition("].")[2] for name in found)
    assert set(numbers(found)) == {
        f"param_groups[0].{name}" for name in ("lr", "betas[0]", "betas[1]", "eps", "weight_decay")
    }


def test_a_rate_that_is_a_tensor_is_left_out() -> None:
    optimizer = torch.optim.Adam([WEIGHT], lr=torch.tensor(0.1))
    assert "param_groups[0].lr" not in group_values(GROUPS, captured(optimizer))


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"{",
        b"1",
        b"[1,{}]",
        b'[{"$":"dict","keys":1,"values":[]}]',
        b'[{"$":"dict","keys":[1,"a\\n"],"values":[1,2]}]',
        b'[{"$":"dict","keys":["lr"],"values":[{"$":"float","bits":"zz"}]}]',
        b'[{"$":"dict","keys":["lr"],"values":[{"$":"float","bits":"00"}]}]',
        b'[{"$":"dict","keys":["lr"],"values":[{"$":"tuple","items":3}]}]',
    ],
)
def test_what_is_no_such_text_has_no_values(text: bytes | None) -> None:
    assert group_values(GROUPS, text) == {}


def test_the_description_for_people_is_read_by_group_and_name() -> None:
    optimizer = torch.optim.SGD([{"params": [WEIGHT]}], lr=0.1, momentum=0.9)
    group = optimizer.param_groups[0]
    text = "; ".join([_hyper_parameters(group), _hyper_parameters({**group, "lr": 0.2})])
    found = hyper_parameters({"hyper-parameters": text})
    assert found["param_groups[0].lr"] == "0.1"
    assert found["param_groups[1].lr"] == "0.2"
    assert parsed_numbers(found)["param_groups[1].momentum"] == 0.9
    assert hyper_parameters({}) == {}
    betas = hyper_parameters({"hyper-parameters": "betas=(0.9, 0.999), eps=1e-08"})
    assert betas == {"param_groups[0].betas": "(0.9, 0.999)", "param_groups[0].eps": "1e-08"}


def test_names_of_groups_are_told_from_others() -> None:
    assert all(map(is_groups, ("param_groups", "param_groups/base", "param_groups[0].lr")))
    assert not any(map(is_groups, ("params", "param_groups_", "my/param_groups")))
    assert numbers({"a": 10**400, "b": float("nan"), "c": 1}) == {"c": 1.0}
