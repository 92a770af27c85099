"""Pages of the manual, and the sections of them that are about a topic.

A page is a Markdown file of this folder: ``# Title``, then one sentence that says which question
it answers. A section is a heading with everything below it down to the next heading of its own
level or a higher one. The line after a heading may name the section's topics::

    ### Holm
    <!-- topics: Holm, p (Holm), adjusted -->

Topics are compared without regard to case, and spaces, dashes and underscores are the same. No
text of the manual stands anywhere else.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import re
from collections.abc import Iterator
from dataclasses import dataclass

#: The pages in the order in which they are read.
ORDER = (
    "study",
    "without-loader",
    "loop",
    "perturbations",
    "random-numbers",
    "libraries",
    "checks",
    "errors",
    "estimands",
    "experiments",
    "keys",
    "plans",
    "limits",
    "cost",
    "formats",
    "design",
    "glossary",
)

#: The page of words and what they mean.
_MEANINGS = "glossary"

_TOPICS = re.compile(r"<!-- topics: (.*?) -->")
_HEADING = re.compile(r"(#{1,6}) (.+)")
_FENCE = "```"


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        name: What it is asked for by.
        title: Its title.
        answers: The sentence that says what it answers.
        text: The whole page, without the lines that name topics.
        sections: Its headings below the title, in their order.
    """

    name: str
    title: str
    answers: str
    text: str
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    Attributes:
        page: Name of its page.
        heading: The heading's words.
        topics: What it is asked for by, as the page writes it; may be empty.
        text: Heading and text.
    """

    page: str
    heading: str
    topics: tuple[str, ...]
    text: str


@functools.cache
def read_page(name: str) -> Page:
    """One of :data:`ORDER`."""
    file = importlib.resources.files("auditkit.manual") / f"{name}.md"
    return parse(name, file.read_text(encoding="utf-8"))


def parse(name: str, source: str) -> Page:
    """A page from its source."""
    lines = source.splitlines()
    starts = list(_headings(lines))
    sections = []
    for position, (start, level, heading) in enumerate(starts):
        later = (at for at, below, _ in starts[position + 1 :] if below <= level)
        body = lines[start : next(later, len(lines))]
        named = _TOPICS.fullmatch(body[1]) if len(body) > 1 else None
        topics = tuple(topic.strip() for topic in named[1].split(",")) if named else ()
        sections.append(Section(name, heading, topics, _shown(body)))
    title, *below = sections
    answers = next(line for line in lines[1:] if line.strip())
    return Page(name, title.heading, answers, title.text, tuple(below))


def explain(topic: str) -> list[Page | Section]:
    """Everything that goes by the name of a topic; may be empty.

    What the glossary says of it comes first, the rest in the order of the pages.

    A page that bears the name stands for its own sections of that name. A perturbation may have
    parameters, as in a plan (``adam-reset:moments=v``) or as a branch (``adam-reset--moments-v``).
    """
    name, *parameters = re.split(r":| ?--", topic, maxsplit=1)
    return _find(normal(topic)) or (_find(normal(name)) if name and parameters else [])


def _find(wanted: str) -> list[Page | Section]:
    found: list[Page | Section] = []
    for name in ORDER:
        page = read_page(name)
        if normal(name) == wanted:
            found.append(page)
        else:
            found += [
                section
                for section in page.sections
                if wanted in {normal(given) for given in section.topics}
            ]
    # What a word means comes first, and an answer that is about it alone before a whole page.
    return sorted(found, key=lambda item: (isinstance(item, Page), not _is_meaning(item)))


def _is_meaning(item: Page | Section) -> bool:
    return isinstance(item, Section) and item.page == _MEANINGS


def topics() -> dict[str, str]:
    """Every topic as it is written, by what it is compared by."""
    named = [*ORDER, *(t for name in ORDER for s in read_page(name).sections for t in s.topics)]
    return {normal(topic): topic for topic in named}


def nearest(topic: str, count: int = 5) -> list[str]:
    """The topics whose names are most like a word that is none."""
    known = topics()
    alike = difflib.get_close_matches(normal(topic), known, n=count, cutoff=0.5)
    return [known[name] for name in alike]


def normal(topic: str) -> str:
    """What a topic is compared by: lower case, one dash for whatever is no letter or digit."""
    word = re.sub(r"[^\w+]+|_+", "-", topic.casefold()).strip("-")
    return word or topic.strip()


def _headings(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """Line, level and words of every heading; a line of a code block is none."""
    fenced = False
    for position, line in enumerate(lines):
        if line.lstrip().startswith(_FENCE):
            fenced = not fenced
        found = None if fenced else _HEADING.fullmatch(line)
        if found:
            yield position, len(found[1]), found[2]


def _shown(lines: list[str]) -> str:
    """Text without the comments, which are for this module and for tests."""
    kept = [line for line in lines if not re.fullmatch(r"<!-- [^>]* -->", line)]
    return "\n".join(kept).strip() + "\n"
