"""What a perturbation is, for those who write one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from auditkit.errors import NothingToPerturb
from auditkit.observe.state.components import TrainingObjects
from auditkit.records.declaration import Declaration
from auditkit.records.own_perturbation import OwnPerturbation
from auditkit.records.plan import ParameterValue
from auditkit.records.planned_declarations import own_perturbation


@dataclass(frozen=True)
class Material:
    """What a perturbation may need besides the objects; a session has it, where it can.

    Attributes:
        rebuild: Builds the program's objects anew, from the same seed; None of a script.
        recalibrate: Recomputes BatchNorm's running statistics over the control's first batches;
            None where there are none.
    """

    rebuild: Callable[[], TrainingObjects] | None = None
    recalibrate: Callable[[], None] | None = None

    def rebuilt(self, name: str) -> TrainingObjects:
        """The objects as newly built.

        Raises:
            NothingToPerturb: When nothing builds them.
        """
        if self.rebuild is None:
            raise NothingToPerturb(f"{name} needs a factory that builds the program anew")
        return self.rebuild()


def nothing_yet(message: str, component: str) -> NothingToPerturb:
    """What to say of something that is already what it would become, and may not be later."""
    hint = "another t0 (fork_at) may find something to change; else leave it out"
    error = NothingToPerturb(message, component=component, hint=hint)
    error.for_now = True
    return error


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

    def apply_with(
        self,
        objects: TrainingObjects,
        parameters: Mapping[str, ParameterValue],
        seed: int,
        material: Material,
    ) -> None:
        """The same, with more at hand; what needs none of it is applied as above."""
        self.apply(objects, parameters, seed)
