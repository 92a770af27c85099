"""HTML in small pieces: text that means only itself, and elements around it.

A manifest is written by somebody else, so that plain text and HTML are two types: the only ways
from the one to the other are :func:`text` and the attributes of :func:`element`, which escape.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import NewType

from auditkit.formats.quote import printable

Html = NewType("Html", str)

#: Elements that are empty.
_VOID = frozenset({"meta", "input", "line", "circle", "rect", "path"})


def text(plain: object) -> Html:
    """Plain text as HTML that means only itself, what is not printable as an escape."""
    return Html(html.escape(printable(" ".join(str(plain).split())), quote=True))


def element(name: str, *content: Html, **attributes: str | None) -> Html:
    """An element.

    Args:
        name: Its name.
        content: What it holds.
        attributes: By name, ``class_`` for ``class`` and ``_`` for ``-``; one that is None is
            left out.
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{said}/>")
    return Html(f"<{name}{said}>{''.join(content)}</{name}>")


def joined(pieces: Iterable[Html], between: str = "\n") -> Html:
    """Pieces one after the other."""
    return Html(between.join(pieces))


def paragraph(plain: object, class_: str | None = None) -> Html:
    """A paragraph of plain text."""
    return element("p", text(plain), class_=class_)


def bullets(lines: Iterable[object]) -> Html:
    """A list of plain text; nothing where there is none."""
    items = [element("li", text(line)) for line in lines]
    return element("ul", *items) if items else Html("")


def section(level: int, title: str, *content: Html, id_: str | None = None) -> Html:
    """A heading and what stands below it."""
    return joined((element(f"h{level}", text(title), id=id_), *filter(None, content)))


def table(
    caption: str,
    headings: Sequence[Html],
    rows: Iterable[Sequence[Html]],
    numbers: frozenset[int] = frozenset(),
    *,
    is_prose: bool = False,
) -> Html:
    """A table whose first column names its rows.

    Args:
        caption: What it is, also for who cannot see it.
        headings: A ``th`` each, or what belongs into one.
        rows: Cells.
        numbers: Positions of columns of numbers.
        is_prose: Whether its last column is text that may be broken anywhere.
    """
    head = [element("th", cell, scope="col", class_=_kind(n, numbers)) for n, cell in _at(headings)]
    body = [
        element(
            "tr",
            *(
                element("td", cell, class_=_kind(n, numbers))
                if n
                else element("th", cell, scope="row")
                for n, cell in _at(row)
            ),
        )
        for row in rows
    ]
    whole = element(
        "table",
        element("caption", text(caption)),
        element("thead", element("tr", *head)),
        element("tbody", joined(body)),
        class_="prose" if is_prose else None,
    )
    # wider than a phone: it is moved by itself, with the keyboard, too
    return element("div", whole, class_="wide", tabindex="0", role="region", aria_label=caption)


def facts(caption: str, rows: Iterable[tuple[str, str]]) -> Html:
    """A table of names and what they are; of none where the latter is empty."""
    cells = [(text(name), text(value)) for name, value in rows if value]
    headings = (text("name"), text("value"))
    return table(caption, headings, cells, is_prose=True) if cells else Html("")


def folded(summary: str, *content: Html) -> Html:
    """What is shown when a reader opens it."""
    return element("details", element("summary", text(summary)), *content)


def _at(cells: Sequence[Html]) -> Iterable[tuple[int, Html]]:
    return enumerate(cells)


def _kind(position: int, numbers: frozenset[int]) -> str | None:
    return "number" if position in numbers else None
