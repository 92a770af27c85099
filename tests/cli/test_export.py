"""``auditkit export``: a new file in another tool's form; the manifest is only read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_shell import Shell, names_in

from auditkit.signing.envelopes import add_signature, sign_statement
from auditkit.signing.keys import fingerprint, generate_key
from auditkit.signing.sigstore_bundle import to_bundle

AUTHOR, REPRODUCER = generate_key(), generate_key()
EXPORT = ("export", "manifest.json", "--format", "sigstore", "--out", "bundle.json")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(sign_statement(b"{}", AUTHOR))
    return Shell(folder)


def test_a_bundle_is_written_once_beside_the_manifest(shell: Shell) -> None:
    before = (shell.folder / "manifest.json").read_bytes()
    done = shell(*EXPORT)
    assert (done.code, done.out) == (0, "bundle: bundle.json\n")
    assert (shell.folder / "bundle.json").read_bytes() == to_bundle(before)
    assert shell(*EXPORT).code == 2  # nothing is overwritten
    assert (shell.folder / "manifest.json").read_bytes() == before
    assert names_in(shell.folder) == ["bundle.json", "manifest.json"]


def test_one_of_several_signatures_is_named(shell: Shell) -> None:
    path = shell.folder / "manifest.json"
    path.write_bytes(add_signature(path.read_bytes(), REPRODUCER))
    refused = shell(*EXPORT)
    assert (refused.code, refused.line.endswith("say which with --by")) == (2, True)
    assert shell(*EXPORT, "--by", fingerprint(REPRODUCER)).code == 0
    bundle = json.loads((shell.folder / "bundle.json").read_bytes())
    hint = bundle["verificationMaterial"]["publicKey"]["hint"]
    assert hint == fingerprint(REPRODUCER)


def test_a_malformed_manifest_and_another_format_are_refused(shell: Shell) -> None:
    assert shell(*EXPORT[:3], "ro-crate", *EXPORT[4:]).code == 2
    (shell.folder / "manifest.json").write_bytes(b"{}")
    assert shell(*EXPORT).code == 5
    assert names_in(shell.folder) == ["manifest.json"]
