"""RFC 3161 time stamps of signatures: asked for, attached and checked. Nothing is sent.

What is stamped are the bytes of a signature, as go-witness and Sigstore do it: the signature
covers the payload, so both existed when the authority saw it. The user sends the request and
fetches the reply; the reply lives in ``signatures[].timestamps``, where no signature covers it,
and proves something only under an authority that the verifier trusts.

The ASN.1 and the chain of certificates are the business of rfc3161-client, an optional dependency
(``pip install "auditkit[timestamp]"``): the command line imports this module late, and says so
where the package is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from rfc3161_client import (
    HashAlgorithm,
    PKIStatus,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerifierBuilder,
    decode_timestamp_response,
)

from auditkit.errors import FormatError, KeyFileError, MalformedError, StoreError, TimestampError
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.quote import printable
from auditkit.records.report import Timestamp
from auditkit.signing import der
from auditkit.signing.envelopes import Envelope, add_timestamp, open_envelope

#: Largest reply and largest file of certificates that are read, in bytes.
MAX_REPLY_BYTES = 48 * 2**10
MAX_CERTIFICATE_BYTES = 2**20

_MAX_REASON = 100  # characters of what a parser says

# hashes that a message imprint may be made with, by object identifier
_HASHES = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}


@dataclass(frozen=True)
class _ParsedReply:
    """A reply, decoded; nothing is verified.

    All but ``response`` comes from its TSTInfo, which is what the authority signs.
    """

    response: TimeStampResponse
    algorithm: str
    imprint: bytes
    time: datetime
    serial: int
    policy: str
    nonce: int | None

    def is_stamp_of(self, message: bytes) -> bool:
        """Whether its imprint is that of these bytes."""
        name = _HASHES.get(self.algorithm)
        return name is not None and hashlib.new(name, message).digest() == self.imprint


def request(signature: bytes) -> bytes:
    """A request for a time stamp, in DER: with SHA-256, a nonce, and the wish for certificates.

    Args:
        signature: The bytes to be stamped.
    """
    builder = TimestampRequestBuilder().data(signature).hash_algorithm(HashAlgorithm.SHA256)
    return builder.cert_request(cert_request=True).nonce(nonce=True).build().as_bytes()


def attach(data: bytes, reply: bytes, *, what: str = "manifest") -> bytes:
    """Add a reply to the signature of an envelope that it is over. No trust is judged.

    Args:
        data: The envelope's bytes.
        reply: What the authority answered, in DER.
        what: What is being read, for error messages.

    Returns:
        The new envelope's bytes; payload and signatures stay as they are. The reply is kept byte
        for byte as the authority gave it, in DER's order or not: it is the evidence, and
        ``openssl ts -verify`` takes both. Whoever reads it puts it in order.

    Raises:
        MalformedError: When either is not what it should be.
        TimestampError: When the authority refused, or the stamp is of no signature here.
    """
    position = stamped_signature(open_envelope(data, what=what), reply, what=what)
    return add_timestamp(data, position, reply, what=what)


def stamped_signature(envelope: Envelope, reply: bytes, *, what: str = "the envelope") -> int:
    """Which signature of an envelope a reply is over, from 0.

    Args:
        envelope: The envelope.
        reply: What the authority answered, in DER.
        what: What the envelope is, for error messages.

    Raises:
        FormatError: When it is no reply.
        TimestampError: When the authority refused, or the stamp is of no signature here.
    """
    parsed = _parse_granted(reply)
    for position, signature in enumerate(envelope.signatures):
        if parsed.is_stamp_of(signature.value):
            return position
    raise TimestampError(f"the time stamp is of none of the signatures in {what}")


def check_timestamp(
    reply: bytes, message: bytes, authorities: Sequence[x509.Certificate]
) -> Timestamp:
    """Verify a time stamp.

    Args:
        reply: What the authority answered, in DER.
        message: The stamped bytes: a signature's.
        authorities: Root certificates that the verifier trusts for this, and intermediate ones.
            They must have been valid at the time of the stamp; now does not matter.

    Returns:
        What the authority says.

    Raises:
        FormatError: When it is no reply.
        TimestampError: When it is of other bytes, or no trusted authority signed it.
    """
    parsed = _parse_granted(reply)
    if not parsed.is_stamp_of(message):
        raise TimestampError("the time stamp is of something else than this signature")
    roots = [known for known in authorities if known.issuer == known.subject]
    intermediates = [known for known in authorities if known.issuer != known.subject]
    # One root at a time: of two that share a name, as an old and a renewed one do, OpenSSL
    # looks at only one.
    if not any(_is_verified_under(root, intermediates, parsed.response, message) for root in roots):
        raise TimestampError(
            "the time stamp is not signed by a trusted authority, or was changed",
            hint="an authority is trusted by its root certificate, not by its own",
        )
    authority = _authority(parsed.response)
    return Timestamp(_iso_format(parsed.time), authority, str(parsed.serial), parsed.policy)


def token_sha256(reply: bytes) -> str:
    """A digest of a time stamp that its requester cannot choose, to derive seeds from.

    It is the SHA-256 of the canonical JSON of::

        ["auditkit/timestamp-v1", policy, hash, imprint, serial, time, nonce]

    object identifiers in dots, ``imprint`` in lower-case hex, ``serial`` and ``nonce`` in decimals
    (``nonce`` may be null), ``time`` as :attr:`Timestamp.time`: what
    ``openssl ts -reply -in FILE -text`` prints. All of it is read from the TSTInfo, which the
    authority signs. The rest of a reply is left out, because whoever holds one can change it and
    it still verifies: its certificates, its unsigned attributes, its status text, the encoding
    around the token, and, where the authority signs with ECDSA, the signature value itself, since
    (r, -s) is as good as (r, s).

    Imprint and nonce are the requester's, but serial and time are the authority's and are not
    known before it answers. What is left to the requester is to ask again and keep the answer
    that suits: each attempt is a request that the authority has seen, and numbered.

    Verify the stamp first (:func:`check_timestamp`): of an unverified one this proves nothing.

    Raises:
        FormatError: When it is no reply.
        TimestampError: When the authority refused.
    """
    parsed = _parse_granted(reply)
    nonce = None if parsed.nonce is None else str(parsed.nonce)
    fields = [
        parsed.policy,
        parsed.algorithm,
        parsed.imprint.hex(),
        str(parsed.serial),
        _iso_format(parsed.time),
    ]
    return hashlib.sha256(canonical.dumps(["auditkit/timestamp-v1", *fields, nonce])).hexdigest()


def load_certificates(path: str | Path) -> list[x509.Certificate]:
    """Read the certificates of a file: PEM, one or several, or one in DER.

    Raises:
        KeyFileError: When it cannot be read or holds none.
    """
    try:
        data = store.read_bytes(path, max_bytes=MAX_CERTIFICATE_BYTES, what="a certificate file")
    except StoreError as error:
        raise KeyFileError(error.message) from error
    except MalformedError as error:
        raise KeyFileError(error.message, where=str(path)) from error
    try:
        if b"-----BEGIN" in data:
            found = x509.load_pem_x509_certificates(data)
        else:
            found = [x509.load_der_x509_certificate(data)]
        for certificate in found:
            _names = certificate.issuer, certificate.subject  # these are parsed when asked for
    except (ValueError, x509.InvalidVersion):
        raise KeyFileError("it holds no certificate, or a damaged one", where=str(path)) from None
    return found


def certificate_sha256(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, as ``openssl x509 -fingerprint -sha256`` counts it, in hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def read_reply(path: str | Path) -> bytes:
    """Read the file that the authority's answer was saved to.

    Raises:
        StoreError: When it cannot be read.
        MalformedError: When it is too long.
    """
    return store.read_bytes(path, max_bytes=MAX_REPLY_BYTES, what="a time stamp")


def _parse_granted(reply: bytes) -> _ParsedReply:
    """Decode a reply, and see that it is an answer at all."""
    try:
        response = decode_timestamp_response(der.ordered_reply(reply))
        status, reason = response.status, "; ".join(response.status_string)
        parsed = _parse(response) if status == PKIStatus.GRANTED else None
    except Exception as error:  # parsers of hostile bytes: KeyError was seen, beside ValueError
        raise _malformed(reply, error) from error
    if parsed is None:
        names = {item.value: item.name.lower().replace("_", " ") for item in PKIStatus}
        detail = f": {reason}" if reason else ""
        raise TimestampError(f"the authority's answer is {names.get(status, status)}{detail}")
    return parsed


def _malformed(data: bytes, error: Exception) -> FormatError:
    """What to say of bytes that the parser refused."""
    if der.is_request(data):
        hint = "send it; the authority's answer is one"
        return FormatError("it is a time stamp request, no reply", hint=hint)
    if not data:
        reason = "it is empty"
    elif data.isascii() and min(data) >= ord("\t"):
        reason = "it is text, not DER; perhaps what the authority's web server had to say"
    else:
        reason = " ".join(printable(str(error) or type(error).__name__).split())[:_MAX_REASON]
    return FormatError(f"it is no time stamp reply that can be read: {reason}")


def _parse(response: TimeStampResponse) -> _ParsedReply:
    info = response.tst_info
    return _ParsedReply(
        response=response,
        algorithm=info.message_imprint.hash_algorithm.dotted_string,
        imprint=bytes(info.message_imprint.message),
        time=info.gen_time,
        serial=info.serial_number,
        policy=info.policy.dotted_string,
        nonce=info.nonce,
    )


def _is_verified_under(
    root: x509.Certificate,
    intermediates: list[x509.Certificate],
    response: TimeStampResponse,
    message: bytes,
) -> bool:
    verifier = VerifierBuilder(roots=[root], intermediates=list(intermediates)).build()
    try:
        return verifier.verify_message(response, message)
    except Exception:  # VerificationError, and whatever else a hostile reply makes of parsers
        return False


def _authority(response: TimeStampResponse) -> str:
    """The name of who signed a verified reply.

    A reply may carry certificates that nobody vouches for; where two answer to the signer's
    issuer and number, one of them is there to lend its name.

    Raises:
        TimestampError: In that case.
    """
    (signer,) = response.signed_data.signer_infos  # the library has seen that it is one
    certificates = map(x509.load_der_x509_certificate, response.signed_data.certificates)
    subjects = [
        certificate.subject
        for certificate in certificates
        if certificate.issuer == signer.issuer and certificate.serial_number == signer.serial_number
    ]
    if len(subjects) != 1:
        raise TimestampError("the time stamp does not tell who signed it")
    return subjects[0].rfc4514_string()


def _iso_format(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
