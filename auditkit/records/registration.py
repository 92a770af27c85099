"""A study's plan as it is signed before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from auditkit.records.environment import Environment
from auditkit.records.manifest import CodeFile, Producer, ProgramRecord
from auditkit.records.plan import StudyPlan

PLAN_PREDICATE = "urn:auditkit:plan:v1"

#: Name of the plan in a study's folder, and the role that it has there.
PLAN_NAME = "plan.json"
PLAN_ROLE = "plan"

SeedSource = Literal["plan", "timestamp"]


@dataclass(frozen=True)
class DataIdentity:
    """The data of a program before it trains.

    Attributes:
        seed: The study seed that the program was built with to look at its data.
        dataset_sha256: Over every sample in index order, as augmented in epoch 0 of that seed's
            per-sample streams; None where a dataset has no length or was not read.
        samples: How many samples that were; None with ``dataset_sha256``.
        probe_sha256: Over the probe's inputs and labels.
        declared: The program's own data digest or version, where it gives one.
        loader: What the loader is: class, dataset class, batch size, workers ...
    """

    seed: int
    dataset_sha256: str | None
    samples: int | None
    probe_sha256: str
    declared: str | None
    loader: dict[str, str]


@dataclass(frozen=True)
class RegisterResult:
    """What a ``register`` job finds out: a program before it trains.

    Attributes:
        description: Model, optimizer and so on, for people.
        initial: ``sha256/tensor-v1`` by component, as built.
        code: Modules that were imported from outside site-packages.
        data: Its data.
        environment: Where it was built.
    """

    description: dict[str, str]
    initial: dict[str, str]
    code: tuple[CodeFile, ...]
    data: DataIdentity
    environment: Environment


@dataclass(frozen=True)
class Registration:
    """The predicate of ``urn:auditkit:plan:v1``; its subject is the program's code.

    Attributes:
        schema_version: Version of the schema that it follows.
        producer: The software that wrote it.
        created: When, by its own clock (ISO 8601, UTC): self-reported.
        plan: The plan, perturbations resolved. With ``seeds_from="timestamp"`` its seeds are
            the positions 0 .. n-1 of seeds that nobody knows yet.
        seeds_from: ``plan``, or ``timestamp``: seeds derive from a third party's timestamp over
            the signature of this statement.
        program: The program.
        initial: ``sha256/tensor-v1`` by component, as built with ``data.seed``.
        data: Its data.
        environment: Where the program was built to look at it.
    """

    schema_version: str
    producer: Producer
    created: str
    plan: StudyPlan
    seeds_from: SeedSource
    program: ProgramRecord
    initial: dict[str, str]
    data: DataIdentity
    environment: Environment
