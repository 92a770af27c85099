"""An envelope as a Sigstore bundle, for tools that take nothing else.

A bundle (v0.3) holds one signature, names its key by a hint, and carries the time stamps of the
signature. Payload, type and signature bytes are the envelope's, so what was signed stays signed.
There is no certificate and no entry of a transparency log in it: a verifier must be given the key,
as for the envelope. ``sigstore.models.Bundle`` of sigstore-python asks for both and refuses it;
@sigstore/verify with a key takes it.
"""

from __future__ import annotations

import base64
from typing import Any

from auditkit.formats import canonical
from auditkit.signing.der import ordered_reply
from auditkit.signing.envelopes import Signature, open_envelope, select_signature

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def to_bundle(data: bytes, by: str | None = None, *, what: str = "manifest") -> bytes:
    """Make the bundle of an envelope.

    Args:
        data: The envelope's bytes.
        by: Fingerprint of the key whose signature is taken; needed where there are several.
        what: What is being read, for error messages.

    Returns:
        The bundle, as JSON bytes.

    Raises:
        MalformedError: When ``data`` is no envelope.
        NotSigned: When it carries no signature.
        UsageError: When it is not clear which signature is meant.
    """
    envelope = open_envelope(data, what=what)
    signature = envelope.signatures[select_signature(envelope, by)]
    keyid = signature.keyid or ""
    # sigstore-python's models ask for the list of log entries, even where there is none
    material = {"publicKey": {"hint": keyid}, "tlogEntries": [], **_stamps(signature)}
    return canonical.dumps(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": material,
            "dsseEnvelope": {
                "payload": _base64(envelope.payload),
                "payloadType": envelope.payload_type,
                "signatures": [{"keyid": keyid, "sig": _base64(signature.value)}],
            },
        }
    )


def _stamps(signature: Signature) -> dict[str, Any]:
    if not signature.timestamps:
        return {}
    # Readers are stricter about the order of certificates than authorities are.
    stamps = [{"signedTimestamp": _base64(ordered_reply(reply))} for reply in signature.timestamps]
    return {"timestampVerificationData": {"rfc3161Timestamps": stamps}}


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
