"""Markdown for a terminal, in tables whose words stay whole."""

from __future__ import annotations

from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, MarkdownElement, TableElement
from rich.table import Table


class _Table(TableElement):
    """Columns are never narrower than their longest word, where the terminal is wide enough."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for made in super().__rich_console__(console, options):
            if isinstance(made, Table):
                for column in made.columns:
                    words = f"{column.header} {' '.join(map(str, column.cells))}".split()
                    column.min_width = max(map(len, words), default=0)
            yield made


class _Manual(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "table_open": _Table,
    }


def render(text: str, width: int) -> str:
    """Markdown as a terminal of that width shows it."""
    console = Console(width=width, force_terminal=True, legacy_windows=False)
    with console.capture() as captured:
        console.print(_Manual(text, hyperlinks=False))
    return captured.get()
