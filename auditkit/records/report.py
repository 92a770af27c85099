"""Reports: what a verification or a replay found, and the statements in which they are signed.

A verifier's report has numbered checks, a verdict, and estimands where they may be shown.
Signed, it is the countersignature beside a manifest; a replay of a recording leaves its own there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from auditkit.records.environment import Environment
from auditkit.records.estimate import EstimateTable
from auditkit.records.manifest import Producer, RunTimes
from auditkit.records.settings import VerifierSettings

VERIFICATION_PREDICATE = "urn:auditkit:verification:v1"
REPLAY_PREDICATE = "urn:auditkit:replay:v1"

#: Name of a replay's report, beside the manifest that it is about, as earlier builds wrote it;
#: now each has a name of its own.
REPLAY_NAME = "replay.json"

Status = Literal["passed", "failed", "undecided", "needs consent", "could not run", "not run"]
Verdict = Literal["verified", "sampled", "integrity-only", "close", "failed", "undecided"]
Binding = Literal["plan-bound", "registered", "not bound"]
ReplaySays = Literal["impossible", "different", "undecided", "in part", "equal"]

#: Names of files that nobody hashed, or that no replay opened, that a report holds.
MAX_UNHASHED = 100

#: What a check is called whose every finding is one that cannot be decided: nothing was found to
#: be wrong. The first where nothing says more.
OPEN: tuple[Status, ...] = ("undecided", "needs consent", "could not run")

#: Exit code of what cannot be decided: nothing is found to be wrong, nor to be right.
UNDECIDED = 6

#: How a report words the trust in this machine's own key.
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
        """Place and message; a step or component that the message names is not said twice."""
        step = None if self.step is None else f"step {self.step}"
        parts = [self.where, *(part for part in (step, self.component) if not self._names(part))]
        place = ", ".join(part for part in parts if part)
        return f"{place}: {self.message}" if place else self.message

    def _names(self, part: str | None) -> bool:
        pattern = rf"(?<![\w/]){re.escape(part or '')}(?![\w/])"
        return re.search(pattern, self.message) is not None


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one numbered check.

    Attributes:
        number: 1 to 10, see :data:`CHECKS`.
        status: Whether it passed; one of :data:`OPEN` where every finding is one that cannot be
            decided: ``needs consent`` to execute somebody else's code, ``could not run`` where
            nothing could be executed (data or code missing) or all that it lacks are files that
            check 3 names, else ``undecided``.
        summary: What was checked, or why it was not run.
        findings: What is wrong; not empty exactly when the check failed or is one of :data:`OPEN`.
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
class Need:
    """An option that a verification lacks to go on.

    Attributes:
        option: As it is typed; ``PATH`` stands for what only the verifier knows.
        why: What it is for, and what to look at before it is given.
    """

    option: str
    why: str


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
class StatedReplay:
    """What a signed replay beside a recording says, and what its word is worth.

    Nobody vouches for himself: that everything was equal counts only from somebody who did not
    sign the recording. That something differs counts from everybody who is trusted.

    Attributes:
        file: Its file, beside the manifest.
        signed_by: Fingerprint of the trusted key that signed it; None where none did.
        by_author: Whether it is signed by a person who signed the recording.
        says: What it says of this recording (*impossible*: of steps that it has not); None where
            it cannot be read or is about another manifest.
        finished: When it ended, by the replaying machine's own clock; None as above.
        counts: Whether check 8 rests on it.
        remark: What it says and why it does not count, for people.
    """

    file: str
    signed_by: str | None
    by_author: bool
    says: ReplaySays | None
    finished: str | None
    counts: bool
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
class Distance:
    """One component of a snapshot, or one probe table, that is not the recorded one.

    Attributes:
        where: Seed and branch; ``seed 0, fork`` for the snapshot at t0.
        kind: ``state`` for a component of the training state, ``probe`` for a probe table.
        name: The component, or the table: ``t0``, ``t0+W``, ``T``, a further time, each perhaps
            with ``/recalibrated``.
        largest_absolute: Largest difference of two elements; None where none is finite, or
            where one side has no such numbers.
        largest_relative: Largest difference relative to the larger of the two values, 0 to 2;
            None in the same cases.
        total_variation: Of a probe table, the mean over its examples, 0 to 1; None for a
            component, and where a table has values that are not finite or another shape.
    """

    where: str
    kind: Literal["state", "probe"]
    name: str
    largest_absolute: float | None
    largest_relative: float | None
    total_variation: float | None = None


@dataclass(frozen=True)
class OpenedReport:
    """The files that a study's program opened while it was built.

    Attributes:
        hashed: How many the manifest lists with their SHA-256.
        compared: How many of them were opened by a replay here, with that SHA-256.
        unhashed: Names of files that nobody hashed, as recorded or as a replay here opened them;
            at most :data:`MAX_UNHASHED`.
        n_unhashed: How many there are.
        unopened: Names that the manifest lists with their SHA-256, and that no replay here opened;
            at most :data:`MAX_UNHASHED`. Empty where nothing was replayed.
        n_unopened: How many there are.
    """

    hashed: int
    compared: int
    unhashed: tuple[str, ...]
    n_unhashed: int
    unopened: tuple[str, ...] = ()
    n_unopened: int = 0


@dataclass(frozen=True)
class Timestamp:
    """An RFC 3161 time stamp of a signature, signed by an authority that the verifier trusts.

    Attributes:
        time: When the authority saw the signature, by its own clock: ISO 8601, UTC. What was
            signed is at least this old.
        authority: The subject of its certificate, as RFC 4514 writes a name.
        serial: The authority's number of the stamp, in decimals.
        policy: The object identifier of the policy that it was issued under.
    """

    time: str
    authority: str
    serial: str
    policy: str


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
        replays: Of a recording, the signed replays that lie beside it, contradictions first.
        settings: What the verifier set; None in reports of earlier builds.
        opened: The files that the program opened while it was built; None of a recording or a
            script, and where neither the manifest nor a replay here says.
        needs: Every option that a verification needs that was refused for want of trust, consent
            or data; empty where none is lacking, or something is wrong that none would mend.
        schema: Name of the schema that the JSON follows; None in reports of earlier builds.
        schema_version: Its version; None as above.
        auditkit: Version of auditkit that made the report; None as above.
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
    replays: tuple[StatedReplay, ...] = field(default=())
    settings: VerifierSettings | None = None
    opened: OpenedReport | None = None
    needs: tuple[Need, ...] = field(default=())
    schema: str | None = None
    schema_version: str | None = None
    auditkit: str | None = None

    def __bool__(self) -> bool:
        return self.exit_code == 0


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
        checkpoints: How many checkpoints of all ranks were compared, every section by SHA-256;
            None in replays of earlier builds, which compared none, nor epochs, nor where the
            random streams began.
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
    checkpoints: int | None = None
