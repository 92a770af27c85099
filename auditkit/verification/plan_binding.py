"""What the plan in a study's folder is worth: *plan-bound*, *registered*, or neither.

A plan never makes a check fail: it adds to what is known. It is *registered* only where the
seeds derive from a timestamp over it that an authority signed which the verifier trusts, and
where nothing deviates from it; a plan by itself can have been made after the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.errors import ArtifactError, AuditError
from auditkit.evidence.reader import RunEvidence
from auditkit.files import artifacts
from auditkit.records.registration import PLAN_ROLE, Registration
from auditkit.records.report import PlanBinding, Timestamp
from auditkit.signing.keys import TrustedKey, is_bound_to_message
from auditkit.study.planning import (
    SignedPlan,
    open_plan,
    registered_deviations,
    study_deviations,
)
from auditkit.verification.authorities import Authorities, Registrar


def bind_plan(
    run: RunEvidence,
    signers: Sequence[TrustedKey],
    authorities: Authorities,
    registrar: Registrar | None,
) -> PlanBinding | None:
    """Judge the plan of a study whose files passed checks 1 to 3.

    Args:
        run: The study.
        signers: The trusted keys that signed it.
        authorities: How timestamps are judged.
        registrar: Builds the recorded program again; None where no code is executed.

    Returns:
        None where the study has no plan.

    Raises:
        ArtifactError: When a listed file is no longer what check 3 read.
    """
    listed = [file for file in run.manifest.files if file.role == PLAN_ROLE]
    if not listed:
        return None
    name = listed[0].name
    if run.manifest.program.command:
        return PlanBinding("not bound", (), ("a plan is of a program, and this is a script's",))
    try:
        data = artifacts.safe_read(run.root, name, expected_sha256=listed[0].sha256)
        signed = open_plan(data, list(signers), what=name)
        timestamp, reason = _plan_timestamp(signed, authorities)
        # Seeds are compared with the plan where its timestamp can be read, trusted or not.
        found, remarks = study_deviations(signed, run.manifest, authorities.token_sha256)
    except ArtifactError:  # a file of the study, which is another one since check 3
        raise
    except AuditError as error:
        return PlanBinding("not bound", (), (str(error),))
    rebuilt = _rebuild_and_compare(run, signed.registration, registrar)
    deviations = tuple(dict.fromkeys((*found, *rebuilt.deviations)))
    remarks = [*remarks, *rebuilt.remarks, *_environment_remarks(run, signed.registration)]
    if timestamp is None:
        return PlanBinding("plan-bound", deviations, (reason, *remarks))
    if deviations or not rebuilt.complete:
        problem = "the study deviates from its plan" if deviations else "its data were not compared"
        return PlanBinding("plan-bound", deviations, (f"not registered: {problem}", *remarks))
    text = f"stamped {timestamp.time} by {timestamp.authority}; the seeds derive from the stamp"
    return PlanBinding("registered", (), (text, *remarks))


def _plan_timestamp(signed: SignedPlan, authorities: Authorities) -> tuple[Timestamp | None, str]:
    """The timestamp that the seeds derive from, or why there is none that counts."""
    reason = ""
    if signed.registration.seeds_from != "timestamp":
        reason = (
            "the author chose the seeds, so the study can have been run before its plan was signed"
        )
    elif not signed.timestamps:
        reason = "the plan has no timestamp"
    elif len(signed.timestamps) > 1:
        reason = "the plan has several timestamps, and its seeds can have been chosen among them"
    elif not is_bound_to_message(signed.signer.public_key):
        reason = "the plan's signature is ECDSA, which can be made for two plans at once"
    elif authorities.check is None:
        reason = "no timestamp authority was given (--authority)"
    else:
        try:
            return authorities.check(signed.timestamps[0], signed.signature), ""
        except AuditError as error:
            reason = str(error)
    return None, f"not registered: {reason}"


@dataclass(frozen=True)
class _Rebuilt:
    """What building the recorded program again has shown.

    Attributes:
        deviations: What differs from the plan.
        remarks: What was not compared.
        complete: Whether all of the data were.
    """

    deviations: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    complete: bool = False


def _rebuild_and_compare(
    run: RunEvidence, registration: Registration, registrar: Registrar | None
) -> _Rebuilt:
    """Compare the plan with what the recorded program gives here.

    Where the seeds derive from a timestamp, data that depend on the seed could be made after it:
    the program is then built with every seed of the study, and must give the planned dataset.
    """
    if registrar is None:
        return _Rebuilt(remarks=("dataset and probe were not read again: that takes a replay",))
    planned = registration.data
    found: list[str] = []
    try:
        found += registered_deviations(registration, registrar(run, registration, planned.seed))
        derived = registration.seeds_from == "timestamp"
        for seed in run.manifest.plan.seeds if derived else ():
            data = registrar(run, registration, seed).data
            if data.dataset_sha256 != planned.dataset_sha256:
                found.append(f"data: the dataset of seed {seed} is another than was planned")
    except ArtifactError:
        raise
    except AuditError as error:
        return _Rebuilt(tuple(found), (f"the program could not be built again: {error}",))
    if planned.dataset_sha256 is None:
        return _Rebuilt(tuple(found), ("the plan holds no digest of the dataset",))
    return _Rebuilt(tuple(found), (), complete=True)


def _environment_remarks(run: RunEvidence, registration: Registration) -> list[str]:
    """Where the plan was made in another environment than the study."""
    lines = registration.environment.differences(run.manifest.environment)
    return [f"the plan was made elsewhere: {line}" for line in lines if "packages" not in line]
