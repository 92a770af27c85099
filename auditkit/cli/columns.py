"""Which columns of a table a terminal has room for, and its rows as lines.

A number that is cut is another number, and a row that a terminal wraps is rubble. So what does
not fit is made to, in this order: the first column becomes a line above its rows; text is folded
inside its column; columns are left out, the ones that say least first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells, set_cell_size

_GAP = "  "

#: Where a long word is broken.
_SIGNS = "/_,:;=."

#: Columns below which text is not folded any further.
_LEAST = 12


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: What stands above it.
        cells: Its cells.
        is_number: Whether it is right-justified.
        is_whole: Whether its cells are never folded.
        most: Its width at most, where it may be folded.
    """

    heading: str
    cells: tuple[str, ...]
    is_number: bool = False
    is_whole: bool = False
    most: int | None = None

    @property
    def natural(self) -> int:
        """Its width where there is room."""
        width = max(map(cell_len, (self.heading, *self.cells)))
        return width if self.is_whole or self.most is None else min(width, self.most)

    @property
    def least(self) -> int:
        """Its width where there is little room."""
        if self.is_whole:
            return self.natural
        return min(self.natural, max(_LEAST, *map(cell_len, (self.heading or " ").split())))


@dataclass(frozen=True)
class Fitted:
    """A table that fits.

    Attributes:
        columns: The columns that are left.
        widths: The width of each.
        above: What stands above each row, in a line of its own; empty where nothing does.
        left_out: Headings of the columns for which there was no room.
    """

    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    above: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """The table, without the spaces that a line ends in."""
        headings = tuple(column.heading for column in self.columns)
        yield from self._row(headings)
        yield _GAP.join("-" * width for width in self.widths)
        for at, cells in enumerate(zip(*(column.cells for column in self.columns), strict=True)):
            if self.above and (at == 0 or self.above[at] != self.above[at - 1]):
                yield self.above[at]
            yield from self._row(cells)

    def _row(self, cells: Sequence[str]) -> Iterator[str]:
        folded = [fold(cell, width) for cell, width in zip(cells, self.widths, strict=True)]
        for at in range(max(map(len, folded))):
            parts = [cell[at] if at < len(cell) else "" for cell in folded]
            shown = [
                _justified(part, width, column)
                for part, width, column in zip(parts, self.widths, self.columns, strict=True)
            ]
            yield _GAP.join(shown).rstrip()


def fit(
    columns: Sequence[Column],
    width: int,
    first_to_go: Sequence[str] = (),
    *,
    is_grouped: bool = False,
) -> Fitted:
    """Make a table fit.

    Args:
        columns: All columns.
        width: How wide the terminal is.
        first_to_go: Headings of the columns that it can do without, the first first.
        is_grouped: Whether the first column may become a line above its rows.
    """
    above: tuple[str, ...] = ()
    if natural_width(columns) > width and is_grouped:
        above, columns = columns[0].cells, columns[1:]
    left_out: list[str] = []
    for heading in first_to_go:
        if least_width(columns) <= width:
            break
        left_out += [column.heading for column in columns if column.heading == heading]
        columns = [column for column in columns if column.heading != heading]
    return Fitted(tuple(columns), _widths(columns, width), above, tuple(left_out))


def natural_width(columns: Sequence[Column]) -> int:
    """How wide a table is with nothing folded."""
    return _sum(column.natural for column in columns)


def least_width(columns: Sequence[Column]) -> int:
    """How wide a table is with all its columns, text folded as far as it may be."""
    return _sum(column.least for column in columns)


def fold(text: str, width: int) -> list[str]:
    """A text in lines of a width, broken between words where it can be."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(longer) <= width:
            lines[-1] = longer
            continue
        pieces = list(_pieces(word, width))
        lines = lines + pieces if lines[-1] else pieces
    return lines


def _pieces(word: str, width: int) -> Iterator[str]:
    """A word that is too long, broken after a sign where one stands in the second half."""
    while cell_len(word) > width:
        piece = chop_cells(word, width)[0]
        at = max(piece.rfind(sign) for sign in _SIGNS) + 1
        piece = piece[:at] if at > len(piece) // 2 else piece
        yield piece
        word = word[len(piece) :]
    yield word


def _widths(columns: Sequence[Column], width: int) -> tuple[int, ...]:
    """The widest text gives way first, until all fits or nothing can give way."""
    widths = [column.natural for column in columns]
    while (excess := _sum(widths) - width) > 0:
        spare = [now - column.least for now, column in zip(widths, columns, strict=True)]
        if not any(spare):
            break
        widest = max((now, at) for at, now in enumerate(widths) if spare[at])[1]
        second = max(
            (now for at, now in enumerate(widths) if spare[at] and at != widest), default=0
        )
        widths[widest] -= max(1, min(excess, spare[widest], widths[widest] - second))
    return tuple(widths)


def _sum(widths: Sequence[int] | Iterator[int]) -> int:
    found = list(widths)
    return sum(found) + len(_GAP) * (len(found) - 1)


def _justified(text: str, width: int, column: Column) -> str:
    if column.is_number:
        return " " * (width - cell_len(text)) + text
    return set_cell_size(text, max(width, cell_len(text)))
