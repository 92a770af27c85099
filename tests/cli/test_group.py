"""The command group: every error is one line and an exit code, whatever it holds."""

from __future__ import annotations

import gc
import re

import click
import pytest
from click.testing import CliRunner

from auditkit import __version__, errors
from auditkit.cli import main
from auditkit.cli.group import _COMMANDS
from auditkit.errors import AuditError


def kinds_of(kind: type[AuditError]) -> list[type[AuditError]]:
    """An error class of auditkit's and everything below it."""
    children = [child for child in kind.__subclasses__() if child.__module__[:8] == "auditkit"]
    return [kind, *(below for child in children for below in kinds_of(child))]


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let a command raise."""

    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr("auditkit.cli.group._Group.get_command", lambda *_: command)


@pytest.mark.parametrize("kind", kinds_of(AuditError), ids=lambda kind: kind.__name__)
def test_every_error_of_the_tree_is_one_line_and_its_exit_code(
    kind: type[AuditError], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, kind("it went\nwrong", where="seed 3", step=4, hint="do\tthis"))
    done = CliRunner().invoke(main, ["run"], catch_exceptions=False)
    topic = f"(auditkit explain {kind.__name__})"
    assert done.stderr == f"auditkit: seed 3, step 4: it went wrong; do this {topic}\n"
    assert (done.exit_code, done.stdout) == (kind.exit_code, "")


def test_an_error_from_elsewhere_names_the_nearest_class_of_the_tree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NoDisk(errors.StoreError):
        """A plug-in's own."""

    failing(monkeypatch, NoDisk("full"))
    done = CliRunner().invoke(main, ["run"], catch_exceptions=False)
    assert done.stderr == "auditkit: full (auditkit explain StoreError)\n"


def test_the_exit_codes_are_those_that_the_tree_is_drawn_with() -> None:
    drawn = re.findall(r"^ {4}[ │├└─]*([A-Z]\w+) +(\d)\b", errors.__doc__ or "", re.MULTILINE)
    assert {name: int(code) for name, code in drawn} == {
        kind.__name__: kind.exit_code for kind in kinds_of(AuditError)
    }


def test_no_error_sends_control_characters_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, AuditError("\x1b]0;title\x07 \x9b31m \u202e", where="a\u2028b\rc"))
    done = CliRunner().invoke(main, ["run"], catch_exceptions=False)
    assert done.stderr.endswith("\n")
    assert done.stderr[:-1].isprintable()
    assert r"\x1b]0;title\x07" in done.stderr


@pytest.mark.parametrize("command", ["run", "verify"])
def test_an_interrupt_is_one_line_and_what_a_shell_calls_it(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    done = CliRunner().invoke(main, [command], catch_exceptions=False)
    assert (done.exit_code, done.stderr) == (130, "auditkit: interrupted\n")


def test_every_command_exists_and_the_workers_one_is_hidden() -> None:
    with click.Context(main) as context:
        for name in _COMMANDS:
            command = main.get_command(context, name)
            assert isinstance(command, click.Command), name
            assert command.hidden == (name == "worker")


@pytest.mark.parametrize("arguments", [["nothing"], ["run", "--no-such-option"], ["show"]])
def test_wrong_use_is_exit_code_2(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 2
    assert "Error: " in done.stderr
    assert done.stdout == ""


def test_help_and_version_are_printed() -> None:
    shown = CliRunner().invoke(main, ["-h"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in _COMMANDS if name != "worker")
    assert "worker" not in shown.stdout
    version = CliRunner().invoke(main, ["--version"], catch_exceptions=False)
    assert version.stdout == f"auditkit, version {__version__}\n"


def test_the_program_ends_without_a_last_look_for_circles(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr("atexit.register", done.append)
    CliRunner().invoke(main, ["--version"], catch_exceptions=False)  # a part of another program
    assert done == []
    main(["--version"], standalone_mode=False)
    assert done == [gc.freeze]
