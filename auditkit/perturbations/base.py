"""What a perturbation is, for those who write one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from auditkit.observe.state.components import TrainingObjects
from auditkit.records.declaration import Declaration
from auditkit.records.own_perturbation import OwnPerturbation
from auditkit.records.plan import ParameterValue
from auditkit.records.planned_declarations import own_perturbation


class Perturbation(ABC):
    """One named change of the training state at t0.

    Subclass it, give it a :class:`~auditkit.records.declaration.Declaration`, and put it into the
    ``perturbations`` of a study file's plan, or register it under the entry point group
    ``auditkit.perturbations``; a function is enough for :func:`auditkit.perturb`::

        class ZeroBias(Perturbation):
            declaration = Declaration(
                "zero-bias", 1, "state", "every bias := 0", "this paper",
                touched=lambda parameters: ("params",),
            )

            def apply(self, objects, parameters, seed):
                for name, parameter in objects.model.named_parameters():
                    if name.endswith("bias"):
                        parameter.data.zero_()

    Its random numbers must come from ``seed`` and the parameters alone, never from the global
    streams: check 7 holds a branch to the components that its declaration names.
    """

    declaration: ClassVar[Declaration]

    @property
    def own(self) -> OwnPerturbation:
        """What a plan holds of it where it stands in a study file.

        Raises:
            UnknownPerturbation: When no plan can hold what it declares.
        """
        return own_perturbation(self.declaration)

    @abstractmethod
    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Change live objects in place.

        Args:
            objects: The restored training objects.
            parameters: All parameters of the declaration, with values.
            seed: The study seed.

        Raises:
            NothingToPerturb: When there is nothing to change.
        """
