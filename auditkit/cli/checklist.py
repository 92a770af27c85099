"""``auditkit checklist``: what a verified manifest can fill of a paper's checklist."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from auditkit.cli.help import Command
from auditkit.cli.options import TEXT, manifest_path
from auditkit.cli.outputs import destination
from auditkit.cli.spelling import spelt
from auditkit.cli.verify import verify_path
from auditkit.cli.verify_options import (
    let_through_option,
    refuse_idle,
    request_of,
    verification_options,
)
from auditkit.errors import ArtifactMismatch, UsageError
from auditkit.evidence.verdicts import is_recording_report
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.statements import study_from_statement
from auditkit.paper.checklist import fill
from auditkit.paper.rendering import is_checklist, to_latex, to_markdown
from auditkit.records.manifest import StudyManifest
from auditkit.records.report import VerificationReport
from auditkit.signing.envelopes import open_envelope
from auditkit.verification.report_json import check_agreement, report_from_json

_FORMATS = {"markdown": to_markdown, "latex": to_latex}

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
    "--report", "report_file", type=TEXT, help="JSON report of `auditkit verify --json FILE`."
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

    Without a replay the items on kernels, noise floor and uncertainty stay open: give
    --replay all, or --report with the report of an earlier verification. A manifest that fails
    a check gets no checklist; exit codes are those of `auditkit verify`.
    """
    if report_file is not None:
        if ctx.get_parameter_source("amount") != ParameterSource.DEFAULT:
            raise UsageError("--report and --replay exclude each other")
        options["amount"] = "none"
    path = manifest_path(manifest)
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
    if report.exit_code == 0 and report_file is not None:
        record = _read_manifest(path, report)
        report = _with_report(Path(report_file), report, record)
    if report.exit_code != 0:
        _refuse(ctx, path, report)
    notes = (_FROM_REPORT,) if report_file is not None else ()
    text = _FORMATS[form](fill(_read_manifest(path, report), report, notes))
    written_to.write(text.encode("utf-8", "backslashreplace"))
    if not written_to.is_stdout:
        click.echo(f"checklist: {out}", err=True)


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
    return given


def _refuse(ctx: click.Context, path: Path, report: VerificationReport) -> None:
    """Say which checks failed, and leave with the verifier's exit code."""
    click.echo(f"auditkit: {path.name} does not verify, so there is no checklist", err=True)
    for check in report.checks:
        for finding in check.findings[:5]:
            text = spelt(f"check {check.number} {check.name}: {finding}")
            click.echo(f"auditkit: {text}", err=True)
    ctx.exit(report.exit_code)
