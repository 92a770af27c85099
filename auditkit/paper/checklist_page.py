"""A checklist as one page that opens anywhere, offline and without scripts."""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.paper.escaping import hex_text
from auditkit.paper.markup import Html, bullets, element, facts, paragraph, section, text
from auditkit.paper.questions import Answer, Checklist, ChecklistItem
from auditkit.paper.rendering import WORDS, by_source, head_lines, numbered
from auditkit.paper.whole_page import beginning, whole_page

_KINDS: dict[Answer, str] = {"yes": "good", "no": "bad", "na": "muted", "todo": "open"}


def is_checklist_page(data: bytes) -> bool:
    """Whether a file is a page that this module has made, of whatever manifest."""
    return data.startswith(beginning("checklist").encode())


def to_page(checklist: Checklist) -> str:
    """The checklist as a page; that a manifest does not verify is its first line."""
    problem = checklist.problem
    title = "Checklist: this manifest does not verify" if problem else "Checklist"
    rows = [("Manifest SHA-256", hex_text(checklist.manifest_sha256))]
    named = [(name, said) for name, said in head_lines(checklist) if name]
    notes = [said for name, said in head_lines(checklist) if not name]
    parts = [
        *([paragraph(problem, "verdict bad")] if problem else ()),
        element("h1", text("Checklist")),
        facts("What it is filled from", [*rows, *named]),
        bullets(notes),
    ]
    for source, items in by_source(checklist):
        told = [_item(number, item) for number, item in items]
        parts.append(section(2, source.title, paragraph(source.version, "muted"), *told))
    return whole_page("checklist", text(title), parts)


def _item(number: str, item: ChecklistItem) -> Html:
    return section(3, f"{numbered(number)} {item.title}", element("dl", *_lines(item)))


def _lines(item: ChecklistItem) -> Iterator[Html]:
    yield from _line("Question", text(item.question))
    answer = element("strong", text(WORDS[item.answer]), class_=_KINDS[item.answer])
    yield from _line("Answer", answer)
    yield from _line("Justification", text(item.justification))
    if item.person:
        person = element("span", text(item.person), class_="open")
        yield from _line("A person must add", person)
    if item.evidence:
        yield from _line("Evidence", bullets(item.evidence))


def _line(name: str, said: Html) -> Iterator[Html]:
    yield element("dt", text(name))
    yield element("dd", said)
