"""What a study has of each of its probes, and what it cannot tell of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.records.metric_names import split_metric
from auditkit.records.observed import Observed
from auditkit.records.output_kinds import REGRESSION, OutputKind
from auditkit.records.plan import StudyPlan
from auditkit.statistics.outcomes import (
    SeedOutcomes,
    Units,
    collapse_notes,
    table_key,
    variants_of,
)

#: What is said of a probe of which nobody knows what is right.
NO_LABELS = "the probe has no labels: accuracy, nll and the like are not computed"
NO_TARGETS = "the probe has no targets: mse, r2 and the like are not computed"


@dataclass(frozen=True)
class Looked:
    """What there is of one probe.

    Attributes:
        probe: Its name.
        variants: As is, and perhaps recalibrated.
        has_labels: Whether it is known what is right, for every seed.
        kind: What it gives.
    """

    probe: str
    variants: tuple[str, ...]
    has_labels: bool
    kind: OutputKind

    @classmethod
    def of(cls, outcomes: Sequence[SeedOutcomes], plan: StudyPlan, probe: str) -> Looked:
        """What there is of it in every outcome."""
        has_labels = all(outcome.labels_of(probe).size for outcome in outcomes)
        kind = outcomes[0].observed.kind_of(probe)
        return cls(probe, variants_of(outcomes, plan, probe), has_labels, kind)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Its metrics, signed ones first."""
        return (*(self.kind.signed if self.has_labels else ()), *self.kind.distances)

    @property
    def lacks_labels(self) -> bool:
        """Whether there would be more metrics with labels or targets."""
        return bool(self.kind.signed) and not self.has_labels

    def keys(self, plan: StudyPlan) -> list[str]:
        """Keys of its tables."""
        return [table_key(t, variant, self.probe) for variant in self.variants for t in plan.probed]

    @property
    def without_labels(self) -> str:
        """What is said where it lacks them."""
        reason = NO_TARGETS if self.kind.name == REGRESSION else NO_LABELS
        return reason if not self.probe else f"{self.probe}: {reason}"


def notes_on(
    looks: Sequence[Looked], units: Units, outcomes: Sequence[SeedOutcomes], tables: Sequence[str]
) -> list[str]:
    """Why some metrics have no rows, each reason once; and embeddings that are all one point."""
    found: dict[tuple[str, str], list[str]] = {}
    for (key, metric), reason in units.undefined.items():
        found.setdefault((metric, reason), []).append(key)
    return [
        *(looked.without_labels for looked in looks if looked.lacks_labels),
        *(
            f"{metric} is not computed ({', '.join(keys)}): {reason}"
            for (metric, reason), keys in found.items()
        ),
        *collapse_notes(outcomes, tables),
    ]


def floor_probe(observed: Observed, primary: str) -> str:
    """The probe whose floor is spoken of: the primary metric's, or the first one."""
    probe, first = split_metric(primary)[0], next(iter(observed.probes), "")
    return probe if probe in observed.probes else first
