"""What a program's branches are compared on: probes, and measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from auditkit.errors import PlanError, ProgramError
from auditkit.formats.quote import class_of
from auditkit.program.probe import Probe
from auditkit.records.metric_names import MEASURES, NAME, split_metric
from auditkit.records.observed import MeasureRecord, Observed
from auditkit.records.plan import SIGNED_METRICS, StudyPlan

#: Names that say something else in an outcome file.
_TAKEN = (MEASURES, "labels", "t0", "T")


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
    """

    fn: Callable[[Any], Any]
    better: Literal["higher", "lower"] | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise ProgramError("Measure.fn is no function", found=class_of(self.fn))
        if self.better not in ("higher", "lower", None):
            raise ProgramError(f"Measure.better is 'higher' or 'lower', not {self.better!r}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ProgramError(f"Measure: low {self.low:g} is not below high {self.high:g}")

    def record(self, name: str) -> MeasureRecord:
        """What the manifest says of it."""
        low, high = (None if end is None else float(end) for end in (self.low, self.high))
        return MeasureRecord(name, self.better, low, high)

    def value(self, name: str, program: object) -> float:
        """The number.

        Raises:
            ProgramError: When it is none, or beyond its range.
        """
        found = self.fn(program)
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
            raise ProgramError(f"measure {name} is {value:g}, beyond its range", found=record.told)
        return value


def probes_by_name(probe: Probe | None, probes: Mapping[str, Probe]) -> dict[str, Probe]:
    """Every probe; one that has no name under an empty one."""
    return dict(probes) if probe is None else {"": probe}


def measures_by_name(measures: Mapping[str, Measure | Callable[[Any], Any]]) -> dict[str, Measure]:
    """Every measure."""
    return {
        name: measure if isinstance(measure, Measure) else Measure(measure)
        for name, measure in measures.items()
    }


def observed(probes: Iterable[str], measures: Mapping[str, Measure]) -> Observed:
    """What the manifest says of them."""
    return Observed(tuple(probes), tuple(m.record(name) for name, m in measures.items()))


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


def require_primary(program: Observable, plan: StudyPlan) -> None:
    """Require a program to have what a plan names, with labels where these are needed.

    Raises:
        PlanError: When it has not.
    """
    observed = program.observed
    observed.require(plan)
    name, metric = split_metric(observed.primary(plan))
    probe = program.named_probes.get(name)
    if probe is not None and probe.labels is None and metric in SIGNED_METRICS:
        raise PlanError(
            f"primary_metric: {metric} needs labels, which the probe has not",
            hint="give Probe(labels=...), or name a distance, such as tv",
        )


class Observable(Protocol):
    """A program, as far as it says what its branches are compared on."""

    @property
    def observed(self) -> Observed:
        """As the manifest says it."""

    @property
    def named_probes(self) -> dict[str, Probe]:
        """Every probe."""
