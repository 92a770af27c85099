"""Words of a page as the manual explains them: on hover in a sentence, in a glossary in full."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator

from auditkit.manual.pages import Section, explain, normal
from auditkit.paper.markup import Html, element, joined, table, text

#: Characters of an explanation that is shown on hover.
_MAX_HOVER = 400

#: Pages that explain the words of tables, before all others.
_PAGES = ("estimands", "glossary")

_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*")


def hover(word: str) -> str | None:
    """What a word means, in the first sentences of its explanation; None where none is known."""
    found = _section(word)
    if found is None:
        return None
    flat = " ".join(_told(_paragraphs(found)[0]).split())
    return flat if len(flat) <= _MAX_HOVER else f"{flat[:_MAX_HOVER].rsplit(' ', 1)[0]} ..."


def anchor(word: str) -> str | None:
    """Where the glossary of the page explains a word; None where no page of the manual does."""
    found = _section(word)
    return None if found is None else f"word-{found.page}-{normal(found.heading)}"


def heading(word: str) -> Html:
    """A column's heading, which explains itself on hover and leads to the glossary."""
    place = anchor(word)
    if place is None:
        return text(word)
    return element("a", text(word), href=f"#{place}", title=hover(word))


def glossary(words: Iterable[str]) -> Html:
    """Every explanation that the words lead to, each once."""
    found = {place: _section(word) for word in words if (place := anchor(word)) is not None}
    entries = [
        joined((element("dt", text(item.heading), id=place), element("dd", *_html(item))))
        for place, item in sorted(found.items(), key=lambda pair: pair[0].rpartition("-")[2])
        if item is not None
    ]
    return element("dl", joined(entries))


def _section(word: str) -> Section | None:
    """The section of the manual that explains a word to whoever reads a table."""
    found = [item for item in explain(word) if isinstance(item, Section) and _paragraphs(item)]
    return min(found, key=lambda item: (*_PAGES, item.page).index(item.page), default=None)


def _paragraphs(item: Section) -> list[str]:
    """What stands below a section's heading, up to the next one."""
    own = re.split(r"\n#+ ", item.text.partition("\n")[2])[0]
    return [part for part in re.split(r"\n\s*\n", own.strip()) if part]


def _html(item: Section) -> Iterator[Html]:
    n_tables = 0
    for part in _paragraphs(item):
        if part.startswith("|"):
            n_tables += 1
            head, _, *rows = (_cells(line) for line in part.splitlines())
            again = f" ({n_tables})" if n_tables > 1 else ""  # no two tables have one name
            yield table(f"{item.heading}{again}", head, rows)
        elif not part.startswith("```"):
            yield element("p", _inline(part))


def _cells(line: str) -> list[Html]:
    cells = line.strip().strip("|").split(" | ")
    return [_inline(cell.strip().replace("\\|", "|")) for cell in cells]


def _inline(source: str) -> Html:
    """A line of the manual with its code, bold and emphasis; links as their words."""
    kinds = ("code", "strong", "em")

    def marked(match: re.Match[str]) -> str:
        kind, words = next((k, w) for k, w in zip(kinds, match.groups(), strict=True) if w)
        return f"<{kind}>{words}</{kind}>"

    return Html(_INLINE.sub(marked, html.escape(_LINK.sub(r"\1", " ".join(source.split())))))


def _told(part: str) -> str:
    """A paragraph in plain words; a table row by row."""
    if not part.startswith("|"):
        return _plain(part)
    rows = [line.strip().strip("|").split(" | ") for line in part.splitlines()[2:]]
    return _plain("; ".join(f"{row[0].strip()}: {row[1].strip()}" for row in rows))


def _plain(source: str) -> str:
    return _INLINE.sub(lambda match: match[1] or match[2] or match[3], _LINK.sub(r"\1", source))
