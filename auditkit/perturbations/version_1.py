"""Earlier versions of perturbations, as recorded studies were made with them."""

from __future__ import annotations

from collections.abc import Mapping

from auditkit.errors import NothingToPerturb
from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.base import Perturbation
from auditkit.perturbations.optimizer_resets import zero
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import ParameterValue

_MOMENTS = {"m": ("exp_avg",), "v": ("exp_avg_sq",), "mv": ("exp_avg", "exp_avg_sq")}


class AdamReset1(Perturbation):
    """``exp_avg`` and/or ``exp_avg_sq`` := 0, and ``step`` := 0; nothing else."""

    declaration = DECLARATIONS["adam-reset"].of_version(1)

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Zero ``exp_avg`` and/or ``exp_avg_sq``, and ``step`` where ``step=reset``."""
        zero(objects.optimizer, _MOMENTS[str(parameters["moments"])])
        if parameters["step"] == "reset":
            zero(objects.optimizer, ("step",))


class OptimizerReset1(Perturbation):
    """Every slot absent; counters in groups and attributes, and held optimizers, stay."""

    declaration = DECLARATIONS["optimizer-reset"].of_version(1)

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Clear ``optimizer.state``."""
        if not any(objects.optimizer.state.values()):
            raise NothingToPerturb("the optimizer keeps no state", component="optimizer")
        objects.optimizer.state.clear()
