r"""A checklist as Markdown or LaTeX, to be pasted into a paper or a repository.

Everything that is not this module's own markup is escaped, since a manifest is written by
somebody else: no value can open a heading, a link, a macro or a comment. The LaTeX fragment uses
the macros of the NeurIPS style (``\answerYes{}`` ...) and defines them where the style is absent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from auditkit.paper.questions import NEURIPS, SURVEY, Answer, Checklist, ChecklistItem

_HEADINGS = {
    SURVEY: f"Training memory ({SURVEY})",
    NEURIPS: "NeurIPS Paper Checklist, items 4 to 8",
}

_WORDS: dict[Answer, str] = {"yes": "Yes", "no": "No", "na": "N/A", "todo": "TODO"}

_MACROS: dict[Answer, str] = {
    "yes": r"\answerYes{}",
    "no": r"\answerNo{}",
    "na": r"\answerNA{}",
    "todo": r"\answerTODO{}",
}

_LEGEND = (
    "Yes: every check behind the item passed. No: one failed, or the record says so. TODO: a "
    "person must answer, or a check was not run."
)

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


#: What a checklist begins with, as Markdown and as LaTeX.
_MARKDOWN_HEAD = "# Checklist\n\n- Manifest: SHA-256 "
_LATEX_HEAD = "% Written by auditkit checklist;"


def is_checklist(data: bytes) -> bool:
    """Whether a file is a checklist that this module has written, of whatever manifest."""
    return data.startswith((_MARKDOWN_HEAD.encode(), _LATEX_HEAD.encode()))


def to_markdown(checklist: Checklist) -> str:
    """The checklist as Markdown."""
    lines = [
        f"{_MARKDOWN_HEAD}`{_hex(checklist.manifest_sha256)}`",
        f"- Signed by: {_markdown(checklist.signed_by or 'no trusted key')}",
        f"- Verification: {_markdown(checklist.verification)}",
        f"- Checks: {_markdown('; '.join(checklist.checks))}",
        *(f"- {_markdown(note)}" for note in checklist.notes),
        f"- {_LEGEND}",
    ]
    for source, items in _by_source(checklist):
        lines += ["", f"## {_HEADINGS[source]}"]
        for n, item in items:
            lines += ["", *_markdown_item(n, item)]
    return "\n".join(lines) + "\n"


def to_latex(checklist: Checklist) -> str:
    r"""The checklist as a LaTeX fragment, for ``\input`` or to be pasted into checklist.tex."""
    lines = [
        f"{_LATEX_HEAD} items 4 to 8 replace those of the NeurIPS checklist.",
        *(rf"\providecommand{{\answer{name}}}[1][]{{[{word}]#1}}" for name, word in _fallbacks()),
        r"\begin{itemize}",
        rf"\item Manifest: SHA-256 \texttt{{{_breakable(checklist.manifest_sha256)}}}",
        rf"\item Signed by: {_latex(checklist.signed_by or 'no trusted key')}",
        rf"\item Verification: {_latex(checklist.verification)}",
        rf"\item Checks: {_latex('; '.join(checklist.checks))}",
        *(rf"\item {_latex(note)}" for note in checklist.notes),
        rf"\item {_latex(_LEGEND)}",
        r"\end{itemize}",
    ]
    for source, items in _by_source(checklist):
        lines += ["", rf"\subsection*{{{_latex(_HEADINGS[source])}}}", r"\begin{enumerate}"]
        lines.append(rf"\setcounter{{enumi}}{{{items[0][0] - 1}}}")
        for _, item in items:
            lines += ["", *_latex_item(item)]
        lines += ["", r"\end{enumerate}"]
    return "\n".join(lines) + "\n"


def _by_source(checklist: Checklist) -> Iterator[tuple[str, list[tuple[int, ChecklistItem]]]]:
    """Numbered items by who asks; the NeurIPS items keep their own numbers."""
    for source in _HEADINGS:
        items = [item for item in checklist.items if item.source == source]
        if items:
            yield source, list(enumerate(items, start=4 if source == NEURIPS else 1))


def _markdown_item(n: int, item: ChecklistItem) -> Iterator[str]:
    yield f"### {n}. {_markdown(item.title)}"
    yield ""
    yield f"- **Question:** {_markdown(item.question)}"
    yield f"- **Answer:** {_WORDS[item.answer]}"
    yield f"- **Justification:** {_markdown(item.justification)}"
    if item.person:
        yield f"- **A person must add:** {_markdown(item.person)}"
    if item.evidence:
        yield "- **Evidence:**"
        yield from (f"  - {_markdown(line)}" for line in item.evidence)


def _latex_item(item: ChecklistItem) -> Iterator[str]:
    yield rf"\item {{\bf {_latex(item.title)}}}"
    yield rf"\item[] Question: {_latex(item.question)}"
    yield rf"\item[] Answer: {_MACROS[item.answer]}"
    yield rf"\item[] Justification: {_latex(item.justification)}"
    if item.person:
        yield rf"\item[] \answerTODO{{}} A person must add: {_latex(item.person)}"
    if item.evidence:
        yield r"\item[] Evidence:"
        yield r"\begin{itemize}"
        yield from (rf"\item {_latex(line)}" for line in item.evidence)
        yield r"\end{itemize}"


def _fallbacks() -> Iterable[tuple[str, str]]:
    return (("Yes", "Yes"), ("No", "No"), ("NA", "N/A"), ("TODO", "TODO"))


def _markdown(text: str) -> str:
    r"""Plain text as one line of Markdown that means only itself."""
    line = _MARKDOWN.sub(lambda match: f"\\{match[0]}", _one_line(text, str.isprintable))
    return _MARKDOWN_START.sub(r"\1\\\2", line)


def _latex(text: str) -> str:
    r"""Plain text as LaTeX that typesets only itself, in any font encoding."""
    line = _one_line(text, lambda char: char.isascii() and char.isprintable())
    return _LATEX_SPECIAL.sub(lambda match: _LATEX[match[0]], line)


def latex_text(text: str) -> str:
    r"""Plain text as LaTeX that typesets only itself, for other modules of this room."""
    return _latex(text)


def _one_line(text: str, is_allowed: Callable[[str], bool]) -> str:
    flat = " ".join(text.split())
    return "".join(char if is_allowed(char) else f"[U+{ord(char):04X}]" for char in flat)


def _hex(digest: str) -> str:
    return "".join(char for char in digest if char in "0123456789abcdef")


def _breakable(digest: str) -> str:
    digits = _hex(digest)
    blocks = [digits[n : n + _HEX_BLOCK] for n in range(0, len(digits), _HEX_BLOCK)]
    return r"\allowbreak{}".join(blocks)
