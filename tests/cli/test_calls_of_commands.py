from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from cli_shell import Shell
from studies import Run

import auditkit
from auditkit.cli.calls import _typed
from auditkit.cli.group import _COMMANDS, main
from auditkit.errors import StoreError, UsageError
from auditkit.signing.keys import fingerprint


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell.at(tmp_path_factory.mktemp("calls") / "user")


def test_a_command_prints_what_it_does_in_a_shell(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert auditkit.command("power", sd=2, effect=1, margin=None, json=True) == 0
    typed = shell("power", "--sd", "2", "--effect", "1", "--json")
    assert capsys.readouterr().out == typed.out


def test_files_and_exit_codes_are_those_of_the_command(
    shell: Shell, small: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = fingerprint(small.key)
    trusted = {"fingerprint": [name]}
    lists: dict[str, Any] = {"for_": ["neurips", "acm"], "format": "html"}
    page = tmp_path / "c.html"
    assert auditkit.command("checklist", small.folder, out=page, **lists, **trusted) == 0
    options = ("--for", "neurips", "--for", "acm", "--format", "html", "--fingerprint", name)
    assert shell("checklist", str(small.folder), *options).out == page.read_text()
    assert auditkit.command("checklist", small.folder, out=page, **lists) == 3  # nobody trusted
    crate = {"format": "sigstore", "out": tmp_path / "s.json"}
    assert auditkit.command("export", small.path, **crate) == 0
    capsys.readouterr()
    with pytest.raises(StoreError):  # an error of its own, and no line on stderr
        auditkit.command("show", tmp_path / "nothing")
    assert "nothing" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "arguments", "options", "words"),
    [
        ("reprot", (), {}, "there is no command 'reprot'"),
        ("power", (), {"sdd": 1}, "auditkit power has no option '--sdd'"),
        ("checklist", ("a", "b"), {}, "unexpected extra argument"),
        ("verify", ("a",), {"require": "much"}, "'much' is not one of"),
        ("replay", ("a",), {"tail": "python x.py"}, "a list of words, and not 'python x.py'"),
    ],
)
def test_what_there_is_not_is_refused(
    name: str, arguments: tuple[str, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        auditkit.command(name, *arguments, **options)


def test_options_are_typed_as_a_shell_would_have_them() -> None:
    found = main.get_command(click.Context(main), "run")
    assert found is not None
    options = {
        "perturb": ["carry", "ulp:scale=4"],
        "arg": {"data": Path("there"), "n": 3},
        "dry_run": True,
        "resume": False,
        "seeds": "0-3",
    }
    assert list(_typed(found, "run", options)) == [
        *("--perturb=carry", "--perturb=ulp:scale=4"),
        *("--arg=data=there", "--arg=n=3", "--dry-run", "--seeds=0-3"),
    ]


@pytest.mark.parametrize("name", [name for name in _COMMANDS if name != "worker"])
def test_every_command_can_be_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert auditkit.command(name, "--help") == 0
    assert "Usage:" in capsys.readouterr().out
