"""What a probe's outputs are: class probabilities, real numbers, or embeddings; and their metrics.

A study of class probabilities says nothing of kinds: that was the only one once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

OutputKindName = Literal["classes", "regression", "embedding"]

CLASSES, REGRESSION, EMBEDDING = "classes", "regression", "embedding"


@dataclass(frozen=True)
class OutputKind:
    """One kind of outputs.

    Attributes:
        name: What ``Probe(outputs=...)`` calls it.
        signed: Metrics of one table beside what is right, where that is known.
        distances: Metrics of a branch's table beside its control's.
        growth: What a placebo must exceed to count as grown, for people.
        told: What a table of it holds, for people.
    """

    name: str
    signed: tuple[str, ...]
    distances: tuple[str, ...]
    growth: str
    told: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.signed, *self.distances)


KINDS: Mapping[str, OutputKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            OutputKind(
                CLASSES,
                ("accuracy", "nll", "brier", "ece", "squared_calibration_error"),
                ("tv", "js", "hellinger", "churn"),
                "TV",
                "class probabilities",
            ),
            OutputKind(
                REGRESSION,
                ("mse", "rmse", "mae", "r2"),
                ("rmsd", "scaled_rmsd"),
                "an RMSD over the predictions' own SD of",
                "real numbers",
            ),
            OutputKind(
                EMBEDDING,
                (),
                ("cka_distance", "relative_distance"),
                "a relative_distance of",
                "embeddings",
            ),
        )
    }
)

#: Signed metrics of real numbers, and whether more or less of it is better.
BETTER: Mapping[str, str] = MappingProxyType(
    {"mse": "lower", "rmse": "lower", "mae": "lower", "r2": "higher"}
)

#: Said of a floor where there is nothing that a nudge could be large beside.
SIZELESS = (
    "Whether the floor has developed cannot be said: the controls' predictions are all 0 at T."
)
