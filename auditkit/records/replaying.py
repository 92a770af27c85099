"""What a replay of a recording found: the statement that lies beside a manifest."""

from __future__ import annotations

from dataclasses import dataclass

from auditkit.records.environment import Environment
from auditkit.records.manifest import Producer, RunTimes
from auditkit.records.report import Finding

REPLAY_PREDICATE = "urn:auditkit:replay:v1"

#: Name of the file, beside the manifest that it is about.
REPLAY_NAME = "replay.json"


@dataclass(frozen=True)
class ReplayReport:
    """The predicate of ``urn:auditkit:replay:v1``; its subject is the manifest.

    Attributes:
        schema_version: Version of the schema that it follows.
        producer: The software that wrote it.
        run: Start and end.
        manifest_sha256: SHA-256 of the manifest's bytes; stands under ``subject``.
        statement_sha256: SHA-256 of what is signed in it, which stays the same where a further
            signature or a timestamp is added.
        command: What was run, home folders as ``~``.
        ranks: How many processes were compared.
        first_step: First step that was compared.
        last_step: Last step that was compared.
        findings: What differs; empty where every row, order and commitment was the recorded one.
        environment: What it ran on.
    """

    schema_version: str
    producer: Producer
    run: RunTimes
    manifest_sha256: str
    statement_sha256: str
    command: tuple[str, ...]
    ranks: int
    first_step: int
    last_step: int
    findings: tuple[Finding, ...]
    environment: Environment
