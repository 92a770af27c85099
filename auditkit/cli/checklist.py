"""``auditkit checklist``: what a verified manifest can fill of a paper's checklist."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from auditkit.cli.help import Command
from auditkit.cli.options import TEXT
from auditkit.cli.outputs import destination
from auditkit.cli.received import received_manifest
from auditkit.cli.saying import say
from auditkit.cli.verify import verify_path
from auditkit.cli.verify_options import (
    let_through_option,
    refuse_idle,
    request_of,
    verification_options,
)
from auditkit.errors import ArtifactMismatch, AuditError, UsageError
from auditkit.evidence.verdicts import LESS_THAN_REQUIRED, is_recording_report
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.statements import study_from_statement
from auditkit.paper.checklist import fill
from auditkit.paper.rendering import is_checklist, to_latex, to_markdown
from auditkit.records.manifest import StudyManifest
from auditkit.records.report import VerificationReport
from auditkit.signing.envelopes import open_envelope
from auditkit.verification.report_files import REPORT_NAME, find
from auditkit.verification.report_json import check_agreement, report_from_json

_FORMATS = {"markdown": to_markdown, "latex": to_latex}

#: Exit codes of reports that find nothing wrong.
_GOOD = (0, LESS_THAN_REQUIRED)

_FROM_REPORT = (
    "Checks 8 and 10, and the estimates, are taken from a report that auditkit verify wrote "
    "earlier and that nobody signed; all other checks were made again for this checklist."
)


@click.command(cls=Command)
@click.argument("manifest", type=TEXT)
@click.option(
    "--format", "form", type=click.Choice(list(_FORMATS)), default="markdown", show_default=True
)
@click.option(
    "--report",
    "report_file",
    type=TEXT,
    help="Report of `auditkit verify`; by default your last.",
)
@verification_options(replay="none")
@let_through_option
@click.option("--out", type=TEXT, help="Write to a file instead of stdout.")
@click.pass_context
def checklist(
    ctx: click.Context,
    /,
    manifest: str,
    form: str,
    report_file: str | None,
    out: str | None,
    **options: Any,
) -> None:
    """Verify MANIFEST, then print the checklist that it can fill.

    What needs a replay is taken from the report that your last `auditkit verify` left, if there
    is one, or that --report names; --replay all makes it anew. A manifest that fails a check gets
    no checklist; exit codes are those of `auditkit verify`.
    """
    is_default = ctx.get_parameter_source("amount") == ParameterSource.DEFAULT
    if report_file is not None and not is_default:
        raise UsageError("--report and --replay exclude each other")
    path = ctx.with_resource(received_manifest(manifest)).path
    written_to = destination("--out", "-" if out is None else out, is_checklist, "checklist", path)
    request = request_of(path, **options)
    refuse_idle(request)
    report = verify_path(path, request)
    if is_recording_report(report.checks):
        raise UsageError(
            "a recording has no branches, estimands or noise floor to fill a checklist with",
            where=path.name,
            hint="give the manifest of a study",
        )
    made_here = report
    if report.exit_code == 0 and report_file is not None:
        report = _with_report(Path(report_file), report, _read_manifest(path, report))
    elif report.exit_code == 0 and is_default:
        report = _own_report(path, report)
    if report.exit_code not in _GOOD:
        _refuse(ctx, path, report)
    notes = (_FROM_REPORT,) if report is not made_here else ()
    text = _FORMATS[form](fill(_read_manifest(path, report), report, notes))
    written_to.write(text.encode("utf-8", "backslashreplace"))
    if not written_to.is_stdout:
        click.echo(f"checklist: {out}", err=True)


def _own_report(path: Path, here: VerificationReport) -> VerificationReport:
    """The report that this user's own verification of the manifest left, where it says more.

    Says which it is, or why it is not used.
    """
    found = find(here.manifest_sha256)
    if found is None:
        if os.path.lexists(path.parent / REPORT_NAME):
            why = "was not made here, or of another manifest; --report names one to use"
            say(f"{REPORT_NAME} beside the manifest is not used: it {why}")
        return here
    try:
        own = _with_report(found, here, _read_manifest(path, here))
    except AuditError as error:
        say(f"the report of your verification is not used: {error}")
        return here
    if own.verdict not in ("verified", "sampled"):
        say(f"the report of your verification is not used: its verdict is {own.verdict}")
        return here
    say(f"with the report of your verification, {found}")
    return own


def _read_manifest(path: Path, report: VerificationReport) -> StudyManifest:
    """The manifest that the report is about.

    Raises:
        ArtifactMismatch: When the file has changed since it was verified.
    """
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    payload = open_envelope(data, what=path.name).payload
    found = hashlib.sha256(payload).hexdigest()
    if found != report.statement_sha256:
        raise ArtifactMismatch(
            "the manifest changed while it was verified",
            expected=report.statement_sha256,
            found=found,
            where=path.name,
        )
    return study_from_statement(payload, what=path.name)


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


def _refuse(ctx: click.Context, path: Path, report: VerificationReport) -> None:
    """Say which checks failed, and leave with the verifier's exit code."""
    say(f"{path.name} does not verify, so there is no checklist")
    for check in report.checks:
        for finding in check.findings[:5]:
            say(f"check {check.number} {check.name}: {finding}")
    ctx.exit(report.exit_code)
