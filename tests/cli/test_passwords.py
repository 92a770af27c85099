"""Passwords of keys are asked for at a terminal, taken from a variable elsewhere, never shown."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from cli_shell import PATIENCE, Shell
from click.testing import CliRunner

from auditkit.cli import main, passwords
from auditkit.signing.envelopes import open_envelope, sign_statement
from auditkit.signing.keys import fingerprint, generate_key, private_key_bytes
from auditkit.signing.trust import load_private_key

PASSWORD = "correct horse"  # noqa: S105 # of a test's own key
KEY = generate_key()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    folder = tmp_path / "user"
    folder.mkdir()
    shell = Shell(folder)
    (folder / "key").write_bytes(private_key_bytes(KEY, PASSWORD))
    statement = b'{"predicateType":"urn:test"}'
    (folder / "manifest.json").write_bytes(sign_statement(statement, generate_key()))
    return shell


def signers(shell: Shell) -> list[str | None]:
    envelope = open_envelope((shell.folder / "manifest.json").read_bytes())
    return [signature.keyid for signature in envelope.signatures]


def at_a_terminal(shell: Shell, answers: list[str], *arguments: str) -> tuple[int, str]:
    """Run a command in a real terminal, answering its questions; exit code and what was shown."""
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "auditkit", *arguments],
        cwd=shell.folder,
        env=shell.env,
        stdin=there,
        stdout=there,
        stderr=there,
        start_new_session=True,
    )
    os.close(there)
    shown, waiting, end = "", list(answers), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if not select.select([here], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(here, 4096)
        except OSError:  # how Linux tells that the other side is closed
            break
        if not data:
            break
        shown += data.decode()
        if waiting and shown.rstrip().endswith(":"):
            os.write(here, waiting.pop(0).encode() + b"\n")
            shown += "|"
    os.close(here)
    return process.wait(timeout=PATIENCE), shown


def test_a_terminal_is_asked_and_shows_no_password(shell: Shell) -> None:
    code, shown = at_a_terminal(shell, [PASSWORD], "sign", "manifest.json", "--key", "key")
    assert code == 0, shown
    assert shown.startswith("password of key:")
    assert PASSWORD not in shown
    assert signers(shell)[1:] == [fingerprint(KEY)]


def test_a_wrong_answer_is_one_line_and_signs_nothing(shell: Shell) -> None:
    code, shown = at_a_terminal(shell, ["other"], "sign", "manifest.json", "--key", "key")
    assert code == 2
    assert "key: the password is wrong or the key is damaged" in shown
    assert len(signers(shell)) == 1


def test_nobody_is_asked_where_there_is_no_terminal(shell: Shell) -> None:
    done = shell("sign", "manifest.json", "--key", "key")
    assert done.code == 2
    assert done.line == (
        "key: the key is encrypted: give its password; "
        "where no terminal can ask, $AUDITKIT_KEY_PASSWORD holds it"
    )
    assert len(signers(shell)) == 1


def test_the_variable_answers_without_a_terminal(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITKIT_KEY_PASSWORD", PASSWORD)
    assert shell("sign", "manifest.json", "--key", "key").code == 0
    assert signers(shell)[1:] == [fingerprint(KEY)]


def test_an_unencrypted_key_asks_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    (shell.folder / "key").write_bytes(private_key_bytes(KEY))
    monkeypatch.setattr(passwords, "at_terminal", lambda: True)
    monkeypatch.setattr(click, "prompt", lambda *_, **__: pytest.fail("asked"))
    assert shell("sign", "manifest.json", "--key", "key").code == 0


def test_a_key_is_made_with_a_password_that_is_given_twice(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "at_terminal", lambda: True)
    monkeypatch.chdir(shell.folder)
    arguments = ["keygen", "--out", "new", "--encrypt"]
    answers = "one\ntwo\npw\npw\n"
    done = CliRunner().invoke(main, arguments, input=answers, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    key = load_private_key(shell.folder / "new", "pw")
    assert done.stdout.splitlines()[-1] == f"fingerprint: {fingerprint(key)}"


def test_a_key_is_made_with_the_variables_password(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITKIT_KEY_PASSWORD", PASSWORD)
    assert shell("keygen", "--out", "new", "--encrypt").code == 0
    load_private_key(shell.folder / "new", PASSWORD)
    assert shell("keygen", "--out", "plain").code == 0  # unasked, nothing is encrypted
    load_private_key(shell.folder / "plain")


def test_the_machines_key_can_be_encrypted_and_is_asked_for(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("AUDITKIT_KEY_PASSWORD", PASSWORD)
        made = shell("keygen", "--encrypt")
        assert made.code == 0
        assert shell("keygen").out == made.out.replace("made", "already there")
    assert "is encrypted: give its password" in shell("keygen").line
    refused = shell("keygen", "--encrypt")
    assert (refused.code, refused.line.endswith("a key is never overwritten")) == (2, True)
    code, shown = at_a_terminal(shell, [PASSWORD], "sign", "manifest.json")
    assert code == 0, shown
    assert made.out.split()[-1] in signers(shell)


def test_no_key_is_made_where_its_password_cannot_be_asked_for(shell: Shell) -> None:
    for arguments in (["keygen", "--encrypt"], ["keygen", "--encrypt", "--out", "new"]):
        done = shell(*arguments)
        assert done.code == 2
        assert done.line.startswith("no password to encrypt the key with; ")
    assert sorted(path.name for path in shell.folder.iterdir()) == ["key", "manifest.json"]
