"""What the plan in a study's folder is worth: *plan-bound*, *registered*, or neither.

A plan never makes a check fail: it adds to what is known. It is *registered* only where the
seeds derive from a timestamp over it that an authority signed which the verifier trusts, and
where nothing deviates from it; a plan by itself can have been made after the results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from auditkit import store
from auditkit.errors import AuditError
from auditkit.evidence import RunEvidence
from auditkit.planning import SignedPlan, TokenDigest, data_deviations, open_plan, study_deviations
from auditkit.records.registration import PLAN_ROLE, Registered, Registration
from auditkit.records.report import PlanBinding
from auditkit.records.timestamp import Timestamp
from auditkit.signing import TrustedKey

#: Verifies a timestamp over bytes under the authorities that the verifier trusts.
StampCheck = Callable[[bytes, bytes], Timestamp]

#: Builds the recorded program in a process of its own, and looks at its code and data.
Registrar = Callable[[RunEvidence, Registration], Registered]


@dataclass(frozen=True)
class Authorities:
    """How timestamps are judged.

    Attributes:
        check: See :data:`StampCheck`; None where the verifier named no authority.
        token_sha256: See :data:`auditkit.planning.TokenDigest`; None without the package.
    """

    check: StampCheck | None = None
    token_sha256: TokenDigest | None = None


def bind(
    run: RunEvidence,
    signer: TrustedKey | None,
    authorities: Authorities,
    registrar: Registrar | None,
) -> PlanBinding | None:
    """Judge the plan of a study whose files passed checks 1 to 3.

    Args:
        run: The study.
        signer: The trusted key that signed it, if any.
        authorities: How timestamps are judged.
        registrar: Looks at the recorded program again; None where no code is executed.

    Returns:
        None where the study has no plan.
    """
    listed = [file for file in run.manifest.files if file.role == PLAN_ROLE]
    if not listed:
        return None
    if signer is None:
        return PlanBinding("not bound", (), ("no trusted key signed the study",))
    name = listed[0].name
    try:
        data = store.safe_read(run.root, name, expected_sha256=listed[0].sha256)
        signed = open_plan(data, [signer], what=name)
        stamp, reason = _registration(signed, authorities)
        # Seeds are compared with the plan where its timestamp can be read, trusted or not.
        found, remarks = study_deviations(signed, run.manifest, authorities.token_sha256)
        more, unread = _data(run, signed.registration, registrar)
    except AuditError as error:
        return PlanBinding("not bound", (), (str(error),))
    deviations = tuple(dict.fromkeys((*found, *more)))
    if stamp is not None and not deviations:
        text = f"stamped {stamp.time} by {stamp.authority}; the seeds derive from the stamp"
        return PlanBinding("registered", (), (text, *remarks, *unread))
    if stamp is not None:
        reason = "not registered: the study deviates from its plan"
    return PlanBinding("plan-bound", deviations, (reason, *remarks, *unread))


def _registration(signed: SignedPlan, authorities: Authorities) -> tuple[Timestamp | None, str]:
    """The stamp that the seeds derive from, or why there is none that counts."""
    if signed.registration.seeds_from != "timestamp":
        return None, (
            "not registered: the author chose the seeds, so the study can have been run before "
            "its plan was signed"
        )
    if not signed.timestamps:
        return None, "not registered: the plan has no timestamp"
    if authorities.check is None:
        return None, "not registered: no timestamp authority was given (--authority)"
    try:
        return authorities.check(signed.timestamps[0], signed.signature), ""
    except AuditError as error:
        return None, f"not registered: {error}"


def _data(
    run: RunEvidence, registration: Registration, registrar: Registrar | None
) -> tuple[list[str], list[str]]:
    """Compare the planned data with what the recorded program gives here."""
    if registrar is None:
        return [], ["dataset and probe were not read again: that takes a replay"]
    try:
        found = registrar(run, registration)
    except AuditError as error:
        return [], [f"the data could not be read again: {error}"]
    remarks = []
    if registration.data.dataset_sha256 is None:
        remarks.append("the plan holds no digest of the dataset")
    return list(data_deviations(registration.data, found.data)), remarks
