"""Reports of earlier verifications, from which what needs a replay is taken."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from auditkit.cli.saying import say
from auditkit.errors import ArtifactMismatch, AuditError
from auditkit.evidence.verdicts import LESS_THAN_REQUIRED, is_recording_report
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.statements import study_from_statement
from auditkit.records.manifest import StudyManifest
from auditkit.records.report import VerificationReport
from auditkit.signing.envelopes import Envelope, open_envelope
from auditkit.verification.report_files import REPORT_NAME, find
from auditkit.verification.report_json import check_agreement, report_from_json, went_wrong

#: Exit codes of reports that find nothing wrong.
GOOD = (0, LESS_THAN_REQUIRED)

_FROM_REPORT = (
    "Checks 8 and 10, and the estimates, are taken from a report that auditkit verify wrote "
    "earlier and that nobody signed; all other checks were made again for this {noun}."
)
_WENT_WRONG = (
    "Checks 4 to 10 are taken from a report that auditkit verify wrote earlier and that nobody "
    "signed; checks 1 to 3 were made again for this {noun}."
)

#: Findings of one check that are said.
_MAX_SAID = 5


def source_note(report: VerificationReport, here: VerificationReport, noun: str) -> str:
    """Where a report comes from; empty where all of it was made here."""
    if report is here:
        return ""
    return (_WENT_WRONG if went_wrong(report) else _FROM_REPORT).format(noun=noun)


def say_why_not(path: Path, report: VerificationReport, so: str) -> None:
    """Say which checks of a manifest that does not verify have findings."""
    say(f"{path.name} does not verify, so {so}")
    for check in report.checks:
        for finding in check.findings[:_MAX_SAID]:
            say(f"check {check.number} {check.name}: {finding}")


def with_earlier(
    path: Path, here: VerificationReport, report_file: str | None, *, is_default: bool
) -> VerificationReport:
    """The report of a file, or of the user's last verification, once it agrees with this one.

    Args:
        path: The manifest.
        here: What was found here, without a replay.
        report_file: The report that the user names; None where none is.
        is_default: Whether nobody said how much is to be replayed.
    """
    if here.exit_code == 0 and report_file is not None:
        return _with_report(Path(report_file), here, read_manifest(path, here))
    return _own_report(path, here) if here.exit_code == 0 and is_default else here


def earlier_failure(path: Path, here: VerificationReport) -> VerificationReport | None:
    """The report of this user's own verification, where what was executed did not verify.

    For a command that takes nothing good from it. None, too, where the manifest is of a recording.
    """
    found = None if is_recording_report(here.checks) else find(here.manifest_sha256)
    if found is None:
        return None
    own = _agreeing(found, path, here)
    return own if own is not None and went_wrong(own) else None


def _own_report(path: Path, here: VerificationReport) -> VerificationReport:
    """The report that this user's own verification of the manifest left, where it says more.

    It says more where it has estimates, and where what was executed did not verify: a page that
    is made afterwards is no better. Says which it is, or why it is not used.
    """
    found = find(here.manifest_sha256)
    if found is None:
        if os.path.lexists(path.parent / REPORT_NAME):
            why = "was not made here, or of another manifest; --report names one to use"
            say(f"{REPORT_NAME} beside the manifest is not used: it {why}")
        return here
    own = _agreeing(found, path, here)
    if own is None:
        return here
    if own.verdict not in ("verified", "sampled") and not went_wrong(own):
        say(f"the report of your verification is not used: its verdict is {own.verdict}")
        return here
    say(f"with the report of your verification, {found}")
    return own


def read_manifest(path: Path, report: VerificationReport) -> StudyManifest:
    """The study that the report is about; raises as :func:`read_statement`."""
    return study_from_statement(read_statement(path, report), what=path.name)


def read_statement(path: Path, report: VerificationReport) -> bytes:
    """The statement that the report is about; raises as :func:`read_envelope`."""
    return read_envelope(path, report).payload


def read_envelope(path: Path, report: VerificationReport) -> Envelope:
    """The statement that the report is about, with its signatures.

    Raises:
        ArtifactMismatch: When the file has changed since it was verified.
    """
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    envelope = open_envelope(data, what=path.name)
    found = hashlib.sha256(envelope.payload).hexdigest()
    if found != report.statement_sha256:
        raise ArtifactMismatch(
            "the manifest changed while it was verified",
            expected=report.statement_sha256,
            found=found,
            where=path.name,
        )
    return envelope


def _agreeing(found: Path, path: Path, here: VerificationReport) -> VerificationReport | None:
    """An own report, once it agrees with what was verified here; says why it does not."""
    try:
        return _with_report(found, here, read_manifest(path, here))
    except AuditError as error:
        say(
            f"the report of your verification is not used: {error}; your last `auditkit verify` of "
            f"this manifest, here or in a copy, left it: `auditkit verify {path}` makes another"
        )
        return None


def _with_report(
    file: Path, here: VerificationReport, manifest: StudyManifest
) -> VerificationReport:
    """The report of a file, once it agrees with what was verified here."""
    data = store.read_bytes(file, max_bytes=canonical.MAX_BYTES, what="a report")
    given = report_from_json(data, what=file.name)
    check_agreement(given, here, manifest, what=file.name)
    if given.manifest_sha256 != here.manifest_sha256:
        say(
            f"{file.name} names another state of the manifest file, SHA-256 "
            f"{given.manifest_sha256}, with the same statement: signatures may have been added"
        )
    return replace(given, manifest_sha256=here.manifest_sha256)
