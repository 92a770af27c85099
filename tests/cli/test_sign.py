"""``auditkit sign``: a second signature, and nothing else, is written."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cli_shell import Shell, names_in

from auditkit.cli import manifest_update
from auditkit.cli.manifest_update import rewrite
from auditkit.files import locks
from auditkit.signing.envelopes import open_envelope, sign_statement
from auditkit.signing.keys import (
    PrivateKey,
    TrustedKey,
    fingerprint,
    generate_key,
    private_key_bytes,
)
from auditkit.signing.signatures import check_signatures
from auditkit.signing.trust import SigningKey

AUTHOR, REPRODUCER = generate_key(), generate_key()
STATEMENT = b'{"predicateType":"urn:auditkit:branch-and-hold:v1", "spaces": "kept"}'


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(sign_statement(STATEMENT, AUTHOR))
    (folder / "mine").write_bytes(private_key_bytes(REPRODUCER))
    return Shell(folder)


def trust(key: PrivateKey) -> TrustedKey:
    return TrustedKey(fingerprint(key), key.public_key(), "test")


def test_author_and_reproducer_both_stand_for_the_same_bytes(shell: Shell) -> None:
    done = shell("sign", "manifest.json", "--key", "mine")
    assert done.code == 0
    envelope = open_envelope((shell.folder / "manifest.json").read_bytes())
    assert envelope.payload == STATEMENT
    outcome = check_signatures(envelope, [trust(AUTHOR), trust(REPRODUCER)], 2)
    assert len(outcome.signers) == 2
    assert done.out.splitlines() == [
        "signed: manifest.json, now with 2 signatures",
        f"by: {fingerprint(REPRODUCER)}",
        "statement: urn:auditkit:branch-and-hold:v1, unchanged",
        f"its sha256: {hashlib.sha256(STATEMENT).hexdigest()}",
    ]
    assert names_in(shell.folder) == ["manifest.json", "mine"]


def test_signing_twice_changes_no_byte(shell: Shell) -> None:
    path = shell.folder / "manifest.json"
    shell("sign", "manifest.json", "--key", "mine")
    before, inode = path.read_bytes(), path.stat().st_ino
    done = shell("sign", "manifest.json", "--key", "mine")
    assert done.code == 0
    assert done.out == (
        f"{fingerprint(REPRODUCER)} has signed manifest.json already; nothing was written\n"
    )
    assert (path.read_bytes(), path.stat().st_ino) == (before, inode)


def test_without_a_key_this_machines_signs_and_is_made_first(shell: Shell) -> None:
    done = shell("sign", "manifest.json")
    assert done.code == 0
    assert "made a signing key, SHA256:" in done.line
    again = shell("sign", "manifest.json")
    assert (again.code, again.err) == (0, "")
    assert "already" in again.out


def test_signatures_that_are_added_at_the_same_time_are_all_kept(shell: Shell) -> None:
    path = shell.folder / "manifest.json"
    others = [generate_key() for _ in range(6)]
    before = names_in(shell.folder)
    for n, key in enumerate(others):
        (shell.folder / f"key{n}").write_bytes(private_key_bytes(key))
    processes = [shell.start("sign", str(path), "--key", f"key{n}") for n in range(6)]
    assert [(process.communicate(timeout=120)[1], process.wait()) for process in processes] == [
        ("", 0)
    ] * 6
    trusted = [trust(key) for key in (AUTHOR, *others)]
    check_signatures(open_envelope(path.read_bytes()), trusted, 7)
    assert names_in(shell.folder) == sorted([*before, *(f"key{n}" for n in range(6))])


def test_no_addition_is_lost_between_reading_and_writing(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(b"")

    def add(n: int) -> bytes | None:
        def change(data: bytes) -> bytes:
            time.sleep(0.005)  # long enough for the others to read the same
            return data + bytes([n])

        return rewrite(path, change)

    with ThreadPoolExecutor(8) as threads:
        written = list(threads.map(add, range(24)))
    assert sorted(path.read_bytes()) == list(range(24))
    assert sorted(len(data or b"") for data in written) == list(range(1, 25))
    assert names_in(tmp_path) == ["manifest.json"]


def test_who_does_not_let_go_is_not_waited_for_forever(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shell.folder / "manifest.json"
    before = path.read_bytes()
    monkeypatch.setattr(manifest_update, "PATIENCE", 0.1)
    with locks.lock(shell.folder / ".manifest.json.lock.partial"):
        done = shell("sign", "manifest.json", "--key", "mine")
    assert done.code == 2
    assert "another process is writing here" in done.line
    assert path.read_bytes() == before


def test_a_manifest_that_becomes_another_is_not_signed(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shell.folder / "manifest.json"
    other = sign_statement(b'{"predicateType":"other"}', AUTHOR)

    def slow_typist(_: str | None) -> SigningKey:
        path.write_bytes(other)
        return SigningKey(REPRODUCER, fingerprint(REPRODUCER), "mine")

    monkeypatch.setattr("auditkit.cli.sign.signing_key_of", slow_typist)
    done = shell("sign", "manifest.json")
    assert done.code == 2
    assert "it was changed in the meantime" in done.line
    assert path.read_bytes() == other
    assert names_in(shell.folder) == ["manifest.json", "mine"]


MALFORMED = {
    "not JSON": b"{",
    "no envelope": b"{}",
    "no statement": sign_statement(b"hello", AUTHOR),
    "no type": sign_statement(b"{}", AUTHOR),
    "duplicate keys": sign_statement(b'{"predicateType":"a","predicateType":"b"}', AUTHOR),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_malformed_is_not_signed(shell: Shell, case: str) -> None:
    path = shell.folder / "manifest.json"
    path.write_bytes(MALFORMED[case])
    done = shell("sign", "manifest.json", "--key", "mine")
    assert done.code == 5
    assert done.line.startswith("manifest.json: ")
    assert path.read_bytes() == MALFORMED[case]


def test_no_key_is_made_for_a_file_that_cannot_be_signed(shell: Shell) -> None:
    assert shell("sign", "nothing.json").code == 2
    (shell.folder / "manifest.json").write_bytes(b"{")
    assert shell("sign", "manifest.json").code == 5
    assert not (shell.folder / "config").exists()


def test_a_type_from_the_file_is_printed_on_one_line(shell: Shell) -> None:
    statement = b'{"predicateType":"urn:a\\u001b[2J\\nsigned: other"}'
    (shell.folder / "manifest.json").write_bytes(sign_statement(statement, AUTHOR))
    done = shell("sign", "manifest.json", "--key", "mine")
    assert done.out.splitlines()[2] == r"statement: urn:a\x1b[2J\nsigned: other, unchanged"
