"""Reading a page of ``auditkit report`` as a browser would."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import html5lib


def parsed(page: str) -> Any:
    """The page as a tree of ElementTree; every parse error is one."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)


def words(node: Any) -> str:
    """All text below a node, on one line."""
    return " ".join("".join(node.itertext()).split())


def tables(page: str) -> dict[str, list[list[str]]]:
    """Cells of all tables by caption, headings first."""
    return {
        words(table.find("caption")): [[words(cell) for cell in row] for row in table.iter("tr")]
        for table in parsed(page).iter("table")
    }


def named(tree: Any, name: str) -> Iterator[Any]:
    """Elements of a name, those of a picture included."""
    for node in tree.iter():
        if isinstance(node.tag, str) and node.tag.rpartition("}")[2] == name:
            yield node
