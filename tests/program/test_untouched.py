from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.optim.swa_utils import AveragedModel

from auditkit.errors import ProbeDisturbance
from auditkit.observe.state.components import TrainingObjects
from auditkit.program.untouched import MACHINERY, machinery, require_untouched


def objects() -> Any:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return TrainingObjects(model, optimizer, averaged={"ema": AveragedModel(model)})


class Idle(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        return None


CHANGES: dict[str, Callable[[Any], Any]] = {
    "forward hook": lambda o: o.model[0].register_forward_hook(lambda *given: None),
    "backward hook": lambda o: o.model[1].register_full_backward_hook(lambda *given: None),
    "forward": lambda o: setattr(o.model[0], "forward", lambda x: x),
    "class of a layer": lambda o: setattr(o.model[1], "__class__", nn.GELU),
    "class of the optimizer": lambda o: setattr(o.optimizer, "__class__", Idle),
    "step": lambda o: setattr(o.optimizer, "step", lambda: None),
    "optimizer hook": lambda o: o.optimizer.register_step_pre_hook(lambda *given: None),
    "gradient hook": lambda o: o.model[0].weight.register_hook(lambda grad: None),
    "hook after a gradient": lambda o: o.model[0].bias.register_post_accumulate_grad_hook(
        lambda weight: None
    ),
    "hook of every module": lambda o: nn.modules.module.register_module_forward_hook(
        lambda *given: None
    ),
    "hook of every optimizer": lambda o: register_optimizer_step_pre_hook(lambda *given: None),
    "average": lambda o: o.averaged["ema"].module[0].register_forward_pre_hook(lambda *g: None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_code_that_is_attached_is_seen(change: str) -> None:
    found = objects()
    before = machinery(found)
    found.model(torch.ones(1, 2)).sum().backward()
    found.optimizer.step()
    found.model.eval()
    assert machinery(found) == before
    kept = CHANGES[change](found)
    assert machinery(found) != before
    if hasattr(kept, "remove"):
        kept.remove()
        assert machinery(found) == before


def test_what_was_touched_is_named() -> None:
    require_untouched({"params": b"1"}, {"params": b"1"}, "a measure", "")
    with pytest.raises(ProbeDisturbance) as caught:
        require_untouched({MACHINERY: b"1"}, {MACHINERY: b"2"}, "a measure", "copy it")
    assert caught.value.component == MACHINERY
