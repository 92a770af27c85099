from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from auditkit.errors import KeyEncrypted, KeyFileError, StoreError
from auditkit.files import store
from auditkit.signing import keys, trust


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path / "home")}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_follows_the_xdg_specification() -> None:
    home = {"HOME": "/home/x"}
    assert trust.config_folder({**home, "XDG_CONFIG_HOME": "/c"}) == Path("/c/auditkit")
    for ignored in ("", "relative"):
        found = trust.config_folder({**home, "XDG_CONFIG_HOME": ignored})
        assert found == Path("/home/x/.config/auditkit")


def test_the_first_use_makes_a_private_trusted_key(env: dict[str, str]) -> None:
    assert trust.machine_trust(env) == []
    first = trust.signing_key(None, env)
    again = trust.signing_key(None, env)
    assert first.created
    assert not again.created
    assert first.fingerprint == again.fingerprint
    folder = trust.config_folder(env)
    assert mode_of(folder) == 0o700
    assert mode_of(folder / "key") == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["allowed_signers", "key", "key.pub"]
    trusted = trust.machine_trust(env)
    assert [(key.fingerprint, key.own) for key in trusted] == [(first.fingerprint, True)]


def test_no_file_names_a_person(env: dict[str, str]) -> None:
    trust.ensure_default_key(env)
    folder = trust.config_folder(env)
    assert len((folder / "key.pub").read_text().split()) == 2
    assert (folder / "allowed_signers").read_text().startswith('self namespaces="auditkit" ssh-')


def test_trust_that_is_there_is_kept(env: dict[str, str]) -> None:
    folder = trust.config_folder(env)
    folder.mkdir(parents=True)
    other = keys.generate_key()
    (folder / "allowed_signers").write_text(f"bob@x {keys.public_line(other)}")
    key, created = trust.ensure_default_key(env)
    assert created
    assert [(k.fingerprint, k.own) for k in trust.machine_trust(env)] == [
        (keys.fingerprint(other), False),
        (keys.fingerprint(key), True),
    ]


def test_trust_that_was_taken_back_stays_so(env: dict[str, str]) -> None:
    trust.ensure_default_key(env)
    (trust.config_folder(env) / "allowed_signers").unlink()
    trust.ensure_default_key(env)
    assert trust.machine_trust(env) == []


def test_a_run_killed_after_making_the_key_is_caught_up_with(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "_trust_own_key", lambda *_: None)
    trust.ensure_default_key(env)
    monkeypatch.undo()
    _, created = trust.ensure_default_key(env)
    assert not created
    assert [key.own for key in trust.machine_trust(env)] == [True]


def test_two_processes_end_with_one_key(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = keys.generate_key

    def slow() -> object:
        monkeypatch.setattr(trust, "generate_key", generate)
        trust.ensure_default_key(env)  # the other process is faster
        return generate()

    monkeypatch.setattr(trust, "generate_key", slow)
    key, created = trust.ensure_default_key(env)
    assert not created
    assert [k.fingerprint for k in trust.machine_trust(env)] == [keys.fingerprint(key)]


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        trust.signing_key(None, {"XDG_CONFIG_HOME": str(tmp_path / "file")})


def test_the_named_key_comes_before_the_environments_before_the_machines(
    env: dict[str, str], tmp_path: Path
) -> None:
    named, other = keys.generate_key(), keys.generate_key()
    store.write_bytes(tmp_path / "named", keys.private_key_bytes(named))
    store.write_bytes(tmp_path / "other", keys.private_key_bytes(other, "pw"))
    env["AUDITKIT_KEY"] = str(tmp_path / "other")
    found = trust.signing_key(tmp_path / "named", env)
    with pytest.raises(KeyFileError):  # no name is not the machine's key
        trust.signing_key("", env)
    assert (found.fingerprint, found.source) == (
        keys.fingerprint(named),
        str(tmp_path / "named"),
    )
    with pytest.raises(KeyFileError, match="encrypted"):
        trust.signing_key(None, env)
    wanted = keys.fingerprint(other)
    assert trust.signing_key(None, env, "pw").fingerprint == wanted
    assert trust.signing_key(None, {**env, "AUDITKIT_KEY_PASSWORD": "pw"}).fingerprint == wanted
    assert not trust.config_folder(env).exists()


def test_the_machines_key_can_be_encrypted(env: dict[str, str]) -> None:
    key, created = trust.ensure_default_key(env, new_password="pw")  # noqa: S106
    assert created
    path = trust.default_key(env)
    assert b"ENCRYPTED" in path.read_bytes()
    assert mode_of(path) == 0o600
    assert [k.own for k in trust.machine_trust(env)] == [True]  # that needs no password
    with pytest.raises(
        KeyEncrypted, match=r"give its password; .*\$AUDITKIT_KEY_PASSWORD holds it"
    ):
        trust.signing_key(None, env)
    with pytest.raises(KeyFileError, match="password is wrong"):
        trust.signing_key(None, env, "other")
    for found in (
        trust.signing_key(None, env, "pw"),
        trust.signing_key(None, {**env, "AUDITKIT_KEY_PASSWORD": "pw"}),
    ):
        assert found.fingerprint == keys.fingerprint(key)


def test_a_password_that_is_not_for_it_encrypts_no_new_key(env: dict[str, str]) -> None:
    trust.signing_key(None, {**env, "AUDITKIT_KEY_PASSWORD": "for another key"}, "neither")
    assert b"ENCRYPTED" not in trust.default_key(env).read_bytes()


def test_who_is_trusted_is_known_by_name(env: dict[str, str]) -> None:
    trust.ensure_default_key(env)
    trusted = trust.config_folder(env) / "allowed_signers"
    bob = keys.public_line(keys.generate_key())
    trusted.write_text(trusted.read_text() + f"bob@x,robert@x {bob}\n")
    found = [(key.own, key.principals) for key in trust.machine_trust(env)]
    assert found == [(True, ("self",)), (False, ("bob@x", "robert@x"))]


def test_key_files_that_cannot_be_read_are_key_file_errors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"#" * (trust.MAX_KEY_FILE_BYTES + 1))
    for name in ("none", "fifo", "large", "."):
        for load in (trust.load_private_key, trust.load_public_keys):
            with pytest.raises(KeyFileError) as caught:
                load(tmp_path / name)
            assert "\n" not in str(caught.value)


def test_broken_trust_is_an_error_not_an_empty_list(env: dict[str, str]) -> None:
    folder = trust.config_folder(env)
    folder.mkdir(parents=True)
    (folder / "allowed_signers").write_text("garbage\n")
    with pytest.raises(KeyFileError, match="line 1"):
        trust.machine_trust(env)


def test_a_fingerprint_picks_the_key_of_a_file_that_is_not_trusted(tmp_path: Path) -> None:
    pair = [keys.generate_key() for _ in range(2)]
    path = tmp_path / "signer.pub"
    path.write_text("".join(keys.public_line(key) + "\n" for key in pair))
    wanted = keys.fingerprint(pair[1])
    found = trust.key_by_fingerprint(wanted, path)
    assert (found.fingerprint, found.own, found.source) == (wanted, False, "--fingerprint")
    assert found.public_key == pair[1].public_key()
    stranger = keys.fingerprint(keys.generate_key())
    with pytest.raises(KeyFileError, match="no key with that fingerprint"):
        trust.key_by_fingerprint(stranger, path)
    for malformed in ("", "SHA256:", wanted[:-1], wanted + "=", wanted + "\n", wanted.lower()):
        with pytest.raises(KeyFileError, match="is no fingerprint"):
            trust.key_by_fingerprint(malformed, path)
    with pytest.raises(KeyFileError, match="No such file"):
        trust.key_by_fingerprint(wanted, tmp_path / "none")
