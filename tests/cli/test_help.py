"""Help pages: every option in a group, every value named, nothing cut off, nothing twice."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from auditkit.cli import main
from auditkit.cli.help import EXAMPLES, GROUPS, SECTIONS, Group, grouped
from auditkit.records.declaration import DECLARATIONS


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command that can be typed."""
    found = []
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                found += commands(command, (*path, name))
            elif command is not None and not command.hidden:
                found.append((*path, name))
    return found


def command_of(path: tuple[str, ...]) -> tuple[click.Command, click.Context]:
    context = click.Context(main, info_name="auditkit", **main.context_settings)
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    return command, context


each = pytest.mark.parametrize("path", commands(), ids=" ".join)


@each
def test_every_option_stands_in_a_group(path: tuple[str, ...]) -> None:
    command, context = command_of(path)
    left = dict(grouped(command, context)).get("Other", [("--help", "")])
    assert [names.split()[-1] for names, _ in left] == ["--help"]
    options = sum(isinstance(param, click.Option) for param in command.params)
    assert options <= 6 or command.name in GROUPS


@each
def test_every_value_has_a_name_that_says_what_it_is(path: tuple[str, ...]) -> None:
    _, context = command_of(path)
    out = context.get_help()
    assert "TEXT" not in out
    assert "INTEGER" not in out
    assert "FLOAT" not in out


@each
@pytest.mark.parametrize("width", [60, 80])
def test_no_help_page_is_wider_than_the_terminal_or_cut_off(
    path: tuple[str, ...], width: int
) -> None:
    done = CliRunner().invoke(main, [*path, "--help"], terminal_width=width)
    assert done.exit_code == 0
    before = done.stdout.partition("\nExamples:")[0]
    assert max(len(line.rstrip()) for line in before.splitlines()) <= width
    assert not any(line.rstrip().endswith("...") for line in before.splitlines()[2:])


@each
def test_every_command_has_examples_that_are_parsed(path: tuple[str, ...]) -> None:
    command, context = command_of(path)
    text = "\n".join(EXAMPLES[command.name or ""]).replace("\\\n", "")
    assert max(len(line) for line in EXAMPLES[command.name or ""]) <= 78
    for line in text.splitlines():
        words = shlex.split(line)
        assert words[0] == "auditkit"
        other, its_context = command_of(tuple(words[1 : 1 + len(path)]))
        other.make_context(words[1], words[1 + len(path) :], parent=its_context.parent)
    assert command.name in {words.split()[len(path)] for words in text.splitlines()}
    assert context.get_help().count("Examples:") == 1


def test_the_list_of_commands_is_in_sections_and_whole() -> None:
    out = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout
    assert "..." not in out.replace("[ARGS]...", "")
    assert max(map(len, out.splitlines())) <= 80
    for title, names in SECTIONS.items():
        if set(names) & {path[0] for path in commands()}:
            assert f"{title}:\n" in out
    assert "Other:" not in out
    text = " ".join(out.split())
    for path in commands():
        if len(path) == 1:
            command, _ = command_of(path)
            assert " ".join(command.get_short_help_str(limit=1000).split()) in text


def test_what_is_written_down_of_a_command_is_what_it_says_itself() -> None:
    written = {name: text for section in SECTIONS.values() for name, text in section.items()}
    with click.Context(main) as context:
        assert written == Group.summaries(main, context)


@pytest.mark.parametrize("width", [60, 80])
def test_no_summary_of_a_group_is_cut_off(width: int) -> None:
    out = CliRunner().invoke(main, ["timestamp", "--help"], terminal_width=width).stdout
    assert "Commands:\n" in out
    text = " ".join(out.replace("[ARGS]...", "").split())
    assert "..." not in text
    assert "Write a request for a time stamp of FILE's signature; you send it." in text


def test_an_option_that_is_not_repeatable_is_refused_twice() -> None:
    twice = ["run", "study.py", "--out", "x", "--seeds", "0-1", "--seeds", "2-3"]
    done = CliRunner().invoke(main, twice, catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "auditkit: --seeds is given twice (auditkit explain UsageError)\n"
    repeated = ["verify", "nowhere", "--key", "a", "--key", "b", "--strict", "--strict"]
    done = CliRunner().invoke(main, repeated, catch_exceptions=False)
    assert "twice" not in done.stderr


# Completion


def completed(words: list[str], incomplete: str) -> list[tuple[str, str]]:
    found = ShellComplete(main, {}, "auditkit", "_AUDITKIT_COMPLETE").get_completions(
        words, incomplete
    )
    return [(item.type, item.value) for item in found]


def test_a_shell_completes_commands_options_perturbations_topics_and_files() -> None:
    assert ("plain", "verify") in completed([], "ver")
    assert ("plain", "--fork-at") in completed(["run"], "--fork")
    names = [("plain", name) for name in sorted(DECLARATIONS) if name.startswith("order-")]
    assert completed(["run", "--perturb"], "order-") == names
    assert completed(["explain"], "rh") == [("plain", "rho")]
    assert completed(["verify"], "runs/") == [("file", "runs/")]
    assert completed(["run", "--out"], "runs/") == [("dir", "runs/")]
    assert completed(["verify", "--json"], "r") == [("file", "r")]
    assert completed(["run", "--seeds"], "0") == []


def test_what_bash_is_told_to_call_answers() -> None:
    script = "from auditkit.cli import main\nmain(prog_name='auditkit')"

    def call(instruction: str, **variables: str) -> str:
        env = {**os.environ, "_AUDITKIT_COMPLETE": instruction, **variables}
        done = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert "complete -o nosort -F _auditkit_completion auditkit" in call("zsh_source") + call(
        "fish_source"
    ) + call("bash_source")
    assert call("bash_complete", COMP_WORDS="auditkit run --pl", COMP_CWORD="2").split() == [
        "plain,--placebos",
        "plain,--placebo-scale",
        "plain,--plan",
    ]
