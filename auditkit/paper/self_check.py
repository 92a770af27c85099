"""The part of a page with which it checks itself, in its reader's browser.

The page holds the signed statement, its signature and the signer's key; the script beside this
module (``self_check.js``) verifies the one and compares the files of a run with the other. It is
copied into the page as it is, and the page's policy allows no other script, by its digest.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auditkit.paper.markup import Html, element, joined, paragraph, section, text
from auditkit.signing.envelopes import Envelope, pae
from auditkit.signing.keys import PublicKey, TrustedKey, verifies

#: Compressed statements beyond this are not held: a page is to stay below 2 MB.
MAX_STATEMENT_BYTES = 700_000

_TITLE = "Check it in this browser"

_OFF = (
    "This page can check its own signature, and the files of the run, but JavaScript is off, "
    "blocked or too old here. Nothing else on the page needs it. auditkit verify makes these "
    "checks and all others."
)

_COVERED = (
    "Checks 2 (signature) and 3 (files) of auditkit verify, made here and now. Nothing is "
    "uploaded: the page's policy forbids every connection. Not covered: all other checks (replay "
    "needs auditkit), and the numbers, pictures and verdicts of this page: none of them is under "
    "the signature. Who made this page could have changed this script, too: what it finds wrong "
    "is wrong, and whoever must not be deceived runs auditkit verify or makes the page anew."
)

_WHY_NOT = "This page does not check itself: {}. auditkit verify makes these checks and all others."


@dataclass(frozen=True)
class SignedStatement:
    """What a page can check by itself.

    Attributes:
        payload: The exact bytes that were signed.
        payload_type: Their media type.
        signature: Of both, as WebCrypto takes it: 64 bytes.
        key: The signer's public key: the 32 bytes of an Ed25519 key, a P-256 key's point.
        recorded: The signature as the manifest has it: of P-256 that is DER.
        kind: ``Ed25519`` or ``P-256``.
    """

    payload: bytes
    payload_type: str
    signature: bytes
    key: bytes
    recorded: bytes
    kind: str = "Ed25519"

    @functools.cached_property
    def deflated(self) -> bytes:
        """The signed bytes as the page holds them."""
        return zlib.compress(self.payload, 9)

    @property
    def fits(self) -> bool:
        """Whether a page holds them."""
        return len(self.deflated) <= MAX_STATEMENT_BYTES


def signed_statement(
    envelope: Envelope, trusted: Iterable[TrustedKey], signed_by: str | None
) -> SignedStatement | None:
    """The statement with the signature of the key that a report names; None where there is none.

    Args:
        envelope: The manifest's.
        trusted: Keys that count.
        signed_by: Fingerprint of the key that the verifier's report names.
    """
    message = pae(envelope.payload, envelope.payload_type)
    for key in trusted:
        for signature in envelope.signatures if key.fingerprint == signed_by else ():
            if verifies(key.public_key, signature.value, message):
                found, held, kind = _as_web_crypto(key.public_key, signature.value)
                signed = (envelope.payload, envelope.payload_type, found)
                return SignedStatement(*signed, held, signature.value, kind)
    return None


def _as_web_crypto(key: PublicKey, signature: bytes) -> tuple[bytes, bytes, str]:
    """Signature, key and its kind: WebCrypto knows no DER."""
    if isinstance(key, Ed25519PublicKey):
        return signature, key.public_bytes_raw(), "Ed25519"
    numbers = decode_dss_signature(signature)
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return b"".join(number.to_bytes(32, "big") for number in numbers), point, "P-256"


@functools.cache
def script() -> str:
    """The script of a page, without its last line end."""
    file = importlib.resources.files("auditkit.paper") / "self_check.js"
    return file.read_text(encoding="utf-8").rstrip()


def script_source() -> str:
    """What a Content-Security-Policy allows the script by."""
    digest = hashlib.sha256(script().encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def self_check(signed: SignedStatement | None) -> Html:
    """The section, without its script; why there is none where there is nothing to check."""
    if signed is None:
        return section(
            2, _TITLE, paragraph(_WHY_NOT.format("the key that signed it is not at hand"))
        )
    if not signed.fits:
        why = f"its statement of {len(signed.payload):,} bytes is too large for a page"
        return section(2, _TITLE, paragraph(_WHY_NOT.format(why)))
    whole = section(
        2,
        _TITLE,
        element("p", text(_OFF), id="self-check-off"),
        element(
            "div",
            joined(_controls()),
            id="self-check-on",
            class_="self-check",
            hidden="",
            data_key=_base64(signed.key),
            data_kind=signed.kind,
            data_recorded=_base64(signed.recorded),
            data_signature=_base64(signed.signature),
            data_statement=_base64(signed.deflated),
            data_type=signed.payload_type,
        ),
    )
    return element("section", whole, class_="on-screen")


def _controls() -> tuple[Html, ...]:
    """What the reader gives, and where the script says what it found."""
    return (
        paragraph(_COVERED, "muted"),
        element("h3", text("Signature: which key")),
        element("p", class_="fingerprint", id="self-check-key"),
        _status("signature"),
        element(
            "p",
            element("label", text("Fingerprint in the paper"), for_="self-check-typed"),
            element(
                "input",
                id="self-check-typed",
                type="text",
                size="50",
                autocomplete="off",
                spellcheck="false",
                placeholder="SHA256:",
            ),
        ),
        _status("whose"),
        element("h3", text("What was signed, in the statement's own words")),
        element("ul", id="self-check-signed"),
        _status("digest"),
        element("h3", text("Files: size and SHA-256")),
        element(
            "p",
            element(
                "label",
                text("The run's folder: drop it on this field, or choose it"),
                for_="self-check-folder",
            ),
            element("input", id="self-check-folder", type="file", multiple=""),
        ),
        element("progress", id="self-check-progress", aria_label="bytes read", max="1", hidden=""),
        _status("files"),
        element("ul", id="self-check-found"),
    )


def script_element() -> Html:
    """The script, for the end of a page."""
    return Html(f"<script>{script()}</script>")


def _status(name: str) -> Html:
    return element("p", id=f"self-check-{name}", role="status")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
