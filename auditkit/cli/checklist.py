"""``auditkit checklist``: what a verified manifest can fill of a paper's checklist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from auditkit.cli.earlier_reports import (
    GOOD,
    read_statement,
    say_why_not,
    source_note,
    with_earlier,
)
from auditkit.cli.help import Command
from auditkit.cli.options import TEXT
from auditkit.cli.outputs import destination
from auditkit.cli.received import received_manifest
from auditkit.cli.verify import verify_path
from auditkit.cli.verify_options import (
    let_through_option,
    refuse_idle,
    request_of,
    verification_options,
)
from auditkit.errors import UsageError
from auditkit.evidence.verdicts import is_recording_report
from auditkit.formats.statements import manifest_from_statement
from auditkit.paper.checklist import RECORDING_LISTS, fill
from auditkit.paper.checklist_page import is_checklist_page, to_page
from auditkit.paper.lists import DEFAULT_LISTS, LISTS
from auditkit.paper.rendering import is_checklist, to_latex, to_markdown

_FORMATS = {"markdown": to_markdown, "latex": to_latex, "html": to_page}

_ALL = "all"


@click.command(cls=Command)
@click.argument("manifest", type=TEXT)
@click.option(
    "--format", "form", type=click.Choice(list(_FORMATS)), default="markdown", show_default=True
)
@click.option(
    "--for",
    "lists",
    multiple=True,
    type=click.Choice([*LISTS, _ALL]),
    default=DEFAULT_LISTS,
    show_default=True,
    help="A list to fill; repeatable.",
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
    lists: tuple[str, ...],
    report_file: str | None,
    out: str | None,
    **options: Any,
) -> None:
    """Verify MANIFEST, then print the checklist that it can fill.

    What needs a replay is taken from the report that your last `auditkit verify` left, if there
    is one, or that --report names; --replay all makes it anew. The checklist of a manifest that
    fails a check says so on its first line and is filled with nothing else; exit codes are those
    of `auditkit verify`.
    """
    is_default = ctx.get_parameter_source("amount") == ParameterSource.DEFAULT
    if report_file is not None and not is_default:
        raise UsageError("--report and --replay exclude each other")
    path = ctx.with_resource(received_manifest(manifest)).path
    typed = "-" if out is None else out
    written_to = destination("--out", typed, _is_own, "checklist", path)
    request = request_of(path, **options)
    refuse_idle(request)
    report = verify_path(path, request)
    wanted = tuple(LISTS) if _ALL in lists else lists
    made_here = report
    if is_recording_report(report.checks):
        if report_file is not None:
            raise UsageError("--report is for a study: of a recording all was checked here")
        is_given = ctx.get_parameter_source("lists") != ParameterSource.DEFAULT
        wanted = _of_recording(path, wanted, is_given=is_given and _ALL not in lists)
    else:
        report = with_earlier(path, report, report_file, is_default=is_default)
    good = report.exit_code in GOOD
    if not good:
        say_why_not(path, report, "nothing is filled in")
    note = source_note(report, made_here, "checklist")
    found = None
    if good:
        found = manifest_from_statement(read_statement(path, report), what=path.name)
    filled = fill(found, report, (note,) if note else (), wanted)
    written_to.write(_FORMATS[form](filled).encode("utf-8", "backslashreplace"))
    if not written_to.is_stdout:
        click.echo(f"checklist: {out}", err=True)
    ctx.exit(report.exit_code)


def _of_recording(path: Path, wanted: tuple[str, ...], *, is_given: bool) -> tuple[str, ...]:
    """The lists that a recording can have facts for; all but the survey's."""
    rest = tuple(name for name in wanted if name in RECORDING_LISTS)
    if is_given and rest != wanted:
        raise UsageError(
            "a recording has no branches, estimands or noise floor that the survey's list asks for",
            where=path.name,
            hint=f"--for {', '.join(RECORDING_LISTS)} have facts of it",
        )
    return rest


def _is_own(data: bytes) -> bool:
    return is_checklist(data) or is_checklist_page(data)
