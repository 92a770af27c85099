"""A whole page: its head, what it may load, and its body."""

from __future__ import annotations

from collections.abc import Iterable

from auditkit.paper.markup import Html, element, joined
from auditkit.paper.style import style_sheet

#: Nothing is loaded from anywhere, and nothing sent, whatever a manifest holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_VIEWPORT = Html('<meta name="viewport" content="width=device-width, initial-scale=1"/>')


def beginning(command: str) -> str:
    """What every page of a command begins with, by which it is known again."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        f'<meta name="generator" content="auditkit {command}"/>\n'
    )


def whole_page(
    command: str,
    title: Html,
    parts: Iterable[Html],
    *,
    script: Html | None = None,
    policy: str = "",
) -> str:
    """A page as it is written.

    Args:
        command: The command that writes it.
        title: Its title.
        parts: What it holds.
        script: What stands behind that.
        policy: What its policy says besides, of the script.
    """
    head = [
        _VIEWPORT,
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY + policy),
        element("title", title),
        Html(f"<style>\n{style_sheet()}</style>"),
    ]
    body = element("body", element("main", joined(parts)), *([script] if script else []))
    return f"{beginning(command)}{joined(head)}\n</head>\n{body}\n</html>\n"
