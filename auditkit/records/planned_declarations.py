"""Declarations by which a plan is judged: the reader's own, and those of the plan's program."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from auditkit.errors import PlanError, UnknownPerturbation
from auditkit.records.composed_declarations import composed
from auditkit.records.declaration import DECLARATIONS, Declaration, declaration_of, is_yoked
from auditkit.records.own_perturbation import OwnPerturbation, filled
from auditkit.records.parameter import ParameterValue
from auditkit.records.plan import PerturbationSpec, StudyPlan

#: Why a study file declares no order: a verifier makes each anew from the order file, without code.
ORDER_IS_FIXED = "which only auditkit's own may be: check 6 computes an order without running code"
OTHER_KINDS = (
    "a study file's perturbation changes the state at t0 (kind state), the bytes of the window's "
    "samples (kind data), or nothing"
)

Patterns = Callable[[Mapping[str, ParameterValue]], tuple[str, ...]]


def declarations_of(
    plan: StudyPlan, declarations: Mapping[str, Declaration]
) -> Mapping[str, Declaration]:
    """What the perturbations of a plan are; what it says of auditkit's own counts for nothing."""
    own = {one.name: declared(one) for one in plan.own_perturbations}
    known = {**declarations, **own, **DECLARATIONS} if own else declarations
    several: dict[str, Declaration] = {}
    for spec in plan.specs:
        if len(spec.parts) > 1:
            with contextlib.suppress(UnknownPerturbation):  # then nothing is known of it
                several[spec.name] = composed(spec.name, known)
    return {**known, **several} if several else known


def refuse_shadows(plan: StudyPlan, declarations: Mapping[str, Declaration]) -> None:
    """Refuse a perturbation of the program's own under a name that means another.

    Raises:
        UnknownPerturbation: Naming it.
    """
    for own in plan.own_perturbations:
        if own.name in declarations:
            raise UnknownPerturbation(
                f"the study file declares {own.name!r}, which is the name of another perturbation",
                hint="give it a name of its own",
            )


def resolved_break(
    spec: PerturbationSpec | None, declarations: Mapping[str, Declaration]
) -> PerturbationSpec | None:
    """A plan's causal break with its parameters filled in; None without one.

    Raises:
        UnknownPerturbation: On a name, parameter or value that no declaration has.
        PlanError: When it does not change the state.
    """
    if spec is None:
        return None
    declaration = declaration_of(spec.name, declarations)
    if declaration.kind != "state":
        raise PlanError(
            f"causal_break: {spec.typed} is of kind {declaration.kind}",
            expected="a reset of the state, such as optimizer-reset",
        )
    if is_yoked(spec):
        raise PlanError(f"causal_break: {spec.typed}: yoked= is for a whole branch")
    return declaration.resolve(spec)


def declared(own: OwnPerturbation) -> Declaration:
    """A perturbation of the program's own, as a declaration."""
    return Declaration(
        own.name,
        own.version,
        own.kind,
        own.summary or "the program's own",
        own.source or "the study file",
        own.parameters,
        touched=_patterns(own, own.touches),
        allowed=_patterns(own, own.allowed),
        cleared=_patterns(own, own.cleared),
        needs=own.needs,
    )


def _patterns(own: OwnPerturbation, patterns: tuple[str, ...]) -> Patterns:
    implied = {name: one.default for name, one in own.parameters.items()}
    return lambda values: filled(patterns, {**implied, **values})


class _Watched(dict[str, ParameterValue]):
    """Parameters that note whether they were looked at."""

    seen = False

    def __getitem__(self, key: str) -> ParameterValue:
        self.seen = True
        return super().__getitem__(key)

    def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
        self.seen = True
        return super().get(key, default)


def own_perturbation(declaration: Declaration) -> OwnPerturbation:
    """A declaration as a plan holds it.

    Raises:
        UnknownPerturbation: When it is of a kind that a study file cannot declare, or what it
            touches is computed from its parameters.
        PlanError: When a name can be no branch's.
    """
    kind, name = declaration.kind, declaration.name
    if kind == "order":
        raise UnknownPerturbation(f"{name} is of kind order, {ORDER_IS_FIXED}", hint=OTHER_KINDS)
    found = []
    for patterns in (declaration.touched, declaration.allowed, declaration.cleared):
        values = _Watched({key: one.default for key, one in declaration.parameters.items()})
        found.append(tuple(patterns(values)))
        if values.seen:
            raise UnknownPerturbation(
                f"{name}: what it touches is computed from its parameters; a plan holds no code",
                hint="write the parameter's name into the pattern, as in 'buffers/{name}', with "
                "auditkit.perturb(...)",
            )
    touches, allowed, cleared = found
    return OwnPerturbation(
        name,
        declaration.version,
        kind,
        touches,
        allowed,
        cleared,
        dict(declaration.parameters),
        declaration.summary,
        declaration.source,
        declaration.needs,
    )
