"""DSSE envelopes: signing, opening, and judging signatures.

Rules that it keeps:

* the signature covers the exact payload bytes; they are kept as read and never encoded anew;
* a ``keyid`` is a hint and decides nothing: every trusted key is tried on every signature. It only
  tells *tampered* (it names a trusted key, yet the signature is not that key's) from *stranger*;
* whatever else an envelope carries (DSSE allows more fields) is ignored;
* no key in the manifest, or beside it, is ever trusted.

An envelope verifies without auditkit: with securesystemslib, with cosign's library, or with
openssl over the bytes of :func:`pae`. Keys are the business of :mod:`auditkit.keys`, key files and
this machine's trust of :mod:`auditkit.trust`; their names are given here too.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from auditkit import canonical, schema
from auditkit.errors import NotSigned, NotTrusted, SchemaError, SignatureError
from auditkit.keys import (
    PrivateKey,
    PublicKey,
    TrustedKey,
    fingerprint,
    generate_key,
    is_fingerprint,
    private_key_bytes,
    public_line,
    sign_bytes,
    verifies,
)
from auditkit.trust import (
    SigningKey,
    config_folder,
    default_key,
    ensure_default_key,
    key_by_fingerprint,
    load_private_key,
    load_public_keys,
    machine_trust,
    signing_key,
)

__all__ = [
    "PAYLOAD_TYPE",
    "Envelope",
    "PrivateKey",
    "PublicKey",
    "Signature",
    "SignatureOutcome",
    "SigningKey",
    "TrustedKey",
    "check_signatures",
    "config_folder",
    "countersign",
    "default_key",
    "ensure_default_key",
    "fingerprint",
    "generate_key",
    "is_fingerprint",
    "key_by_fingerprint",
    "load_private_key",
    "load_public_keys",
    "machine_trust",
    "open_envelope",
    "pae",
    "private_key_bytes",
    "public_line",
    "sign_statement",
    "signing_key",
]

PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Signature:
    """One signature of an envelope.

    Attributes:
        keyid: What it says of its key: text from the file, worth nothing by itself; or None.
        value: Its bytes.
    """

    keyid: str | None
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """An opened envelope, not yet judged.

    Attributes:
        payload: The exact signed bytes.
        payload_type: Their media type.
        signatures: In the file's order; may be empty.
    """

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True)
class SignatureOutcome:
    """Who signed.

    Attributes:
        signers: The trusted keys that signed, in the order in which trust was given; at least one.
        strangers: Fingerprints that other signatures give for themselves.
    """

    signers: tuple[TrustedKey, ...]
    strangers: tuple[str, ...] = ()

    @property
    def signer(self) -> TrustedKey:
        """The first trusted key that signed."""
        return self.signers[0]


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign_statement(payload: bytes, key: PrivateKey) -> bytes:
    """Sign an in-toto Statement.

    Args:
        payload: Its bytes, which are kept as they are.
        key: Ed25519 or P-256.

    Returns:
        The envelope, as JSON bytes.
    """
    return canonical.dumps(
        {
            "payload": base64.b64encode(payload).decode("ascii"),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [_signature(payload, key)],
        }
    )


def countersign(data: bytes, key: PrivateKey, *, what: str = "manifest") -> bytes:
    """Add a signature to an envelope; payload and other signatures stay as they are.

    Args:
        data: The envelope's bytes.
        key: Ed25519 or P-256; an earlier signature under its name is replaced.
        what: What is being read, for error messages.

    Returns:
        The new envelope's bytes.

    Raises:
        MalformedError: When ``data`` is no envelope.
    """
    envelope = open_envelope(data, what=what)
    raw = _load(data, what)
    name = fingerprint(key)
    kept = [item for item in raw["signatures"] if item.get("keyid") != name]
    raw["signatures"] = [*kept, _signature(envelope.payload, key)]
    return canonical.dumps(raw)


def open_envelope(data: bytes, *, what: str = "manifest") -> Envelope:
    """Read an envelope; nothing is verified yet.

    Args:
        data: The file's bytes.
        what: What is being read, for error messages.

    Returns:
        The payload's exact bytes and the signatures.

    Raises:
        JsonError: When it is not strict JSON.
        SchemaError: When it is no envelope of an in-toto Statement.
    """
    raw = _load(data, what)
    signatures = tuple(
        Signature(item.get("keyid"), _decoded(item["sig"], f"$.signatures[{n}].sig", what))
        for n, item in enumerate(raw["signatures"])
    )
    return Envelope(_decoded(raw["payload"], "$.payload", what), raw["payloadType"], signatures)


def check_signatures(envelope: Envelope, trusted: Sequence[TrustedKey]) -> SignatureOutcome:
    """Judge an envelope's signatures.

    Args:
        envelope: As :func:`open_envelope` gave it.
        trusted: The keys that the verifier trusts; the first to have signed is *the* signer.

    Returns:
        Who signed.

    Raises:
        NotSigned: When there is no signature.
        SignatureError: When a signature gives a trusted key's name and is not that key's for
            these bytes, even where another signature is good.
        NotTrusted: When no trusted key signed.
    """
    if not envelope.signatures:
        raise NotSigned("it carries no signature")
    message = pae(envelope.payload, envelope.payload_type)
    names = {key.fingerprint for key in trusted}
    signed: set[str] = set()
    strangers: list[str] = []
    for signature in envelope.signatures:
        by = [k.fingerprint for k in trusted if verifies(k.public_key, signature.value, message)]
        signed.update(by)
        if not by and signature.keyid in names:
            raise SignatureError(f"the signature by {signature.keyid} does not match the payload")
        if not by:
            strangers.append(_claimed(signature.keyid))
    signers = tuple({k.fingerprint: k for k in trusted if k.fingerprint in signed}.values())
    if not signers:
        raise NotTrusted(
            f"signed by {', '.join(strangers)}, which is not a trusted key",
            hint="if it is the author's, give the key with --key or --fingerprint",
        )
    return SignatureOutcome(signers, tuple(strangers))


def _signature(payload: bytes, key: PrivateKey) -> dict[str, str]:
    value = sign_bytes(key, pae(payload))
    return {"keyid": fingerprint(key), "sig": base64.b64encode(value).decode("ascii")}


def _claimed(keyid: str | None) -> str:
    """A keyid fit to be printed: it is text from the file."""
    return keyid if keyid and is_fingerprint(keyid) else "a key without fingerprint"


def _load(data: bytes, what: str) -> dict[str, Any]:
    raw: Any = canonical.loads(data, what=what)
    schema.check(raw, "envelope", what=what)
    return dict(raw)


def _decoded(text: str, path: str, what: str) -> bytes:
    """Decode base64, standard or URL-safe; one text only for each value."""
    standard = text.translate(str.maketrans("-_", "+/"))
    try:
        value = base64.b64decode(standard.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        value = None
    if value is None or base64.b64encode(value).decode("ascii") != standard:
        raise SchemaError(f"{path}: not base64", where=what)
    return value
