"""A verifier's report as a statement of its own: the countersignature beside a manifest."""

from __future__ import annotations

from dataclasses import dataclass

from auditkit.records.manifest import Producer, RunTimes
from auditkit.records.report import VerificationReport

VERIFICATION_PREDICATE = "urn:auditkit:verification:v1"


@dataclass(frozen=True)
class SignedReport:
    """The predicate of ``urn:auditkit:verification:v1``; its subject is the manifest.

    Attributes:
        schema_version: Version of the schema that it follows.
        producer: The software that wrote it.
        run: When the verification started and ended, by the verifier's clock.
        report: What it found: every check, how much was replayed, where, and the estimates.
    """

    schema_version: str
    producer: Producer
    run: RunTimes
    report: VerificationReport
