"""Perturbations of a study file: made of a function, and found again where the file is imported.

A worker imports the study file, as a replay does, and looks at what it holds: perturbations in its
plan, and those that are values of the module. The file lies in ``code/`` with all that it imports.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, Literal

from auditkit.errors import ArtifactMismatch, PlanError, UnknownPerturbation
from auditkit.formats.quote import brief
from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.base import Perturbation
from auditkit.perturbations.data import DataPerturbation, WindowBatch
from auditkit.records.own_perturbation import OwnPerturbation
from auditkit.records.parameter import Parameter, ParameterValue
from auditkit.records.plan import StudyPlan
from auditkit.records.planned_declarations import ORDER_IS_FIXED, OTHER_KINDS, declared

Change = Callable[..., Any]

#: What ``fn`` is called with, by kind.
_ARGUMENTS = {
    "state": ("objects", "parameters", "seed"),
    "data": ("batch", "step", "generator"),
}

_PARAMETERS = "parameters"


class _OfFunction(Perturbation):
    """A function with a declaration.

    Args:
        own: The declaration.
        change: The function.
    """

    def __init__(self, own: OwnPerturbation, change: Change) -> None:
        self._own, self._change = own, change
        self.declaration = declared(own)  # type: ignore[misc] # of each object its own

    @property
    def own(self) -> OwnPerturbation:
        """What a plan holds of it."""
        return self._own

    def _complete(self, parameters: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
        """With the parameters that go without saying, too."""
        return {**{name: one.default for name, one in self._own.parameters.items()}, **parameters}


class FunctionPerturbation(_OfFunction):
    """A function of the training objects."""

    def apply(
        self, objects: TrainingObjects, parameters: Mapping[str, ParameterValue], seed: int
    ) -> None:
        """Call the function."""
        self._change(objects, self._complete(parameters), seed)


class FunctionDataPerturbation(_OfFunction, DataPerturbation):
    """A function of the window's batches."""

    def change(self, batch: WindowBatch, parameters: Mapping[str, ParameterValue]) -> Any:
        """Call the function on what the step would consume."""
        change = self._change
        if self._own.parameters:
            change = partial(change, parameters=self._complete(parameters))
        return batch.drawing(change, f"perturbation {self._own.name}", batch.usual())


def perturb(  # noqa: PLR0913 # one argument a field of the declaration
    name: str,
    *,
    touches: str | Iterable[str] = (),
    fn: Change,
    kind: Literal["state", "data"] = "state",
    version: int = 1,
    parameters: Mapping[str, Parameter] | None = None,
    may_touch: str | Iterable[str] = (),
    summary: str = "",
    source: str = "",
    needs: str = "",
) -> Perturbation:
    """Declare a perturbation in a study file, for ``StudyPlan(perturbations=[...])``.

    Args:
        name: Its name, which no other perturbation has.
        touches: The component that it changes, or several, as patterns (``fnmatch``):
            ``"buffers/queue"``. One without a wildcard must differ at t0, of one with a wildcard
            something that matches; ``{NAME}`` stands for the value of a parameter. Nothing where
            data are changed.
        fn: ``fn(objects, parameters, seed)`` changes the training objects in place. What it draws
            must come from ``seed`` and the parameters. Where data are changed,
            ``fn(batch, step, generator)`` is given a copy of what a step of the window would
            consume and returns what it is to consume; parameters are given as ``parameters=``.
        kind: ``state`` changes the state at t0, ``data`` the bytes of the window's samples.
        version: Raise it whenever the same name would change other bits.
        parameters: By name, as ``{"rows": auditkit.Parameter(default=8)}``.
        may_touch: Further components that may differ.
        summary: One line for people.
        source: Where it is described.
        needs: What a program must have for it.

    Raises:
        PlanError: When the declaration cannot be one.
    """
    _require_kind(name, kind)
    named = (_PARAMETERS,) if kind == "data" and parameters else ()
    _require_arguments(name, fn, _ARGUMENTS[kind], named)
    own = OwnPerturbation(
        name,
        version,
        kind,
        _patterns(touches),
        _patterns(may_touch),
        parameters=dict(parameters or {}),
        summary=summary,
        source=source,
        needs=needs,
    )
    return FunctionPerturbation(own, fn) if kind == "state" else FunctionDataPerturbation(own, fn)


def _require_kind(name: str, kind: str) -> None:
    if kind == "order":
        raise PlanError(f"perturbation {name}: kind order, {ORDER_IS_FIXED}", hint=OTHER_KINDS)
    if kind not in _ARGUMENTS:
        raise PlanError(f"perturbation {name}: no kind {kind!r}", expected=", ".join(_ARGUMENTS))


def _require_arguments(
    name: str, fn: object, arguments: tuple[str, ...], named: tuple[str, ...]
) -> None:
    if not callable(fn):
        raise PlanError(f"perturbation {name}: fn is no function")
    try:
        # Its own: a decorator that gives further arguments to what it wraps takes fewer.
        inspect.signature(fn, follow_wrapped=False).bind(*arguments, **dict.fromkeys(named))
    except TypeError:
        raise PlanError(
            f"perturbation {name}: fn does not take {'four' if named else 'three'} arguments",
            expected=f"fn({', '.join((*arguments, *named))})",
        ) from None
    except ValueError:  # without a signature that could be looked at
        pass


def _patterns(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


_adopted: dict[str, Perturbation] = {}


def adopt(
    values: Iterable[object], plan: StudyPlan | None, known: Callable[[], Iterable[str]]
) -> None:
    """Take over what a study file declares; what an earlier one did is forgotten.

    Args:
        values: The module's.
        plan: Its plan.
        known: Gives the names that are taken; asked where something is declared, since it loads
            plug-ins.

    Raises:
        UnknownPerturbation: When two have one name, or one has a name that is taken.
    """
    _adopted.clear()
    objects = () if plan is None else plan.objects
    of_module = (value for value in values if issubclass(type(value), Perturbation))
    for perturbation in (*objects, *of_module):
        assert isinstance(perturbation, Perturbation)  # noqa: S101 # a plan takes no other
        name = perturbation.own.name
        if name in known():
            raise UnknownPerturbation(
                f"the study file declares {name!r}, which is the name of another perturbation",
                hint="give it a name of its own",
            )
        if (perturbation.own.kind == "data") != isinstance(perturbation, DataPerturbation):
            raise UnknownPerturbation(
                f"the study file's {name!r} is of kind {perturbation.own.kind}",
                hint="kind data, and no other, is a subclass of DataPerturbation",
            )
        other = _adopted.setdefault(name, perturbation)
        if other is not perturbation and type(other) is not type(perturbation):
            raise UnknownPerturbation(f"the study file declares {name!r} twice")
        if isinstance(perturbation, _OfFunction) and other is not perturbation:
            raise UnknownPerturbation(f"the study file declares {name!r} twice")


def adopted() -> Mapping[str, Perturbation]:
    """What the study file that was imported last declares, by name."""
    return _adopted


def require_declared(plan: StudyPlan | None) -> None:
    """Require the study file to declare what a plan says of it.

    Raises:
        UnknownPerturbation: Naming the first that it does not declare.
        ArtifactMismatch: Naming the first that it declares otherwise: plan and code, which one
            signature covers, contradict each other.
    """
    for own in () if plan is None else plan.own_perturbations:
        found = _adopted.get(own.name)
        if found is None:
            raise UnknownPerturbation(
                f"the study file declares no perturbation {own.name!r}",
                expected=", ".join(sorted(_adopted)) or None,
                hint="it must be in the plan, or a value of the module",
            )
        if found.own != own:
            name = next(f.name for f in fields(own) if _differs(own, found.own, f.name))
            raise ArtifactMismatch(
                f"the study file declares {own.name!r} otherwise than the plan: {name}",
                expected=brief(str(getattr(own, name))),
                found=brief(str(getattr(found.own, name))),
            )


def _differs(one: object, other: object, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))
