from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as PeerEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

from auditkit import signing
from auditkit.errors import (
    JsonError,
    MalformedError,
    NotSigned,
    NotTrusted,
    SchemaError,
    SignatureError,
)
from auditkit.signing import PrivateKey, TrustedKey

PAYLOAD = b'{"_type":"https://in-toto.io/Statement/v1", "spaces kept" : 1.0}'
ALICE = signing.generate_key()
BOB = ec.generate_private_key(ec.SECP256R1())
MALLORY = signing.generate_key()
KEYS: dict[str, PrivateKey] = {"ed25519": ALICE, "p256": BOB}


def trust(key: PrivateKey) -> TrustedKey:
    return TrustedKey(signing.fingerprint(key), key.public_key(), "test")


def signed(**changes: object) -> dict[str, Any]:
    return {**json.loads(signing.sign_statement(PAYLOAD, ALICE)), **changes}


def opened(envelope: dict[str, Any]) -> signing.Envelope:
    return signing.open_envelope(json.dumps(envelope).encode())


def signature_of(key: PrivateKey, payload: bytes = PAYLOAD, **changes: str) -> dict[str, str]:
    envelope = json.loads(signing.sign_statement(payload, key))
    return {**envelope["signatures"][0], **changes}


def flipped(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize("kind", KEYS)
@given(payload=st.binary(min_size=1, max_size=99))
def test_what_is_signed_opens_and_verifies(kind: str, payload: bytes) -> None:
    key = KEYS[kind]
    envelope = signing.open_envelope(signing.sign_statement(payload, key))
    assert envelope.payload == payload
    outcome = signing.check_signatures(envelope, [trust(MALLORY), trust(key)])
    assert outcome.signer == trust(key)
    assert outcome.strangers == ()


def test_the_encoding_of_what_is_signed_is_dsses_own() -> None:
    # the example of the DSSE specification, protocol.md
    assert signing.pae(b"hello world", "http://example.com/HelloWorld") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize("keyid", ["", "anything", "SHA256:" + "A" * 43, None])
def test_the_keyid_decides_nothing(keyid: str | None) -> None:
    signature = signature_of(ALICE)
    del signature["keyid"]
    if keyid is not None:
        signature["keyid"] = keyid
    envelope = opened(signed(signatures=[signature]))
    assert signing.check_signatures(envelope, [trust(ALICE)]).signer == trust(ALICE)


def test_a_good_signature_under_another_trusted_name_is_good() -> None:
    misnamed = signature_of(ALICE, keyid=signing.fingerprint(BOB))
    envelope = opened(signed(signatures=[misnamed]))
    assert signing.check_signatures(envelope, [trust(ALICE), trust(BOB)]).signers == (trust(ALICE),)


def test_url_safe_base64_is_read() -> None:
    payload = b'{"?>~":"\xc3\xbf\xc3\xbe?>~"}'
    raw = json.loads(signing.sign_statement(payload, ALICE))
    raw["payload"] = base64.urlsafe_b64encode(payload).decode()
    raw["signatures"][0]["sig"] = raw["signatures"][0]["sig"].translate(str.maketrans("+/", "-_"))
    assert "-" in raw["payload"] or "_" in raw["payload"]
    envelope = opened(raw)
    assert envelope.payload == payload
    signing.check_signatures(envelope, [trust(ALICE)])


def test_further_fields_are_ignored() -> None:
    stamped = {**signature_of(ALICE), "timestamps": [{"type": "tsp", "data": "AA=="}], "more": 1}
    signing.check_signatures(opened(signed(signatures=[stamped], payloadCopy={})), [trust(ALICE)])


def test_no_signature_is_not_signed() -> None:
    with pytest.raises(NotSigned) as caught:
        signing.check_signatures(opened(signed(signatures=[])), [trust(ALICE)])
    assert caught.value.exit_code == 4


TAMPERED = {
    "payload": signed(payload=base64.b64encode(PAYLOAD + b" ").decode()),
    "signature": signed(signatures=[signature_of(ALICE, sig=flipped(signature_of(ALICE)["sig"]))]),
    "short signature": signed(signatures=[signature_of(ALICE, sig="AAAA")]),
    "stranger under her name": signed(
        signatures=[signature_of(MALLORY, keyid=signing.fingerprint(ALICE))]
    ),
    "bad beside good": signed(signatures=[signature_of(BOB), signature_of(ALICE, PAYLOAD + b"x")]),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_bad_signature_under_a_trusted_name_is_tampering(case: str) -> None:
    with pytest.raises(SignatureError, match=r"by SHA256:.* does not match the payload") as caught:
        signing.check_signatures(opened(TAMPERED[case]), [trust(ALICE), trust(BOB)])
    assert caught.value.exit_code == 1
    assert signing.fingerprint(ALICE) in str(caught.value)


@pytest.mark.parametrize("trusted", [[], [trust(MALLORY)]])
def test_a_stranger_is_named_and_not_trusted(trusted: list[TrustedKey]) -> None:
    with pytest.raises(NotTrusted, match="not a trusted key") as caught:
        signing.check_signatures(opened(signed()), trusted)
    assert caught.value.exit_code == 3
    assert signing.fingerprint(ALICE) in str(caught.value)


@pytest.mark.parametrize("keyid", ["", "\x1b[2J", "SHA256:short"])
def test_a_name_that_is_no_fingerprint_is_not_repeated(keyid: str) -> None:
    envelope = opened(signed(signatures=[signature_of(ALICE, keyid=keyid)]))
    with pytest.raises(NotTrusted, match="a key without fingerprint"):
        signing.check_signatures(envelope, [trust(BOB)])


def test_a_tampered_payload_without_names_is_only_not_trusted() -> None:
    # without a keyid, tampering and a stranger look alike
    envelope = replace(opened(signed(signatures=[signature_of(ALICE, keyid="")])), payload=b"{}")
    with pytest.raises(NotTrusted):
        signing.check_signatures(envelope, [trust(ALICE)])


def test_countersigning_adds_and_keeps() -> None:
    data = json.dumps(signed(more="kept"), indent=1).encode()
    both = signing.countersign(data, BOB)
    outcome = signing.check_signatures(signing.open_envelope(both), [trust(BOB), trust(ALICE)])
    assert outcome.signers == (trust(BOB), trust(ALICE))
    assert json.loads(both)["signatures"][0] == signature_of(ALICE)
    assert json.loads(both)["more"] == "kept"
    again = json.loads(signing.countersign(both, BOB))
    assert len(again["signatures"]) == 2
    stranger = signing.check_signatures(signing.open_envelope(both), [trust(ALICE)])
    assert stranger.strangers == (signing.fingerprint(BOB),)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", JsonError),
        (b"1", SchemaError),
        (b"[]", SchemaError),
        (signing.sign_statement(PAYLOAD, ALICE)[:-9], JsonError),
        (b"[" * 100_000, JsonError),
        (b'{"payload":"e30=","payload":"e30="}', JsonError),
        (json.dumps(signed(more=float("nan"))).encode(), JsonError),
        (json.dumps(signed(payload="e30")).encode(), SchemaError),
        (json.dumps(signed(payload="e31=")).encode(), SchemaError),  # other bits, same bytes
        (json.dumps(signed(payload="e30==")).encode(), SchemaError),
        (json.dumps(signed(payload="e3 0=")).encode(), SchemaError),
        (json.dumps(signed(payload="é30=")).encode(), SchemaError),
        (json.dumps(signed(payloadType="text/plain")).encode(), SchemaError),
        (json.dumps({"payload": "e30="}).encode(), SchemaError),
        (json.dumps(signed(signatures=[{"sig": "x"}])).encode(), SchemaError),
    ],
)
def test_what_is_no_envelope_is_malformed(data: bytes, kind: type[MalformedError]) -> None:
    with pytest.raises(kind) as caught:
        signing.open_envelope(data, what="manifest.json")
    assert str(caught.value).startswith("manifest.json: ")
    assert caught.value.exit_code == 5


@given(st.binary(max_size=99), st.integers(0, 10**6), st.integers(0, 255))
def test_any_bytes_are_refused_with_one_of_our_errors(data: bytes, at: int, byte: int) -> None:
    changed = bytearray(signing.sign_statement(PAYLOAD, ALICE))
    changed[at % len(changed)] = byte
    for candidate in (data, bytes(changed)):
        try:
            envelope = signing.open_envelope(candidate)
            signing.check_signatures(envelope, [trust(ALICE)])
        except (MalformedError, SignatureError):
            continue
        assert envelope.payload == PAYLOAD  # only a byte that no signature covers was changed


# Verifying without auditkit


def peer_key(key: PrivateKey) -> SSlibKey:
    return SSlibKey.from_crypto(key.public_key(), keyid=signing.fingerprint(key))


@pytest.mark.parametrize("kind", KEYS)
def test_securesystemslib_verifies_our_envelopes(kind: str) -> None:
    data = signing.sign_statement(PAYLOAD, KEYS[kind])
    envelope = PeerEnvelope.from_dict(json.loads(data))
    envelope.verify([peer_key(KEYS[kind])], 1)
    assert envelope.payload == PAYLOAD
    with pytest.raises(VerificationError):
        envelope.verify([peer_key(MALLORY)], 1)


def test_securesystemslib_accepts_two_signers() -> None:
    data = signing.countersign(signing.sign_statement(PAYLOAD, ALICE), BOB)
    PeerEnvelope.from_dict(json.loads(data)).verify([peer_key(ALICE), peer_key(BOB)], 2)


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
@pytest.mark.parametrize(("signer", "code"), [(ALICE, 0), (MALLORY, 1)])
def test_openssl_verifies_our_envelopes(tmp_path: Path, signer: PrivateKey, code: int) -> None:
    raw = json.loads(signing.sign_statement(PAYLOAD, signer))
    body = base64.b64decode(raw["payload"])
    prefix = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(body)
    (tmp_path / "pae").write_bytes(prefix + body)
    (tmp_path / "sig").write_bytes(base64.b64decode(raw["signatures"][0]["sig"]))
    (tmp_path / "pub").write_bytes(
        ALICE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "pub"]
    command += ["-rawin", "-in", "pae", "-sigfile", "sig"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == code, done.stderr
