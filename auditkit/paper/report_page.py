"""A verified study or recording as one page that opens anywhere, offline, whole without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from auditkit.evidence.verdicts import LESS_THAN_REQUIRED, NOT_APPLICABLE
from auditkit.paper.citations import unreplayed, why_no_estimates, why_withheld
from auditkit.paper.markup import (
    Html,
    bullets,
    element,
    facts,
    folded,
    paragraph,
    section,
    table,
    text,
)
from auditkit.paper.report_tables import ReportTable, to_html
from auditkit.paper.self_check import (
    SignedStatement,
    script_element,
    script_source,
    self_check,
)
from auditkit.paper.timeline import timeline
from auditkit.paper.whole_page import beginning, whole_page
from auditkit.paper.words import glossary, heading, hover
from auditkit.records.environment import Environment
from auditkit.records.fork_points import plans
from auditkit.records.manifest import StudyManifest
from auditkit.records.metric_names import base_metric
from auditkit.records.recording import RecordingManifest
from auditkit.records.report import CheckResult, VerificationReport
from auditkit.records.rng import RngContract

#: The one script that a page may have.
_SCRIPT_POLICY = "; script-src {}; require-trusted-types-for 'script'"

#: Seeds whose random streams are shown.
_MAX_SEEDS = 20

_DIGITS = 16

#: Words of a study beside those that stand above the columns of its tables.
_WORDS = (
    *("trunk", "fork at t0", "branch", "control", "replica", "placebo", "treatment"),
    *("perturbation", "time", "seed", "probe", "outcome", "order", "component", "RNG contract"),
    *("noise floor", "replay", "verified", "sampled", "integrity-only", "Holm", "q"),
    *("developed", "exactly 0", "recal.", "diverged", "persistence", "total variation"),
)

#: What stands above the columns of the page's own tables, where the manual explains it.
_CHECKS = ("#", "check", "result")
_CHECKPOINTS = ("rank", "step")
_COMPONENTS = ("component",)
_STREAMS = ("stream", "seed")

_VERDICTS = {
    "verified": ("good", "Verified: every check passed, and all of it was replayed here."),
    "sampled": (
        "good",
        "Sampled: every check passed, and of the replay the branches that were drawn.",
    ),
    "integrity-only": (
        "open",
        "Integrity only: nothing is found to be wrong, and nothing was replayed; so no estimates "
        "are shown.",
    ),
}


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        title: Its heading.
        caption: What it shows and how to read it.
        svg: Itself, made by this program.
    """

    title: str
    caption: str
    svg: Html


@dataclass(frozen=True)
class Said:
    """What the page says in the words of ``auditkit verify``.

    Attributes:
        findings: What is wrong, and what is odd.
        about: Files that were opened, and what the plan is worth.
        verdict: Trust, replay, what is shown and what is not, and the verdict.
        estimates: What stands above the estimand tables.
        facts: What the manifest says of plan, program and data.
        note: Where the report comes from; empty where all was made for this page.
    """

    findings: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    verdict: tuple[str, ...] = ()
    estimates: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Shown:
    """Tables and pictures of the page.

    Attributes:
        tables: The estimands that ``auditkit verify`` prints, or what a loop logged.
        everything: All of them.
        pictures: Pictures.
    """

    tables: tuple[ReportTable, ...] = ()
    everything: tuple[ReportTable, ...] = ()
    pictures: tuple[Picture, ...] = field(default=())


def is_page(data: bytes) -> bool:
    """Whether a file is a page that this module has made, of whatever manifest."""
    return data.startswith(beginning("report").encode())


def is_good(report: VerificationReport) -> bool:
    """Whether nothing is found to be wrong, so that what the manifest says may be shown."""
    return report.exit_code in (0, LESS_THAN_REQUIRED)


def page(
    name: str,
    report: VerificationReport,
    manifest: StudyManifest | RecordingManifest | None,
    said: Said,
    shown: Shown,
    signed: SignedStatement | None = None,
) -> str:
    """The page.

    Args:
        name: What the manifest is called.
        report: The verifier's report on it.
        manifest: The manifest; None where it does not verify, and then nothing of it is shown.
        said: What the page says in the words of ``auditkit verify``.
        shown: Its tables and pictures.
        signed: What it checks in its reader's browser; None where it cannot.
    """
    good = is_good(report)
    kind, verdict = _verdict(report)
    parts = [
        paragraph(verdict, f"verdict {kind}"),
        element("h1", text(f"Verification of {name}")),
        *_signed(report, said),
        _checks(report, said),
        *([self_check(signed)] if good else ()),
    ]
    if good and isinstance(manifest, StudyManifest):
        parts += _study(report, manifest, said, shown)
    elif good and isinstance(manifest, RecordingManifest):
        parts += _recording(report, manifest, said, shown)
    words = dict.fromkeys(h for t in (*shown.tables, *shown.everything) for h in t.headings)
    own = (*_CHECKS, *_CHECKPOINTS, *_COMPONENTS, *_STREAMS)
    rows = report.estimates.rows if good and report.estimates is not None else ()
    metrics = dict.fromkeys(base_metric(row.metric) for row in rows)
    asked = (*own, *words, *metrics, *(_WORDS if isinstance(manifest, StudyManifest) else ()))
    parts += [section(2, "Glossary", glossary(asked), id_="glossary"), _foot(report)]
    has_script = good and signed is not None and signed.fits
    return whole_page(
        "report",
        text(f"{verdict.partition(':')[0]}: {name}"),
        parts,
        script=script_element() if has_script else None,
        policy=_SCRIPT_POLICY.format(script_source()) if has_script else "",
    )


def _verdict(report: VerificationReport) -> tuple[str, str]:
    if is_good(report):
        kind, words = _VERDICTS[report.verdict]
        recorded = any(check.summary == NOT_APPLICABLE for check in report.checks)
        return kind, words.replace("; so no estimates are shown", "") if recorded else words
    lacking = why_no_estimates(report)
    if lacking is not None:
        return "bad", f"Does not verify: {lacking}. No estimates are shown."
    wrong = [f"{c.number} {c.name} ({c.status})" for c in report.checks if c.findings]
    where = f"see check {', '.join(wrong)}" if wrong else "see below"
    told = {
        "failed": "something is wrong",
        "close": "its bits differ here, within the tolerance",
    }.get(report.verdict, "it cannot be decided")
    return "bad", f"Does not verify: {told}; {where}. No estimates are shown."


def _signed(report: VerificationReport, said: Said) -> Iterator[Html]:
    whose = (
        element("p", text(report.signed_by), class_="fingerprint")
        if report.signed_by
        else paragraph("No key that is trusted here.", "fingerprint")
    )
    hint = "Compare it with the fingerprint in the paper: a file can name any key as its own."
    yield section(2, "Who signed it", whose, paragraph(hint, "muted"))
    lines = [*said.verdict, *([said.note] if said.note else ())]
    yield section(2, "What is shown, and what is not", bullets(lines))


def _checks(report: VerificationReport, said: Said) -> Html:
    rows = [_check(check) for check in report.checks if check.summary != NOT_APPLICABLE]
    headings = [*map(heading, _CHECKS), text("what")]
    shown = table("What was checked", headings, rows, is_prose=True)
    found = section(3, "Findings and warnings", bullets(said.findings)) if said.findings else ""
    return section(2, "Checks", shown, Html(found), bullets(said.about))


def _check(check: CheckResult) -> tuple[Html, ...]:
    kind = {"passed": "good", "failed": "bad"}.get(check.status, "open")
    return (
        text(check.number),
        element("span", text(check.name), title=hover(f"check {check.number}")),
        element("span", text(check.status), class_=kind),
        text(check.summary),
    )


def _study(
    report: VerificationReport, manifest: StudyManifest, said: Said, shown: Shown
) -> Iterator[Html]:
    drawn = map(timeline, plans(manifest.plan))
    about = facts("The plan and the program", said.facts)
    yield section(2, "Plan", _unreplayed(report), *drawn, about)
    if report.estimates is None:
        how = "; auditkit report --replay all computes them" if unreplayed(report) else ""
        why = f"None are shown ({why_withheld(report)}{how})."
        yield section(2, "Estimands", paragraph(why))
    else:
        yield section(2, "Estimands", *_estimands(report, said, shown))
    yield _environment(manifest.environment)
    contracts = {f"Seed {item.seed}": item.rng for item in manifest.seeds[:_MAX_SEEDS]}
    yield _contracts(contracts, len(manifest.seeds) - _MAX_SEEDS)


def _unreplayed(report: VerificationReport) -> Html:
    """What stands above plan, optimizer and data that nothing has executed again."""
    words = unreplayed(report).strip()
    return paragraph(words, "open") if words else Html("")


def _estimands(report: VerificationReport, said: Said, shown: Shown) -> Iterator[Html]:
    if report.verdict == "sampled":
        yield paragraph(f"Sampled: most numbers are as recorded, not recomputed. {report.replay}")
    yield bullets(said.estimates)
    yield from map(to_html, shown.tables)
    for picture in shown.pictures:
        yield section(3, picture.title, _figure(picture))
    rows = sum(len(item.rows) for item in shown.everything)
    if rows:
        yield folded(f"Every estimate ({rows} rows)", *map(to_html, shown.everything))
    else:
        yield paragraph("Every estimate is too many for a page: --tables writes them.", "muted")
    if report.estimates is not None:
        yield bullets(report.estimates.notes)


def _figure(picture: Picture) -> Html:
    return element("figure", picture.svg, element("figcaption", text(picture.caption)))


def _recording(
    report: VerificationReport, manifest: RecordingManifest, said: Said, shown: Shown
) -> Iterator[Html]:
    about = facts("The loop and the program", said.facts)
    yield section(2, "The recording", _unreplayed(report), about)
    if shown.tables:
        yield section(2, "What the loop logged", *map(to_html, shown.tables))
    for picture in shown.pictures:
        yield section(2, picture.title, _figure(picture))
    rows = [
        [text(rank.rank), text(point.step), text(point.file), text(len(point.digests))]
        for rank in manifest.ranks
        for point in rank.checkpoints
    ]
    headings = [*map(heading, _CHECKPOINTS), text("file"), text("sections")]
    points = table("Checkpoints", headings, rows) if rows else paragraph("There are none.")
    yield section(2, "Checkpoints", points)
    yield section(
        2,
        "Components",
        *(_components(rank.rank, rank.initial, rank.final) for rank in manifest.ranks[:_MAX_SEEDS]),
    )
    yield _environment(manifest.environment)
    contracts = {f"Rank {rank.rank}": rank.rng for rank in manifest.ranks[:_MAX_SEEDS]}
    yield _contracts(contracts, len(manifest.ranks) - _MAX_SEEDS)


def _components(rank: int, initial: Mapping[str, str], final: Mapping[str, str]) -> Html:
    rows = [
        [
            text(name),
            text(initial.get(name, "-")[:_DIGITS]),
            text(final.get(name, "-")[:_DIGITS]),
            text("no" if initial.get(name) == final.get(name) else "yes"),
        ]
        for name in sorted({*initial, *final})
    ]
    names = ("sha256 before step 1", "sha256 after the last", "changed")
    headings = [*map(heading, _COMPONENTS), *map(text, names)]
    return table(f"Components of rank {rank}", headings, rows)


def _environment(environment: Environment) -> Html:
    sections = {
        "Hardware": environment.hardware,
        "Packages": {"python": environment.python, **environment.packages},
        "Libraries": environment.libraries,
        "Variables": environment.variables,
        "Determinism": environment.determinism,
    }
    tables = [facts(name, sorted(items.items())) for name, items in sections.items() if items]
    return section(2, "Environment", paragraph("As recorded by the run itself."), *tables)


def _contracts(contracts: Mapping[str, RngContract], more: int) -> Html:
    parts: list[Html] = []
    for name, contract in contracts.items():
        rows = [
            [text(item.stream), text(item.seed or "-")]
            + [text((value or "-")[:_DIGITS]) for value in (item.start, item.fork, item.end)]
            for item in contract.streams
        ]
        names = ("state at start", "state at t0", "state at the end")
        headings = [*map(heading, _STREAMS), *map(text, names)]
        whole = table(f"{name}: recipe {contract.recipe}", headings, rows)
        parts.append(whole if not parts else folded(name, whole))
    first = next(iter(contracts.values()), None)
    uncovered: Iterable[str] = () if first is None else first.uncovered
    parts.append(section(3, "Not covered", bullets(uncovered)))
    if more > 0:
        parts.append(paragraph(f"{more} more: see the manifest."))
    return section(2, "Random numbers", *parts)


def _foot(report: VerificationReport) -> Html:
    statement = element("span", text(report.statement_sha256 or ""), id="statement-sha256")
    rows = [
        (text("manifest sha256"), text(report.manifest_sha256)),
        *([(text("statement sha256"), statement)] if report.statement_sha256 else ()),
        *([(text("report by auditkit"), text(report.auditkit))] if report.auditkit else ()),
    ]
    headings = (text("name"), text("value"))
    return section(2, "Which manifest", table("Digests", headings, rows, is_prose=True))
