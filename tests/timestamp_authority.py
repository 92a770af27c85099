"""A time-stamping authority of the tests' own: certificates by cryptography, stamps by openssl."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")

POLICY = "1.3.6.1.4.1.99999.1"

_CONFIG = f"""
[tsa]
default_tsa = authority
[authority]
serial = serial
signer_digest = sha256
default_policy = {POLICY}
digests = sha256, sha384, sha512
ess_cert_id_alg = sha256
"""


@dataclass(frozen=True)
class Authority:
    """An authority that keeps its files in a folder."""

    folder: Path
    root: x509.Certificate
    certificate: x509.Certificate

    @property
    def root_file(self) -> Path:
        """Its root certificate, PEM."""
        return self.folder / "root.pem"

    def stamp(self, request: bytes) -> bytes:
        """Its reply to a request; a refusal is a reply, too."""
        (self.folder / "q.tsq").write_bytes(request)
        openssl(
            self.folder,
            *("ts", "-reply", "-config", "ts.cnf", "-queryfile", "q.tsq", "-out", "r.tsr"),
            *("-signer", "tsa.pem", "-inkey", "tsa.key"),
        )
        return (self.folder / "r.tsr").read_bytes()


def make_authority(
    folder: Path,
    name: str = "Test Authority",
    *,
    may_stamp: bool = True,
    sends_root: bool = False,
) -> Authority:
    """A root and a certificate below it, which may be one that is not for time stamps.

    Where the replies hold the root, too, it comes after the signer's certificate, sorted or not.
    """
    folder.mkdir()
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("Root", root_key, "Root", root_key, ca=True, purpose=None)
    purpose = ExtendedKeyUsageOID.TIME_STAMPING if may_stamp else ExtendedKeyUsageOID.CODE_SIGNING
    certificate = _certificate(name, key, "Root", root_key, ca=False, purpose=purpose)
    (folder / "root.pem").write_bytes(root.public_bytes(Encoding.PEM))
    (folder / "tsa.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "tsa.key").write_bytes(pem)
    (folder / "ts.cnf").write_text(_CONFIG + "certs = root.pem\n" * sends_root)
    (folder / "serial").write_text("1000000000000001\n")
    return Authority(folder, root, certificate)


def openssl(folder: Path, *arguments: str) -> str:
    """Call openssl in a folder; its output."""
    done = subprocess.run(
        ["openssl", *arguments],  # noqa: S607
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def der(tag: int, *parts: bytes) -> bytes:
    """A value of ASN.1's, in DER."""
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def children(value: bytes) -> list[bytes]:
    """The values that a constructed value of ASN.1's is made of."""
    found, rest = [], value[_header(value) :]
    while rest:
        size = _header(rest) + _length(rest)
        found.append(rest[:size])
        rest = rest[size:]
    return found


def with_last(value: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The same value with another last leaf."""
    if not value[0] & 0x20:
        return change(value)
    *first, last = children(value)
    return der(value[0], *first, with_last(last, change))


def _header(value: bytes) -> int:
    return 2 + (value[1] & 0x7F if value[1] & 0x80 else 0)


def _length(value: bytes) -> int:
    return int.from_bytes(value[2 : _header(value)], "big") if value[1] & 0x80 else value[1]


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
    purpose: x509.ObjectIdentifier | None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
    return builder.sign(issuer_key, SHA256())
