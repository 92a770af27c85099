"""Which values of an optimizer's groups are told, and when."""

from __future__ import annotations

from typing import Any

import torch

from auditkit.formats.group_values import GROUPS
from auditkit.recorder.group_changes import GroupChanges


def told(changes: GroupChanges) -> dict[str, Any]:
    """What is told of a state whose groups are another object than before."""
    found = changes.changes({GROUPS: {"": bytes(bytearray(b"new"))}})
    return {name.removeprefix(f"{GROUPS}[0]."): value for name, value in found.items()}


def test_plain_values_are_told_once_and_again_when_they_change() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    group = optimizer.param_groups[0]
    changes = GroupChanges(optimizer)
    first = told(changes)
    assert (first["lr"], first["betas[0]"], first["amsgrad"], first["foreach"]) == (
        *(0.1, 0.9, False),
        None,
    )
    assert "params" not in first
    assert told(changes) == {}
    group.update(lr=float("inf"), amsgrad=1, foreach=True, mode="x" * 201, capturable=None)
    assert told(changes) == {"amsgrad": 1.0, "foreach": True, "capturable": None}
    group["foreach"] = None
    assert told(changes) == {"foreach": None}
