"""Keys: their kinds, their text forms and their fingerprints. No files, no trust decisions.

Two kinds are supported: Ed25519 (what auditkit makes) and ECDSA on P-256 with SHA-256. A key is
named by its OpenSSH fingerprint ``SHA256:...``, the one that ``ssh-keygen -lf`` prints.

Read are PEM (PKCS8, SEC1, SPKI), OpenSSH private keys, OpenSSH one-line public keys, and OpenSSH
``allowed_signers`` files. Of the latter's options ``namespaces``, ``valid-after`` and
``valid-before`` are kept to; a line that does not allow the namespace ``auditkit`` today is
skipped, as ssh-keygen skips it.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from auditkit.errors import KeyFileError
from auditkit.quote import brief

PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey

#: OpenSSH namespace that an ``allowed_signers`` line must allow, where it names any.
NAMESPACE = "auditkit"

_KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256")
_SUPPORTED = "supported are Ed25519 and ECDSA P-256"
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
# no dash inside, so that a file of many beginnings is still read in linear time
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----[^-]*+-----END \1-----")
_KEY_TYPE = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-[A-Za-z0-9@.-]+", re.ASCII)
# words divided by blanks; a quoted part may hold blanks
_WORD = re.compile(r'(?:"[^"]*"|[^\s"])+')
_OPTION = re.compile(r'([A-Za-z-]+)(?:="([^"]*)")?(?:,|$)', re.ASCII)


@dataclass(frozen=True)
class TrustedKey:
    """A public key that the verifier trusts.

    Attributes:
        fingerprint: ``SHA256:...``.
        public_key: The key.
        source: Where the trust comes from, for people: a path, ``--fingerprint`` ...
        own: Whether this machine, or the verifier, holds the private key.
    """

    fingerprint: str
    public_key: PublicKey
    source: str
    own: bool = False


def generate_key() -> Ed25519PrivateKey:
    """A new Ed25519 key."""
    return Ed25519PrivateKey.generate()


def public_line(key: PrivateKey | PublicKey, comment: str = "") -> str:
    """The OpenSSH one-line form of a public key, without a line end.

    Args:
        key: The key, or its private half.
        comment: Stands at the end. Empty by default: it usually names a person or a machine, and
            a submission under double-blind review must not.
    """
    line = _public(key).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
    return f"{line} {comment}" if comment else line


def fingerprint(key: PrivateKey | PublicKey) -> str:
    """The OpenSSH fingerprint of a key: ``SHA256:`` and 43 base64 characters."""
    blob = base64.b64decode(public_line(key).split()[1])
    digest = base64.b64encode(hashlib.sha256(blob).digest())
    return "SHA256:" + digest.decode("ascii").rstrip("=")


def is_fingerprint(text: str) -> bool:
    """Whether a text has the form of an OpenSSH SHA-256 fingerprint."""
    return _FINGERPRINT.fullmatch(text) is not None


def private_key_bytes(key: PrivateKey, password: str | None = None) -> bytes:
    """PKCS8 PEM of a private key, encrypted where there is a password."""
    encryption: KeySerializationEncryption = NoEncryption()
    if password:
        encryption = BestAvailableEncryption(password.encode("utf-8"))
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def sign_bytes(key: PrivateKey, message: bytes) -> bytes:
    """Sign: 64 bytes for Ed25519, DER for ECDSA P-256 with SHA-256."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    return key.sign(message, ec.ECDSA(SHA256()))


def verifies(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether a signature of a message is this key's."""
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def parse_private_key(data: bytes, password: str | None = None, *, source: str) -> PrivateKey:
    """Read a private key: PEM or OpenSSH, encrypted or not.

    Args:
        data: Content of the file.
        password: For an encrypted key; ignored where the key is not encrypted.
        source: The file, for error messages.

    Raises:
        KeyFileError: When it is no private key, of an unsupported kind, or encrypted with
            another password.
    """
    if not data.strip():
        raise KeyFileError("the key file is empty", where=source)
    if b"PRIVATE KEY-----" not in data:
        raise KeyFileError("it holds no private key", where=source)
    load = load_ssh_private_key if b"BEGIN OPENSSH" in data else load_pem_private_key
    secret = password.encode("utf-8") if password else None
    try:
        try:
            key = load(data, None)
        except TypeError:  # it is encrypted
            if secret is None:
                raise KeyFileError(
                    "the key is encrypted: give its password", where=source
                ) from None
            key = load(data, secret)
    except UnsupportedAlgorithm as error:
        raise _unsupported(error, source) from None
    except (ValueError, TypeError):
        reason = "the password is wrong or the key is damaged" if secret else "the key is damaged"
        raise KeyFileError(reason, where=source) from None
    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise KeyFileError(f"unsupported kind of key: {_SUPPORTED}", where=source)


def parse_public_keys(data: bytes, *, source: str, now: datetime | None = None) -> list[TrustedKey]:
    """Read public keys: PEM, OpenSSH lines, ``allowed_signers``, or a private key's own half.

    Args:
        data: Content of the file.
        source: The file, for error messages and for :attr:`TrustedKey.source`.
        now: The time at which ``valid-after`` and ``valid-before`` are judged; default now.

    Returns:
        At least one key; ``own`` is True for a private key.

    Raises:
        KeyFileError: When there is none, or something is no key; with its line number.
    """
    if not data.strip():
        raise KeyFileError("the key file is empty", where=source)
    if b"PRIVATE KEY-----" in data:
        return [_trusted(_public(parse_private_key(data, source=source)), source, own=True)]
    if b"-----BEGIN" in data:
        return _pem_keys(data, source)
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise KeyFileError("it is no key file", where=source) from None
    moment = now or datetime.now(UTC)
    found = [_line_key(line, f"{source}, line {n}", moment) for n, line in enumerate(lines, 1)]
    keys = [_trusted(key, source) for key in found if key is not None]
    if not keys:
        raise KeyFileError(f"it holds no key that may sign for {NAMESPACE!r} today", where=source)
    return keys


def _public(key: PrivateKey | PublicKey) -> PublicKey:
    if isinstance(key, (Ed25519PrivateKey, ec.EllipticCurvePrivateKey)):
        return key.public_key()
    return key


def _trusted(key: PublicKey, source: str, *, own: bool = False) -> TrustedKey:
    return TrustedKey(fingerprint(key), key, source, own)


def _unsupported(error: UnsupportedAlgorithm, source: str) -> KeyFileError:
    if "bcrypt" in str(error):
        return KeyFileError(
            "an encrypted OpenSSH key needs the package bcrypt",
            where=source,
            hint="pip install bcrypt, or remove the password with ssh-keygen -p",
        )
    return KeyFileError(f"unsupported kind of key: {_SUPPORTED}", where=source)


def _checked(key: object, source: str) -> PublicKey:
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise KeyFileError(f"unsupported kind of key: {_SUPPORTED}", where=source)


def _pem_keys(data: bytes, source: str) -> list[TrustedKey]:
    keys = []
    for block in _PEM.finditer(data):
        if block[1] != b"PUBLIC KEY":
            raise KeyFileError(f"it holds a {block[1].decode().lower()}, no key", where=source)
        try:
            keys.append(_trusted(_checked(load_pem_public_key(block[0]), source), source))
        except UnsupportedAlgorithm as error:
            raise _unsupported(error, source) from None
        except ValueError:
            raise KeyFileError("the key is damaged", where=source) from None
    if not keys:
        raise KeyFileError("the key is damaged", where=source)
    return keys


def _line_key(line: str, where: str, now: datetime) -> PublicKey | None:
    """The key of one line; None for a comment or a line that does not apply."""
    words = _WORD.findall(line)
    if not words or words[0].startswith("#"):
        return None
    at = next((n for n, word in enumerate(words[:3]) if _KEY_TYPE.fullmatch(word)), None)
    if at is None or len(words) < at + 2:
        raise KeyFileError(f"no key in {brief(line.strip(), 40)}", where=where)
    if words[at] not in _KINDS:
        raise KeyFileError(f"unsupported kind of key {brief(words[at])}: {_SUPPORTED}", where=where)
    try:
        key = _checked(load_ssh_public_key(" ".join(words[at : at + 2]).encode("utf-8")), where)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError("the key is damaged", where=where) from None
    applies = at < 2 or _applies(_options(words[1], where), now, where)
    return key if applies else None


def _options(text: str, where: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _OPTION.match(text, position)
        if match is None or match[1].lower() not in ("namespaces", "valid-after", "valid-before"):
            raise KeyFileError(f"unsupported option in {brief(text)}", where=where)
        found[match[1].lower()] = match[2] or ""
        position = match.end()
    return found


def _applies(options: Mapping[str, str], now: datetime, where: str) -> bool:
    patterns = options.get("namespaces", NAMESPACE).split(",")
    if not any(fnmatch.fnmatchcase(NAMESPACE, pattern) for pattern in patterns):
        return False
    if "valid-after" in options and now < _time(options["valid-after"], where):
        return False
    return not ("valid-before" in options and now >= _time(options["valid-before"], where))


def _time(text: str, where: str) -> datetime:
    """A time as OpenSSH writes it: YYYYMMDD[HHMM[SS]], local unless it ends in Z."""
    formats = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
    digits = text.removesuffix("Z")
    try:
        time = datetime.strptime(digits, formats[len(digits)])
        return time.replace(tzinfo=UTC) if text.endswith("Z") else time.astimezone()
    except (KeyError, ValueError, OverflowError):
        raise KeyFileError(f"{brief(text)} is no time", where=where) from None
