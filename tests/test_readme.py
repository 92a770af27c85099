"""The README: what it tells people to type works, and what it lists is what there is."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from cli_shell import Shell, content
from studies import Run

from auditkit.cli import main
from auditkit.errors import AuditError
from auditkit.evidence.verdicts import PRECEDENCE
from auditkit.records.declaration import DECLARATIONS, Declaration
from auditkit.records.report import CHECKS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

TRY_IT = (
    'pip install -c constraints.txt ".[examples]" && auditkit run examples/digits.py '
    "--out runs/digits && auditkit verify runs/digits/manifest.json"
)
CI = (
    'pip install -c constraints.txt -e ".[test]" && ruff check . && ruff format --check . '
    "&& mypy && pytest -n 2 --dist loadfile"
)


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def table(*headings: str) -> list[list[str]]:
    """The rows of the table with these headings."""
    head = "| " + " | ".join(headings) + " |\n"
    assert README.count(head) == 1
    rows = README.split(head)[1].split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


COMMANDS = ("run", "verify", "show", "checklist", "replay", "doctor")


def options_of(*names: str) -> set[str]:
    """The options of a command, or of a command of a group, as its help shows them."""
    with click.Context(main) as context:
        found: click.Command | None = main
        for name in names:
            assert isinstance(found, click.Group), names
            found = found.get_command(context, name)
    assert found is not None, names
    return {name for parameter in found.params for name in parameter.opts if name[:2] == "--"}


def commands() -> list[list[str]]:
    """Every call of auditkit in a block, in words."""
    lines = "\n".join(blocks("bash")).splitlines()
    calls = [part.split("#")[0].split() for line in lines for part in line.split("&&")]
    return [words[1:] for words in calls if words and words[0] == "auditkit"]


# Commands and options


@pytest.mark.parametrize("line", [TRY_IT, CI])
def test_both_one_line_commands_stand_there_once(line: str) -> None:
    assert README.count(line) == 1
    assert sum(block.splitlines() == [line] for block in blocks("bash")) == 1


def test_every_command_that_is_shown_exists_with_its_options() -> None:
    shown = {"run", "verify", "show", "checklist", "plan", "reproduce", "timestamp"}
    assert {words[0] for words in commands()} == shown
    for words in commands():
        used = {word for word in words if word.startswith("--")}
        assert used <= options_of(*words[: 2 if words[0] == "timestamp" else 1]), words


def test_every_option_that_is_mentioned_exists() -> None:
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r" -- [^`\n]*", "", prose)  # a command of the user's own has its own options
    prose = re.sub(r"python tests/[^`\n]*", "", prose)  # as have the project's own scripts
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", prose))
    known = set().union(
        *(options_of(name) for name in (*COMMANDS, "keygen", "sign", "export", "plan")),
    )
    assert "--resume" in mentioned
    assert mentioned <= known


def test_every_command_that_is_mentioned_exists() -> None:
    mentioned = set(re.findall(r"`auditkit ([a-z]+)", README))
    with click.Context(main) as context:
        assert mentioned <= set(main.list_commands(context))


def test_every_relative_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_file_that_is_named_as_a_path_exists() -> None:
    named = re.findall(r"(?<![\w/.~])((?:examples|tests|auditkit|schemas)/[\w/.-]+\.\w+)", README)
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


# Tables


def touched(declaration: Declaration) -> set[str]:
    """Components that a perturbation may change with any of its parameters."""
    names = list(declaration.parameters)
    choices = [
        declaration.parameters[n].choices or (declaration.parameters[n].default,) for n in names
    ]
    return {
        component
        for values in itertools.product(*choices)
        for component in declaration.touched(dict(zip(names, values, strict=True)))
    }


def test_the_perturbations_are_listed_with_their_parameters_and_components() -> None:
    listed: dict[str, tuple[set[str], set[str], str]] = {}
    for name_cell, _, component_cell in table("name", "what it does at t0", "what it may change"):
        # A name, and perhaps its parameters in brackets.
        for name, brackets in re.findall(r"`([a-z-]+)`(?: \(([^)]*)\))?", name_cell):
            parameters = set(re.findall(r"`(\w+)=", brackets))
            listed[name] = parameters, set(re.findall(r"`([^`]+)`", component_cell)), component_cell
    assert set(listed) == set(DECLARATIONS)
    for name, (parameters, components, cell) in listed.items():
        declaration = DECLARATIONS[name]
        assert parameters == set(declaration.parameters), name
        assert components == touched(declaration), name
        if declaration.kind == "order":
            assert cell == "the order inside the window"
        if declaration.kind == "none":
            assert cell == "nothing"


def test_the_checks_are_numbered_and_named_as_in_the_report() -> None:
    rows = table("#", "check", "passes when")
    assert {int(number): name for number, name, _ in rows} == CHECKS


def test_the_exit_codes_are_those_of_the_errors_and_of_the_commands_help() -> None:
    meanings = {int(code): meaning for code, meaning in table("exit code", "meaning")}

    def codes(kind: type[AuditError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(below) for below in kind.__subclasses__()))

    assert set(meanings) == {0} | codes(AuditError) == {0} | set(PRECEDENCE)
    with click.Context(main) as context:
        verify = main.get_command(context, "verify")
    told = " ".join((verify.help if verify and verify.help else "").split())
    for code, meaning in meanings.items():
        assert f"{code} {re.split('[:,]', meaning)[0]}" in told


# Programs


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell.at(tmp_path_factory.mktemp("readme") / "user")


@pytest.fixture(scope="module")
def mine(shell: Shell) -> Path:
    """A short run of the README's own program."""
    program, *_ = blocks("python")
    shell.write("study.py", program)
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
    (words,) = (words for words in commands() if words[0] == "checklist")
    assert shell(*words).code == 0


@pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("jq", "openssl", "base64", "bash")),
    reason="needs jq, openssl and base64",
)
def test_the_manifest_verifies_with_jq_and_openssl_alone(small: Run, tmp_path: Path) -> None:
    (verify,) = (block for block in blocks("bash") if "openssl pkeyutl" in block)
    (make_pem,) = (block for block in blocks("bash") if "> signer.pem" in block)
    for name in ("manifest.json", "signer.pub"):
        shutil.copy(small.folder / name, tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run() -> subprocess.CompletedProcess[str]:
        script = f"set -e -o pipefail\n{make_pem}{verify}"
        command = ["bash", "-c", script]
        env = {**os.environ, "PATH": path}
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout
    text = (tmp_path / "manifest.json").read_text()
    at = text.index('"payload"') + 100
    other = "A" if text[at] != "A" else "B"
    (tmp_path / "manifest.json").write_text(text[:at] + other + text[at + 1 :])
    assert run().returncode != 0


def final_weights(source: str, folder: Path) -> bytes:
    """Weights and random state after a script, in this process."""
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(source, "loop.py", "exec"), names)  # noqa: S102 # what readers paste
    tensors = [*names["model"].state_dict().values(), torch.get_rng_state()]  # type: ignore[attr-defined]
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
