"""Verifying what auditkit signed without auditkit: with securesystemslib, openssl and sigstore.

The verifiers get the file's bytes and the public key, and share no code with auditkit.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from record_examples import MANIFEST
from securesystemslib.dsse import Envelope as PeerEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]
from timestamp_authority import make_authority, needs_openssl

from auditkit.errors import NotSigned, SchemaError, UsageError
from auditkit.formats.statements import to_statement
from auditkit.signing import envelopes, keys, signatures, timestamps
from auditkit.signing.keys import PrivateKey, verifies
from auditkit.signing.sigstore_bundle import MEDIA_TYPE, to_bundle

#: A real statement: its seeds, its digests, its names.
PAYLOAD = to_statement(MANIFEST)
DIGEST = MANIFEST.files[0].sha256
ALICE = keys.generate_key()
BOB = ec.generate_private_key(ec.SECP256R1())
MALLORY = keys.generate_key()
KEYS: dict[str, PrivateKey] = {"ed25519": ALICE, "p256": BOB}


def stamped(data: bytes) -> bytes:
    """An envelope that carries a time stamp at every signature."""
    raw = json.loads(data)
    for signature in raw["signatures"]:
        signature["timestamps"] = [{"type": "tsp", "data": base64.b64encode(b"DER").decode()}]
    return json.dumps(raw).encode()


def signed(*private_keys: PrivateKey) -> bytes:
    data = envelopes.sign_statement(PAYLOAD, private_keys[0])
    for key in private_keys[1:]:
        data = envelopes.add_signature(data, key)
    return data


# securesystemslib


def peer_key(key: PrivateKey) -> SSlibKey:
    return SSlibKey.from_crypto(key.public_key(), keyid=keys.fingerprint(key))


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("stamp", [bytes, stamped], ids=["plain", "stamped"])
def test_securesystemslib_verifies_our_envelopes(kind: str, stamp: Any) -> None:
    envelope = PeerEnvelope.from_dict(json.loads(stamp(signed(KEYS[kind]))))
    envelope.verify([peer_key(KEYS[kind])], 1)
    assert envelope.payload == PAYLOAD
    with pytest.raises(VerificationError):
        envelope.verify([peer_key(MALLORY)], 1)


@pytest.mark.parametrize("stamp", [bytes, stamped], ids=["plain", "stamped"])
def test_securesystemslib_counts_two_signers_as_we_do(stamp: Any) -> None:
    data = stamp(signed(ALICE, BOB))
    envelope = PeerEnvelope.from_dict(json.loads(data))
    envelope.verify([peer_key(ALICE), peer_key(BOB)], 2)
    ours = [keys.TrustedKey(keys.fingerprint(k), k.public_key(), "") for k in (ALICE, BOB)]
    assert len(signatures.check_signatures(envelopes.open_envelope(data), ours, 2).signers) == 2
    with pytest.raises(VerificationError):
        PeerEnvelope.from_dict(json.loads(signed(ALICE))).verify(
            [peer_key(ALICE), peer_key(BOB)], 2
        )


# openssl


@needs_openssl
@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize(("tamper", "code"), [(b"", 0), (b" ", 1)], ids=["good", "tampered"])
def test_openssl_verifies_our_envelopes(
    tmp_path: Path, kind: str, tamper: bytes, code: int
) -> None:
    key = KEYS[kind]
    raw = json.loads(stamped(signed(MALLORY, key)))
    (signature,) = (s for s in raw["signatures"] if s["keyid"] == keys.fingerprint(key))
    body = base64.b64decode(raw["payload"]) + tamper
    (tmp_path / "pae").write_bytes(b"DSSEv1 28 application/vnd.in-toto+json %d " % len(body) + body)
    (tmp_path / "sig").write_bytes(base64.b64decode(signature["sig"]))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "pub").write_bytes(public)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "pub"]
    command += ["-rawin", "-in", "pae", "-sigfile", "sig"]
    command += ["-digest", "sha256"] if kind == "p256" else []
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")
@pytest.mark.parametrize("kind", KEYS)
def test_the_keyid_is_what_ssh_keygen_prints(tmp_path: Path, kind: str) -> None:
    (tmp_path / "pub").write_text(keys.public_line(KEYS[kind]) + "\n")
    done = subprocess.run(
        ["ssh-keygen", "-lf", "pub"],  # noqa: S607
        cwd=tmp_path,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    (signature,) = json.loads(signed(KEYS[kind]))["signatures"]
    assert done.stdout.split()[1] == signature["keyid"]


# Sigstore bundles


def test_a_bundle_is_the_envelope_with_a_hint_of_its_key() -> None:
    bundle, envelope = json.loads(to_bundle(signed(ALICE))), json.loads(signed(ALICE))
    assert bundle == {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": keys.fingerprint(ALICE)},
            "tlogEntries": [],
        },
        "dsseEnvelope": envelope,
    }


def test_a_bundle_holds_one_signature_which_is_named_where_there_are_several() -> None:
    data = signed(ALICE, BOB)
    bundle = json.loads(to_bundle(data, keys.fingerprint(BOB)))
    assert bundle["dsseEnvelope"]["signatures"] == [json.loads(data)["signatures"][1]]
    with pytest.raises(UsageError, match="several keys signed it"):
        to_bundle(data)
    with pytest.raises(UsageError, match="no signature by"):
        to_bundle(data, keys.fingerprint(MALLORY))


def test_what_is_unsigned_or_no_envelope_makes_no_bundle() -> None:
    unsigned = json.dumps({**json.loads(signed(ALICE)), "signatures": []}).encode()
    with pytest.raises(NotSigned):
        to_bundle(unsigned)
    with pytest.raises(SchemaError, match=r"^m\.json: "):
        to_bundle(b"{}", what="m.json")


@pytest.mark.parametrize("kind", KEYS)
def test_sigstores_models_read_our_bundles(kind: str) -> None:
    models = pytest.importorskip("sigstore_models.bundle.v1", reason="sigstore is not installed")
    dsse = pytest.importorskip("sigstore.dsse", reason="sigstore is not installed")
    key = KEYS[kind]
    bundle = models.Bundle.from_json(to_bundle(stamped(signed(key))))
    assert bundle.verification_material.public_key.hint == keys.fingerprint(key)
    stamps = bundle.verification_material.timestamp_verification_data.rfc3161_timestamps
    assert [stamp.signed_timestamp for stamp in stamps] == [b"DER"]
    envelope = dsse.Envelope(bundle.dsse_envelope)
    assert verifies(key.public_key(), envelope.signature, envelope.pae())
    assert not verifies(MALLORY.public_key(), envelope.signature, envelope.pae())
    dsse.Statement(bundle.dsse_envelope.payload)  # checks its shape and its digests


def test_sigstores_own_verification_takes_our_p256_signatures() -> None:
    models = pytest.importorskip("sigstore_models.bundle.v1", reason="sigstore is not installed")
    dsse = pytest.importorskip("sigstore.dsse", reason="sigstore is not installed")
    hashes = pytest.importorskip("sigstore.hashes", reason="sigstore is not installed")
    common = pytest.importorskip("sigstore_models.common.v1", reason="sigstore is not installed")
    errors = pytest.importorskip("sigstore.errors", reason="sigstore is not installed")
    bundle = models.Bundle.from_json(to_bundle(signed(BOB)))
    envelope = dsse.Envelope(bundle.dsse_envelope)
    # What its Verifier calls once it has a certificate's key; a key alone has no public way in.
    assert dsse._verify(BOB.public_key(), envelope) == PAYLOAD
    with pytest.raises(errors.VerificationError):
        dsse._verify(ec.generate_private_key(ec.SECP256R1()).public_key(), envelope)
    statement = dsse.Statement(PAYLOAD)
    for digest, matches in ((DIGEST, True), ("0" * 64, False)):
        sha256 = common.HashAlgorithm.SHA2_256
        hashed = hashes.Hashed(algorithm=sha256, digest=bytes.fromhex(digest))
        assert statement._matches_digest(hashed) == matches


def test_sigstores_bundle_asks_for_a_certificate_as_the_export_says() -> None:
    models = pytest.importorskip("sigstore.models", reason="sigstore is not installed")
    with pytest.raises(models.InvalidBundle, match="expected certificate in bundle"):
        models.Bundle.from_json(to_bundle(signed(BOB)))


@needs_openssl
def test_a_real_stamp_of_a_bundle_is_one_of_its_signature(tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "tsa")
    data = signed(BOB)
    value = envelopes.open_envelope(data).signatures[0].value
    reply = authority.stamp(timestamps.request(value))
    bundle = json.loads(to_bundle(timestamps.attach(data, reply)))
    (stamp,) = bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"]
    (signature,) = bundle["dsseEnvelope"]["signatures"]
    timestamps.check_timestamp(
        base64.b64decode(stamp["signedTimestamp"]),
        base64.b64decode(signature["sig"]),
        [authority.root],
    )


def test_p256_signatures_are_ecdsa_in_der() -> None:
    (signature,) = json.loads(signed(BOB))["signatures"]
    value = base64.b64decode(signature["sig"])
    BOB.public_key().verify(value, envelopes.pae(PAYLOAD), ec.ECDSA(SHA256()))
    with pytest.raises(InvalidSignature):
        BOB.public_key().verify(value, PAYLOAD, ec.ECDSA(SHA256()))
