"""Countersignatures: a verifier's own signed report, beside the manifest that it is about.

``countersign-0123456789abcdef.json`` (the name comes from the key) is a DSSE envelope over a
statement whose subject is the manifest's SHA-256. It says which checks were made, how much was
replayed and where. A reader counts those that a trusted key other than the author's signed over
this very statement and that found nothing wrong; the author's word is in the manifest already.
A signature or timestamp that is added to the manifest changes the file, not what is signed in it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from auditkit.errors import AuditError, NotTrusted, UsageError
from auditkit.files import artifacts
from auditkit.files.outputs import Output
from auditkit.formats.redaction import redact_text
from auditkit.formats.statements import record_from_statement, to_statement
from auditkit.records.manifest import SCHEMA_VERSION, Producer, RunTimes
from auditkit.records.report import (
    SELF_SIGNED,
    Countersignature,
    SignedReport,
    Verdict,
    VerificationReport,
)
from auditkit.signing.envelopes import open_envelope, sign_statement
from auditkit.signing.keys import TrustedKey
from auditkit.signing.signatures import check_signatures, others_than
from auditkit.signing.trust import SigningKey
from auditkit.version import __version__

_NAME = re.compile(r"countersign-[0-9a-f]{16}\.json", re.ASCII)

#: Countersignatures that are read, and the bytes of each: anybody can have put them there.
MAX_COUNTERSIGNATURES = 100
MAX_BYTES = 2**24

#: Verdicts that are countersigned, the weakest first.
_STRENGTH: tuple[Verdict, ...] = ("integrity-only", "sampled", "verified")


def is_countersignature(name: str) -> bool:
    """Whether a file beside a manifest is named as a countersignature."""
    return _NAME.fullmatch(name) is not None


def countersignature_name(fingerprint: str) -> str:
    """Name of the countersignature of a key: verifying again replaces it."""
    digest = base64.b64decode(fingerprint.removeprefix("SHA256:") + "=")
    return f"countersign-{digest.hex()[:16]}.json"


def countersignature_output(folder: Path, fingerprint: str) -> Output:
    """Where a key's countersignature goes: it replaces nothing but an earlier one."""
    path = folder / countersignature_name(fingerprint)
    noun = "countersignature"
    return Output("--countersign", path, _is_countersignature, noun, hint="move it away")


def _is_countersignature(data: bytes) -> bool:
    try:
        payload = open_envelope(data, what="an earlier one").payload
        record_from_statement(SignedReport, payload, what="an earlier one")
    except AuditError:
        return False
    return True


def countersign(folder: Path, report: VerificationReport, run: RunTimes, key: SigningKey) -> Path:
    """Sign a report and put it beside the manifest.

    An earlier one of the same key is replaced, unless it says more of the same statement: that
    all of it was replayed, say, where now only the files were looked at.

    Args:
        folder: The manifest's folder.
        report: What was found: nothing wrong.
        run: When the verification started and ended.
        key: The verifier's key.

    Raises:
        UsageError: When something was wrong, or an earlier one says more.
        StoreError: When it cannot be written.
    """
    if report.exit_code != 0:
        raise UsageError(
            f"not countersigned: the verdict is {report.verdict}",
            hint="--json FILE keeps the report",
        )
    name = countersignature_name(key.fingerprint)
    earlier = _earlier(folder, name, key.trusted)
    if earlier is not None and earlier.statement_sha256 == report.statement_sha256:
        ranks = {verdict: rank for rank, verdict in enumerate(_STRENGTH)}
        if ranks.get(earlier.verdict, -1) > ranks[report.verdict]:
            raise UsageError(
                f"not countersigned: {name} says {earlier.verdict} already, this one would say "
                f"{report.verdict}",
                hint="remove it, if the weaker one is what you want",
            )
    own = _publishable(report)
    signed = SignedReport(SCHEMA_VERSION, Producer("auditkit", __version__), run, own)
    output = countersignature_output(folder, key.fingerprint)
    output.write(sign_statement(to_statement(signed), key.key))
    return output.path


def read_countersignatures(
    folder: Path,
    statement_sha256: str,
    trusted: Sequence[TrustedKey],
    authors: Sequence[TrustedKey],
) -> Iterator[Countersignature]:
    """Read what lies beside a manifest; nothing of it can make a check fail.

    Args:
        folder: The manifest's folder.
        statement_sha256: SHA-256 of what is signed in the manifest.
        trusted: The keys that the verifier trusts.
        authors: The trusted keys that signed the manifest; none where check 2 failed, and then
            nothing counts.
    """
    names = sorted(filter(is_countersignature, artifacts.names_in(folder)))
    for name in names[:MAX_COUNTERSIGNATURES]:
        try:
            yield _read(folder, name, statement_sha256, trusted, authors)
        except NotTrusted:
            yield Countersignature(name, None, False, None, "not signed by a trusted key")
        except AuditError as error:
            yield Countersignature(name, None, False, None, error.message)


def _publishable(report: VerificationReport) -> VerificationReport:
    """What this verifier found: nothing that others say, and no path of this machine."""
    plan = report.plan
    if plan is not None:
        remarks = tuple(map(redact_text, plan.remarks))
        plan = replace(plan, deviations=tuple(map(redact_text, plan.deviations)), remarks=remarks)
    checks = [
        replace(check, warnings=tuple(map(redact_text, check.warnings))) for check in report.checks
    ]
    trust = "the verifier named the key"
    if report.trust == SELF_SIGNED:
        trust = SELF_SIGNED
    said = [replace(item, remark=redact_text(item.remark)) for item in report.replays]
    return replace(
        report,
        trust=trust,
        checks=tuple(checks),
        plan=plan,
        countersignatures=(),
        replays=tuple(said),
    )


def _earlier(folder: Path, name: str, key: TrustedKey) -> VerificationReport | None:
    """What this key has countersigned before; None where that cannot be read."""
    try:
        envelope = open_envelope(artifacts.safe_read(folder, name, max_bytes=MAX_BYTES), what=name)
        check_signatures(envelope, [key])
        return record_from_statement(SignedReport, envelope.payload, what=name).report
    except AuditError:
        return None


def _read(
    folder: Path,
    name: str,
    statement_sha256: str,
    trusted: Sequence[TrustedKey],
    authors: Sequence[TrustedKey],
) -> Countersignature:
    envelope = open_envelope(artifacts.safe_read(folder, name, max_bytes=MAX_BYTES), what=name)
    key = check_signatures(envelope, trusted).signer
    report = record_from_statement(SignedReport, envelope.payload, what=name).report
    reason = None
    if report.statement_sha256 != statement_sha256:
        reason = "it is about another manifest"
    elif not authors:
        reason = "the manifest's own signature is not in order"
    elif not others_than(authors, [key], trusted):
        reason = "it is signed by somebody who signed the manifest"
    elif report.signed_by not in {author.fingerprint for author in authors}:
        reason = f"the manifest was signed by {report.signed_by} when it was verified"
    elif report.exit_code != 0:
        reason = f"it says that the manifest did not verify (exit {report.exit_code})"
    remark = f"does not count: {reason}" if reason else _worth(report)
    return Countersignature(name, key.fingerprint, reason is None, report.verdict, remark)


def _worth(report: VerificationReport) -> str:
    """How much was replayed, and with which arguments and variables of the verifier's own."""
    own = () if report.settings is None else report.settings.given
    return ", ".join([report.replay, *own])
