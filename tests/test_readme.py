"""README and manual: what they tell people to type works, and what they name is there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from cli_shell import Shell, content
from documents import (
    DOCUMENTS,
    PAGES,
    README,
    ROOT,
    all_options,
    blocks,
    command_names,
    commands,
    names,
    options_of,
    prose,
    table,
)

from auditkit.cli.console import LAYOUTS
from auditkit.manual.pages import ORDER

#: More than that nobody reads in a few minutes.
MOST_LINES = 150

TRY_IT = (
    'pip install -c constraints.txt ".[examples]" && auditkit run examples/digits.py '
    "--out runs/digits && auditkit verify runs/digits/manifest.json"
)
CI = (
    'pip install -c constraints.txt -e ".[test]" && ruff check . && ruff format --check . '
    "&& mypy && pytest -n 2 --dist loadfile"
)

each_document = pytest.mark.parametrize(
    ("path", "text"), DOCUMENTS.items(), ids=[path.stem for path in DOCUMENTS]
)


# The README's shape


def test_it_is_read_in_a_few_minutes() -> None:
    assert len(README.splitlines()) <= MOST_LINES


def test_every_page_of_the_manual_is_linked() -> None:
    read_on = README.split("## Read on")[1]
    assert re.findall(r"\]\(auditkit/manual/([\w-]+)\.md\)", read_on) == list(ORDER)


@pytest.mark.parametrize("line", [TRY_IT, CI])
def test_both_one_line_commands_stand_there_once(line: str) -> None:
    assert README.count(line) == 1
    assert sum(block.splitlines() == [line] for block in blocks(README, "bash")) == 1


def test_the_table_of_commands_has_them_all() -> None:
    rows = table(README, "command", "what it does")
    told = [name for cell, _ in rows for name in names(cell)]
    assert sorted(told) == sorted(f"auditkit {name}" for name in command_names())


def test_the_picture_of_the_output_has_the_columns_that_the_output_has() -> None:
    (picture,) = (block for block in blocks(README, "") if "Verdict:" in block)
    lines = picture.splitlines()
    for name in ("checks", "distances"):
        assert any(
            tuple(re.split(r"\s{2,}", line.strip())) == LAYOUTS[name].headings for line in lines
        ), name


def test_readme_and_manual_show_the_same_program_and_the_same_loop() -> None:
    shown = blocks(README, "python")
    assert shown == blocks(PAGES["study"], "python")[: len(shown)]
    assert blocks(README, "diff") == blocks(PAGES["loop"], "diff")


# What is named exists, in the README and on every page


@each_document
def test_every_command_that_is_shown_exists_with_its_options(path: Path, text: str) -> None:
    for words in commands(text):
        used = {word for word in words if word.startswith("--")}
        assert used <= options_of(*words[: 2 if words[0] == "timestamp" else 1]), words


@each_document
def test_every_option_that_is_mentioned_exists(path: Path, text: str) -> None:
    told = re.sub(r" -- [^`\n|]*", "", prose(text))  # a user's own command has its own options
    told = re.sub(r"python tests/[^`\n]*`( \(with `[^`]+`)?", "", told)  # as have own scripts
    told = re.sub(r"`ray start [^`]*`", "", told)
    told = re.sub(r"\[[^]]*\]\([^)]*\)|`[\w-]*--[\w-]+-[\w-]+`", "", told)  # links, branch names
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", told))
    assert mentioned <= all_options()


def test_options_are_mentioned() -> None:
    assert "--resume" in PAGES["study"]
    assert "--allow-code" in README


@each_document
def test_every_command_that_is_mentioned_exists(path: Path, text: str) -> None:
    mentioned = set(re.findall(r"(?:`|^\$ )auditkit ([a-z]+)", text, re.MULTILINE))
    assert mentioned <= set(command_names())


@each_document
def test_every_relative_link_leads_somewhere(path: Path, text: str) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []


@each_document
def test_every_path_and_module_that_is_named_exists(path: Path, text: str) -> None:
    paths = re.findall(r"(?<![\w/.~])((?:examples|tests|auditkit|schemas)/[\w/.-]*\w)", text)
    packaged = (name.replace("auditkit/schemas", "schemas") for name in paths)
    assert [name for name in packaged if not (ROOT / name).exists()] == []
    modules = set(re.findall(r"(?<![\w/.`])`(auditkit(?:\.[a-z_]+)+)`", text))
    groups = {"auditkit.perturbations"}  # a room, and an entry point group
    for module in modules - groups:
        assert importlib.util.find_spec(module) is not None, module


def test_paths_and_modules_are_named() -> None:
    assert "`auditkit/records/declaration.py`" in PAGES["design"]
    assert "`auditkit.verification`" in PAGES["design"]


@each_document
def test_every_python_block_compiles(path: Path, text: str) -> None:
    for number, block in enumerate(blocks(text, "python")):
        compile(block, f"{path.name}, block {number}", "exec")


@each_document
def test_every_auditkit_explain_that_is_told_explains_something(path: Path, text: str) -> None:
    from auditkit.manual.pages import explain

    told = re.findall(r"`auditkit explain ([^`]+)`", prose(text))
    assert [topic for topic in told if not explain(topic) and topic != "WORD"] == []


# Programs


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell.at(tmp_path_factory.mktemp("readme") / "user")


@pytest.fixture(scope="module")
def mine(shell: Shell) -> Path:
    """A short run of the README's own program."""
    program, *_ = blocks(README, "python")
    shell.write("study.py", program)
    sys.modules.pop("study", None)  # of another test of this process
    options = ("--seeds", "0", "--horizon", "45")
    done = shell("run", "study.py", "--out", "runs/mine", *options)
    assert (done.code, done.err) == (0, "")
    return shell.folder / "runs" / "mine"


def test_the_program_of_your_own_study_runs_and_verifies(shell: Shell, mine: Path) -> None:
    assert sorted(content(mine / "code")) == ["study.py"]
    verified = shell("verify", "runs/mine/manifest.json")
    assert verified.code == 0, verified.out
    assert "Trust: self-signed on this machine" in verified.out
    assert shell("show", "runs/mine/manifest.json").code == 0


def test_its_cost_is_told_as_the_readme_says(shell: Shell, mine: Path) -> None:
    done = shell("run", "study.py", "--dry-run", "--out", "runs/none")
    assert done.code == 0, done.err
    assert not (shell.folder / "runs" / "none").exists()


def test_its_checklist_is_written(shell: Shell, mine: Path) -> None:
    (words,) = (words for words in commands(PAGES["study"]) if words[0] == "checklist")
    assert shell(*words).code == 0


def final_weights(source: str, folder: Path) -> bytes:
    """Weights and random state after a script, in this process."""
    globals_: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(source, "loop.py", "exec"), globals_)  # noqa: S102 # what readers paste
    tensors = [*globals_["model"].state_dict().values(), torch.get_rng_state()]  # type: ignore[attr-defined]
    return b"".join(tensor.numpy().tobytes() for tensor in tensors)


def test_four_lines_record_a_loop_and_change_no_bit_of_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (diff,) = re.findall(r"<!-- loop:begin -->\n```diff\n(.*?)```", README, re.DOTALL)
    lines = diff.splitlines()
    added = [line for line in lines if line.startswith("+")]
    assert len(added) <= 4
    assert not any(line.startswith("-") for line in lines)
    before = "\n".join(line[1:] for line in lines if line not in added)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(shell.folder / "config"))
    bare = final_weights(before, shell.folder)
    recorded = final_weights("\n".join(line[1:] for line in lines), shell.folder)
    assert recorded == bare
    done = shell("verify", "runs/exp1/manifest.json")
    assert done.code == 0, done.out
    assert "steps 1..24" in done.out
