"""The verifier's report: numbered checks, a verdict, and estimands where they may be shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from auditkit.records.estimate import EstimateTable

Status = Literal["passed", "failed", "not run"]
Verdict = Literal["verified", "sampled", "integrity-only", "failed", "undecided"]

#: Number and name of every check of ``auditkit verify``.
CHECKS = {
    1: "envelope",
    2: "signature",
    3: "artifacts",
    4: "consistency",
    5: "RNG contract",
    6: "order",
    7: "fork",
    8: "replay",
    9: "noise floor",
    10: "estimands",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (or, as a warning, odd).

    Attributes:
        message: One line.
        where: File, seed or branch.
        step: Step (batch number), where one is known.
        component: Component of the training state, where one is known.
        exit_code: The exit code that it asks for.
    """

    message: str
    where: str | None = None
    step: int | None = None
    component: str | None = None
    exit_code: int = 1

    def __str__(self) -> str:
        step = None if self.step is None else f"step {self.step}"
        place = ", ".join(part for part in (self.where, step, self.component) if part)
        return f"{place}: {self.message}" if place else self.message


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one numbered check.

    Attributes:
        number: 1 to 10, see :data:`CHECKS`.
        status: Whether it passed.
        summary: What was checked, or why it was not run.
        findings: What is wrong; not empty exactly when the check failed.
        warnings: What is odd but no failure.
    """

    number: int
    status: Status
    summary: str
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The check's name."""
        return CHECKS[self.number]


@dataclass(frozen=True)
class VerificationReport:
    """Everything that ``auditkit verify`` has to say.

    Attributes:
        verdict: ``verified``, ``sampled``, ``integrity-only``, ``failed`` or ``undecided``.
        exit_code: The command's exit code.
        manifest_sha256: Digest of the manifest file.
        signed_by: Fingerprint of the trusted key, or None.
        trust: How that key came to be trusted, for people.
        replay: How much was replayed, for people.
        checks: The ten checks.
        estimates: The estimand table; None where it is withheld.
    """

    verdict: Verdict
    exit_code: int
    manifest_sha256: str
    signed_by: str | None
    trust: str
    replay: str
    checks: tuple[CheckResult, ...]
    estimates: EstimateTable | None = None
    environment_differences: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return self.exit_code == 0
