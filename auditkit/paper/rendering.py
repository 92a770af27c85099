r"""A checklist as Markdown or LaTeX, to be pasted into a paper or a repository.

Everything that is not this module's own markup is escaped, since a manifest is written by
somebody else: no value can open a heading, a link, a macro or a comment. The LaTeX fragment uses
the macros of the NeurIPS style (``\answerYes{}`` ...) and defines them where the style is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from auditkit.paper.escaping import hex_text, latex_digest, latex_text, markdown_text
from auditkit.paper.questions import Answer, Checklist, ChecklistItem, Source

#: Answers for people.
WORDS: dict[Answer, str] = {"yes": "Yes", "no": "No", "na": "N/A", "todo": "TODO"}

_MACROS: dict[Answer, str] = {
    "yes": r"\answerYes{}",
    "no": r"\answerNo{}",
    "na": r"\answerNA{}",
    "todo": r"\answerTODO{}",
}

#: What the answers mean.
LEGEND = (
    "Yes: every check behind the item passed. No: one failed, or the record says so. TODO: a "
    "person must answer, or a check was not run."
)

#: What a checklist begins with, as Markdown and as LaTeX.
_MARKDOWN_HEAD = "# Checklist\n\n- Manifest: SHA-256 "
_MARKDOWN_PROBLEM = "# Checklist: THIS MANIFEST DOES NOT VERIFY"
_LATEX_HEAD = "% Written by auditkit checklist;"


def is_checklist(data: bytes) -> bool:
    """Whether a file is a checklist that this module has written, of whatever manifest."""
    heads = (_MARKDOWN_HEAD, _MARKDOWN_PROBLEM, _LATEX_HEAD)
    return data.startswith(tuple(head.encode() for head in heads))


def head_lines(checklist: Checklist) -> Iterator[tuple[str, str]]:
    """What stands above the items, after the SHA-256: names, perhaps empty, and texts."""
    yield "Signed by", checklist.signed_by or "no trusted key"
    yield "Verification", checklist.verification
    yield "Checks", "; ".join(checklist.checks)
    for note in (*checklist.notes, LEGEND):
        yield "", note


def by_source(checklist: Checklist) -> Iterator[tuple[Source, list[tuple[str, ChecklistItem]]]]:
    """Items by who asks, under their own numbers; where there are none, counted."""
    for source in checklist.sources:
        items = [item for item in checklist.items if item.source == source.key]
        if items:
            yield source, [(item.number or str(n), item) for n, item in enumerate(items, start=1)]


def to_markdown(checklist: Checklist) -> str:
    """The checklist as Markdown."""
    digest = hex_text(checklist.manifest_sha256)
    head = _MARKDOWN_HEAD
    if checklist.problem:
        wrong = markdown_text(checklist.problem)
        head = f"# Checklist: {wrong}\n\n- Manifest: SHA-256 "
    lines = [f"{head}`{digest}`"]
    for name, text in head_lines(checklist):
        lines.append(f"- {name}: {markdown_text(text)}" if name else f"- {markdown_text(text)}")
    for source, items in by_source(checklist):
        lines += ["", f"## {markdown_text(source.title)}", "", markdown_text(source.version)]
        for number, item in items:
            lines += ["", *_markdown_item(number, item)]
    return "\n".join(lines) + "\n"


def to_latex(checklist: Checklist) -> str:
    r"""The checklist as a LaTeX fragment, for ``\input`` or to be pasted into checklist.tex."""
    problem = latex_text(checklist.problem)
    said = problem or "NeurIPS items replace those of the same numbers in checklist.tex."
    lines = [
        f"{_LATEX_HEAD} {said}",
        *([rf"\noindent{{\bf {problem}}}"] if problem else ()),
        *(rf"\providecommand{{\answer{name}}}[1][]{{[{word}]#1}}" for name, word in _fallbacks()),
        r"\begin{itemize}",
        rf"\item Manifest: SHA-256 \texttt{{{latex_digest(checklist.manifest_sha256)}}}",
    ]
    for name, text in head_lines(checklist):
        lines.append(rf"\item {name}: {latex_text(text)}" if name else rf"\item {latex_text(text)}")
    lines.append(r"\end{itemize}")
    for source, items in by_source(checklist):
        lines += ["", rf"\subsection*{{{latex_text(source.title)}}}"]
        lines += [latex_text(source.version), r"\begin{enumerate}"]
        for number, item in items:
            lines += ["", *_latex_item(number, item)]
        lines += ["", r"\end{enumerate}"]
    return "\n".join(lines) + "\n"


def numbered(number: str) -> str:
    """A number in front of a title: a whole one with its full stop."""
    return f"{number}." if number.isdigit() else number


def _markdown_item(number: str, item: ChecklistItem) -> Iterator[str]:
    yield f"### {numbered(number)} {markdown_text(item.title)}"
    yield ""
    yield f"- **Question:** {markdown_text(item.question)}"
    yield f"- **Answer:** {WORDS[item.answer]}"
    yield f"- **Justification:** {markdown_text(item.justification)}"
    if item.person:
        yield f"- **A person must add:** {markdown_text(item.person)}"
    if item.evidence:
        yield "- **Evidence:**"
        yield from (f"  - {markdown_text(line)}" for line in item.evidence)


def _latex_item(number: str, item: ChecklistItem) -> Iterator[str]:
    if number.isdigit():
        yield rf"\setcounter{{enumi}}{{{int(number) - 1}}}"
        yield rf"\item {{\bf {latex_text(item.title)}}}"
    else:
        yield rf"\item[] {{\bf {number} {latex_text(item.title)}}}"
    yield rf"\item[] Question: {latex_text(item.question)}"
    yield rf"\item[] Answer: {_MACROS[item.answer]}"
    yield rf"\item[] Justification: {latex_text(item.justification)}"
    if item.person:
        yield rf"\item[] \answerTODO{{}} A person must add: {latex_text(item.person)}"
    if item.evidence:
        yield r"\item[] Evidence:"
        yield r"\begin{itemize}"
        yield from (rf"\item {latex_text(line)}" for line in item.evidence)
        yield r"\end{itemize}"


def _fallbacks() -> Iterable[tuple[str, str]]:
    return (("Yes", "Yes"), ("No", "No"), ("NA", "N/A"), ("TODO", "TODO"))
