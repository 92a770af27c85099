"""Moments of an optimizer times a factor: resets in doses."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from auditkit.errors import NothingToPerturb
from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.base import Perturbation
from auditkit.perturbations.optimizer_resets import chosen_states, unfit
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.memory_declarations import FIRST_MOMENTS, SCALED_BY_ROOT, SCALED_SQUARES
from auditkit.records.plan import ParameterValue


class MomentumScale(Perturbation):
    """Momentum buffers, or Adam's first moments, times ``factor``."""

    declaration = DECLARATIONS["momentum-scale"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Scale what there is of ``momentum_buffer`` and ``exp_avg``."""
        factor = float(parameters["factor"])
        _scale(objects, parameters, dict.fromkeys(FIRST_MOMENTS, factor), "momentum")


class SecondMomentScale(Perturbation):
    """Running squares of gradients times ``factor``."""

    declaration = DECLARATIONS["second-moment-scale"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Scale them; the mean that RMSprop subtracts the square of, by the root."""
        factor = float(parameters["factor"])
        factors = dict.fromkeys(SCALED_SQUARES, factor)
        factors.update(dict.fromkeys(SCALED_BY_ROOT, math.sqrt(factor)))
        _scale(objects, parameters, factors, "second moment")


def _scale(
    objects: TrainingObjects,
    parameters: Mapping[str, ParameterValue],
    factors: Mapping[str, float],
    what: str,
) -> None:
    states = chosen_states(objects, parameters)
    found = [
        (state, slot, state[slot])
        for state in states
        for slot in factors
        if isinstance(state.get(slot), Tensor)
    ]
    if not found:
        raise unfit(objects.optimizer, what)
    changed = False
    for state, slot, value in found:
        # Multiplied by 0, what is infinite would be none.
        state[slot] = value * factors[slot] if factors[slot] else torch.zeros_like(value)
        changed |= not torch.equal(state[slot], value)
    if not changed:
        slot = found[0][1]
        raise NothingToPerturb(
            f"every {slot} times {parameters['factor']} is what it was",
            component=f"optimizer/{slot}",
        )
