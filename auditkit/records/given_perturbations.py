"""What a plan is given as perturbations: names, specs, and objects that declare themselves."""

from __future__ import annotations

from auditkit.errors import PlanError
from auditkit.records import plan_values
from auditkit.records.own_perturbation import OwnPerturbation, as_object
from auditkit.records.perturbation_spec import PerturbationSpec
from auditkit.records.plan_values import shown

#: Most perturbations of a plan: a forged plan must not cost memory.
MAX_PERTURBATIONS = 1000


def given_perturbations(
    given: object, field: str = "perturbations"
) -> tuple[tuple[PerturbationSpec, ...], dict[object, OwnPerturbation]]:
    """Specs, and of those that were given as objects, these with what they declare.

    Args:
        given: What the field was given.
        field: Its name: of ``causal_break`` one perturbation or None is given, and no list.

    Raises:
        PlanError: When one of them is no perturbation.
    """
    specs: list[PerturbationSpec] = []
    objects: dict[object, OwnPerturbation] = {}
    if field == "causal_break":
        given = () if given is None else (given,)
    for item in plan_values.items(field, given, MAX_PERTURBATIONS):
        if isinstance(item, str):
            specs.append(PerturbationSpec.parse(item))
        elif isinstance(item, PerturbationSpec):
            specs.append(item)
        elif (found := as_object(item)) is not None:
            objects[found[0]] = found[1]
            specs.append(PerturbationSpec(found[1].name))
        else:
            raise PlanError(
                f"{field}: {shown(item)} is no perturbation",
                expected="a name, a PerturbationSpec, or what auditkit.perturb gives",
            )
    return tuple(specs), objects
