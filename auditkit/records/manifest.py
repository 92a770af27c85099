"""The manifest of a study: an in-toto Statement v1 whose predicate holds everything."""

from __future__ import annotations

from dataclasses import dataclass

from auditkit.records.environment import Environment
from auditkit.records.plan import StudyPlan
from auditkit.records.study import FileRecord, ProgramRecord, SeedRecord

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
STUDY_PREDICATE = "urn:auditkit:branch-and-hold:v1"
SCHEMA_VERSION = "1"

MANIFEST_NAME = "manifest.json"
SIGNER_NAME = "signer.pub"
CODE_FOLDER = "code"


@dataclass(frozen=True)
class Producer:
    """The software that wrote the manifest."""

    name: str
    version: str


@dataclass(frozen=True)
class RunTimes:
    """When the run started and ended by its own clock (ISO 8601, UTC): self-reported."""

    started: str
    finished: str


@dataclass(frozen=True)
class StudyManifest:
    """The predicate of ``urn:auditkit:branch-and-hold:v1``.

    Attributes:
        schema_version: Version of the schema that it follows.
        producer: The software that wrote it.
        run: Start and end.
        plan: The study plan with every perturbation's parameters filled in.
        program: The user's program.
        environment: What it ran on.
        seeds: One record a seed, in the plan's order.
        files: Every file of the run, sorted by name.
    """

    schema_version: str
    producer: Producer
    run: RunTimes
    plan: StudyPlan
    program: ProgramRecord
    environment: Environment
    seeds: tuple[SeedRecord, ...]
    files: tuple[FileRecord, ...]

    def file(self, name: str) -> FileRecord:
        """The file of that name.

        Raises:
            KeyError: When there is none.
        """
        for record in self.files:
            if record.name == name:
                return record
        raise KeyError(name)
