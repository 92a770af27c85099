"""Attributes that were one object when they were built, and may have parted since."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_attributes import built
from tiny_programs import digests, frozen
from torch import nn

from auditkit.observe.state.attributes import MODULES

Held = dict[str, Any]


class Running(nn.Module):
    """Slots that begin as one default, as a metric's window has them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.inner = nn.Module()
        default: Any = torch.zeros(2)
        self.inner.defaults = {"value": default}  # type: ignore[assignment]
        self.first = self.second = default
        self.some = self.others = self.none = [0.0]

    def held(self) -> Held:
        """All of it, as plain values."""
        found = {"inner": self.inner.defaults["value"].tolist()}  # type: ignore[index]
        found |= {name: getattr(self, name).tolist() for name in ("first", "second")}
        return found | {name: list(getattr(self, name)) for name in ("some", "others", "none")}


def memories(module: Running) -> list[bool]:
    """Which slots are the same memory."""
    default: Any = module.inner.defaults
    return [
        one.data_ptr() == other.data_ptr()
        for one, other in [
            (module.first, module.second),
            (module.first, default["value"]),
            (module.second, default["value"]),
        ]
    ]


def parts(module: Running) -> None:
    module.first = module.first + 1
    module.second = module.second - 1
    module.some = [1.0, 2.0]


def becomes_one(module: Running) -> None:
    module.first.add_(3)
    module.some.append(7.0)


@pytest.mark.parametrize("change", [parts, becomes_one])
def test_a_fresh_program_comes_back_to_what_was_one_object(
    change: Callable[[Running], None],
) -> None:
    torch.manual_seed(0)
    module, fresh = Running(), Running()
    objects, again = built(module), built(fresh)
    change(module)
    assert objects.built is not None
    assert again.built is not None
    saved = frozen(objects.built.attributes.changed())
    again.built.attributes.restore(saved)
    assert fresh.held() == module.held()
    assert (fresh.some is fresh.others) == (module.some is module.others)
    assert memories(fresh) == memories(module)
    assert digests(again.built.attributes.changed()) == digests(saved)


def test_a_reset_parts_nothing_and_overwrites_nothing() -> None:
    module = Running()
    objects = built(module)
    before = module.held()
    becomes_one(module)
    assert objects.built is not None
    objects.built.attributes.reset(MODULES)
    assert module.held() == before
    module.second = module.others = module.none = None  # type: ignore[assignment]
    kept = module.first.add_(1)
    objects.built.attributes.reset(MODULES)
    assert module.first.tolist() == module.second.tolist() == [0, 0]
    assert module.inner.defaults["value"].tolist() == [0, 0]  # type: ignore[index]
    assert kept is not None
