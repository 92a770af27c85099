"""Values of every option and argument of every command, those of commands to come included."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from cli_shell import Shell

from auditkit.cli import main
from auditkit.cli.group import _COMMANDS
from auditkit.cli.options import NUMBER, TEXT, WHOLE, decimal_number, whole_number

#: What a command needs beside the option that is tried.
_NEEDED = {
    "checklist": ("m",),
    "close": ("d",),
    "diff": ("a", "b"),
    "doctor": ("p.py",),
    "export": ("m", "--format", "sigstore", "--out", "o"),
    "pack": ("m",),
    "list": ("d",),
    "plan": ("p.py",),
    "replay": ("m",),
    "report": ("m", "--out", "o.html"),
    "reproduce": ("m", "--out", "o"),
    "run": ("p.py", "--out", "o"),
    "show": ("m",),
    "sign": ("m",),
    "timestamp attach": ("m", "r"),
    "timestamp request": ("m",),
    "verify": ("m",),
}


def commands() -> Iterator[tuple[str, click.Command]]:
    with click.Context(main) as context:
        for name in _COMMANDS:
            command = main.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from ((f"{name} {sub}", part) for sub, part in command.commands.items())
            else:
                yield name, command


def options(*types: click.ParamType[object]) -> list[tuple[str, str]]:
    """Command and option of every option of these types."""
    return [
        (name, max(option.opts, key=len))
        for name, command in commands()
        for option in command.params
        if isinstance(option, click.Option) and option.type in types
    ]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    folder = tmp_path_factory.mktemp("values") / "user"
    folder.mkdir()
    return Shell(folder)


def test_every_option_and_argument_has_a_type_that_checks_it() -> None:
    for name, command in commands():
        for param in command.params:
            if isinstance(param, click.Option) and param.is_flag:
                continue
            known = param.type in {TEXT, WHOLE, NUMBER} or isinstance(param.type, click.Choice)
            assert known, f"{name}: {param.name} has another type"


@pytest.mark.parametrize(("command", "option"), options(TEXT, WHOLE, NUMBER))
def test_an_empty_value_is_wrong_use_and_named(shell: Shell, command: str, option: str) -> None:
    done = shell(*command.split(), *_NEEDED.get(command, ()), option, "")
    assert done.code == 2
    assert option in done.line
    assert done.out == ""
    assert not list(shell.folder.iterdir())


@pytest.mark.parametrize("command", [name for name, command in commands() if name in _NEEDED])
def test_an_empty_argument_is_wrong_use(shell: Shell, command: str) -> None:
    words = ["" if not word.startswith("-") else word for word in _NEEDED[command][:1]]
    done = shell(*command.split(), *words, *_NEEDED[command][1:])
    assert (done.code, " is empty; " in done.line) == (2, True)


@pytest.mark.parametrize("text", ["\u0663", "\uff13", "\u09e9", "1_0", " 1", "0x1", "1e", "9" * 50])
def test_numbers_are_typed_in_the_digits_0_to_9(shell: Shell, text: str) -> None:
    assert whole_number(text) is None
    assert decimal_number(text) is None
    for command, option in options(WHOLE, NUMBER):
        done = shell(*command.split(), *_NEEDED.get(command, ()), option, text)
        assert (done.code, option in done.line) == (2, True), (command, option)
    for option in ("--replay", "--budget"):
        assert shell("verify", "m", option, text).code == 2
    assert shell("run", "p.py", "--out", "o", "--seeds", text).code == 2


def test_numbers_that_are_typed_so_are_taken() -> None:
    assert [whole_number(text) for text in ("0", "-3", "007")] == [0, -3, 7]
    numbers = [decimal_number(text) for text in ("0", "-1", ".5", "1.", "1e-3", "2.5E2")]
    assert numbers == [0.0, -1.0, 0.5, 1.0, 0.001, 250.0]
    assert decimal_number("1e999") is None
    assert decimal_number("nan") is None


@pytest.mark.parametrize("command", [*_NEEDED])
@pytest.mark.parametrize("text", ["x" * 5000, "x/" * 2500 + "x", "x" * 300 + ".py"])
def test_a_name_that_is_too_long_is_a_missing_file(shell: Shell, command: str, text: str) -> None:
    needed = _NEEDED[command]
    words = [text if not word.startswith("-") else word for word in needed[:1]]
    end = ("--", "true") if command == "replay" else ()
    done = shell(*command.split(), *words, *needed[1:], *end)
    assert done.code == 2
    assert done.line


def test_what_cannot_be_printed_is_one_line_and_exit_code_2(shell: Shell) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("the system has no full device")
    for words in (("explain", "checks"), ("--help",), ("verify", "--help"), ("--version",)):
        with Path("/dev/full").open("w") as full:
            done = shell.start(*words, stdout=full)
            _, err = done.communicate()
        assert (done.returncode, err) == (
            2,
            "auditkit: cannot read or write what is printed: No space left on device "
            "(auditkit explain StoreError)\n",
        )


def test_a_pipe_that_nobody_reads_is_no_news(shell: Shell) -> None:
    for words in (("explain", "checks"), ("--help",)):
        with shell.start(*words) as done:
            assert done.stdout is not None
            done.stdout.close()
            assert done.wait() == 2
            assert done.stderr is not None
            assert done.stderr.read() == ""


@pytest.mark.parametrize(("number", "name"), [(1, "output"), (2, "error")])
def test_a_closed_stream_is_one_line(shell: Shell, number: int, name: str) -> None:
    line = f'exec "{sys.executable}" -m auditkit explain checks {number}>&-'
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        env=shell.env,
        cwd=shell.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 2
    assert said.startswith(f"auditkit: standard {name} is closed; ")
    assert len(said.splitlines()) == 1
