"""What a program's branches are compared on, as the program declares it."""

from __future__ import annotations

from dataclasses import dataclass, field

from auditkit.errors import PlanError
from auditkit.records.metric_names import MEASURES, base_metric, qualified, split_metric
from auditkit.records.output_kinds import CLASSES, KINDS, OutputKind
from auditkit.records.plan import LEFT_OUT_IF_DEFAULT, StudyPlan

#: How numbers a position are computed, of scores that are too many to keep. All agree but for
#: rounding; a study is replayed by its own.
FIRST_POSITION_RECIPE, POSITION_RECIPE = 1, 2

#: Options of the command line by the field of the plan that they set.
_OPTIONS = {"primary_metric": "--primary", "margins": "--margin"}


@dataclass(frozen=True)
class MeasureRecord:
    """A number of its own that a program gives.

    Attributes:
        name: Its name.
        better: ``higher`` or ``lower``; None where the program does not say.
        low: The least that it can be, or None.
        high: The most, or None.
        on: The probe whose outputs it is of, empty for one without a name; None for a number of
            the whole program.
    """

    name: str
    better: str | None = None
    low: float | None = None
    high: float | None = None
    on: str | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)

    def allows(self, value: float) -> bool:
        """Whether it can be that."""
        is_above = self.low is None or value >= self.low
        return is_above and (self.high is None or value <= self.high)

    @property
    def told(self) -> str:
        """Direction and range, for people."""
        ends = [None if end is None else f"{end:g}" for end in (self.low, self.high)]
        span = f"{ends[0] or '-inf'} to {ends[1] or 'inf'}" if any(ends) else None
        of = None if self.on is None else f"of probe {self.on}" if self.on else "of the probe"
        parts = [self.better and f"{self.better} is better", span, of]
        told = ", ".join(part for part in parts if part)
        return f"{self.name} ({told})" if told else self.name


@dataclass(frozen=True)
class Observed:
    """What branches are compared on.

    Attributes:
        probes: Names of the probes, the first one first; one empty name of a probe that has
            none.
        measures: The measures.
        outputs: What each of the probes gives, a name of :data:`.KINDS`; empty where all give class
            probabilities.
        position_recipe: How what is kept of a probe by position was computed; the first recipe
            where there is no such probe.
    """

    probes: tuple[str, ...] = ("",)
    measures: tuple[MeasureRecord, ...] = ()
    outputs: tuple[str, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    position_recipe: int = field(default=FIRST_POSITION_RECIPE, metadata=LEFT_OUT_IF_DEFAULT)

    @property
    def told(self) -> str:
        """Names of the probes and what they give, where that is not class probabilities."""
        kinds = dict(zip(self.probes, self.outputs or [CLASSES] * len(self.probes), strict=False))
        told = [
            probe if kind == CLASSES else f"{probe} ({kind})" if probe else kind
            for probe, kind in kinds.items()
        ]
        return ", ".join(filter(None, told))

    def kind_of(self, probe: str) -> OutputKind:
        """What a probe gives."""
        named = dict(zip(self.probes, self.outputs, strict=False))
        return KINDS[named.get(probe, CLASSES)]

    def measure(self, name: str) -> MeasureRecord | None:
        """The measure of that name."""
        return next((item for item in self.measures if item.name == name), None)

    def primary(self, plan: StudyPlan) -> str:
        """The plan's primary metric by its whole name: of the first probe, where it names none.

        Raises:
            PlanError: When there is no such probe or measure.
        """
        name = plan.primary_metric
        if "/" not in name and self.probes:
            name = qualified(self.probes[0], name)
        self._require(name, "primary_metric")
        return name

    def require(self, plan: StudyPlan) -> None:
        """Require every probe and measure that a plan names.

        Raises:
            PlanError: When there is none of this name, or a margin that no value can exceed.
        """
        self.primary(plan)
        for name, margin in plan.margins.items():
            if "/" in name:
                self._require(name, "margins")
            elif self.outputs and not any(name in self.kind_of(p).metrics for p in self.probes):
                self._require(qualified(self.probes[0], name), "margins")
            measure = self.measure(split_metric(name)[1]) if base_metric(name) == name else None
            if measure is None or measure.low is None or measure.high is None:
                continue
            if not margin < measure.high - measure.low:
                raise PlanError(
                    f"margins: a margin of {margin:g} for {name} cannot fail: its values lie "
                    f"within {measure.high - measure.low:g} of each other"
                )

    @property
    def _measure_metrics(self) -> list[str]:
        return [f"{MEASURES}/{item.name}" for item in self.measures]

    def _require(self, name: str, field: str) -> None:
        first, last = split_metric(name)
        known = self.measure(last) is not None if first == MEASURES else first in self.probes
        if not known:
            probes = [f"{probe}/METRIC" if probe else "METRIC" for probe in self.probes]
            raise PlanError(
                f"{field}: the program has no {name}",
                expected=" or ".join([*probes, *self._measure_metrics]),
                hint="name a metric of one of its probes, or a measure",
            )
        if first != MEASURES and last not in self.kind_of(first).metrics:
            kind = self.kind_of(first)
            metrics = [qualified(first, metric) for metric in kind.metrics]
            raise PlanError(
                f"{field}: the probe gives {kind.told}, and {name} is no metric of these",
                expected=" or ".join([*metrics, *self._measure_metrics]),
                hint=f"name one of them, with {_OPTIONS[field]} or {field}= in the plan",
            )
