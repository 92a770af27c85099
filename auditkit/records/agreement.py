"""Two studies of one plan side by side: do their estimands agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from auditkit.records.estimate import Interval

AgreementVerdict = Literal["agree", "disagree", "cannot tell"]


@dataclass(frozen=True)
class Agreement:
    """One estimand of two studies.

    Attributes:
        perturbation: Branch name of the treatment.
        metric: The metric; for a distance the estimand is its excess over the placebo floor.
        variant: ``as-is`` or ``recalibrated``.
        time: ``t0+W``, ``T``, or a further time ``t0+N``.
        family: ``primary`` or ``exploratory``.
        recorded: Estimate of the study that is reproduced; None without pairs.
        reproduced: Estimate of the study that was run here.
        n: Seeds that both have.
        difference: Mean over these seeds of reproduced minus recorded.
        interval: t interval of the difference; None for fewer than two seeds, or without spread.
        adjusted_p: Two-sided p of the paired t test that the difference is 0, after Holm over
            the family.
        recorded_verdict: What the first study says of the estimand by itself.
        reproduced_verdict: What the second says.
        verdict: ``agree``, ``disagree`` or ``cannot tell`` (at this n).
        reason: Why, for people.
    """

    perturbation: str
    metric: str
    variant: str
    time: str
    family: str
    recorded: float | None
    reproduced: float | None
    n: int
    difference: float | None
    interval: Interval | None
    adjusted_p: float | None
    recorded_verdict: str
    reproduced_verdict: str
    verdict: AgreementVerdict
    reason: str


@dataclass(frozen=True)
class ReproductionReport:
    """What ``auditkit reproduce`` found.

    Attributes:
        recorded_sha256: SHA-256 of the manifest that was reproduced.
        reproduced_sha256: SHA-256 of the manifest that was made here.
        environment_differences: What differs between the two environments.
        bit_identical: Whether every commitment and every probe table of every branch is the same
            in both.
        edited: Recorded tables that are not of the recorded states, one line each: the branch has
            the same committed states in both, yet another table or another probe.
        rows: One an estimand.
        other_code: Code files that are not the same in both, or in one of them only.
        other_data: Files that both programs opened and that have another digest in each.
    """

    recorded_sha256: str
    reproduced_sha256: str
    environment_differences: tuple[str, ...]
    bit_identical: bool
    edited: tuple[str, ...]
    rows: tuple[Agreement, ...]
    other_code: tuple[str, ...] = ()
    other_data: tuple[str, ...] = ()

    def count(self, verdict: AgreementVerdict) -> int:
        """How many estimands have a verdict."""
        return sum(row.verdict == verdict for row in self.rows)
