"""The verifier's report: numbered checks, a verdict, and estimands where they may be shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from auditkit.records.distance import Distance
from auditkit.records.environment import Environment
from auditkit.records.estimate import EstimateTable
from auditkit.records.timestamp import Timestamp

Status = Literal["passed", "failed", "not run"]
Verdict = Literal["verified", "sampled", "integrity-only", "close", "failed", "undecided"]
Binding = Literal["plan-bound", "registered", "not bound"]

#: How the trust in this machine's own key is told.
SELF_SIGNED = "self-signed on this machine"

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
class Countersignature:
    """The signed report of somebody who verified the same manifest before.

    Attributes:
        file: Its file, beside the manifest.
        signed_by: Fingerprint of the key that signed it; None where no trusted key did.
        counts: Whether it is a trusted key's other than the author's, about these very bytes,
            and says that nothing was wrong.
        verdict: What it says; None where it cannot be read.
        remark: How much was replayed, or why it does not count; for people.
    """

    file: str
    signed_by: str | None
    counts: bool
    verdict: Verdict | None
    remark: str


@dataclass(frozen=True)
class PlanBinding:
    """What a study's ``plan.json``, signed before it ran, is worth.

    Attributes:
        status: ``registered`` only where the seeds derive from a trusted authority's timestamp
            over the plan and nothing deviates from it; ``plan-bound`` where a plan of the same
            signer is part of the study; ``not bound`` where what lies there is none.
        deviations: What differs between plan and study, one line each.
        remarks: Why it is not registered, and what was not compared.
    """

    status: Binding
    deviations: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class VerificationReport:
    """Everything that ``auditkit verify`` has to say.

    Attributes:
        verdict: ``verified``, ``sampled``, ``integrity-only``, ``close`` (other bits in another
            environment, within the tolerance; never verified), ``failed`` or ``undecided``.
        exit_code: The command's exit code.
        manifest_sha256: Digest of the manifest file.
        statement_sha256: Digest of what is signed in it, which stays the same where a further
            signature or a timestamp is added; None where it is malformed.
        signed_by: Fingerprint of the trusted key, or None.
        trust: How that key came to be trusted, for people.
        replay: How much was replayed, for people.
        checks: The ten checks.
        estimates: The estimand table; None where it is withheld.
        environment_differences: What differs between the recorded environment and this one.
        environment: Where it was replayed; None where nothing was.
        distances: How far a replay in another environment is from the record.
        countersignatures: Signed reports of others that lie beside the manifest.
        timestamps: When authorities that the verifier trusts saw the signatures.
        plan: What the plan that was signed before the run is worth; None without one.
    """

    verdict: Verdict
    exit_code: int
    manifest_sha256: str
    statement_sha256: str | None
    signed_by: str | None
    trust: str
    replay: str
    checks: tuple[CheckResult, ...]
    estimates: EstimateTable | None = None
    environment_differences: tuple[str, ...] = field(default=())
    environment: Environment | None = None
    distances: tuple[Distance, ...] = field(default=())
    countersignatures: tuple[Countersignature, ...] = field(default=())
    timestamps: tuple[Timestamp, ...] = field(default=())
    plan: PlanBinding | None = None

    def __bool__(self) -> bool:
        return self.exit_code == 0
