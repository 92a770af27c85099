r"""Plain text in another language, meaning only itself: the one place where that is done.

Whatever is attached to a paper holds values of a manifest, which is written by somebody else: none
may open a heading, a link, a macro or a comment. HTML has :func:`auditkit.paper.markup.text`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Punctuation that means something anywhere in a line; `_` inside a word, `:` and `.` elsewhere than
# in what GitHub takes for a link, and `]` without `[` mean nothing.
_MARKDOWN = re.compile(
    r"[\\`*\[<&~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.(?=\w)", re.IGNORECASE
)
# What means something only where a line begins: headings, quotes, lists.
_MARKDOWN_START = re.compile(r"^(\d{0,9})([#>+=.)-])")

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # Where a macro looks for an argument, a brace ends the search.
    "[": "{[}",
    # By their numbers: these form ligatures, and babel gives " a meaning of its own.
    '"': r"{\char34}",
    "`": r"{\char96}",
    "-": "-{}",
    **{char: f"\\{char}" for char in "$&#_%"},
}
# A hyphen only before another one, where the two would become a dash.
_LATEX_SPECIAL = re.compile("-(?=-)|[" + re.escape("".join(_LATEX).replace("-", "")) + "]")

#: Hex digits between two places where LaTeX may break a line.
_HEX_BLOCK = 16


def markdown_text(text: str) -> str:
    r"""Plain text as one line of Markdown that means only itself."""
    line = _MARKDOWN.sub(lambda match: f"\\{match[0]}", _one_line(text, str.isprintable))
    return _MARKDOWN_START.sub(r"\1\\\2", line)


def latex_text(text: str) -> str:
    r"""Plain text as LaTeX that typesets only itself, in any font encoding."""
    line = _one_line(text, lambda char: char.isascii() and char.isprintable())
    return _LATEX_SPECIAL.sub(lambda match: _LATEX[match[0]], line)


def _one_line(text: str, is_allowed: Callable[[str], bool]) -> str:
    flat = " ".join(text.split())
    return "".join(char if is_allowed(char) else f"[U+{ord(char):04X}]" for char in flat)


def hex_text(digest: str) -> str:
    """What of a digest is hexadecimal."""
    return "".join(char for char in digest if char in "0123456789abcdef")


def latex_digest(digest: str) -> str:
    """A digest that LaTeX may break into lines."""
    digits = hex_text(digest)
    blocks = [digits[n : n + _HEX_BLOCK] for n in range(0, len(digits), _HEX_BLOCK)]
    return r"\allowbreak{}".join(blocks)
