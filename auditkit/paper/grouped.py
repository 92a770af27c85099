"""A table for a wide and for a narrow screen: columns there, groups of rows here.

Where a screen is too narrow for columns, the style sheet puts the cells of a row below each other,
each behind its heading, and names what follows each other under one name only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from auditkit.paper.markup import Html, element, joined, text


def grouped_table(
    caption: str,
    headings: Sequence[Html],
    labels: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: frozenset[int] = frozenset(),
) -> Html:
    """A table whose rows are grouped by their first cells.

    Args:
        caption: What it is, also for who cannot see it.
        headings: What belongs into the ``th`` above each column.
        labels: The same as plain text, for before a cell.
        rows: Cells as plain text.
        numbers: Positions of columns of numbers.
    """
    kinds = ["number" if n in numbers else None for n in range(len(labels))]
    head = [
        element("th", cell, scope="col", class_=kind)
        for cell, kind in zip(headings, kinds, strict=True)
    ]
    previous = chain([None], (row[0] for row in rows))
    body = [
        element(
            "tr",
            element("th", text(row[0]), scope="row"),
            *(
                element("td", text(cell), class_=kind, data_label=label)
                for cell, kind, label in list(zip(row, kinds, labels, strict=True))[1:]
            ),
            class_="again" if row[0] == before else None,
        )
        for row, before in zip(rows, previous, strict=False)
    ]
    whole = element(
        "table",
        element("caption", text(caption)),
        element("thead", element("tr", *head)),
        element("tbody", joined(body)),
        class_="grouped",
    )
    return element("div", whole, class_="wide", tabindex="0", role="region", aria_label=caption)
