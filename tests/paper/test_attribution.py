from __future__ import annotations

from datetime import UTC, datetime

import pytest

from auditkit.errors import UsageError
from auditkit.paper.attribution import Attribution, License, Person, parse_attribution


def said(**given: object) -> Attribution:
    nothing = {"title": None, "description": None, "license_text": None, "authors": ()}
    return parse_attribution(**{**nothing, "published": None, **given})  # type: ignore[arg-type]


def test_what_is_said_and_what_is_left() -> None:
    assert said().missing == ("a title", "a description", "a licence", "the authors")
    assert said().published == datetime.now(UTC).date().isoformat()
    whole = said(
        title=" A  title ",
        description="text",
        license_text="https://example.org/licence",
        authors=("Bo", "Zo\u00eb Q <https://orcid.org/0000-0002-1694-233X>"),
        published="2026-02-28",
    )
    assert whole.missing == ()
    assert (whole.title, whole.published) == ("A title", "2026-02-28")
    assert whole.license == License("https://example.org/licence", "https://example.org/licence")
    other = Person("Zo\u00eb Q", "https://orcid.org/0000-0002-1694-233X")
    assert whole.authors == (Person("Bo", None), other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"title": ""},
        {"title": "a\x00b"},
        {"description": "x" * 2001},
        {"license_text": "public domain"},
        {"license_text": "javascript:alert(1)"},
        {"license_text": "https://e.org/ <b>"},
        {"license_text": ""},
        {"authors": ("",)},
        {"authors": ("<0000-0002-1825-0097>",)},
        {"authors": ("Bo <bo@example.org>",)},
        {"authors": ("Bo <0000-0002-1825-0098>",)},  # another check digit
        {"authors": ("B\x1bo",)},
        {"authors": ("Bo <0000-0002-1825-0097>", "Bob <0000-0002-1825-0097>")},
        {"authors": ("Bo", "Bo")},
        {"published": "yesterday"},
        {"published": "20261130"},
        {"published": "2026-02-30"},
        {"published": ""},
    ],
)
def test_what_means_nothing_is_wrong_use(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        said(**wrong)
