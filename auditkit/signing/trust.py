"""Key files and the trust that this machine keeps.

The configuration folder is ``$XDG_CONFIG_HOME/auditkit``, else ``~/.config/auditkit``::

    key              the machine's own private key, made on first use, mode 0600
    key.pub          its public line; says which trusted key is the machine's own
    allowed_signers  the keys that this machine trusts, in OpenSSH's format

A key that lies beside a manifest is never trusted for lying there: only a fingerprint that the
reader got elsewhere makes it count.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from auditkit.errors import AuditError, KeyEncrypted, KeyFileError, MalformedError, StoreError
from auditkit.files import store
from auditkit.formats.quote import brief
from auditkit.records.manifest import SIGNER_NAME
from auditkit.signing.allowed_signers import NAMESPACE
from auditkit.signing.keys import (
    PrivateKey,
    TrustedKey,
    fingerprint,
    generate_key,
    is_fingerprint,
    parse_private_key,
    parse_public_keys,
    private_key_bytes,
    public_line,
)

#: Largest key or allowed_signers file, in bytes.
MAX_KEY_FILE_BYTES = 2**20

#: What a key is said to come from that was trusted for its fingerprint.
BY_FINGERPRINT = "--fingerprint"

#: Environment variables: the file of the signing key, and the password of that file.
KEY_VARIABLE = "AUDITKIT_KEY"
PASSWORD_VARIABLE = "AUDITKIT_KEY_PASSWORD"  # noqa: S105 (the name of a variable)


@dataclass(frozen=True)
class SigningKey:
    """The key that a run signs with.

    Attributes:
        key: The private key.
        fingerprint: ``SHA256:...``.
        source: The file that it comes from.
        created: Whether it was made just now, which the user must be told.
    """

    key: PrivateKey
    fingerprint: str
    source: str
    created: bool = False

    @property
    def trusted(self) -> TrustedKey:
        """Its public half, as the verifier's own."""
        return TrustedKey(self.fingerprint, self.key.public_key(), self.source, own=True)


def load_private_key(path: str | Path, password: str | None = None) -> PrivateKey:
    """Read a private key file.

    Args:
        path: PEM (PKCS8, SEC1) or OpenSSH.
        password: For an encrypted key.

    Raises:
        KeyFileError: When it cannot be read; see :func:`auditkit.signing.keys.parse_private_key`.
    """
    return parse_private_key(_read(path), password, source=str(path))


def load_public_keys(path: str | Path) -> list[TrustedKey]:
    """Read the public keys of a file: PEM, OpenSSH, ``allowed_signers``, or a private key.

    Raises:
        KeyFileError: When it cannot be read; see :func:`auditkit.signing.keys.parse_public_keys`.
    """
    return parse_public_keys(_read(path), source=str(path))


def config_folder(env: Mapping[str, str] | None = None) -> Path:
    """Where this machine keeps its key and its trust; the folder may not exist yet.

    Args:
        env: Environment variables; default this process's.

    Raises:
        KeyFileError: When the user has no home folder.
    """
    variables = os.environ if env is None else env
    base = variables.get("XDG_CONFIG_HOME", "")
    if Path(base).is_absolute():  # the specification says to ignore any other
        return Path(base, "auditkit")
    home = variables.get("HOME", "")
    try:
        return Path(home or Path.home(), ".config", "auditkit")
    except RuntimeError:
        raise KeyFileError("no home folder to keep a key in", hint="give --key FILE") from None


def default_key(env: Mapping[str, str] | None = None) -> Path:
    """The file of the machine's own key; it may not exist yet."""
    return config_folder(env) / "key"


def ensure_default_key(
    env: Mapping[str, str] | None = None,
    password: str | None = None,
    *,
    new_password: str | None = None,
) -> tuple[PrivateKey, bool]:
    """The machine's own key, made and trusted on this machine where there is none yet.

    Args:
        env: Environment variables; default this process's.
        password: For an encrypted key that is there; else ``$AUDITKIT_KEY_PASSWORD``.
        new_password: What a new key is encrypted with; without one it is not.

    Returns:
        The key, and whether it was made just now.

    Raises:
        KeyFileError: When it cannot be read.
        StoreError: When it cannot be written.
    """
    variables = os.environ if env is None else env
    path = default_key(variables)
    created = not os.path.lexists(path) and _create_key(path, new_password)
    key = _load_with_password(path, password or new_password, variables)
    if not os.path.lexists(_public_file(path)):  # also after a run that was killed in between
        _trust_own_key(path, key)
    return key, created


def machine_trust(env: Mapping[str, str] | None = None) -> list[TrustedKey]:
    """The keys that this machine trusts; its own is marked.

    Args:
        env: Environment variables; default this process's.

    Returns:
        The keys of ``allowed_signers``; none where there is no such file.

    Raises:
        KeyFileError: When a file is there and cannot be read.
    """
    folder = config_folder(env)
    trusted = folder / "allowed_signers"
    if not os.path.lexists(trusted):
        return []
    public = _public_file(default_key(env))
    own = {key.fingerprint for key in load_public_keys(public)} if public.exists() else set()
    return [replace(key, own=key.fingerprint in own) for key in load_public_keys(trusted)]


def keys_that_count(
    folder: Path,
    keys: Sequence[str | Path],
    fingerprints: Sequence[str],
    *,
    strict: bool,
    warn: Callable[[str], None],
) -> tuple[list[TrustedKey], list[TrustedKey]]:
    """The keys that count: named ones; this machine's only where none are named.

    What lies beside a manifest anybody can have put there: a file without the key of a fingerprint
    is a warning, and what is not signed by another trusted key is untrusted then.

    Args:
        folder: The manifest's folder, in which keys of fingerprints lie.
        keys: Files of public keys.
        fingerprints: Fingerprints that the reader got elsewhere.
        strict: Whether this machine's own trust is set aside.
        warn: Called with a line for a fingerprint that no key there has.

    Returns:
        The keys that count, and those of this machine that naming others set aside.

    Raises:
        KeyFileError: When a named file cannot be read, or a fingerprint is none.
    """
    named = [key for name in keys for key in load_public_keys(name)]
    for wanted in fingerprints:
        require_fingerprint(wanted)
        try:
            named.append(key_by_fingerprint(wanted, folder / SIGNER_NAME))
        except AuditError as error:
            # by its name alone: the folder of an archive is one that its reader never saw
            said = str(error).replace(str(folder / SIGNER_NAME), SIGNER_NAME)
            warn(f"--fingerprint: {said}")
    here = [] if strict else machine_trust()
    if not keys and not fingerprints:
        return here, []
    own = {key.fingerprint for key in here if key.own}
    known = {key.fingerprint for key in named}
    counting = [replace(key, own=key.own or key.fingerprint in own) for key in named]
    return counting, [key for key in here if key.fingerprint not in known]


def signing_key(
    path: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    password: str | None = None,
) -> SigningKey:
    """The key to sign with: ``path``, else ``$AUDITKIT_KEY``, else the machine's own.

    Args:
        path: What ``--key`` was given.
        env: Environment variables; default this process's.
        password: For an encrypted key; else ``$AUDITKIT_KEY_PASSWORD``.

    Raises:
        KeyEncrypted: When it is encrypted and there is no password.
        KeyFileError: When the key cannot be read.
        StoreError: When the machine's own key cannot be written.
    """
    variables = os.environ if env is None else env
    named = path if path is not None else variables.get(KEY_VARIABLE) or None
    if named is not None:
        key = _load_with_password(named, password, variables)
        return SigningKey(key, fingerprint(key), str(named))
    key, created = ensure_default_key(variables, password)
    return SigningKey(key, fingerprint(key), str(default_key(variables)), created)


def require_fingerprint(text: str) -> None:
    """Require a text to be a fingerprint.

    Raises:
        KeyFileError: When it is none.
    """
    if not is_fingerprint(text):
        raise KeyFileError(
            f"{brief(text)} is no fingerprint",
            hint="it looks like SHA256: and 43 characters, as ssh-keygen -lf prints it",
        )


def key_by_fingerprint(wanted: str, candidates_file: str | Path) -> TrustedKey:
    """The key of a fingerprint that the reader got elsewhere, from a file that is not trusted.

    Args:
        wanted: ``SHA256:...``, e.g. from the paper.
        candidates_file: Usually ``signer.pub`` beside the manifest.

    Returns:
        The one key of the file that has exactly this fingerprint.

    Raises:
        KeyFileError: When the fingerprint is malformed, or no key of the file has it.
    """
    require_fingerprint(wanted)
    candidates = load_public_keys(candidates_file)
    for key in candidates:
        if key.fingerprint == wanted:
            return TrustedKey(key.fingerprint, key.public_key, BY_FINGERPRINT)
    raise KeyFileError(
        "no key with that fingerprint",
        expected=wanted,
        found=", ".join(key.fingerprint for key in candidates),
        where=str(candidates_file),
    )


def _load_with_password(
    path: str | Path, password: str | None, variables: Mapping[str, str]
) -> PrivateKey:
    try:
        return load_private_key(path, password or variables.get(PASSWORD_VARIABLE))
    except KeyEncrypted as error:
        hint = f"where no terminal can ask, ${PASSWORD_VARIABLE} holds it"
        raise KeyEncrypted(error.message, where=error.where, hint=hint) from None


def _read(path: str | Path) -> bytes:
    try:
        return store.read_bytes(path, max_bytes=MAX_KEY_FILE_BYTES, what="a key file")
    except StoreError as error:
        raise KeyFileError(error.message) from error
    except MalformedError as error:
        raise KeyFileError(error.message, where=str(path)) from error


def _create_key(path: Path, password: str | None) -> bool:
    """Make the machine's key; False where another process made it in the meantime."""
    key = generate_key()
    store.make_folder(path.parent, private=True)
    try:
        store.write_bytes(path, private_key_bytes(key, password), private=True, replace=False)
    except StoreError:
        if os.path.lexists(path):
            return False
        raise
    return True


def _public_file(path: Path) -> Path:
    return path.with_name(path.name + ".pub")


def _trust_own_key(path: Path, key: PrivateKey) -> None:
    """Add the machine's key to what it trusts, once: its public file, written last, is the mark."""
    line = public_line(key) + "\n"
    trusted = path.with_name("allowed_signers")
    known = _read(trusted) if os.path.lexists(trusted) else b""
    if known and not known.endswith(b"\n"):
        known += b"\n"
    own = f'self namespaces="{NAMESPACE}" {line}'
    store.write_bytes(trusted, known + own.encode("ascii"), private=True)
    store.write_text(_public_file(path), line)
