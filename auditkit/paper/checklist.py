"""The checklist of a verified manifest: what it can fill, and what a person must answer.

Rules that it keeps:

* an answer is *yes* only where every check behind the item passed;
* a failed check gives *no* with its findings, one that was not run gives *todo* and says how to
  run it;
* a question about the paper is never answered: the facts stand beside an open answer;
* of a manifest that does not verify nothing is filled in, and the first line says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditkit.evidence.verdicts import is_recording_report
from auditkit.formats.statements import Manifest
from auditkit.paper.citations import answer_from_checks, clipped, passed, why_no_estimates
from auditkit.paper.lists import ABOUT_PAPERS, DEFAULT_LISTS, LISTS, QUESTIONS
from auditkit.paper.questions import Answer, Checklist, ChecklistItem, Question
from auditkit.paper.recording_facts import RECORDING_FACTS
from auditkit.paper.survey import SURVEY_ITEMS, Facts
from auditkit.paper.topics import nothing
from auditkit.records.manifest import StudyManifest
from auditkit.records.recording import RecordingManifest
from auditkit.records.report import VerificationReport

#: Lists that a recording has facts for: it has no branches that the survey's could be about.
RECORDING_LISTS = tuple(name for name in LISTS if name != "survey")

_NOT_SHOWN_OF_RECORDING = (
    "Not shown: that this was the only run, who ran it, when, on which hardware, or that the data "
    "are clean. A recording has no branches, and no effects."
)

_NOT_SHOWN = (
    "Not shown: that this was the only run (seeds can be shopped), who ran it, when, on which "
    "hardware, that the data are clean, or that the listed code treats all branches alike."
)


def fill(
    manifest: Manifest | None,
    report: VerificationReport,
    notes: tuple[str, ...] = (),
    lists: Sequence[str] = DEFAULT_LISTS,
) -> Checklist:
    """Fill the checklist.

    Args:
        manifest: The manifest; None where it does not verify, and then nothing of it is cited.
        report: The verifier's report on it.
        notes: Further notes, such as where the report comes from.
        lists: Names of :data:`auditkit.paper.lists.LISTS`; of a recording, of
            :data:`RECORDING_LISTS`.

    Returns:
        An item for each question of the lists, in the order of :data:`auditkit.paper.lists.LISTS`.
    """
    chosen = [name for name in LISTS if name in lists]
    is_study = isinstance(manifest, StudyManifest)
    not_shown = _NOT_SHOWN if is_study else _NOT_SHOWN_OF_RECORDING
    shown = () if manifest is None else (_shown(report), not_shown)
    return Checklist(
        manifest_sha256=report.manifest_sha256,
        signed_by=report.signed_by,
        verification=f"{report.verdict}; replay: {clipped(report.replay)}",
        checks=tuple(f"{check.number} {check.name}: {check.status}" for check in report.checks),
        notes=(*shown, *notes),
        items=tuple(
            _item(question, manifest, report) for name in chosen for question in QUESTIONS[name]
        ),
        sources=tuple(LISTS[name] for name in chosen),
        problem="" if manifest is not None else _problem(report),
    )


def _problem(report: VerificationReport) -> str:
    wrong = [f"check {c.number} ({c.name}) {c.status}" for c in report.checks if c.findings]
    why = why_no_estimates(report) or ", ".join(wrong) or report.verdict
    return f"THIS MANIFEST DOES NOT VERIFY: {why}. Nothing is filled in from it."


def _item(
    question: Question, manifest: Manifest | None, report: VerificationReport
) -> ChecklistItem:
    behind = question.checks
    if isinstance(manifest, RecordingManifest):  # others replay it, and its facts say whether
        behind = tuple(number for number in behind if number != 8)
    answer, text = answer_from_checks(report, behind)
    facts = Facts(text, (), answer)
    if manifest is None:
        facts = _without_manifest(answer, text)
    elif answer == "yes":
        facts = _facts(question.key, manifest, report)
    is_open = question.key in ABOUT_PAPERS  # a person's, whatever the facts
    return ChecklistItem(
        key=question.key,
        source=question.source,
        question=question.text,
        answer="todo" if is_open else facts.answer,
        justification=facts.text,
        evidence=facts.evidence,
        title=question.title,
        person=question.person,
        number=question.number,
    )


def _facts(key: str, manifest: Manifest, report: VerificationReport) -> Facts:
    if isinstance(manifest, RecordingManifest):
        return Facts(*RECORDING_FACTS.get(key, nothing)(manifest, report))
    if key in ABOUT_PAPERS:
        return Facts(*ABOUT_PAPERS[key].facts(manifest, report))
    return SURVEY_ITEMS[key](manifest, report)


def _without_manifest(answer: Answer, text: str) -> Facts:
    """A failed check stays a no; whatever else it was, nothing is filled in."""
    nothing_said = Facts("Nothing is filled in: the manifest does not verify.", (), "todo")
    return Facts(text, (), "no") if answer == "no" else nothing_said


def _shown(report: VerificationReport) -> str:
    shown = []
    if passed(report, 1, 2, 3):
        shown.append("integrity (these bytes are what that key signed)")
    if passed(report, 4, 5, 6, 7):
        shown.append(
            "pairing (control and treatment share their state up to t0 and differ only in the "
            "declared perturbation)"
        )
    if passed(report, 8) and is_recording_report(report.checks):
        shown.append("replay (somebody else's run of the script gave what is recorded)")
    elif passed(report, 8, 9):
        part = "" if report.verdict == "verified" else " in the branches that were replayed"
        shown.append(
            f"replay-consistency{part} (the recorded states follow from the recorded inputs on "
            "this software and hardware)"
        )
    return f"Shown: {', '.join(shown) or 'nothing'}."
