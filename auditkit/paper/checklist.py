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

from auditkit.paper.citations import answer_from_checks, clipped, passed
from auditkit.paper.lists import ABOUT_PAPERS, DEFAULT_LISTS, LISTS, QUESTIONS
from auditkit.paper.questions import Answer, Checklist, ChecklistItem, Question
from auditkit.paper.survey import SURVEY_ITEMS
from auditkit.records.manifest import StudyManifest
from auditkit.records.report import VerificationReport

_NOT_SHOWN = (
    "Not shown: that this was the only run (seeds can be shopped), who ran it, when, on which "
    "hardware, that the data are clean, or that the listed code treats all branches alike."
)


def fill(
    manifest: StudyManifest | None,
    report: VerificationReport,
    notes: tuple[str, ...] = (),
    lists: Sequence[str] = DEFAULT_LISTS,
) -> Checklist:
    """Fill the checklist.

    Args:
        manifest: The manifest; None where it does not verify, and then nothing of it is cited.
        report: The verifier's report on it.
        notes: Further notes, such as where the report comes from.
        lists: Names of :data:`auditkit.paper.lists.LISTS`.

    Returns:
        An item for each question of the lists, in the order of :data:`auditkit.paper.lists.LISTS`.
    """
    chosen = [name for name in LISTS if name in lists]
    shown = () if manifest is None else (_shown(report), _NOT_SHOWN)
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
    return (
        f"THIS MANIFEST DOES NOT VERIFY: {', '.join(wrong) or report.verdict}. Nothing is filled "
        "in from it."
    )


def _item(
    question: Question, manifest: StudyManifest | None, report: VerificationReport
) -> ChecklistItem:
    answer, text = answer_from_checks(report, question.checks)
    evidence: tuple[str, ...] = ()
    about_paper = ABOUT_PAPERS.get(question.key)
    if manifest is None:
        answer, text = _without_manifest(answer, text)
    elif answer == "yes" and about_paper is not None:
        text, evidence = about_paper.facts(manifest, report)
    elif answer == "yes":
        facts = SURVEY_ITEMS[question.key](manifest, report)
        answer, text, evidence = facts.answer, facts.text, facts.evidence
    return ChecklistItem(
        key=question.key,
        source=question.source,
        question=question.text,
        answer="todo" if about_paper is not None else answer,
        justification=text,
        evidence=evidence,
        title=question.title,
        person=question.person,
        number=question.number,
    )


def _without_manifest(answer: Answer, text: str) -> tuple[Answer, str]:
    """A failed check stays a no; whatever else it was, nothing is filled in."""
    nothing = "Nothing is filled in: the manifest does not verify."
    return ("no", text) if answer == "no" else ("todo", nothing)


def _shown(report: VerificationReport) -> str:
    shown = []
    if passed(report, 1, 2, 3):
        shown.append("integrity (these bytes are what that key signed)")
    if passed(report, 4, 5, 6, 7):
        shown.append(
            "pairing (control and treatment share their state up to t0 and differ only in the "
            "declared perturbation)"
        )
    if passed(report, 8, 9):
        part = "" if report.verdict == "verified" else " in the branches that were replayed"
        shown.append(
            f"replay-consistency{part} (the recorded states follow from the recorded inputs on "
            "this software and hardware)"
        )
    return f"Shown: {', '.join(shown) or 'nothing'}."
