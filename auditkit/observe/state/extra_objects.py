"""Whatever else training depends on, by name: modules, optimizers, generators and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from auditkit.observe.rng.streams import Generator, restore_generator
from auditkit.observe.state import modules
from auditkit.observe.state.families import OptimizerFamily
from auditkit.observe.state.state_dicts import load_state, required
from auditkit.observe.values.stored import Saved, loaded


def restore_extra(
    name: str,
    extra: Any,
    state: Mapping[str, Saved],
    trained: Mapping[str, Tensor],
) -> None:
    """Put one of them back.

    Raises:
        RestoreMismatch: When the snapshot has no such object, or another one.
    """
    component = f"extras/{name}"
    if isinstance(extra, Generator):
        restore_generator(extra, loaded(required(state, f"rng/extras/{name}")))
    elif isinstance(extra, nn.Module):
        modules.restore_whole_module(extra, required(state, component), component)
    elif isinstance(extra, torch.optim.Optimizer):
        family = OptimizerFamily(extra, ())
        family.restore_whole(trained, required(state, component))
    else:
        load_state(extra, required(state, component), component)
