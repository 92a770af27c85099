"""Do nothing: the carry side of the survey's carry/reset contrast."""

from __future__ import annotations

from collections.abc import Mapping

from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.base import Perturbation
from auditkit.records.perturbation import DECLARATIONS
from auditkit.records.plan import ParameterValue


class Carry(Perturbation):
    """Changes nothing, so that the branch must equal the control exactly."""

    declaration = DECLARATIONS["carry"]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Return at once."""
