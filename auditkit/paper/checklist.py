"""The checklist of a verified manifest: what it can fill, and what a person must answer.

Rules that it keeps:

* an answer is *yes* only where every check behind the item passed;
* a failed check gives *no* with its findings, one that was not run gives *todo* and says how to
  run it;
* a question about the paper is never answered: the facts stand beside an open answer.
"""

from __future__ import annotations

from auditkit.paper.citations import answer_from_checks, clipped, passed
from auditkit.paper.neurips import NEURIPS_ITEMS
from auditkit.paper.questions import QUESTIONS, Checklist, ChecklistItem, Question
from auditkit.paper.survey import SURVEY_ITEMS
from auditkit.records.manifest import StudyManifest
from auditkit.records.report import VerificationReport

_NOT_SHOWN = (
    "Not shown: that this was the only run (seeds can be shopped), who ran it, when, on which "
    "hardware, that the data are clean, or that the listed code treats all branches alike."
)


def fill(
    manifest: StudyManifest, report: VerificationReport, notes: tuple[str, ...] = ()
) -> Checklist:
    """Fill the checklist.

    Args:
        manifest: The manifest.
        report: The verifier's report on it.
        notes: Further notes, such as where the report comes from.

    Returns:
        An item for each of :data:`auditkit.paper.questions.QUESTIONS`, in that order.
    """
    return Checklist(
        manifest_sha256=report.manifest_sha256,
        signed_by=report.signed_by,
        verification=f"{report.verdict}; replay: {clipped(report.replay)}",
        checks=tuple(f"{check.number} {check.name}: {check.status}" for check in report.checks),
        notes=(_shown(report), _NOT_SHOWN, *notes),
        items=tuple(_item(question, manifest, report) for question in QUESTIONS),
    )


def _item(question: Question, manifest: StudyManifest, report: VerificationReport) -> ChecklistItem:
    if question.key in NEURIPS_ITEMS:
        return _open_item(question, manifest, report)
    answer, problem = answer_from_checks(report, question.checks)
    evidence: tuple[str, ...] = ()
    text = problem
    if answer == "yes":
        facts = SURVEY_ITEMS[question.key](manifest, report)
        answer, text, evidence = facts.answer, facts.text, facts.evidence
    return ChecklistItem(
        key=question.key,
        source=question.source,
        question=question.text,
        answer=answer,
        justification=text,
        evidence=evidence,
        title=question.title,
        person=question.person,
    )


def _open_item(
    question: Question, manifest: StudyManifest, report: VerificationReport
) -> ChecklistItem:
    """Facts without an answer; without facts, too, where the manifest itself did not hold."""
    answer, problem = answer_from_checks(report, question.checks)
    text = problem
    evidence: tuple[str, ...] = ()
    if answer == "yes":
        text, evidence = NEURIPS_ITEMS[question.key](manifest, report)
    return ChecklistItem(
        key=question.key,
        source=question.source,
        question=question.text,
        answer="todo",
        justification=text,
        evidence=evidence,
        title=question.title,
        person=question.person,
    )


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
