"""``auditkit report``: a verified manifest as one page, with its pictures and tables as files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from auditkit.cli.console import LAYOUTS
from auditkit.cli.earlier_reports import (
    GOOD,
    read_envelope,
    say_why_not,
    source_note,
    with_earlier,
)
from auditkit.cli.estimand_tables import (
    PERSISTENCE_HEADINGS,
    estimand_tables,
    head_lines,
    persistence_table,
)
from auditkit.cli.further_tables import further_tables
from auditkit.cli.help import Command
from auditkit.cli.logged import Logged, logged_rows, loss_curves, read_logged
from auditkit.cli.options import TEXT
from auditkit.cli.outputs import destination
from auditkit.cli.received import received_manifest
from auditkit.cli.report_files import FigureFiles, TableFiles
from auditkit.cli.saying import say
from auditkit.cli.show import facts_of
from auditkit.cli.spelling import spelt
from auditkit.cli.tables import finding_lines, opened_lines, plan_lines, verdict_lines
from auditkit.cli.verify import verify_path
from auditkit.cli.verify_options import (
    let_through_option,
    refuse_idle,
    request_of,
    verification_options,
)
from auditkit.errors import AuditError, UsageError
from auditkit.evidence.reader import RunEvidence
from auditkit.evidence.verdicts import is_recording_report
from auditkit.formats.quote import brief
from auditkit.formats.statements import Manifest, manifest_from_statement
from auditkit.paper.citations import why_withheld
from auditkit.paper.drawing import Drawn, require_matplotlib, to_svg
from auditkit.paper.pictures import loss_pictures, study_pictures
from auditkit.paper.report_page import Picture, Said, Shown, is_page, page
from auditkit.paper.report_tables import ReportTable
from auditkit.paper.run_curves import loss_courses, reliability_curves
from auditkit.paper.run_pictures import Curves, divergence_picture, reliability_picture
from auditkit.paper.self_check import SignedStatement, signed_statement
from auditkit.records.estimate import EstimateTable
from auditkit.records.manifest import MANIFEST_NAME, StudyManifest
from auditkit.records.metric_names import split_metric
from auditkit.records.report import VerificationReport
from auditkit.verification.request import VerifyRequest
from auditkit.verification.several_forks import fork_runs

#: Rows beyond which a page does not hold every estimate: it would be megabytes.
_MAX_ROWS = 2000

_ENDINGS = (".html", ".htm")


@click.command("report", cls=Command)
@click.argument("manifest", type=TEXT)
@click.option("--out", required=True, type=TEXT, help="The page, an .html file.")
@click.option("--figures", type=TEXT, help="Folder for the pictures as PDF and PNG.")
@click.option("--tables", type=TEXT, help="Folder for the estimands as CSV and LaTeX.")
@click.option(
    "--report",
    "report_file",
    type=TEXT,
    help="Report of `auditkit verify`; by default your last.",
)
@verification_options(replay="none")
@let_through_option
@click.pass_context
def report_command(
    ctx: click.Context,
    /,
    manifest: str,
    out: str,
    figures: str | None,
    tables: str | None,
    report_file: str | None,
    **options: Any,
) -> None:
    """Verify MANIFEST, then write it as one page with pictures, tables and explanations.

    The page opens offline, needs no scripts, and where a browser has them checks its signature and
    the run's files itself. What needs a replay is taken from the report that your last `auditkit
    verify` left, if there is one, or that --report names; --replay all makes it anew. The page of
    a manifest that fails a check says so and shows no estimands; exit codes are those of `auditkit
    verify`.
    """
    is_default = ctx.get_parameter_source("amount") == ParameterSource.DEFAULT
    if report_file is not None and not is_default:
        raise UsageError("--report and --replay exclude each other")
    _check_ending(out)
    require_matplotlib()
    path = ctx.with_resource(received_manifest(manifest)).path
    written_to = destination("--out", out, is_page, "page", path)
    figure_files = None if figures is None else ctx.with_resource(FigureFiles(figures))
    table_files = None if tables is None else ctx.with_resource(TableFiles(tables))
    request = request_of(path, **options)
    refuse_idle(request)
    here = verify_path(path, request)
    if is_recording_report(here.checks):
        if report_file is not None:
            raise UsageError("--report is for a study: of a recording all was checked here")
        report = here
    else:
        report = with_earlier(path, here, report_file, is_default=is_default)
    note = source_note(report, here, "page")
    if report.exit_code not in GOOD:
        say_why_not(path, report, "the page shows no more than that")
    found = _found(path, report, request)
    drawn = tuple(_drawn(found, path.parent))
    shown = Shown(
        tables=tuple(_tables(found)),
        everything=tuple(_everything(found)),
        pictures=tuple(Picture(item.title, item.caption, to_svg(item)) for item in drawn),
    )
    said = _said(found, note)
    text = page(_name(manifest), report, found.manifest, said, shown, found.signed)
    written_to.write(text.encode("utf-8", "backslashreplace"))
    if figure_files is not None:
        figure_files.write(drawn)
        if not drawn:
            say(f"no figures: there is nothing to draw{_without(found)}")
    if table_files is not None and found.estimates is not None:
        table_files.write([*shown.tables, *_persistence(found)], found.estimates)
    elif table_files is not None:
        say(f"no tables: there are no estimates{_without(found)}")
    if not written_to.is_stdout:
        say(f"page: {out}")
    ctx.exit(report.exit_code)


def _without(found: _Found) -> str:
    return "" if found.estimates is not None else f" ({why_withheld(found.report)})"


def _check_ending(out: str) -> None:
    if out != "-" and not out.lower().endswith(_ENDINGS):
        raise UsageError(f"--out {brief(out)} does not end in .html", hint="name an .html file")


@dataclass(frozen=True)
class _Found:
    """What a page is made of.

    Attributes:
        report: The verifier's report.
        manifest: The manifest; None where it does not verify.
        signed: What the page checks by itself.
        logged: What a recorded loop logged.
    """

    report: VerificationReport
    manifest: Manifest | None
    signed: SignedStatement | None = None
    logged: tuple[Logged, ...] = ()

    @property
    def estimates(self) -> EstimateTable | None:
        """The estimates, where they may be shown."""
        return None if self.manifest is None else self.report.estimates


def _name(typed: str) -> str:
    """What the manifest is called, by no more than was typed."""
    path = Path(typed)
    return (path.parent.name if path.name == MANIFEST_NAME else path.name) or "a manifest"


def _found(path: Path, report: VerificationReport, request: VerifyRequest) -> _Found:
    if report.exit_code not in GOOD:
        return _Found(report, None)
    envelope = read_envelope(path, report)
    signed = signed_statement(envelope, request.trusted, report.signed_by)
    manifest = manifest_from_statement(envelope.payload, what=path.name)
    if isinstance(manifest, StudyManifest):
        return _Found(report, manifest, signed)
    return _Found(report, manifest, signed, tuple(read_logged(path.parent, manifest)))


def _said(found: _Found, note: str) -> Said:
    report, estimates = found.report, found.estimates
    return Said(
        findings=_spelt(finding_lines(report)),
        about=_spelt((*opened_lines(report), *plan_lines(report))),
        verdict=_spelt(verdict_lines(report)),
        estimates=() if estimates is None else _spelt(head_lines(estimates)),
        facts=() if found.manifest is None else tuple(facts_of(found.manifest)),
        note=note,
    )


def _drawn(found: _Found, folder: Path) -> Iterator[Drawn]:
    if found.estimates is not None:
        yield from study_pictures(found.estimates)
        if isinstance(found.manifest, StudyManifest):
            run = RunEvidence(folder, found.manifest)
            yield from _drawn_of_files(run, split_metric(found.estimates.primary_metric)[0])
    yield from loss_pictures(dict(curve for item in found.logged for curve in loss_curves(item)))


def _drawn_of_files(run: RunEvidence, probe: str) -> Iterator[Drawn]:
    """Pictures of what was verified; where it has changed since, there is one less."""
    makers: tuple[Callable[[], Drawn | None], ...] = (
        lambda: divergence_picture(*map(loss_courses, fork_runs(run))),
        lambda: reliability_picture(*_reliability(run, probe)),
    )
    for make in makers:
        try:
            drawn = make()
        except AuditError as error:
            say(f"not drawn: {error}")
            continue
        if drawn is not None:
            yield drawn


def _reliability(run: RunEvidence, probe: str) -> Iterator[tuple[int | None, Curves]]:
    plan = run.manifest.plan
    for one in fork_runs(run):
        t0 = one.manifest.plan.fork_at if plan.further_forks else None
        yield t0, reliability_curves(one, probe)


def _tables(found: _Found) -> Iterator[ReportTable]:
    """What ``auditkit verify`` prints of a study, and ``auditkit show`` of what a loop logged."""
    if found.estimates is not None:
        for table in estimand_tables(found.estimates, everything=False):
            yield _as_table(table.name, table.title, table.rows, table.notes)
        for table in further_tables(found.estimates, everything=False):
            yield _as_table(table.name, table.title, table.rows, table.notes)
    rows = [row for item in found.logged for row in logged_rows(item)]
    problems = tuple(item.problem for item in found.logged if item.problem)
    if rows or problems:
        yield _as_table("logged", "Numbers that the loop logged", rows, problems)


def _everything(found: _Found) -> Iterator[ReportTable]:
    estimates = found.estimates
    if estimates is None or len(estimates.rows) > _MAX_ROWS:
        return
    for table in estimand_tables(estimates, everything=True):
        yield _as_table(table.name, f"{table.title}: all rows", table.rows, table.notes)
    further = (*estimates.rows, *estimates.spreads, *estimates.generalised, *estimates.profiles)
    for table in further_tables(estimates, everything=len(further) <= _MAX_ROWS):
        yield _as_table(table.name, f"{table.title}: all rows", table.rows, table.notes)
    yield from _persistence(found)


def _persistence(found: _Found) -> Iterator[ReportTable]:
    if found.estimates is not None and found.estimates.persistence:
        table = persistence_table(found.estimates)
        numbers = PERSISTENCE_HEADINGS[2:4]
        yield ReportTable(table.name, table.title, PERSISTENCE_HEADINGS, numbers, table.rows)


def _as_table(
    name: str, title: str, rows: Iterable[tuple[str, ...]], notes: Sequence[str]
) -> ReportTable:
    layout = LAYOUTS[name]
    cells = tuple(_spelt(row) for row in rows)
    return ReportTable(name, title, layout.headings, layout.numbers, cells, tuple(notes))


def _spelt(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(spelt, lines))
