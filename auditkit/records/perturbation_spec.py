"""A perturbation as a plan names it, as it is typed and as files are named after it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from auditkit.errors import PlanError
from auditkit.records import composition, plan_values
from auditkit.records.causal_break import BROKEN
from auditkit.records.file_names import from_file_name, in_file_name
from auditkit.records.parameter import ParameterValue

_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)

#: What stands in front of a parameter's value in the name of a branch.
_PARAMETER = re.compile(r"--([^\W\d]\w*)-")

#: What stands between the name of a branch and its fork where a study has several: no name has it.
FORK_MARK = "/t0="


@dataclass(frozen=True)
class PerturbationSpec:
    """One perturbation as a plan names it.

    Attributes:
        name: Registered name, e.g. ``adam-reset``.
        parameters: Values by parameter name, e.g. ``{"moments": "mv", "step": "keep"}``.
            Parameters that are not given take the declaration's defaults when the plan is
            resolved, so that a manifest always holds all of them.
    """

    name: str
    parameters: dict[str, ParameterValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check types, converting nothing but other kinds of whole numbers.

        Raises:
            PlanError: When something is neither a text nor a whole number, naming it.
        """
        if not plan_values.text("perturbations: a name", self.name):
            raise PlanError("perturbations: a name is empty")
        place = f"perturbations: {self.name}"
        parameters = plan_values.parameters(place, self.parameters)
        object.__setattr__(self, "parameters", parameters)  # frozen: the only way to fill it

    @classmethod
    def parse(cls, text: str) -> PerturbationSpec:
        """Read ``NAME`` or ``NAME:key=value,key=value``, or several of them joined by ``+``.

        Raises:
            PlanError: On a parameter without ``=`` or given twice.
        """
        plan_values.text("a perturbation", text)
        if len(parts := composition.texts(text.strip())) > 1:
            found = [cls.parse(part) for part in parts]
            return cls(*composition.joined([(one.name, one.parameters) for one in found]))
        name, _, rest = text.strip().partition(":")
        if not name:
            raise PlanError(f"no perturbation name in {plan_values.shown(text)}")
        parameters: dict[str, ParameterValue] = {}
        for item in filter(None, rest.split(",")):
            key, equals, value = (part.strip() for part in item.partition("="))
            if not equals or not key or not value:
                raise PlanError(
                    f"perturbation {plan_values.shown(text)}: {plan_values.shown(item)} "
                    "is not key=value"
                )
            if key in parameters:
                raise PlanError(
                    f"perturbation {plan_values.shown(text)}: {plan_values.shown(key)} "
                    "is given twice"
                )
            parameters[key] = int(value) if _WHOLE.fullmatch(value) else value
        return cls(name, parameters)

    @property
    def parts(self) -> tuple[PerturbationSpec, ...]:
        """What it is composed of; itself where it is no composition."""
        if composition.SIGN not in self.name:
            return (self,)
        found = composition.parts(self.name, self.parameters)
        return tuple(PerturbationSpec(name, values) for name, values in found)

    @property
    def branch_name(self) -> str:
        """File name stem of its branch: ``adam-reset--moments-mv--step-keep``."""
        if len(self.parts) > 1:
            return composition.SIGN.join(part.branch_name for part in self.parts)
        parts = [self.name, *(f"{k}-{in_file_name(v)}" for k, v in sorted(self.parameters.items()))]
        return "--".join(parts)

    @property
    def typed(self) -> str:
        """As it is typed: ``adam-reset:moments=mv,step=keep``."""
        if len(self.parts) > 1:
            return composition.SIGN.join(part.typed for part in self.parts)
        given = ",".join(f"{key}={value}" for key, value in sorted(self.parameters.items()))
        return f"{self.name}:{given}" if given else self.name


def as_typed(branch_name: str) -> str:
    """The name of a treatment's branch as its perturbation is typed; any other as it is."""
    branch_name, mark, fork = branch_name.partition(FORK_MARK)
    if mark:
        return f"{as_typed(branch_name)} at t0={fork}"
    if branch_name.endswith(BROKEN):
        return f"{as_typed(branch_name.removesuffix(BROKEN))}, broken"
    if len(several := composition.texts(branch_name)) > 1:
        return composition.SIGN.join(map(as_typed, several))
    name, *parts = _PARAMETER.split(branch_name)
    values = map(from_file_name, parts[1::2])
    given = ",".join(f"{key}={value}" for key, value in zip(parts[::2], values, strict=True))
    return f"{name}:{given}" if name and given else branch_name
