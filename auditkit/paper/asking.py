"""An item of a list about the paper: its question, and the facts that stand beside the answer.

The answer is always left to a person: what is asked is whether a *paper* says or gives something,
and no manifest has seen the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from auditkit.paper.questions import Question
from auditkit.records.manifest import StudyManifest
from auditkit.records.report import VerificationReport

Facts = Callable[[StudyManifest, VerificationReport], tuple[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Asked:
    """A question about the paper.

    Attributes:
        question: What is asked.
        facts: Gives text and evidence of what manifest and report have to say.
    """

    question: Question
    facts: Facts


class Asker(Protocol):
    """Makes the items of one list."""

    def __call__(  # noqa: D102 # one argument a column
        self,
        number: str,
        title: str,
        text: str,
        filled_from: str,
        facts: Facts,
        person: str,
        checks: tuple[int, ...] = (),
    ) -> Asked: ...


def asker(source: str, name: str) -> Asker:
    """What makes the items of one list.

    Args:
        source: What they name as who asks.
        name: What their keys begin with.

    Returns:
        A function whose ``number`` is the item's own number, then perhaps words that tell it from
        others under that number; or only words, where the list has no numbers.
    """

    def asked(  # one argument a column
        number: str,
        title: str,
        text: str,
        filled_from: str,
        facts: Facts,
        person: str,
        checks: tuple[int, ...] = (),
    ) -> Asked:
        key = f"{name}-{number}".replace(" ", "-").lower()
        official = number.partition(" ")[0] if any(map(str.isdigit, number)) else ""
        question = Question(key, source, title, text, filled_from, checks, person, official)
        return Asked(question, facts)

    return asked
