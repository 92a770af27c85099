"""The manual's table of libraries says what the tests expect of them."""

from __future__ import annotations

from documents import PAGES, table
from ecosystem.libraries import LIBRARIES, Library

HEADINGS = ("recorded loop", "study", "line to add, or reason")
KINDS = ("library", "augmentation, environment or privacy")


def listed() -> list[list[str]]:
    """The rows of both tables."""
    return [row for kind in KINDS for row in table(PAGES["libraries"], kind, *HEADINGS)]


def cell(verdicts: tuple[str, str]) -> str:
    """What the table says of 0 and of 2 workers."""
    words = ["works" if verdict == "works" else "refused" for verdict in verdicts]
    return words[0] if len(set(words)) == 1 else f"0 workers: {words[0]}; 2: {words[1]}"


def row(library: Library) -> tuple[str, str, str]:
    return library.title, cell(library.loop), cell(library.study)


def test_the_manual_says_what_is_expected() -> None:
    rows = listed()
    assert [row(library) for library in LIBRARIES.values()] == [tuple(cells[:3]) for cells in rows]


def test_a_refusal_names_its_error_and_has_a_reason() -> None:
    for library, cells in zip(LIBRARIES.values(), listed(), strict=True):
        errors = {word for word in (*library.loop, *library.study) if word != "works"}
        assert all(f"`{error}`" in cells[3] for error in errors), library.title
