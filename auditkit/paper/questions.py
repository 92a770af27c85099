"""The checklist's records, and its questions: what is asked, what fills it, what a person must say.

The survey's items follow the audit artifacts that it asks for (order hashes, buffer and BatchNorm
checksums, RNG contracts, seed pairs, perturbations, uncertainty; arXiv 2601.21624). Items of every
list are in this project's words, under the list's own numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Answer = Literal["yes", "no", "na", "todo"]

SURVEY = "arXiv 2601.21624"
NEURIPS = "NeurIPS"

#: Checks that every item rests on: without them a manifest says nothing that could be cited.
BASE_CHECKS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Question:
    """One question of the checklist.

    Attributes:
        key: Its name in this project, e.g. ``order`` or ``neurips-7``.
        source: Who asks.
        title: Its heading.
        text: Its wording.
        filled_from: What fills it, for people.
        checks: Checks that must have passed before the answer may be yes, beside
            :data:`BASE_CHECKS`; empty where only a person can answer.
        person: What a person must still answer; empty for nothing.
        number: Its number in the list that it is of; empty where that has none.
    """

    key: str
    source: str
    title: str
    text: str
    filled_from: str
    checks: tuple[int, ...] = ()
    person: str = ""
    number: str = ""


@dataclass(frozen=True)
class ChecklistItem:
    """A question with its answer.

    Attributes:
        key: The question's name.
        source: Who asks.
        question: Its wording.
        answer: ``yes`` only where every check behind it passed; ``todo`` where a person must
            answer or a check was not run.
        justification: Facts behind the answer, plain text.
        evidence: A check's number and digests each, plain text.
        title: The question's heading.
        person: What a person must still answer; empty for nothing.
        number: Its number in the list that it is of; empty where that has none.
    """

    key: str
    source: str
    question: str
    answer: Answer
    justification: str
    evidence: tuple[str, ...]
    title: str = ""
    person: str = ""
    number: str = ""


@dataclass(frozen=True)
class Source:
    """A list that asks.

    Attributes:
        name: What ``--for`` takes.
        key: What its items name as their source.
        title: Its heading.
        version: Of which version its numbers are, where that is found, and what of it is left out.
    """

    name: str
    key: str
    title: str
    version: str


@dataclass(frozen=True)
class Checklist:
    """A filled checklist.

    Attributes:
        manifest_sha256: Digest of the manifest file.
        signed_by: Fingerprint of the trusted key, or None.
        verification: Verdict and extent of the verification.
        checks: Number, name and outcome of every check.
        notes: What the checklist shows and what it does not.
        items: The items, list after list.
        sources: The lists, in the order of their items.
        problem: That the manifest does not verify, and why; empty where it does.
    """

    manifest_sha256: str
    signed_by: str | None
    verification: str
    checks: tuple[str, ...]
    notes: tuple[str, ...]
    items: tuple[ChecklistItem, ...]
    sources: tuple[Source, ...]
    problem: str = ""
