"""Perturbations that change no state: carry, and the window's samples in another order.

Carry is one side of the survey's carry/reset contrast. What the order perturbations deliver:
:mod:`auditkit.formats.ordering`.
"""

from __future__ import annotations

from collections.abc import Mapping

from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.base import Perturbation
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import ParameterValue


class Carry(Perturbation):
    """Changes nothing, so that the branch must equal the control exactly."""

    declaration = DECLARATIONS["carry"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Return at once."""


class OrderReverse(Carry):
    """The window's samples, or batches, in reverse order."""

    declaration = DECLARATIONS["order-reverse"]


class OrderShuffle(Carry):
    """The window's samples, or batches, in an order drawn from (seed, ``draw``)."""

    declaration = DECLARATIONS["order-shuffle"]


class OrderSwap(Carry):
    """The window's first and second half exchanged."""

    declaration = DECLARATIONS["order-swap"]


class OrderCurriculum(Carry):
    """The window's samples, or batches, from the easiest to the hardest, or the other way round."""

    declaration = DECLARATIONS["order-curriculum"]


class OrderWithReplacement(Carry):
    """As many samples, or batches, drawn from the window's with replacement."""

    declaration = DECLARATIONS["order-with-replacement"]
