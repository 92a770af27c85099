from __future__ import annotations

import html
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import checklist_example
import html5lib
import pytest
from checklist_example import example_estimates, example_manifest, example_report
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from auditkit.paper.checklist import fill
from auditkit.paper.checklist_page import to_page
from auditkit.paper.escaping import markdown_text
from auditkit.paper.lists import LISTS
from auditkit.paper.questions import SURVEY, ChecklistItem
from auditkit.paper.rendering import to_latex, to_markdown
from auditkit.records.manifest import RunTimes, StudyManifest
from auditkit.records.report import VerificationReport

MANIFEST = example_manifest()
REPORT = example_report()

HOSTILE = (
    "# h\n## h2\r\n- [x] <script>alert(1)</script> ![i](http://e.vil) [l]: //e `c` *b* _i_ ~~s~~ "
    "$x$ &amp; | a | <!-- c --> www.e.vil https://e.vil \u202e\x00\x1b[31m é 中 \\ \\end{itemize} "
    '\\input{/etc/passwd} % gone } { ^ # & _ ~ --- ?` !` " ``` \u2028 ```tex \\\\'
)

#: What to_latex may write as macros; anything else came from a manifest.
LATEX_MACROS = {
    *("providecommand", "begin", "end", "item", "texttt", "subsection", "setcounter", "bf"),
    *("allowbreak", "char", "answerYes", "answerNo", "answerNA", "answerTODO"),
    *("textbackslash", "textasciitilde", "textasciicircum"),
    *("textless", "textgreater", "textbar"),
}


def hostile_manifest(text: str) -> StudyManifest:
    """The example with ``text`` wherever a manifest allows any text."""
    record = MANIFEST.seeds[0]
    seed = replace(
        record,
        rng=replace(
            record.rng,
            recipe=text,
            uncovered=(text,),
            streams=(*record.rng.streams[:-1], replace(record.rng.streams[-1], stream=text)),
        ),
        data=replace(record.data, declared=text, loader={text: text}),
        branches=(
            *record.branches[:-1],
            replace(record.branches[-1], name=text, digests={"t0": {text: "0" * 64}}),
        ),
    )
    environment = replace(
        MANIFEST.environment,
        python=text,
        packages={text: text},
        hardware={text: text},
        libraries={text: text},
        determinism={"deterministic algorithms": "True", text: text},
    )
    code = tuple(replace(file, name=text) for file in MANIFEST.program.code)
    program = replace(
        MANIFEST.program,
        target=text,
        arguments={"data": text},
        description={"model": text, text: text},
        git_commit=text,
        code=code,
    )
    return replace(
        MANIFEST,
        seeds=(seed, *MANIFEST.seeds[1:]),
        environment=environment,
        program=program,
        run=RunTimes(text, text),
    )


def hostile_report(text: str) -> VerificationReport:
    table = example_estimates()
    rows = tuple(replace(row, perturbation=text, verdict=text) for row in table.distances)
    return replace(
        REPORT,
        signed_by=text,
        replay=text,
        environment_differences=(text,),
        estimates=replace(table, distances=rows, primary_metric=text, diverged={text: 1}),
    )


def token_types(text: str) -> list[str]:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return [
        inner.type
        for token in tokens
        for inner in (token, *(token.children or ()))
        if inner.type not in {"text", "text_special"}
    ]


def lines_with(text: str, make: Any) -> str:
    return str(make(fill(hostile_manifest(text), hostile_report(text), lists=tuple(LISTS))))


class Tags(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(attrs)))


def test_no_value_of_a_manifest_means_anything_in_html() -> None:
    plain, hostile = lines_with("plain", to_page), lines_with(HOSTILE, to_page)
    assert Tags(hostile).found == Tags(plain).found
    assert "<script" not in hostile
    assert "default-src &#x27;none&#x27;" in hostile
    html5lib.HTMLParser(strict=True).parse(hostile)


def test_a_page_says_what_markdown_says() -> None:
    checklist = fill(MANIFEST, REPORT, lists=tuple(LISTS))
    page, markdown = html.unescape(to_page(checklist)), to_markdown(checklist)
    for item in checklist.items:
        for said in (item.question, item.justification, item.person, *item.evidence, item.title):
            assert said in page
            assert markdown_text(said) in markdown


def test_a_list_without_whole_numbers_shows_its_own() -> None:
    checklist = fill(MANIFEST, REPORT, lists=("aaai", "reforms"))
    assert "### 4.13 Final hyper-parameters" in to_markdown(checklist)
    assert r"\item[] {\bf 4.13 Final hyper-parameters}" in to_latex(checklist)
    assert "<h3>2c Computing infrastructure</h3>" in to_page(checklist)
    assert "https\\://aaai.org" in to_markdown(checklist)


def test_no_value_of_a_manifest_means_anything_in_markdown() -> None:
    plain, hostile = lines_with("plain", to_markdown), lines_with(HOSTILE, to_markdown)
    assert token_types(hostile) == token_types(plain)
    assert hostile.isascii() or "é" in hostile
    assert all(char.isprintable() for char in hostile.replace("\n", ""))
    assert "\n# h" not in hostile


def test_no_value_of_a_manifest_means_anything_in_latex() -> None:
    plain, hostile = lines_with("plain", to_latex), lines_with(HOSTILE, to_latex)
    assert hostile.isascii()
    assert hostile.count("\n") == plain.count("\n")
    macros = re.findall(r"\\([A-Za-z]+)", hostile.replace(r"\\", ""))
    assert set(macros) <= LATEX_MACROS
    assert macros.count("end") == macros.count("begin")
    body = hostile.partition("\n")[2]  # the first line is this module's own comment
    bare = re.sub(r"\\[\\{}$&#_%]", "", body)
    assert not re.search(r"[%$&~^]", bare)
    assert bare.count("{") == bare.count("}")
    assert "--" not in bare
    assert r"\item [" not in body  # would be an argument of the macro


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=40))
def test_any_value_is_one_harmless_line(text: str) -> None:
    item = ChecklistItem("order", SURVEY, text, "yes", text, (text, text), text, text)
    checklist = replace(fill(MANIFEST, REPORT), items=(item,), signed_by=text or None)
    latex, markdown = to_latex(checklist), to_markdown(checklist)
    assert latex.isascii()
    bare = re.sub(r"\\[\\{}$&#_%]", "", latex.partition("\n")[2])
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"[%$&~^]", bare)
    assert r"\item [" not in latex
    types = set(token_types(markdown))
    assert not types & {"link_open", "image", "html_inline", "html_block", "code_block", "fence"}
    assert markdown.count("\n") == to_markdown(replace(checklist, items=checklist.items)).count(
        "\n"
    )


def test_latex_has_the_neurips_form() -> None:
    text = to_latex(fill(MANIFEST, example_report(replayed=False)))
    start = text.index(r"\item {\bf Experiments compute resources}")
    lines = text[start:].splitlines()
    assert lines[1].startswith(r"\item[] Question: Does the paper say for every experiment which")
    assert lines[2] == r"\item[] Answer: \answerTODO{}"
    assert lines[3].startswith(r"\item[] Justification: Hardware: system: Linux")
    assert r"\setcounter{enumi}{3}" in text
    licences = text.index(r"\setcounter{enumi}{11}" + "\n" + r"\item {\bf Licenses for existing")
    assert licences > start
    assert r"\providecommand{\answerYes}[1][]{[Yes]#1}" in text
    assert text.count(r"\item[] Answer: \answerYes{}") == 5
    digits = checklist_example.invented("manifest")
    assert digits in text.replace(r"\allowbreak{}", "")


def test_both_forms_name_manifest_and_signer_once_at_the_top() -> None:
    checklist = fill(MANIFEST, REPORT, ("a note",))
    text = to_markdown(checklist)
    assert text.count(REPORT.manifest_sha256) == 1
    assert "- a note\n" in text
    assert "no trusted key" in to_markdown(replace(checklist, signed_by=None))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("text", ["plain", HOSTILE])
def test_latex_compiles_by_itself(text: str, tmp_path: Path) -> None:
    latex = lines_with(text, to_latex)
    whole = f"\\documentclass{{article}}\n\\begin{{document}}\n{latex}\\end{{document}}\n"
    (tmp_path / "list.tex").write_text(whole, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "list.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
