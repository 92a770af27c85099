"""Plans that are signed before anything runs, and where a study deviates from its plan.

A plan binds the study plan, the program's sources and arguments, and the data. By itself it
shows that *this signer* settled these things, not when: a deterministic study can be run first
and planned after. Only where the seeds derive from a third party's timestamp over the plan
(:func:`auditkit.formats.seeds.registered_seeds`) could the results not be known when it was signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from auditkit.errors import NotTrusted, PlanError, UsageError
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.seeds import registered_seeds
from auditkit.formats.statements import record_from_statement
from auditkit.records.manifest import (
    SCHEMA_VERSION,
    Producer,
    ProgramRecord,
    SeedRecord,
    StudyManifest,
)
from auditkit.records.plan import StudyPlan
from auditkit.records.registration import DataIdentity, RegisterResult, Registration, SeedSource
from auditkit.signing.envelopes import open_envelope, pae
from auditkit.signing.keys import TrustedKey, verifies
from auditkit.signing.signatures import check_signatures
from auditkit.study.deviations import (
    data_deviations,
    initial_deviations,
    plan_deviations,
    program_deviations,
)
from auditkit.version import __version__

#: SHA-256 of what an authority signed in a timestamp (:mod:`auditkit.signing.timestamps`).
TokenDigest = Callable[[bytes], str]


@dataclass(frozen=True)
class SignedPlan:
    """A plan file that was opened and whose signature is good.

    Attributes:
        data: The file's bytes.
        registration: What was signed.
        signature: The signature's bytes, which a timestamp is over.
        signer: The key that made it.
        timestamps: RFC 3161 replies over them, DER.
    """

    data: bytes
    registration: Registration
    signature: bytes
    signer: TrustedKey
    timestamps: tuple[bytes, ...]

    def study_plan(self, token_sha256: TokenDigest | None) -> StudyPlan:
        """The plan with its seeds.

        Args:
            token_sha256: Digests a timestamp, for a plan whose seeds derive from one.

        Raises:
            PlanError: When its seeds derive from a timestamp that it does not have yet.
        """
        plan = self.registration.plan
        if self.registration.seeds_from == "plan":
            return plan
        if not self.timestamps or token_sha256 is None:
            raise PlanError(
                "the seeds derive from a timestamp over the plan, and it has none yet",
                hint="auditkit timestamp request, then auditkit timestamp attach",
            )
        seeds = registered_seeds(token_sha256(self.timestamps[0]), len(plan.seeds))
        return plan.changed(seeds=seeds)


def make_registration(
    plan: StudyPlan, seeds_from: SeedSource, program: ProgramRecord, found: RegisterResult, now: str
) -> Registration:
    """A plan to sign.

    Raises:
        PlanError: When none of the program's sources lies outside site-packages.
    """
    if not found.code:
        raise PlanError(
            "the program has no source of its own: all of it is installed",
            hint="give a FILE.py, so that the plan can be bound to its content",
        )
    return Registration(
        schema_version=SCHEMA_VERSION,
        producer=Producer("auditkit", __version__),
        created=now,
        plan=plan,
        seeds_from=seeds_from,
        program=replace(program, description=found.description, code=found.code),
        initial=found.initial,
        data=found.data,
        environment=found.environment,
    )


def read_plan(path: Path, key: TrustedKey) -> SignedPlan:
    """Open a plan file to run it.

    Args:
        path: The file.
        key: The key that the study will be signed with.

    Raises:
        StoreError: When there is no such file.
        MalformedError: When it is no plan.
        PlanError: When it is signed with another key.
        SignatureError: When its signature is not good.
    """
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a plan")
    try:
        return open_plan(data, [key], what=path.name)
    except NotTrusted as error:
        raise PlanError(
            f"the plan is not signed with {key.fingerprint}, which the study would be signed with",
            where=str(path),
            found=error.message,
            hint="give the plan's key with --key, or make the plan anew",
        ) from error


def open_plan(data: bytes, keys: list[TrustedKey], *, what: str) -> SignedPlan:
    """Open a plan's bytes.

    Args:
        data: The bytes.
        keys: One of them must have signed.
        what: The file that they come from.

    Raises:
        MalformedError: When they are no plan.
        NotTrusted: When none of the keys signed.
        SignatureError: When a signature is not good.
    """
    envelope = open_envelope(data, what=what)
    signer = check_signatures(envelope, keys).signer
    registration = record_from_statement(Registration, envelope.payload, what=what)
    message = pae(envelope.payload, envelope.payload_type)
    own = next(s for s in envelope.signatures if verifies(signer.public_key, s.value, message))
    return SignedPlan(data, registration, own.value, signer, own.timestamps)


def registered_deviations(registration: Registration, found: RegisterResult) -> Iterator[str]:
    """What differs between the planned program and one that was built again in the same way."""
    program = registration.program
    yield from program_deviations(
        program, arguments=program.arguments, description=found.description, code=found.code
    )
    yield from initial_deviations(registration.initial, found.initial)
    yield from data_deviations(registration.data, found.data)


def study_deviations(
    signed: SignedPlan, manifest: StudyManifest, token_sha256: TokenDigest | None
) -> tuple[list[str], list[str]]:
    """Where a study deviates from its plan, by its manifest.

    Args:
        signed: The plan.
        manifest: The study.
        token_sha256: Digests a timestamp; None where the package for it is missing.

    Returns:
        Deviations, and remarks on what was not compared.
    """
    registration, program = signed.registration, manifest.program
    remarks = []
    try:
        planned = signed.study_plan(token_sha256)
    except UsageError as error:  # no timestamp, or no package to read it with
        planned = registration.plan.changed(seeds=manifest.plan.seeds)
        remarks.append(f"seeds were not compared: {error.message}")
    found = list(plan_deviations(planned, manifest.plan))
    if registration.program.target != program.target:
        found.append(f"factory: {registration.program.target} was planned, {program.target} run")
    if registration.created > manifest.run.started:
        found.append(
            f"times: the plan was signed at {registration.created}, the study had begun at "
            f"{manifest.run.started} (both by the author's clock)"
        )
    found += program_deviations(
        registration.program,
        arguments=program.arguments,
        description=program.description,
        code=program.code,
    )
    for record in manifest.seeds:
        found += _seed_deviations(registration, record)
    return list(dict.fromkeys(found)), remarks


def _seed_deviations(registration: Registration, record: SeedRecord) -> Iterator[str]:
    """What the manifest says of one seed, against the plan."""
    data = registration.data
    same_seed = data.seed == record.seed
    here = DataIdentity(
        seed=data.seed,
        dataset_sha256=None,
        samples=None,
        probe_sha256=record.data.probe_sha256 if same_seed else data.probe_sha256,
        declared=record.data.declared,
        loader=record.data.loader,
    )
    yield from data_deviations(replace(data, dataset_sha256=None), here)
    if same_seed:
        yield from initial_deviations(registration.initial, record.initial, streams=False)
