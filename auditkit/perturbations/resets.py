"""Resets of optimizer state, and of BatchNorm statistics (the survey's sources S1 and S2).

"Momentum reset" is not one thing: clearing a slot and setting it to zero differ where
dampening is not 0, and zeroing Adam's second moment without its step count is another
treatment than with it (its bias correction no longer fits). Each variant has its own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from auditkit.errors import NothingToPerturb
from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.base import Perturbation
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import ParameterValue

_MOMENTS = {"m": ("exp_avg",), "v": ("exp_avg_sq",), "mv": ("exp_avg", "exp_avg_sq")}


class MomentumReset(Perturbation):
    """SGD's momentum buffers := 0; a buffer that does not exist yet stays absent."""

    declaration = DECLARATIONS["momentum-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Zero ``momentum_buffer`` of every parameter."""
        _zero(objects.optimizer, ("momentum_buffer",))


class AdamReset(Perturbation):
    """Adam's first (m) and second (v) moments := 0, the step count kept or set to 0."""

    declaration = DECLARATIONS["adam-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Zero ``exp_avg`` and/or ``exp_avg_sq``, and ``step`` where ``step=reset``."""
        slots = _MOMENTS[str(parameters["moments"])]
        _zero(objects.optimizer, slots)
        if parameters["step"] == "reset":
            _zero(objects.optimizer, ("step",))


class OptimizerReset(Perturbation):
    """Every slot absent, as in a newly built optimizer (the causal break)."""

    declaration = DECLARATIONS["optimizer-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Clear ``optimizer.state``."""
        if not any(objects.optimizer.state.values()):
            raise NothingToPerturb("the optimizer keeps no state", component="optimizer")
        objects.optimizer.state.clear()


class BatchNormReset(Perturbation):
    """Running mean := 0, running variance := 1, batch count := 0, as newly built."""

    declaration = DECLARATIONS["batchnorm-reset"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Call ``reset_running_stats`` of every BatchNorm layer."""
        layers = [
            layer
            for layer in objects.model.modules()
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None
        ]
        if not layers:
            raise NothingToPerturb(
                "the model has no BatchNorm with running statistics", component="batchnorm"
            )
        before = [buffer.clone() for layer in layers for buffer in layer.buffers()]
        for layer in layers:
            layer.reset_running_stats()
        after = [buffer for layer in layers for buffer in layer.buffers()]
        if all(torch.equal(old, new) for old, new in zip(before, after, strict=True)):
            raise NothingToPerturb("BatchNorm is as newly built already", component="batchnorm")


def _zero(optimizer: torch.optim.Optimizer, slots: Iterable[str]) -> None:
    for slot in slots:
        states = [state for state in optimizer.state.values() if state.get(slot) is not None]
        if not states:
            raise NothingToPerturb(
                f"{type(optimizer).__name__} keeps no {slot} at t0",
                component=f"optimizer/{slot}",
                hint="choose a perturbation that fits the optimizer",
            )
        if not any(_is_set(state[slot]) for state in states):
            raise NothingToPerturb(f"every {slot} is 0 already", component=f"optimizer/{slot}")
        for state in states:
            value = state[slot]
            zero = torch.zeros_like(value) if isinstance(value, Tensor) else type(value)(0)
            state[slot] = zero


def _is_set(value: Any) -> bool:
    return bool(value.count_nonzero()) if isinstance(value, Tensor) else bool(value)
