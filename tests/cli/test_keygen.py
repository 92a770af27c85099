"""``auditkit keygen``: private files, never overwritten."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cli_shell import Shell, names_in

from auditkit.signing.keys import fingerprint
from auditkit.signing.trust import load_private_key, load_public_keys


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    folder = tmp_path / "user"
    folder.mkdir()
    return Shell(folder)


def mode_of(path: Path) -> int:
    """Permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_pair_is_made_with_a_private_private_half(shell: Shell) -> None:
    held = os.umask(0)
    try:
        done = shell("keygen", "--out", "mine")
    finally:
        os.umask(held)
    private, public = shell.folder / "mine", shell.folder / "mine.pub"
    key = load_private_key(private)
    assert mode_of(private) == 0o600
    assert [known.fingerprint for known in load_public_keys(public)] == [fingerprint(key)]
    assert done.out.splitlines() == [
        "private key: mine",
        "public key: mine.pub",
        f"fingerprint: {fingerprint(key)}",
    ]
    assert names_in(shell.folder) == ["mine", "mine.pub"]


def test_a_key_of_ones_own_is_not_trusted_by_this_machine(shell: Shell) -> None:
    shell("keygen", "--out", "mine")
    assert not (shell.folder / "config").exists()


@pytest.mark.parametrize("existing", ["mine", "mine.pub"])
def test_an_existing_file_is_never_overwritten(shell: Shell, existing: str) -> None:
    path = shell.write(existing, "precious")
    done = shell("keygen", "--out", "mine")
    assert done.code == 2
    assert done.line == (
        f"--out '{existing}': exists already, and a key is never overwritten; name a new file"
    )
    assert path.read_text() == "precious"
    assert names_in(shell.folder) == [existing]


def test_a_link_to_nowhere_is_not_followed(shell: Shell) -> None:
    (shell.folder / "mine").symlink_to("elsewhere")
    assert shell("keygen", "--out", "mine").code == 2
    assert not (shell.folder / "elsewhere").exists()


def test_a_folder_that_does_not_exist_is_one_line(shell: Shell) -> None:
    done = shell("keygen", "--out", "no/where")
    assert done.code == 2
    assert "--out 'no/where': cannot be written: there is no folder 'no'" in done.line


def test_the_machines_key_is_made_once_private_and_used_again(shell: Shell) -> None:
    first, second = shell("keygen"), shell("keygen")
    path = shell.folder / "config" / "auditkit" / "key"
    key = fingerprint(load_private_key(path))
    assert first.out == f"made: {path}\nfingerprint: {key}\n"
    assert second.out == f"already there: {path}\nfingerprint: {key}\n"
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700
