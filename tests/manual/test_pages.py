"""The manual: pages and topics are found, and what its tables say is what the code does."""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import typing
from dataclasses import fields
from pathlib import Path

import click
import pytest
from architecture import ROOMS
from documents import FOLDER, PAGES, ROOT, blocks, names, options_of, table
from studies import Run

import auditkit
from auditkit import errors
from auditkit.cli import main
from auditkit.cli.console import LAYOUTS
from auditkit.cli.markdown import render
from auditkit.errors import AuditError
from auditkit.evidence.verdicts import LESS_THAN_REQUIRED, PRECEDENCE
from auditkit.manual import pages
from auditkit.manual.pages import ORDER, Page, Section, explain, nearest, normal, parse, read_page
from auditkit.program.program import Program
from auditkit.records.agreement import AgreementVerdict
from auditkit.records.declaration import DECLARATIONS, Declaration
from auditkit.records.estimate import DEVELOPED_SHARE, VERDICTS
from auditkit.records.manifest import RECORDING_PREDICATE, STUDY_PREDICATE
from auditkit.records.output_kinds import BETTER, KINDS
from auditkit.records.plan import DISTANCE_METRICS, SIGNED_METRICS, PerturbationSpec, StudyPlan
from auditkit.records.recording import TRACE_STEPS
from auditkit.records.registration import PLAN_PREDICATE
from auditkit.records.report import CHECKS, Binding, Status, Verdict
from auditkit.replay.seed_replay import MAX_REPLAYS
from auditkit.signing.keys import fingerprint
from auditkit.statistics.embeddings import MOST_ANCHORS
from auditkit.statistics.metrics import DISTANCES, N_BINS, SIGNED
from auditkit.statistics.outcomes import GROWN
from auditkit.statistics.resampling import DRAWS, ENUMERATION_LIMIT
from auditkit.study.stages.evaluator import RECALIBRATION_BATCHES

CLI = {
    file.name: ast.parse(file.read_text(encoding="utf-8"))
    for file in sorted((ROOT / "auditkit" / "cli").glob("*.py"))
}


def kinds_of(kind: type[AuditError]) -> list[type[AuditError]]:
    """An error class of the tree and everything below it."""
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(below for child in children for below in kinds_of(child))]


def sections(topic: str) -> list[Section]:
    """The sections that explain a topic."""
    return [item for item in explain(topic) if isinstance(item, Section)]


# Pages


def test_every_file_is_a_page() -> None:
    assert sorted(ORDER) == sorted(PAGES)


@pytest.mark.parametrize("name", ORDER)
def test_a_page_begins_with_a_title_and_what_it_answers(name: str) -> None:
    title, empty, answers, after = PAGES[name].splitlines()[:4]
    assert re.fullmatch(r"# \S.*", title)
    assert (empty, after) == ("", "")
    assert re.fullmatch(r"[A-Z][^.?!]*(?:\.py[^.?!]*)?\?", answers)
    page = read_page(name)
    assert (page.title, page.answers) == (title[2:], answers)


@pytest.mark.parametrize("name", ORDER)
def test_a_page_fits_80_columns_with_every_word_of_its_tables_whole(name: str) -> None:
    text = read_page(name).text
    shown = re.sub(r"\x1b\[[0-9;]*m", "", render(text, 80))
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    rows = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    told = {word for row in rows for word in re.sub("[`*]", "", row).replace("|", " ").split()}
    assert told - set(re.sub(r"[`*]", "", shown).split()) == set()


@pytest.mark.parametrize("name", ORDER)
def test_comments_are_not_shown(name: str) -> None:
    assert "<!--" in PAGES["loop"]
    assert "<!--" not in read_page(name).text


# Topics


def test_a_section_is_found_by_each_of_its_topics_in_any_spelling() -> None:
    for topic in ("seed SDs", "SEED-SDS", "seed_sds", " seed  sds "):
        assert [found.heading for found in sections(topic)] == ["seed SDs"]
    assert [found.heading for found in sections("d-z")] == ["d_z"]
    assert sections("#")
    assert sections("*")
    assert not explain("nothing of the kind")
    assert not explain("")


def test_a_heading_ends_a_section_of_its_level_and_a_code_block_has_none() -> None:
    below = "## A\n<!-- topics: a, b -->\n\n1\n\n### C\n\n```\n# no\n```\n\n## D\n\n2\n"
    page = parse("p", f"# P\n\nWhat?\n\n{below}")
    assert [section.heading for section in page.sections] == ["A", "C", "D"]
    assert [section.topics for section in page.sections] == [("a", "b"), (), ()]
    assert page.sections[0].text == "## A\n\n1\n\n### C\n\n```\n# no\n```\n"
    assert page.text.startswith("# P\n\nWhat?\n\n## A\n\n1")


def test_a_page_and_a_section_of_one_name_are_both_found_the_section_first() -> None:
    section, page = explain("Estimands")
    assert isinstance(section, Section)
    assert section.heading == "Check 10, estimands"
    assert isinstance(page, Page)
    assert page.name == "estimands"


def test_what_a_word_means_comes_before_the_other_sections_of_its_name() -> None:
    assert [found.heading for found in sections("broken")] == ["Columns of list", "Back-flow"]
    assert [found.heading for found in sections("placebos")] == ["Placebo", "The plan"]


def test_no_section_has_a_topic_twice_and_every_named_line_stands_below_a_heading() -> None:
    for name in ORDER:
        named = [section for section in read_page(name).sections if section.topics]
        for section in named:
            topics = [normal(topic) for topic in section.topics]
            assert len(set(topics)) == len(topics), section.topics
            assert all(topics), section.topics
        assert PAGES[name].count("<!-- topics:") == len(named), name


def test_the_nearest_topics_are_real_ones() -> None:
    assert nearest("floo")[0] == "floor"
    assert nearest("NotTrustd")[0] == "NotTrusted"
    assert all(explain(topic) for topic in nearest("perturbatoins"))
    assert nearest("qqqqqqqqqqqq") == []


@pytest.mark.parametrize(("number", "name"), CHECKS.items())
def test_every_check_is_explained_by_number_and_by_name(number: int, name: str) -> None:
    for topic in (str(number), f"check {number}"):
        first = sections(topic)[0]
        assert (first.page, first.heading) == ("checks", f"Check {number}, {name}")
    assert any(found.heading == f"Check {number}, {name}" for found in sections(name))


@pytest.mark.parametrize("code", [0, *sorted(PRECEDENCE), LESS_THAN_REQUIRED])
def test_every_exit_code_is_explained_after_the_check_of_its_number(code: int) -> None:
    for topic in (f"exit-{code}", f"exit {code}", f"exit code {code}"):
        assert [found.heading for found in sections(topic)] == [f"Exit code {code}"]
    check = [f"Check {code}, {CHECKS[code]}"] if code in CHECKS else []
    assert [found.heading for found in sections(str(code))] == [*check, f"Exit code {code}"]


@pytest.mark.parametrize("kind", kinds_of(AuditError), ids=lambda kind: kind.__name__)
def test_every_error_is_explained_with_its_exit_code(kind: type[AuditError]) -> None:
    (section,) = (item for item in sections(kind.__name__) if item.page == "errors")
    assert section.heading == kind.__name__
    assert f"\nExit code {kind.exit_code}. " in section.text


def test_every_error_that_is_explained_exists() -> None:
    headings = re.findall(r"^### ([A-Z][a-z]+[A-Z]\w+)$", PAGES["errors"], re.MULTILINE)
    assert set(headings) <= {kind.__name__ for kind in kinds_of(AuditError)}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_every_perturbation_is_explained(name: str) -> None:
    assert any(found.page == "perturbations" for found in sections(name))


def test_a_perturbation_is_found_with_its_parameters_as_it_is_written_anywhere() -> None:
    for written in (":moments=v,step=keep", "--moments-v--step-keep", " --moments-v --step-keep"):
        assert sections(f"adam-reset{written}") == sections("adam-reset")
    assert not explain("nothing:of=the kind")
    assert not explain("--nothing:of=the kind")


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_heading_and_word_of_every_table_is_explained(name: str) -> None:
    layout = LAYOUTS[name]
    assert layout.words
    told = (*layout.headings, *layout.words)
    assert [word for word in told if not explain(word)] == []
    assert set(layout.numbers) | set(layout.whole) | set(layout.widths) <= set(layout.headings)


WORDS = (
    *typing.get_args(Status),
    *typing.get_args(Verdict),
    *typing.get_args(Binding),
    *typing.get_args(AgreementVerdict),
    *("order drift", "data drift", "RNG drift", "state drift", "length", "outcome", "commitment"),
    *DISTANCE_METRICS,
    *SIGNED_METRICS,
)


@pytest.mark.parametrize("word", WORDS)
def test_every_verdict_difference_and_metric_is_explained(word: str) -> None:
    assert sections(word)


def calls(name: str) -> list[tuple[str, ast.Call]]:
    """Every call of a function in the command line, with its module."""
    return [
        (module, node)
        for module, tree in CLI.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name
    ]


def test_every_table_is_made_in_one_place_and_every_layout_is_used() -> None:
    assert {module for module, _ in calls("Table")} == {"console.py"}
    assert {module for module, _ in calls("add_column")} == {"console.py"}
    given = [
        call.args[at]
        for name, at in (("print_table", 1), ("_print_rows", 1), ("EstimandTable", 0))
        for _, call in calls(name)
    ]
    named = [str(name.value) for name in given if isinstance(name, ast.Constant)]
    assert sorted(named) == sorted(LAYOUTS)


def test_every_word_that_a_command_offers_to_explain_is_explained() -> None:
    offered = [
        node.value
        for module, call in calls("print_words")
        if module != "console.py"
        for node in ast.walk(call.args[1])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert len(offered) >= 8
    assert [word for word in offered if not explain(word)] == []


# What the tables say


def touched(declaration: Declaration) -> set[str]:
    """Components that a perturbation may change with any of its parameters."""
    parameters = list(declaration.parameters)
    choices = [
        declaration.parameters[n].choices or (declaration.parameters[n].default,)
        for n in parameters
    ]
    return {
        component
        for values in itertools.product(*choices)
        for given in [
            PerturbationSpec(declaration.name, dict(zip(parameters, values, strict=True)))
        ]
        for component in declaration.may_touch(given)
    }


def test_the_perturbations_are_listed_with_their_parameters_and_components() -> None:
    listed: dict[str, tuple[set[str], set[str], str]] = {}
    rows = table(PAGES["perturbations"], "name", "what it does at t0", "what it may change")
    for name_cell, _, component_cell in rows:
        # A name, and perhaps its parameters in brackets.
        for name, brackets in re.findall(r"`([a-z-]+)`(?: \(([^)]*)\))?", name_cell):
            parameters = set(re.findall(r"`(\w+)=", brackets))
            listed[name] = parameters, set(names(component_cell)), component_cell
    assert set(listed) == set(DECLARATIONS)
    for name, (parameters, components, cell) in listed.items():
        declaration = DECLARATIONS[name]
        assert parameters == set(declaration.parameters), name
        assert components == touched(declaration), name
        if declaration.kind == "order":
            assert cell == "the order inside the window"
        if declaration.kind == "data":
            assert cell == "the data inside the window"
        if declaration.kind == "none":
            assert cell == "nothing"


def test_the_checks_are_numbered_and_named_as_in_the_report() -> None:
    rows = table(PAGES["checks"], "#", "check", "passes when")
    assert {int(number): name for number, name, _ in rows} == CHECKS
    rows = table(PAGES["limits"], "check", "defends against")
    assert [cell for cell, _ in rows] == [f"{number} {name}" for number, name in CHECKS.items()]


def test_the_exit_codes_are_those_of_the_errors_and_of_the_commands_help() -> None:
    rows = table(PAGES["errors"], "exit code", "meaning")
    meanings = {int(code): meaning for code, meaning in rows}
    codes = {kind.exit_code for kind in kinds_of(AuditError)}
    assert set(meanings) == {0, LESS_THAN_REQUIRED} | codes
    assert codes == set(PRECEDENCE)
    assert f"the first of {', '.join(map(str, PRECEDENCE))} is given" in PAGES["errors"]
    with click.Context(main) as context:
        verify = main.get_command(context, "verify")
    told = " ".join((verify.help if verify and verify.help else "").split())
    for code, meaning in meanings.items():
        assert f"{code} {re.split('[:,]', meaning)[0]}" in told


def test_the_verdicts_are_those_of_the_reports() -> None:
    rows = table(PAGES["checks"], "verdict", "exit code", "meaning")
    assert {name for name, *_ in rows} == set(typing.get_args(Verdict))
    rows = table(PAGES["estimands"], "verdict", "meaning")
    assert tuple(name for name, _ in rows) == VERDICTS
    rows = table(PAGES["checks"], "answer", "meaning")
    assert {name for name, _ in rows} == set(typing.get_args(AgreementVerdict))
    rows = table(PAGES["plans"], "status", "what it is worth")
    assert {name for name, _ in rows} == set(typing.get_args(Binding))


def test_the_metrics_are_those_that_there_are() -> None:
    rows = table(PAGES["estimands"], "name", "what it is")
    assert [names(cell)[0] for cell, _ in rows] == [*DISTANCES, *SIGNED]
    others = [KINDS["regression"], KINDS["embedding"]]
    listed = {
        names(cell)[0]: (kind, told)
        for cell, kind, told in table(PAGES["estimands"], "metric", "of", "what it is")
    }
    expected = {metric: kind.name for kind in others for metric in kind.metrics}
    assert {metric: kind for metric, (kind, _) in listed.items()} == expected
    assert all(f"{better} is better" in listed[metric][1] for metric, better in BETTER.items())
    assert f"to {MOST_ANCHORS} of them" in PAGES["estimands"]


def test_a_plan_and_a_program_have_the_fields_that_are_listed() -> None:
    rows = table(PAGES["study"], "field", "option", "meaning")
    assert [names(cell)[0] for cell, *_ in rows] == [item.name for item in fields(StudyPlan)]
    options = {words.split()[0] for _, cell, _ in rows for words in names(cell)}
    assert options == options_of("plan") - {
        *("--out", "--arg", "--seeds-from-timestamp", "--skip-data", "--key"),
        "--design",  # several fields at once
    }
    rows = table(PAGES["study"], "argument of `Program`", "meaning")
    listed = [name for cell, _ in rows for name in names(cell)]
    assert sorted(listed) == sorted(item.name for item in fields(Program))


def test_the_numbers_are_those_of_the_code() -> None:
    assert MAX_REPLAYS == 4
    assert "repeated, up to four times in all" in PAGES["checks"]
    assert f"exceeds {GROWN:g} at T" in PAGES["estimands"]
    assert f"fewer than {DEVELOPED_SHARE * 100:g} % of the placebos" in PAGES["estimands"]
    assert f"{N_BINS} bins of equal mass" in PAGES["estimands"]
    assert f"first {RECALIBRATION_BATCHES} batches" in PAGES["estimands"]
    assert (
        f"{DRAWS:,} are drawn where there are more than {ENUMERATION_LIMIT:,}"
        in (PAGES["estimands"])
    )
    assert f"pieces of {TRACE_STEPS:,} steps" in PAGES["formats"]


def test_the_formats_are_those_that_there_are() -> None:
    rows = table(PAGES["formats"], "predicate type", "what it is")
    listed = [name for cell, _ in rows for name in names(cell)]
    assert {STUDY_PREDICATE, RECORDING_PREDICATE, PLAN_PREDICATE} < set(listed)
    assert len(listed) == 5
    sources = "".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "auditkit" / "records").glob("*.py")
    )
    assert set(re.findall(r'"(urn:auditkit:[\w:-]+)"', sources)) == set(listed)
    schemas = set(re.findall(r"`([a-z]+\.schema\.json)`", PAGES["formats"]))
    assert schemas == {file.name for file in (ROOT / "schemas" / "1").iterdir()}


def test_the_rooms_are_those_of_the_architecture() -> None:
    rows = table(PAGES["design"], "room", "idea")
    listed = [names(cell)[0].removeprefix("auditkit.") for cell, _ in rows]
    above = {room.partition(".")[0] for room in ROOMS} - {"version", "__main__"}
    assert sorted(listed) == sorted(above)
    assert listed[0] == ROOMS[0]


def test_every_line_of_where_to_change_what_names_a_file() -> None:
    rows = table(PAGES["design"], "I want to change ...", "open")
    assert len(rows) >= 10
    assert all(any((ROOT / name).is_file() for name in names(cell)) for _, cell in rows)


# Blocks that are run


def sh(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as somebody would who has pasted it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-c", f"set -e -o pipefail\n{script}"]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


needs_tools = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("jq", "openssl", "base64", "bash", "sha256sum")),
    reason="needs jq, openssl, base64 and sha256sum",
)


@needs_tools
def test_the_manifest_verifies_with_jq_and_openssl_alone(small: Run, tmp_path: Path) -> None:
    (verify,) = (block for block in blocks(PAGES["keys"], "bash") if "openssl pkeyutl" in block)
    (make_pem,) = (block for block in blocks(PAGES["keys"], "bash") if "> signer.pem" in block)
    (same,) = (block for block in blocks(PAGES["formats"], "") if "openssl pkeyutl" in block)
    for name in ("manifest.json", "signer.pub"):
        shutil.copy(small.folder / name, tmp_path)
    for script in (verify, same):
        done = sh(f"{make_pem}{script}", tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Signature Verified Successfully" in done.stdout
    text = (tmp_path / "manifest.json").read_text()
    at = text.index('"payload"') + 100
    other = "A" if text[at] != "A" else "B"
    (tmp_path / "manifest.json").write_text(text[:at] + other + text[at + 1 :])
    for script in (verify, same):
        assert sh(f"{make_pem}{script}", tmp_path).returncode != 0


@needs_tools
def test_the_functions_for_python_are_those_that_there_are(
    small: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = table(PAGES["formats"], "function", "what it gives")
    functions = {names(cell)[0].partition("(")[0].removeprefix("auditkit.") for cell, _ in rows}
    public = [getattr(auditkit, name) for name in auditkit.__all__]
    assert functions == {item.__name__ for item in public if inspect.isfunction(item)}
    (block,) = (text for text in blocks(PAGES["formats"], "python") if "auditkit.verify" in text)
    block = block.replace("SHA256:...", fingerprint(small.key))
    shutil.copytree(small.folder, tmp_path / "run")
    said = []
    for damage in ("report.json", "code/tiny_study.py"):
        (tmp_path / "run" / damage).unlink(missing_ok=True)
        archive = shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "run")
        exec(block.replace('"study.zip"', repr(archive)), {})  # noqa: S102 # as it is printed
        said.append(capsys.readouterr().out)
    assert said[0] == ""
    assert said[1].startswith("failed 1 ['code/tiny_study.py: no such file")
    told = " ".join(
        line for line in PAGES["formats"].splitlines() if "auditkit.verify(path" in line
    )
    given = set(inspect.signature(auditkit.verify).parameters) - {"path"}
    assert set(re.findall(r"`(\w+)`", told)) - {"Report"} == given


def test_the_files_are_checked_with_sha256sum_and_read_with_python(
    small: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small.folder, folder)
    (check,) = (block for block in blocks(PAGES["formats"], "bash") if "sha256sum" in block)
    done = sh(check, folder)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    (read,) = (block for block in blocks(PAGES["formats"], "python") if "auditkit" not in block)
    seed = next(path.name for path in folder.iterdir() if path.name.startswith("seed-"))
    (folder / "seed-0000").exists() or (folder / seed).rename(folder / "seed-0000")
    script = tmp_path / "read.py"
    script.write_text(read)
    shown = sh(f"python {script}", folder)
    assert shown.returncode == 0, shown.stderr
    for name in ("labels", "t0", "t0+W", "T"):
        assert f"'{name}'" in shown.stdout
    next(folder.rglob("control.trace.safetensors")).write_bytes(b"other")
    assert sh(check, folder).returncode != 0


def test_the_pages_come_with_the_package() -> None:
    assert Path(pages.__file__).parent == FOLDER
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    build = settings["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["packages"] == ["auditkit"]  # with whatever lies in it
    assert "/auditkit" in build["sdist"]["include"]
    assert not any("exclude" in target for target in build.values())
