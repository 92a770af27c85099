"""What a program's branches are compared on: probes, and measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, Protocol

from torch import Tensor

from auditkit.errors import PlanError, ProgramError
from auditkit.formats.quote import class_of
from auditkit.program.probe import Probe
from auditkit.records.metric_names import MEASURES, NAME, split_metric
from auditkit.records.observed import MeasureRecord, Observed
from auditkit.records.output_kinds import CLASSES, KINDS
from auditkit.records.plan import SIGNED_METRICS, StudyPlan
from auditkit.records.plan_values import is_one_of, shown
from auditkit.statistics.real_outputs import CONSTANT_TARGETS, has_constant_output

#: How a measure names the probe of a program that has one without a name.
UNNAMED = "probe"

#: Names that say something else in an outcome file.
_TAKEN = (MEASURES, "labels", "t0", "T")

#: What to do about a number beyond the range that was declared.
_RANGE = "declare the range that it has, with room for rounding, or None at an open end"


@dataclass(frozen=True)
class Measure:
    """A number of the program's own, such as an agent's return.

    Attributes:
        fn: ``fn(program)`` gives it. It trains, draws and writes nothing that training sees; the
            random streams are seeded for it, the same in every branch and at every time, and put
            back.
        better: Whether more of it is better, ``higher`` or ``lower``; only told.
        low: The least that it can be; less is an error.
        high: The most.
        on: The name of one of ``Program.probes``, or ``"probe"`` for ``Program.probe``: then it is
            a metric of that probe's outputs, and ``fn(outputs, labels)`` is given the table that
            is kept of them (class probabilities, predictions, embeddings: float32 ``(N, C)``) and
            the probe's labels or targets, or None.
    """

    fn: Callable[..., Any]
    better: Literal["higher", "lower"] | None = None
    low: float | None = None
    high: float | None = None
    on: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise ProgramError("Measure.fn is no function", found=class_of(self.fn))
        if self.better is not None and not is_one_of(self.better, ("higher", "lower")):
            raise ProgramError(f"Measure.better is 'higher' or 'lower', not {shown(self.better)}")
        ends: dict[str, Any] = {"low": self.low, "high": self.high}
        for name, end in ends.items():
            is_number = isinstance(end, Real) and not isinstance(end, bool)
            if end is not None and not (is_number and math.isfinite(end)):
                raise ProgramError(f"Measure.{name} is a finite number, not {shown(end)}")
        if not isinstance(self.on, str | None):
            raise ProgramError(f"Measure.on is the name of a probe, not {shown(self.on)}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ProgramError(f"Measure: low {self.low:g} is not below high {self.high:g}")

    def record(self, name: str) -> MeasureRecord:
        """What the manifest says of it."""
        low, high = (None if end is None else float(end) for end in (self.low, self.high))
        return MeasureRecord(name, self.better, low, high)

    def value(self, name: str, *given: object) -> float:
        """The number.

        Args:
            name: Its name.
            given: The program; or outputs and labels.

        Raises:
            ProgramError: When it is none, or beyond its range.
        """
        found = self.fn(*given)
        if isinstance(found, Tensor) and found.numel() == 1:
            found = found.item()
        try:
            value = float(found)
        except (TypeError, ValueError):
            raise ProgramError(
                f"measure {name} gives {class_of(found)}, not a number", hint="return one float"
            ) from None
        record = self.record(name)
        if value - value == 0 and not record.allows(value):  # what is not finite is divergence
            raise ProgramError(
                f"measure {name} is {value!r}, beyond its range", expected=record.told, hint=_RANGE
            )
        return value


def probes_by_name(probe: Probe | None, probes: Mapping[str, Probe]) -> dict[str, Probe]:
    """Every probe; one that has no name under an empty one."""
    return dict(probes) if probe is None else {"": probe}


def measures_by_name(measures: Mapping[str, Measure | Callable[[Any], Any]]) -> dict[str, Measure]:
    """Every measure."""
    return {
        name: measure if isinstance(measure, Measure) else _measure(name, measure)
        for name, measure in measures.items()
    }


def _measure(name: str, given: Callable[[Any], Any]) -> Measure:
    if not callable(given):
        raise ProgramError(
            f"Program.measures[{name!r}] has the wrong type",
            expected="a function of the program, or auditkit.Measure",
            found=class_of(given),
        )
    return Measure(given)


def probe_on(measure: Measure, probes: Iterable[str]) -> str | None:
    """The probe whose outputs a measure is of; one that has no name is empty."""
    return "" if measure.on == UNNAMED and "" in probes else measure.on


def observed(probes: Mapping[str, Probe], measures: Mapping[str, Measure]) -> Observed:
    """What the manifest says of them."""
    kinds = tuple(probe.outputs for probe in probes.values())
    records = tuple(
        replace(measure.record(name), on=probe_on(measure, probes))
        for name, measure in measures.items()
    )
    return Observed(tuple(probes), records, kinds if set(kinds) - {CLASSES} else ())


def check_observables(
    probe: Probe | None, probes: Mapping[str, Probe], measures: Mapping[str, Any]
) -> None:
    """Refuse a program without anything to compare branches on, and names that do not fit.

    Raises:
        ProgramError: Naming what does not fit.
    """
    if probe is not None and probes:
        raise ProgramError("Program has probe= and probes=", hint="name all of them in probes=")
    if not isinstance(probe, Probe) and (probe is not None or not (probes or measures)):
        raise ProgramError(
            "Program.probe has the wrong type",
            expected=f"{Probe.__module__}.{Probe.__name__}",
            found=class_of(probe),
        )
    for kind, names in (("probes", probes), ("measures", measures)):
        for name in names:
            if not isinstance(name, str) or not NAME.fullmatch(name) or name in _TAKEN:
                raise ProgramError(
                    f"Program.{kind} has the name {name!r}",
                    expected="a letter, then letters, digits, - and _; not t0, T, labels, measures",
                )
    for name, each in probes.items():
        if not isinstance(each, Probe):
            raise ProgramError(f"Program.probes[{name!r}] is no Probe", found=class_of(each))
    known = tuple(probes) if probe is None else (UNNAMED,)
    for name, measure in measures.items():
        on = measure.on if isinstance(measure, Measure) else None
        if on is not None and on not in known:
            raise ProgramError(
                f"measure {name} is on a probe that there is not",
                expected=" or ".join(map(repr, known)) or "a program with a probe",
                found=repr(on),
            )


def require_primary(program: Observable, plan: StudyPlan) -> None:
    """Require a program to have what a plan names, with labels where these are needed.

    Raises:
        PlanError: When it has not.
    """
    observed = program.observed
    observed.require(plan)
    name, metric = split_metric(observed.primary(plan))
    probe = program.named_probes.get(name)
    if probe is None:
        return
    if probe.labels is None and metric in SIGNED_METRICS:
        what = "labels" if probe.outputs == CLASSES else "targets"
        raise PlanError(
            f"primary_metric: {metric} needs {what}, which the probe has not",
            hint=f"give Probe(labels=...), or name a distance, such as "
            f"{KINDS[probe.outputs].distances[0]}",
        )
    if metric == "r2" and probe.targets is not None and has_constant_output(probe.targets.numpy()):
        raise PlanError(
            f"primary_metric: r2 does not exist: {CONSTANT_TARGETS}", hint="name mse, rmse or mae"
        )
    if metric == "scaled_rmsd" and len(plan.seeds) < 2:
        raise PlanError(
            "primary_metric: scaled_rmsd is in units of the spread between seeds, and there is one "
            "seed",
            hint="name rmsd, or plan more seeds",
        )


class Observable(Protocol):
    """A program, as far as it says what its branches are compared on."""

    @property
    def observed(self) -> Observed:
        """As the manifest says it."""

    @property
    def named_probes(self) -> dict[str, Probe]:
        """Every probe."""
