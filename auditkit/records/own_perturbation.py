"""A perturbation of the program's own, as its plan declares it.

Auditkit's perturbations are judged by the verifier's own table. What a study file declares is in no
table, so the declaration stands in the plan, which is signed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from auditkit.errors import PlanError
from auditkit.records.parameter import Parameter, ParameterValue
from auditkit.records.plan_values import shown

OwnKind = Literal["none", "state", "data"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)

#: Names that files and branches of every study have.
_TAKEN = re.compile(r"control|replica|trunk|order|fork|placebo-[0-9]+")

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class OwnPerturbation:
    """What a perturbation of the program's own is, without its code.

    Attributes:
        name: Its name.
        version: Raised by its author whenever it would change other bits.
        kind: ``none``, ``state`` or ``data``.
        touches: Component patterns (``fnmatch``) of what it changes at t0, as of a declaration's
            ``touched``; ``{NAME}`` stands for the value of a parameter.
        allowed: Of what else it may change.
        cleared: Of what else it may clear.
        parameters: Its parameters by name.
        summary: One line for people.
        source: Where it is described.
        needs: What a program must have for it.
    """

    name: str
    version: int
    kind: OwnKind
    touches: tuple[str, ...]
    allowed: tuple[str, ...] = ()
    cleared: tuple[str, ...] = ()
    parameters: dict[str, Parameter] = field(default_factory=dict)
    summary: str = ""
    source: str = ""
    needs: str = ""

    def __post_init__(self) -> None:
        """Check names.

        Raises:
            PlanError: When a name can be no branch's, or a pattern names no parameter.
        """
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise PlanError(
                f"no perturbation can be called {self.name!r}",
                expected="small letters, digits and single hyphens, as in my-reset",
            )
        if _TAKEN.fullmatch(self.name):
            raise PlanError(f"no perturbation can be called {self.name!r}: every study has that")
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise PlanError(f"{self.name}: version must be a whole number of at least 1")
        if self.kind == "state" and not (self.touches or self.allowed or self.cleared):
            raise PlanError(f"{self.name}: it touches nothing", expected="touches='params', say")
        if self.kind == "data" and (self.touches or self.allowed or self.cleared):
            raise PlanError(
                f"{self.name}: it changes data, and no state at t0",
                expected="no touches and no may_touch",
                hint="declare two perturbations",
            )
        for pattern in (*self.touches, *self.allowed, *self.cleared):
            if not isinstance(pattern, str) or not pattern:
                raise PlanError(f"{self.name}: {pattern!r} names no component")
            unknown = set(_PLACEHOLDER.findall(pattern)) - self.parameters.keys()
            if unknown:
                raise PlanError(f"{self.name}: {pattern} names no parameter {min(unknown)!r}")

    @property
    def changes(self) -> str:
        """What it changes, for people."""
        if self.kind == "data":
            return "the window's data"
        return ", ".join((*self.touches, *self.allowed, *self.cleared)) or "nothing"


def filled(patterns: tuple[str, ...], values: Mapping[str, ParameterValue]) -> tuple[str, ...]:
    """Patterns with the values of parameters in them."""
    return tuple(
        _PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), pattern)
        for pattern in patterns
    )


def as_object(item: object) -> tuple[object, OwnPerturbation] | None:
    """A perturbation that a plan was given as an object or a class, and its declaration.

    Returns:
        None where it is none.

    Raises:
        PlanError: When it is a class that cannot be called without arguments.
        AuditError: When it declares what no study file can.
    """
    if not hasattr(item, "declaration"):
        return None
    if isinstance(item, type):
        try:
            item = item()
        except TypeError as error:
            raise PlanError(f"perturbations: {error}", hint="give an object of the class") from None
    own = getattr(item, "own", None)
    return (item, own) if isinstance(own, OwnPerturbation) else None


def each_once(*several: Iterable[object]) -> tuple[OwnPerturbation, ...]:
    """Declarations, those of one name once.

    Raises:
        PlanError: When something is none, or two of one name differ.
    """
    by_name: dict[str, OwnPerturbation] = {}
    for own in itertools.chain(*several):
        if not isinstance(own, OwnPerturbation):
            raise PlanError(f"own_perturbations must be declarations, not {shown(own)}")
        if by_name.setdefault(own.name, own) != own:
            raise PlanError(f"two perturbations are called {own.name!r}")
    return tuple(by_name.values())
