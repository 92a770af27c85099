"""What of a published run only people can say: title, authors, licence, date."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

from auditkit.errors import UsageError
from auditkit.formats.quote import brief

_ORCID = re.compile(r"(?:https://orcid\.org/)?((?:\d{4}-){3}\d{3}[\dX])", re.ASCII)
_AUTHOR = re.compile(r"([^<>]+?)(?:\s*<([^<>]*)>)?")
_URL = re.compile(r"https?://[^\s<>\"{}|\\^`\x00-\x20]+", re.ASCII)
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}", re.ASCII)

_MOST = 2000


@dataclass(frozen=True)
class Person:
    """An author.

    Attributes:
        name: The name.
        orcid: Address of the ORCID record, or None.
    """

    name: str
    orcid: str | None


@dataclass(frozen=True)
class License:
    """A licence.

    Attributes:
        url: Where it can be read.
        name: What it is called.
    """

    url: str
    name: str


@dataclass(frozen=True)
class Attribution:
    """What people say of a run that they publish; None and empty are still to be said.

    Attributes:
        published: Date of publication, ISO 8601.
        title: Title.
        description: Description.
        license: Licence.
        authors: Authors.
    """

    published: str
    title: str | None = None
    description: str | None = None
    license: License | None = None
    authors: tuple[Person, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """What a person must still say."""
        left = {
            "a title": self.title is None,
            "a description": self.description is None,
            "a licence": self.license is None,
            "the authors": not self.authors,
        }
        return tuple(name for name, is_left in left.items() if is_left)


def parse_attribution(
    *,
    title: str | None,
    description: str | None,
    license_text: str | None,
    authors: Iterable[str],
    published: str | None,
) -> Attribution:
    """What people say, as it is typed.

    Args:
        title: Title.
        description: Description.
        license_text: Address of the licence, or its SPDX identifier.
        authors: ``NAME`` or ``NAME <ORCID>`` each.
        published: ``YYYY-MM-DD``; today where it is None.

    Raises:
        UsageError: On a value that means nothing.
    """
    return Attribution(
        published=datetime.now(UTC).date().isoformat() if published is None else _date(published),
        title=None if title is None else _line("--title", title),
        description=None if description is None else _line("--description", description),
        license=None if license_text is None else _license(license_text),
        authors=_authors(authors),
    )


def _line(option: str, text: str) -> str:
    flat = " ".join(text.split())
    if not flat or len(flat) > _MOST or not flat.isprintable():
        raise UsageError(f"{option} {brief(text)} is not text of up to {_MOST} characters")
    return flat


def _date(text: str) -> str:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.isoformat() != text:
        raise UsageError(f"--published {brief(text)} is no date like 2026-11-30")
    return text


def _license(text: str) -> License:
    if _URL.fullmatch(text):
        return License(text, text)
    if _SPDX.fullmatch(text):
        return License(f"https://spdx.org/licenses/{text}", text)
    raise UsageError(
        f"--license {brief(text)} is neither an address nor an SPDX identifier",
        hint="such as CC-BY-4.0, or https://...",
    )


def _authors(texts: Iterable[str]) -> tuple[Person, ...]:
    found = tuple(map(_author, texts))
    if len({person.orcid or person.name for person in found}) < len(found):
        raise UsageError("an --author is given twice")
    return found


def _author(text: str) -> Person:
    found = _AUTHOR.fullmatch(" ".join(text.split()))
    if found is None or not found[1].isprintable() or len(text) > _MOST:
        raise UsageError(f"--author {brief(text)} is not like 'NAME' or 'NAME <ORCID>'")
    if found[2] is None:
        return Person(found[1], None)
    orcid = _ORCID.fullmatch(found[2].strip())
    if orcid is None or not _is_orcid(orcid[1]):
        raise UsageError(
            f"--author {brief(text)}: {brief(found[2])} is no ORCID",
            hint="16 digits in groups of four, the last one a check digit",
        )
    return Person(found[1], f"https://orcid.org/{orcid[1]}")


def _is_orcid(text: str) -> bool:
    """Whether the last of its digits is the check digit of the others (ISO 7064, 11-2)."""
    digits = text.replace("-", "")
    total = 0
    for digit in digits[:-1]:
        total = (total + int(digit)) * 2
    check = (12 - total % 11) % 11
    return digits[-1] == ("X" if check == 10 else str(check))
