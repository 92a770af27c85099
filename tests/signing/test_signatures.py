from __future__ import annotations

import base64
import itertools
import json
import time
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from auditkit.errors import (
    JsonError,
    MalformedError,
    NotSigned,
    NotTrusted,
    SchemaError,
    SignatureError,
    UsageError,
)
from auditkit.signing import envelopes, keys, signatures
from auditkit.signing.keys import PrivateKey, TrustedKey

PAYLOAD = b'{"_type":"https://in-toto.io/Statement/v1", "spaces kept" : 1.0}'
ALICE = keys.generate_key()
BOB = ec.generate_private_key(ec.SECP256R1())
MALLORY = keys.generate_key()
KEYS: dict[str, PrivateKey] = {"ed25519": ALICE, "p256": BOB}


def trust(key: PrivateKey) -> TrustedKey:
    return TrustedKey(keys.fingerprint(key), key.public_key(), "test")


def signed(**changes: object) -> dict[str, Any]:
    return {**json.loads(envelopes.sign_statement(PAYLOAD, ALICE)), **changes}


def opened(envelope: dict[str, Any]) -> envelopes.Envelope:
    return envelopes.open_envelope(json.dumps(envelope).encode())


def signature_of(key: PrivateKey, payload: bytes = PAYLOAD, **changes: str) -> dict[str, str]:
    envelope = json.loads(envelopes.sign_statement(payload, key))
    return {**envelope["signatures"][0], **changes}


def flipped(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize("kind", KEYS)
@given(payload=st.binary(min_size=1, max_size=99))
def test_what_is_signed_opens_and_verifies(kind: str, payload: bytes) -> None:
    key = KEYS[kind]
    envelope = envelopes.open_envelope(envelopes.sign_statement(payload, key))
    assert envelope.payload == payload
    outcome = signatures.check_signatures(envelope, [trust(MALLORY), trust(key)])
    assert outcome.signer == trust(key)
    assert outcome.untrusted == ()


def test_the_encoding_of_what_is_signed_is_dsses_own() -> None:
    # the example of the DSSE specification, protocol.md
    assert envelopes.pae(b"hello world", "http://example.com/HelloWorld") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize("keyid", ["", "anything", "SHA256:" + "A" * 43, None])
def test_the_keyid_decides_nothing(keyid: str | None) -> None:
    signature = signature_of(ALICE)
    del signature["keyid"]
    if keyid is not None:
        signature["keyid"] = keyid
    envelope = opened(signed(signatures=[signature]))
    assert signatures.check_signatures(envelope, [trust(ALICE)]).signer == trust(ALICE)


def test_a_good_signature_under_another_trusted_name_is_good() -> None:
    misnamed = signature_of(ALICE, keyid=keys.fingerprint(BOB))
    envelope = opened(signed(signatures=[misnamed]))
    assert signatures.check_signatures(envelope, [trust(ALICE), trust(BOB)]).signers == (
        trust(ALICE),
    )


def test_url_safe_base64_is_read() -> None:
    payload = b'{"?>~":"\xc3\xbf\xc3\xbe?>~"}'
    raw = json.loads(envelopes.sign_statement(payload, ALICE))
    raw["payload"] = base64.urlsafe_b64encode(payload).decode()
    raw["signatures"][0]["sig"] = raw["signatures"][0]["sig"].translate(str.maketrans("+/", "-_"))
    assert "-" in raw["payload"] or "_" in raw["payload"]
    envelope = opened(raw)
    assert envelope.payload == payload
    signatures.check_signatures(envelope, [trust(ALICE)])


def test_further_fields_are_ignored() -> None:
    more = {**signature_of(ALICE), "certificate": "AA==", "more": 1}
    signatures.check_signatures(opened(signed(signatures=[more], payloadCopy={})), [trust(ALICE)])


def test_no_signature_is_not_signed() -> None:
    with pytest.raises(NotSigned) as caught:
        signatures.check_signatures(opened(signed(signatures=[])), [trust(ALICE)])
    assert caught.value.exit_code == 4


TAMPERED = {
    "payload": signed(payload=base64.b64encode(PAYLOAD + b" ").decode()),
    "signature": signed(signatures=[signature_of(ALICE, sig=flipped(signature_of(ALICE)["sig"]))]),
    "short signature": signed(signatures=[signature_of(ALICE, sig="AAAA")]),
    "stranger under her name": signed(
        signatures=[signature_of(MALLORY, keyid=keys.fingerprint(ALICE))]
    ),
    "bad beside good": signed(signatures=[signature_of(BOB), signature_of(ALICE, PAYLOAD + b"x")]),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_bad_signature_under_a_trusted_name_is_tampering(case: str) -> None:
    with pytest.raises(SignatureError, match=r"by SHA256:.* does not match the payload") as caught:
        signatures.check_signatures(opened(TAMPERED[case]), [trust(ALICE), trust(BOB)])
    assert caught.value.exit_code == 1
    assert keys.fingerprint(ALICE) in str(caught.value)


@pytest.mark.parametrize("trusted", [[], [trust(MALLORY)]])
def test_a_stranger_is_named_and_not_trusted(trusted: list[TrustedKey]) -> None:
    with pytest.raises(NotTrusted, match="not a trusted key") as caught:
        signatures.check_signatures(opened(signed()), trusted)
    assert caught.value.exit_code == 3
    assert keys.fingerprint(ALICE) in str(caught.value)


@pytest.mark.parametrize("keyid", ["", "\x1b[2J", "SHA256:short"])
def test_a_name_that_is_no_fingerprint_is_not_repeated(keyid: str) -> None:
    envelope = opened(signed(signatures=[signature_of(ALICE, keyid=keyid)]))
    with pytest.raises(NotTrusted, match="a key without fingerprint"):
        signatures.check_signatures(envelope, [trust(BOB)])


def test_a_tampered_payload_without_names_is_only_not_trusted() -> None:
    # without a keyid, tampering and a stranger look alike
    envelope = replace(opened(signed(signatures=[signature_of(ALICE, keyid="")])), payload=b"{}")
    with pytest.raises(NotTrusted):
        signatures.check_signatures(envelope, [trust(ALICE)])


def test_adding_a_signature_keeps_everything_else() -> None:
    data = json.dumps(signed(more="kept"), indent=1).encode()
    both = envelopes.add_signature(data, BOB)
    outcome = signatures.check_signatures(envelopes.open_envelope(both), [trust(BOB), trust(ALICE)])
    assert outcome.signers == (trust(BOB), trust(ALICE))
    assert json.loads(both)["signatures"][0] == signature_of(ALICE)
    assert json.loads(both)["more"] == "kept"
    stranger = signatures.check_signatures(envelopes.open_envelope(both), [trust(ALICE)])
    assert stranger.untrusted == (keys.fingerprint(BOB),)


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_that_signed_already_changes_nothing(kind: str) -> None:
    # a second P-256 signature has other bytes, and a time stamp rests on the first one's
    data = json.dumps(signed(signatures=[signature_of(KEYS[kind])]), indent=1).encode()
    assert envelopes.add_signature(data, KEYS[kind]) == data
    nameless = json.dumps(signed(signatures=[signature_of(KEYS[kind], keyid="")])).encode()
    assert envelopes.add_signature(nameless, KEYS[kind]) == nameless


def test_a_bad_signature_under_the_signers_name_is_replaced() -> None:
    bad = signature_of(ALICE, PAYLOAD + b"x")
    data = envelopes.add_signature(json.dumps(signed(signatures=[bad])).encode(), ALICE)
    assert json.loads(data)["signatures"] == [signature_of(ALICE)]


def test_an_unsigned_envelope_can_be_signed() -> None:
    data = envelopes.add_signature(json.dumps(signed(signatures=[])).encode(), ALICE)
    assert data == envelopes.sign_statement(PAYLOAD, ALICE)


def test_no_more_signatures_are_added_than_are_read_again() -> None:
    full = signed(signatures=[signature_of(MALLORY, keyid=str(n)) for n in range(32)])
    with pytest.raises(SchemaError, match=r"\$.signatures"):
        envelopes.add_signature(json.dumps(full).encode(), ALICE)


# Several signers


def signed_by(*private_keys: PrivateKey, **more: PrivateKey) -> envelopes.Envelope:
    signatures = [signature_of(key) for key in private_keys]
    signatures += [signature_of(key, keyid=name) for name, key in more.items()]
    return opened(signed(signatures=signatures))


def test_as_many_trusted_keys_as_are_asked_for_must_have_signed() -> None:
    trusted = [trust(BOB), trust(MALLORY), trust(ALICE)]
    envelope = signed_by(ALICE, BOB)
    for threshold in (1, 2):
        outcome = signatures.check_signatures(envelope, trusted, threshold)
        assert outcome.signers == (trust(BOB), trust(ALICE))
    with pytest.raises(NotTrusted) as caught:
        signatures.check_signatures(envelope, trusted, 3)
    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        f"signed by 2 trusted key(s) ({keys.fingerprint(BOB)}, "
        f"{keys.fingerprint(ALICE)}) of the 3 that are needed"
    )


def test_who_signed_and_is_missing_is_said_by_name() -> None:
    alice = replace(trust(ALICE), principals=("alice@example.org",))
    with pytest.raises(NotTrusted) as caught:
        signatures.check_signatures(signed_by(ALICE, BOB), [alice], 2)
    assert f"1 trusted key(s) ({keys.fingerprint(ALICE)} (alice@example.org))" in str(caught.value)
    assert f"signed also by {keys.fingerprint(BOB)}, not trusted" in str(caught.value)
    with pytest.raises(NotTrusted, match=r"signed by 0 trusted key\(s\) of the 2 that are needed"):
        signatures.check_signatures(signed_by(BOB), [alice], 2)


def test_a_key_counts_once_however_often_it_signed() -> None:
    twice = signed_by(ALICE, ALICE, again=ALICE)
    assert signatures.check_signatures(twice, [trust(ALICE), trust(BOB)]).signers == (trust(ALICE),)
    with pytest.raises(NotTrusted, match="signed by 1 trusted key"):
        signatures.check_signatures(twice, [trust(ALICE), trust(BOB)], 2)


def test_a_p256_key_counts_once_although_its_signatures_differ() -> None:
    envelope = signed_by(BOB, again=BOB)
    assert len({signature.value for signature in envelope.signatures}) == 2
    with pytest.raises(NotTrusted, match="signed by 1 trusted key"):
        signatures.check_signatures(envelope, [trust(BOB), trust(ALICE)], 2)


def test_a_key_counts_once_however_often_it_is_trusted() -> None:
    work = replace(trust(ALICE), principals=("alice@work",))
    home = replace(trust(ALICE), principals=("alice@home", "alice@work"), own=True, source="other")
    outcome = signatures.check_signatures(signed_by(ALICE), [work, trust(BOB), home])
    merged = replace(work, principals=("alice@work", "alice@home"), own=True)
    assert outcome.signers == (merged,)
    with pytest.raises(NotTrusted, match="of the 2 that are needed"):
        signatures.check_signatures(signed_by(ALICE), [work, home], 2)


def named(key: PrivateKey, *principals: str) -> TrustedKey:
    return replace(trust(key), principals=principals)


@pytest.mark.parametrize(
    ("principals", "people"),
    [
        ([("alice@x",), ("alice@x",)], 1),
        ([("alice@x", "alice@y"), ("a.liddell@z", "alice@y")], 1),
        ([("alice@x",), ("bob@x",)], 2),
        ([("alice@x",), ("Alice@x",)], 2),  # as OpenSSH tells them apart
        ([(), ()], 2),
        ([("alice@x",), ()], 2),
        ([("alice@x", "!mallory@x"), ("bob@x", "!mallory@x")], 2),
    ],
)
def test_keys_that_share_a_principal_count_as_one_person(
    principals: list[tuple[str, ...]], people: int
) -> None:
    alice, bob = named(ALICE, *principals[0]), named(BOB, *principals[1])
    envelope = signed_by(ALICE, BOB)
    others = signatures.others_than([alice], [alice, bob], [bob, alice])
    assert others == ([] if people == 1 else [bob])
    assert signatures.check_signatures(envelope, [alice, bob], people).signers == (alice, bob)
    with pytest.raises(NotTrusted) as caught:
        signatures.check_signatures(envelope, [alice, bob], people + 1)
    shared = ", which share principals and count as 1, of the 2 that are needed"
    assert (shared in str(caught.value)) == (people == 1)


def test_a_key_is_the_same_person_as_itself() -> None:
    twice = [trust(ALICE), named(ALICE, "alice@x"), named(BOB, "alice@x")]
    assert signatures.others_than(twice[:1], twice, twice) == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_third_key_tells_that_two_are_one_persons(order: tuple[int, ...]) -> None:
    named_keys = [
        named(ALICE, "alice@x"),
        named(BOB, "alice@y"),
        named(MALLORY, "alice@x", "alice@y"),
    ]
    trusted = [named_keys[n] for n in order]
    assert signatures.others_than(named_keys[:1], named_keys[1:2], trusted) == []
    for envelope in (signed_by(ALICE, BOB), signed_by(ALICE, BOB, MALLORY)):
        with pytest.raises(NotTrusted, match="count as 1, of the 2 that are needed"):
            signatures.check_signatures(envelope, trusted, 2)


def test_people_are_counted_in_short_time_however_many_are_trusted() -> None:
    crowd = [
        TrustedKey(str(n), ALICE.public_key(), "test", principals=(f"{n}@x", f"{n + 1}@x"))
        for n in range(20_000)
    ]
    began = time.monotonic()
    assert signatures.others_than([crowd[0]], [crowd[-1]], crowd) == []
    assert time.monotonic() - began < 5


def test_a_bad_signature_under_a_trusted_name_comes_before_a_missing_one() -> None:
    bad = signature_of(BOB, PAYLOAD + b"x")
    enough = opened(signed(signatures=[signature_of(ALICE), signature_of(MALLORY), bad]))
    trusted = [trust(ALICE), trust(BOB), trust(MALLORY)]
    for threshold in (1, 2, 3):
        with pytest.raises(SignatureError, match="does not match the payload") as caught:
            signatures.check_signatures(enough, trusted, threshold)
        assert caught.value.exit_code == 1


def test_no_signature_comes_before_too_few() -> None:
    with pytest.raises(NotSigned):
        signatures.check_signatures(opened(signed(signatures=[])), [trust(ALICE)], 2)


@pytest.mark.parametrize("threshold", [0, -1])
def test_nothing_asked_for_is_wrong_use(threshold: int) -> None:
    with pytest.raises(UsageError, match="at least 1 signature"):
        signatures.check_signatures(opened(signed()), [trust(ALICE)], threshold)


# Time stamps, which are only carried here


def stamped(*stamps: object) -> dict[str, Any]:
    return signed(signatures=[{**signature_of(ALICE), "timestamps": list(stamps)}])


def test_time_stamps_are_handed_on_unjudged() -> None:
    tsp = [{"type": "tsp", "data": base64.b64encode(data).decode()} for data in (b"1", b"22")]
    envelope = opened(stamped(tsp[0], {"type": "other", "data": "!"}, {"type": "new"}, tsp[1]))
    assert envelope.signatures[0].timestamps == (b"1", b"22")
    assert opened(signed()).signatures[0].timestamps == ()
    signatures.check_signatures(envelope, [trust(ALICE)])


@pytest.mark.parametrize(
    "stamp",
    [
        {"type": "tsp"},
        {"type": "tsp", "data": ""},
        {"type": "tsp", "data": "AAA"},
        {"type": "tsp", "data": "AB=="},  # other bits, same bytes
        {"type": "tsp", "data": "A A="},
        {"type": "tsp", "data": "A" * 65540},
        {"type": "tsp", "data": 1},
        {"type": 1, "data": "AA=="},
        {"data": "AA=="},
        "AA==",
    ],
)
def test_a_malformed_time_stamp_is_malformed(stamp: object) -> None:
    good = {"type": "tsp", "data": "AA=="}
    with pytest.raises(SchemaError, match=r"\$\.signatures\[0\]\.timestamps\[1\]"):
        opened(stamped(good, stamp))


def test_no_more_time_stamps_are_read_than_a_verifier_should_check() -> None:
    with pytest.raises(SchemaError, match="maxItems"):
        opened(stamped(*[{"type": "tsp", "data": "AA=="}] * 9))


# Asking for one of several


def test_the_only_signature_needs_no_name() -> None:
    assert envelopes.select_signature(signed_by(ALICE)) == 0
    assert (
        envelopes.select_signature(opened(signed(signatures=[signature_of(ALICE, keyid="")]))) == 0
    )
    assert envelopes.select_signature(signed_by(BOB, ALICE), keys.fingerprint(ALICE)) == 1


def test_one_of_several_signatures_is_not_guessed() -> None:
    with pytest.raises(UsageError, match=r"several keys signed it.*say which with --by"):
        envelopes.select_signature(signed_by(BOB, ALICE))
    with pytest.raises(UsageError, match=r"no signature by .*; there are signatures by .SHA256:"):
        envelopes.select_signature(signed_by(BOB), keys.fingerprint(ALICE))
    with pytest.raises(NotSigned):
        envelopes.select_signature(opened(signed(signatures=[])))


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"{", JsonError),
        (b"[]", SchemaError),
        (b"{}", SchemaError),
        (b'{"predicateType":1}', SchemaError),
    ],
)
def test_what_is_no_statement_has_no_type(payload: bytes, kind: type[MalformedError]) -> None:
    envelope = envelopes.open_envelope(envelopes.sign_statement(payload, ALICE))
    with pytest.raises(kind, match=r"^m\.json: "):
        envelopes.statement_type(envelope, what="m.json")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", JsonError),
        (b"1", SchemaError),
        (b"[]", SchemaError),
        (envelopes.sign_statement(PAYLOAD, ALICE)[:-9], JsonError),
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
        envelopes.open_envelope(data, what="manifest.json")
    assert str(caught.value).startswith("manifest.json: ")
    assert caught.value.exit_code == 5


@given(st.binary(max_size=99), st.integers(0, 10**6), st.integers(0, 255))
def test_any_bytes_are_refused_with_one_of_our_errors(data: bytes, at: int, byte: int) -> None:
    changed = bytearray(envelopes.sign_statement(PAYLOAD, ALICE))
    changed[at % len(changed)] = byte
    for candidate in (data, bytes(changed)):
        try:
            envelope = envelopes.open_envelope(candidate)
            signatures.check_signatures(envelope, [trust(ALICE)])
        except (MalformedError, SignatureError):
            continue
        assert envelope.payload == PAYLOAD  # only a byte that no signature covers was changed
