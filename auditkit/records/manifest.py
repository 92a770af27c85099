"""The manifest of a study, an in-toto Statement v1 whose predicate holds everything; and its parts.

What the workers of a seed hand back is made of the same parts (:mod:`auditkit.records.results`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from auditkit.records.causal_break import BROKEN, BreakRecord
from auditkit.records.environment import Environment
from auditkit.records.observed import Observed
from auditkit.records.opened import OpenedFiles
from auditkit.records.plan import (
    CONFIRMATORY,
    LEFT_OUT_IF_DEFAULT,
    PerturbationSpec,
    Role,
    StudyPlan,
)
from auditkit.records.plug_in import PlugIn
from auditkit.records.rng import RngContract

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
STUDY_PREDICATE = "urn:auditkit:branch-and-hold:v1"
RECORDING_PREDICATE = "urn:auditkit:recording:v1"
SCHEMA_VERSION = "1"

MANIFEST_NAME = "manifest.json"
SIGNER_NAME = "signer.pub"
CODE_FOLDER = "code"

#: Role of the manifest of a study that another one extends.
EARLIER_ROLE = "earlier"

#: Times at which every branch is digested in full and evaluated on the probe; a plan may name more
#: (:attr:`.StudyPlan.probed`).
TIMES = ("t0", *CONFIRMATORY)


@dataclass(frozen=True)
class BranchRecord:
    """One branch of one seed.

    Attributes:
        name: File name stem, e.g. ``adam-reset--moments-mv--step-keep``.
        role: What it is compared as.
        perturbation: The change at t0 with all its parameters; None for control and replica.
        version: The perturbation's declared version; None without one.
        trace: Name of its evidence file, below the manifest's folder.
        outcome: Name of its outcome file.
        order_sha256: SHA-256 over the (epoch, index) pairs of steps t0+1..T (for an iterable
            dataset: over the evidence digests of the batches).
        digests: ``sha256/tensor-v1`` by component, at each of :data:`TIMES` and at the plan's
            further times; at t0 after the perturbation.
        diverged_at: First step whose loss or probabilities are not finite, or None.
        evaluated_on: ``sha256/tensor-v1`` of what the outcomes are computed on: ``inputs`` and
            ``labels`` of the probe, and ``recalibration``, the batches of recalibrated tables. None
            in a record of auditkit 0.1.0 before it kept them.
        samples: Name of the file of what each sample of the window looked like: of an order
            branch and its control under per-sample augmentation. None of others, in records
            before it was kept, and where samples cannot be told apart.
        reset: What the perturbation changed in the optimizer's groups and plain attributes, by
            path, as ``param_groups[0].step``; None in a record from before it was noted.
        consumed: Name of the file of what a control without a loader consumed after t0, where
            branches are yoked to it.
        broken: What the plan's causal break did to it; None of a branch that it is not applied to.
    """

    name: str
    role: Role
    perturbation: PerturbationSpec | None
    version: int | None
    trace: str
    outcome: str
    order_sha256: str
    digests: dict[str, dict[str, str]]
    diverged_at: int | None = None
    evaluated_on: dict[str, str] | None = None
    samples: str | None = None
    reset: tuple[str, ...] | None = None
    consumed: str | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)
    broken: BreakRecord | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)


@dataclass(frozen=True)
class CodeFile:
    """A source file that the program consists of.

    Attributes:
        name: Path below ``code/``.
        sha256: Digest of its bytes.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class DataRecord:
    """Identity of the data of one seed.

    Attributes:
        consumed_sha256: Over every batch that trunk and control consumed, as collated.
        probe_sha256: Over the probe's inputs and labels.
        loader: What the loader is: class, dataset class, batch size, workers ...
        declared: The program's own data digest or version, where it gives one.
        samples: How many samples the control consumed; None where batches are not indexed.
        data_from: What decides which data a branch consumes: ``loader``, the same for all
            branches; ``model``, a loader whose samples depend on the model; ``step``, where there
            is no loader, what the step says that it consumed.
    """

    consumed_sha256: str
    probe_sha256: str
    loader: dict[str, str]
    declared: str | None
    samples: int | None
    data_from: Literal["loader", "model", "step"] = field(
        default="loader", metadata=LEFT_OUT_IF_DEFAULT
    )


@dataclass(frozen=True)
class SeedRecord:
    """Everything that a manifest says of one seed.

    Attributes:
        seed: The seed.
        fork: Name of the snapshot file.
        fork_digests: ``sha256/tensor-v1`` of every section of the snapshot.
        order: Name of the order file.
        order_sha256: Over the (epoch, index) pairs of steps 1..T.
        trunk: Name of the trunk's trace.
        initial: ``sha256/tensor-v1`` by component, before step 1.
        components: Component names of the control's trace.
        rng: The RNG contract.
        data: Identity of the data.
        branches: Control first, then replica, placebos, treatments, and broken ones.
    """

    seed: int
    fork: str
    fork_digests: dict[str, str]
    order: str
    order_sha256: str
    trunk: str
    initial: dict[str, str]
    components: tuple[str, ...]
    rng: RngContract
    data: DataRecord
    branches: tuple[BranchRecord, ...]

    @property
    def file_names(self) -> tuple[str, ...]:
        """Every file that it refers to."""
        found = [self.fork, self.order, self.trunk]
        for branch in self.branches:
            found += [branch.trace, branch.outcome]
            found += [name for name in (branch.samples, branch.consumed) if name is not None]
        return tuple(found)

    @property
    def versions(self) -> dict[str, int]:
        """Version of each branch's perturbation, and of the causal break by its mark."""
        found = {branch.name: branch.version for branch in self.branches if branch.version}
        found.update((BROKEN, b.broken.version) for b in self.branches if b.broken)
        return found

    def branch(self, name: str) -> BranchRecord:
        """The branch of that name.

        Raises:
            KeyError: When there is none.
        """
        for branch in self.branches:
            if branch.name == name:
                return branch
        raise KeyError(name)


@dataclass(frozen=True)
class FurtherFork:
    """A fork after the first one, in a study that has several.

    Attributes:
        fork_at: The step after which the trunk was forked.
        seeds: One record a seed, in the plan's order, as a study of this fork alone has them.
    """

    fork_at: int
    seeds: tuple[SeedRecord, ...]


@dataclass(frozen=True)
class ProgramRecord:
    """The user's program.

    Attributes:
        target: ``FILE.py:NAME`` or ``package.module:NAME``, to be found below ``code/``.
        arguments: Extra arguments of the factory.
        description: Model, optimizer and so on, for people.
        git_commit: Commit of the folder that it lay in, or None.
        git_dirty: Whether that folder had uncommitted changes.
        code: Every module that was imported and is not installed.
        command: The user's own command, where the program is a script that runs its own loop;
            ``{seed}`` stands for the seed. Nothing ever runs a recorded command.
        observed: What its branches are compared on.
    """

    target: str
    arguments: dict[str, str]
    description: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    code: tuple[CodeFile, ...]
    command: tuple[str, ...] = ()
    observed: Observed = field(default=Observed(), metadata=LEFT_OUT_IF_DEFAULT)


@dataclass(frozen=True)
class FileRecord:
    """A file of the run.

    Attributes:
        name: Path below the manifest's folder.
        role: ``fork``, ``order``, ``trace``, ``outcome``, ``samples``, ``consumed``, ``code``,
            ``plan``, or ``earlier`` for the manifest of a study that this one extends.
        size: Bytes.
        sha256: Digest of its bytes; stands under ``subject`` in the statement.
    """

    name: str
    role: str
    size: int
    sha256: str


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

    @classmethod
    def ending(cls, started: str, now: str) -> RunTimes:
        """The times of a run that ends now, also where its clock was set back meanwhile."""
        return cls(started, max(started, now))


@dataclass(frozen=True)
class Extension:
    """A finished study that seeds were added to: whoever added them could know its results.

    Attributes:
        manifest: Name of its manifest, below the folder of the one that extends it.
        seeds: The seeds that it had.
        finished: When it ended, by its own clock.
    """

    manifest: str
    seeds: tuple[int, ...]
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
        opened: What the program opened while it was built, for any of the seeds; None in
            manifests of earlier builds, and of a script.
        extends: Studies that this one was, before seeds were added; the first one first.
        plug_ins: Installed plug-ins that the plan names.
        further: Forks after the first one, in the plan's order, where there are several; ``seeds``
            are those of the first one.
    """

    schema_version: str
    producer: Producer
    run: RunTimes
    plan: StudyPlan
    program: ProgramRecord
    environment: Environment
    seeds: tuple[SeedRecord, ...]
    files: tuple[FileRecord, ...]
    opened: OpenedFiles | None = None
    extends: tuple[Extension, ...] = ()
    plug_ins: tuple[PlugIn, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    further: tuple[FurtherFork, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)

    def file(self, name: str) -> FileRecord:
        """The file of that name.

        Raises:
            KeyError: When there is none.
        """
        for record in self.files:
            if record.name == name:
                return record
        raise KeyError(name)
