"""Several perturbations, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.base import Material, Perturbation
from auditkit.records.composed_declarations import compose
from auditkit.records.composition import of_part
from auditkit.records.plan import ParameterValue


class Composed(Perturbation):
    """Each with its own parameters and the same seed, as it would be applied alone.

    Args:
        parts: In the order in which they are applied.
    """

    def __init__(self, parts: Sequence[Perturbation]) -> None:
        self._parts = parts
        self.declaration = compose([part.declaration for part in parts])  # type: ignore[misc]

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """As below, with nothing more at hand."""
        self.apply_with(objects, parameters, seed, Material())

    def apply_with(
        self,
        objects: TrainingObjects,
        parameters: Mapping[str, ParameterValue],
        seed: int,
        material: Material,
    ) -> None:
        """Apply them; every one of them must find something to change."""
        for part in self._parts:
            own = of_part(part.declaration.name, parameters)
            part.apply_with(objects, own, seed, material)
