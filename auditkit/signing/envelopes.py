"""DSSE envelopes: made, read and added to; :mod:`auditkit.signing.signatures` judges them.

The signature covers the exact payload bytes, which are kept as read and never encoded anew.
Whatever else an envelope carries (DSSE allows more fields) is kept and ignored, but for time
stamps, which are handed on.

An envelope verifies without auditkit: with securesystemslib, with cosign's library, or with
openssl over the bytes of :func:`pae`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from auditkit.errors import NotSigned, SchemaError, UsageError
from auditkit.formats import canonical, schema
from auditkit.formats.quote import brief
from auditkit.signing.keys import PrivateKey, fingerprint, sign_bytes, verifies

PAYLOAD_TYPE = "application/vnd.in-toto+json"

#: What go-witness calls an RFC 3161 time stamp in ``signatures[].timestamps``.
_TIMESTAMP = "tsp"


@dataclass(frozen=True)
class Signature:
    """One signature of an envelope.

    Attributes:
        keyid: What it says of its key: text from the file, worth nothing by itself; or None.
        value: Its bytes.
        timestamps: DER of RFC 3161 replies that claim to be over ``value``; not judged, and no
            signature covers them.
    """

    keyid: str | None
    value: bytes
    timestamps: tuple[bytes, ...] = ()


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


def add_signature(data: bytes, key: PrivateKey, *, what: str = "manifest") -> bytes:
    """Add a signature to an envelope; payload and other signatures stay as they are.

    A good signature of the same key stays, too, since a time stamp may rest on its bytes; one
    under the key's name that is not good is replaced.

    Args:
        data: The envelope's bytes.
        key: Ed25519 or P-256.
        what: What is being read, for error messages.

    Returns:
        The new envelope's bytes; ``data`` itself where the key signed it already.

    Raises:
        MalformedError: When ``data`` is no envelope.
    """
    envelope = open_envelope(data, what=what)
    public, message = key.public_key(), pae(envelope.payload, envelope.payload_type)
    if any(verifies(public, signature.value, message) for signature in envelope.signatures):
        return data
    raw = _load(data, what)
    name = fingerprint(key)
    kept = [item for item in raw["signatures"] if item.get("keyid") != name]
    raw["signatures"] = [*kept, _signature(envelope.payload, key)]
    schema.check(raw, "envelope", what=what)  # there may be as many as are read, already
    return canonical.dumps(raw)


def add_timestamp(data: bytes, position: int, reply: bytes, *, what: str = "manifest") -> bytes:
    """Add a time stamp to a signature of an envelope; nothing is judged.

    Args:
        data: The envelope's bytes.
        position: Of the signature, from 0.
        reply: DER of an RFC 3161 reply.
        what: What is being read, for error messages.

    Returns:
        The new envelope's bytes; ``data`` itself where the signature has this very stamp.

    Raises:
        MalformedError: When ``data`` is no envelope, or would hold more than is read again.
    """
    if reply in open_envelope(data, what=what).signatures[position].timestamps:
        return data
    raw = _load(data, what)
    item = {"type": _TIMESTAMP, "data": base64.b64encode(reply).decode("ascii")}
    raw["signatures"][position].setdefault("timestamps", []).append(item)
    schema.check(raw, "envelope", what=what)
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
        Signature(
            item.get("keyid"),
            _decoded(item["sig"], f"$.signatures[{n}].sig", what),
            tuple(
                _decoded(stamp["data"], f"$.signatures[{n}].timestamps[{m}].data", what)
                for m, stamp in enumerate(item.get("timestamps", ()))
                if stamp["type"] == _TIMESTAMP
            ),
        )
        for n, item in enumerate(raw["signatures"])
    )
    return Envelope(_decoded(raw["payload"], "$.payload", what), raw["payloadType"], signatures)


def statement_type(envelope: Envelope, *, what: str = "manifest") -> str:
    """What kind of statement an envelope holds: its ``predicateType``; the rest is not read.

    Raises:
        JsonError: When the payload is not strict JSON.
        SchemaError: When it is no in-toto Statement.
    """
    statement = canonical.loads(envelope.payload, what=what)
    kind = statement.get("predicateType") if isinstance(statement, dict) else None
    if not isinstance(kind, str) or not kind:
        raise SchemaError("$.payload: what was signed has no predicateType", where=what)
    return kind


def select_signature(envelope: Envelope, by: str | None = None) -> int:
    """Which signature is meant, from 0: the only one, or that under a key's name.

    Args:
        envelope: The envelope.
        by: The key's fingerprint; None where there is only one signature.

    Raises:
        NotSigned: When there is no signature.
        UsageError: When none is by that key, or it is not said which of several is meant.
    """
    names = [signature.keyid for signature in envelope.signatures]
    if not names:
        raise NotSigned("it carries no signature")
    if by is None and len(names) == 1:
        return 0
    if by in names and by is not None:
        return names.index(by)
    known = ", ".join(brief(name) if name else "a key without name" for name in names)
    problem = "several keys signed it" if by is None else f"no signature by {brief(by)}"
    raise UsageError(f"{problem}; there are signatures by {known}", hint="say which with --by")


def _signature(payload: bytes, key: PrivateKey) -> dict[str, str]:
    value = sign_bytes(key, pae(payload))
    return {"keyid": fingerprint(key), "sig": base64.b64encode(value).decode("ascii")}


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
