"""Keys: their kinds, their text forms and their fingerprints. No files, no trust decisions.

Two kinds are supported: Ed25519 (what auditkit makes) and ECDSA on P-256 with SHA-256. A key is
named by its OpenSSH fingerprint ``SHA256:...``, the one that ``ssh-keygen -lf`` prints.

Read are PEM (PKCS8, SEC1, SPKI), OpenSSH private keys, OpenSSH one-line public keys, and OpenSSH
``allowed_signers`` files (:mod:`auditkit.signing.allowed_signers`), of which a line that does not
allow the namespace ``auditkit`` today is skipped, as ssh-keygen skips it. Weak keys are refused
wherever they come from.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
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

from auditkit.errors import KeyEncrypted, KeyFileError
from auditkit.formats.quote import brief
from auditkit.signing.allowed_signers import NAMESPACE, applies, parse_line

PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey

_KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256")
_SUPPORTED = "supported are Ed25519 and ECDSA P-256"
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
# no dash inside, so that a file of many beginnings is still read in linear time
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----[^-]*+-----END \1-----")

# What damaged keys make cryptography raise, beside ValueError: InternalError where a key has not
# the length of the kind that it names, NotImplementedError where a point is not written in full.
_DAMAGE = (ValueError, InternalError, NotImplementedError)

# The prime of the field that points of the curve have their coordinates in.
_PRIME = 2**255 - 19

_ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)

# The y of the eight points whose order divides 8; each x has the same y as its negative.
_SMALL_ORDER = (0, 1, _PRIME - 1, _ORDER_8, _PRIME - _ORDER_8)


@dataclass(frozen=True)
class TrustedKey:
    """A public key that the verifier trusts.

    Attributes:
        fingerprint: ``SHA256:...``.
        public_key: The key.
        source: Where the trust comes from, for people: a path, ``--fingerprint`` ...
        own: Whether this machine, or the verifier, holds the private key.
        principals: Who that is, by the verifier's own ``allowed_signers``; else empty.
    """

    fingerprint: str
    public_key: PublicKey
    source: str
    own: bool = False
    principals: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The fingerprint, and whose key it is where that is known."""
        who = ", ".join(self.principals)
        return f"{self.fingerprint} ({who})" if who else self.fingerprint

    @property
    def identities(self) -> frozenset[str]:
        """What tells its holder from others; a negated principal (``!bob@x``) names nobody."""
        names = (name for name in self.principals if not name.startswith("!"))
        return frozenset((self.fingerprint, *names))


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


def is_bound_to_message(key: PublicKey) -> bool:
    """Whether a signature of this key can be good for one message only.

    Who makes an ECDSA key can choose it such that one signature is good for two messages
    (duplicate-signature key selection); an Ed25519 signature covers message and key.
    """
    return isinstance(key, Ed25519PublicKey)


def parse_private_key(data: bytes, password: str | None = None, *, source: str) -> PrivateKey:
    """Read a private key: PEM or OpenSSH, encrypted or not.

    Args:
        data: Content of the file.
        password: For an encrypted key; ignored where the key is not encrypted.
        source: The file, for error messages.

    Raises:
        KeyEncrypted: When it is encrypted and no password is given.
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
                raise KeyEncrypted(
                    "the key is encrypted: give its password", where=source
                ) from None
            key = load(data, secret)
    except UnsupportedAlgorithm as error:
        raise _unsupported(error, source) from None
    except (*_DAMAGE, TypeError):
        reason = "the password is wrong or the key is damaged" if secret else "the key is damaged"
        raise KeyFileError(reason, where=source) from None
    if not isinstance(key, (Ed25519PrivateKey, ec.EllipticCurvePrivateKey)):
        raise KeyFileError(f"unsupported kind of key: {_SUPPORTED}", where=source)
    _checked(key.public_key(), source)
    return key


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
        try:
            private = parse_private_key(data, source=source)
        except KeyEncrypted as error:
            raise KeyFileError(
                "the key is encrypted", where=source, hint="give its public half"
            ) from error
        return [_trusted(_public(private), source, own=True)]
    if b"-----BEGIN" in data:
        return _pem_keys(data, source)
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise KeyFileError("it is no key file", where=source) from None
    moment = now or datetime.now(UTC)
    found = [_line_key(line, n, source, moment) for n, line in enumerate(lines, 1)]
    keys = [key for key in found if key is not None]
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
            hint='pip install "auditkit[ssh]", or remove the password with ssh-keygen -p',
        )
    return KeyFileError(f"unsupported kind of key: {_SUPPORTED}", where=source)


def _checked(key: object, source: str) -> PublicKey:
    """A key of a supported kind, and not a weak one."""
    if isinstance(key, Ed25519PublicKey):
        problem = _weakness(key.public_bytes_raw())
        if problem is not None:
            raise KeyFileError(f"the key is {problem}", where=source)
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise KeyFileError(f"unsupported kind of key: {_SUPPORTED}", where=source)


def _weakness(public: bytes) -> str | None:
    """What is wrong with an Ed25519 key, as the end of "the key is ..."; None where nothing is.

    Under a key of small order anybody can make signatures of any message: with R a point of small
    order and S = 0 the equation that a verifier checks holds, and OpenSSL does not look at the key
    itself.

    Args:
        public: Its 32 bytes.
    """
    y = int.from_bytes(public, "little") & (2**255 - 1)  # the highest bit is the sign of x
    if y % _PRIME in _SMALL_ORDER:
        return "weak: it would verify any message"
    if y >= _PRIME:
        return "damaged: it is not in canonical form, which makes two keys of one"
    return None


def _pem_keys(data: bytes, source: str) -> list[TrustedKey]:
    keys = []
    for block in _PEM.finditer(data):
        if block[1] != b"PUBLIC KEY":
            raise KeyFileError(f"it holds a {block[1].decode().lower()}, no key", where=source)
        try:
            keys.append(_trusted(_checked(load_pem_public_key(block[0]), source), source))
        except UnsupportedAlgorithm as error:
            raise _unsupported(error, source) from None
        except _DAMAGE:
            raise KeyFileError("the key is damaged", where=source) from None
    if not keys:
        raise KeyFileError("the key is damaged", where=source)
    return keys


def _line_key(text: str, number: int, source: str, now: datetime) -> TrustedKey | None:
    """The key of one line; None for a comment or a line that does not apply."""
    where = f"{source}, line {number}"
    line = parse_line(text, where=where)
    if line is None:
        return None
    if line.key_type not in _KINDS:
        kind = brief(line.key_type)
        raise KeyFileError(f"unsupported kind of key {kind}: {_SUPPORTED}", where=where)
    try:
        key = _checked(load_ssh_public_key(line.key.encode("utf-8")), where)
    except (*_DAMAGE, UnsupportedAlgorithm):
        raise KeyFileError("the key is damaged", where=where) from None
    if not applies(line, now, where=where):
        return None
    return replace(_trusted(key, source), principals=line.principals)
