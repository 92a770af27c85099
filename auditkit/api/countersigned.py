"""Countersign a report that a program asked for, as ``auditkit verify --countersign`` does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from auditkit.errors import UsageError
from auditkit.files.archive_kinds import is_archive
from auditkit.records.manifest import RunTimes
from auditkit.records.report import VerificationReport
from auditkit.signing.trust import SigningKey, signing_key
from auditkit.verification.countersigning import countersign, countersignature_output


def utc_now() -> str:
    """The time, as records have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def countersigner(key: str | Path, given: Path, manifest: Path) -> SigningKey:
    """The key, once it is seen that a countersignature can be kept, before hours are spent.

    Args:
        key: Its file.
        given: What was named to verify.
        manifest: The manifest of it.

    Raises:
        UsageError: Of an archive, beside whose manifest nothing stays.
        KeyFileError: When it cannot be read.
        StoreError: When a countersignature may not be written.
    """
    if is_archive(given):
        raise UsageError(
            "a countersignature is a file beside the manifest, and this one lies in an archive",
            hint="unpack it, verify the folder, and pack that again",
        )
    signer = signing_key(str(key))
    countersignature_output(manifest.parent, signer.fingerprint).check()
    return signer


def countersigned(
    manifest: Path,
    report: VerificationReport,
    started: str,
    key: SigningKey,
    warn: Callable[[str], None],
) -> Path | None:
    """Put the countersignature beside the manifest, where there is something to sign.

    Args:
        manifest: The manifest.
        report: What was found.
        started: When the verification did.
        key: The verifier's key.
        warn: Is told why not, and where no reader will count it.

    Returns:
        The file; None where none was written.
    """
    if report.signed_by == key.fingerprint:
        warn(
            "warning: this key signed the manifest itself, so no reader will count its "
            "countersignature"
        )
    try:
        return countersign(manifest.parent, report, RunTimes.ending(started, utc_now()), key)
    except UsageError as error:  # the report is still wanted
        warn(str(error))
        return None
