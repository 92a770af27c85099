from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from rfc3161_client import decode_timestamp_response
from timestamp_authority import (
    POLICY,
    Authority,
    children,
    der,
    make_authority,
    needs_openssl,
    openssl,
    with_last,
)

from auditkit.errors import (
    AuditError,
    FormatError,
    KeyFileError,
    MalformedError,
    SchemaError,
    TimestampError,
)
from auditkit.formats import canonical
from auditkit.signing import envelopes, keys, timestamps
from auditkit.signing.der import ordered_reply

pytestmark = needs_openssl

MESSAGE = b"the bytes of a signature"
PAYLOAD = b'{"predicateType":"urn:test"}'
ALICE, BOB = keys.generate_key(), ec.generate_private_key(ec.SECP256R1())
GRANTED = bytes.fromhex("3003020100")  # PKIStatusInfo of 0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority") / "tsa")


@pytest.fixture(scope="module")
def reply(authority: Authority) -> bytes:
    return authority.stamp(timestamps.request(MESSAGE))


# What the authority says


def test_a_stamp_verifies_under_its_authoritys_root(authority: Authority, reply: bytes) -> None:
    stamp = timestamps.check_timestamp(reply, MESSAGE, [authority.root])
    age = datetime.now(UTC) - datetime.fromisoformat(stamp.time)
    assert stamp.time.endswith("Z")
    assert timedelta(0) <= age + timedelta(seconds=1) < timedelta(minutes=10)
    assert (stamp.authority, stamp.policy) == ("CN=Test Authority", POLICY)
    assert int(stamp.serial) > 2**53


def test_one_trusted_authority_of_several_is_enough(
    authority: Authority, reply: bytes, tmp_path: Path
) -> None:
    other = make_authority(tmp_path / "other")
    for roots in ([authority.root, other.root], [other.root, authority.root]):
        assert timestamps.check_timestamp(reply, MESSAGE, roots).authority == "CN=Test Authority"


def test_a_stamp_of_other_bytes_is_refused(authority: Authority, reply: bytes) -> None:
    with pytest.raises(TimestampError, match="something else than this signature") as caught:
        timestamps.check_timestamp(reply, MESSAGE + b".", [authority.root])
    assert caught.value.exit_code == 1


def test_only_the_root_of_the_authority_vouches_for_it(
    authority: Authority, reply: bytes, tmp_path: Path
) -> None:
    namesake = make_authority(tmp_path / "namesake")
    for trusted in ([], [namesake.root], [authority.certificate]):
        with pytest.raises(TimestampError, match="not signed by a trusted authority"):
            timestamps.check_timestamp(reply, MESSAGE, trusted)


def test_a_certificate_that_is_not_for_time_stamps_gives_none(
    authority: Authority, reply: bytes, tmp_path: Path
) -> None:
    employee = make_authority(tmp_path / "employee", may_stamp=False)
    (employee.folder / "real").write_bytes(children(reply)[1])
    content = ["-verify", "-noverify", "-inform", "DER", "-in", "real", "-out", "info"]
    signing_it = ["-sign", "-nodetach", "-econtent_type", "1.2.840.113549.1.9.16.1.4"]
    files = ["-signer", "tsa.pem", "-inkey", "tsa.key", "-in", "info"]
    openssl(employee.folder, "cms", "-binary", *content)
    openssl(
        employee.folder,
        *("cms", "-binary", *signing_it, *files, "-outform", "DER", "-out", "token"),
    )
    forged = der(0x30, GRANTED, (employee.folder / "token").read_bytes())
    assert timestamps.token_sha256(forged) == timestamps.token_sha256(reply)  # the same content
    with pytest.raises(TimestampError, match="not signed by a trusted authority"):
        timestamps.check_timestamp(forged, MESSAGE, [employee.root])


def test_a_refusal_is_no_stamp(authority: Authority) -> None:
    request = bytearray(timestamps.request(MESSAGE))
    at = request.index(bytes.fromhex("608648016503040201"))
    request[at + 8] = 4  # SHA-224, which this authority does not take
    refusal = authority.stamp(bytes(request))
    for call in (
        lambda: timestamps.check_timestamp(refusal, MESSAGE, [authority.root]),
        lambda: timestamps.token_sha256(refusal),
        lambda: timestamps.attach(envelopes.sign_statement(PAYLOAD, ALICE), refusal),
    ):
        with pytest.raises(TimestampError, match="the authority's answer is rejection"):
            call()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda _: b"<html>busy</html>",
        lambda reply: reply[:-1],
        lambda reply: reply + b"\0",
        lambda reply: der(0x30, reply),
        lambda reply: children(reply)[1],
    ],
)
def test_what_is_no_reply_is_malformed(spoil: Callable[[bytes], bytes], reply: bytes) -> None:
    with pytest.raises(FormatError, match="no time stamp reply") as caught:
        timestamps.check_timestamp(spoil(reply), MESSAGE, [])
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (timestamps.request(MESSAGE), "it is a time stamp request, no reply; send it"),
        (b"", "it is empty"),
        (b"<html>\r\n<b>busy</b>\n", "it is text, not DER"),
        (b"\x30\x05\xff", "ShortData"),
    ],
    ids=["a request", "empty", "text", "cut"],
)
def test_what_is_no_reply_is_told_apart_in_one_short_line(data: bytes, said: str) -> None:
    with pytest.raises(FormatError) as caught:
        timestamps.token_sha256(data)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_changed_reply_is_refused_or_says_the_same(authority: Authority, reply: bytes) -> None:
    said = timestamps.check_timestamp(reply, MESSAGE, [authority.root])
    digest = timestamps.token_sha256(reply)
    draw, codes = random.Random(0), []
    for _ in range(1500):
        changed = bytearray(reply)
        changed[draw.randrange(len(reply))] ^= draw.randrange(1, 256)
        try:
            stamp = timestamps.check_timestamp(bytes(changed), MESSAGE, [authority.root])
        except AuditError as error:
            codes.append(error.exit_code)
            continue
        assert (stamp, timestamps.token_sha256(bytes(changed))) == (said, digest)
    assert set(codes) == {1, 5}
    assert len(codes) > 1000


# The digest that seeds derive from


def other_signature_value(signature: bytes) -> bytes:
    """(r, -s) for (r, s): as good a signature."""
    r, s = decode_dss_signature(signature[2:])
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
    return der(0x04, encode_dss_signature(r, order - s))


def unsigned_attribute(signature: bytes) -> bytes:
    """The signature, and beside it what it does not cover."""
    name = bytes.fromhex("06032a0304")
    return signature + der(0xA1, der(0x30, name, der(0x31, der(0x0C, b"changed"))))


@pytest.mark.parametrize("change", [other_signature_value, unsigned_attribute])
def test_what_no_signature_covers_is_not_in_the_digest(
    change: Callable[[bytes], bytes], authority: Authority, reply: bytes
) -> None:
    assert with_last(reply, lambda leaf: leaf) == reply
    changed = with_last(reply, change)
    assert changed != reply
    timestamps.check_timestamp(changed, MESSAGE, [authority.root])
    assert timestamps.token_sha256(changed) == timestamps.token_sha256(reply)


def test_what_the_answer_says_beside_the_stamp_is_not_in_the_digest(
    authority: Authority, reply: bytes
) -> None:
    _, token = children(reply)
    worded = der(0x30, der(0x30, GRANTED[2:], der(0x30, der(0x0C, b"thank you"))), token)
    timestamps.check_timestamp(worded, MESSAGE, [authority.root])
    assert timestamps.token_sha256(worded) == timestamps.token_sha256(reply)


def test_who_signed_is_never_in_doubt(authority: Authority, reply: bytes) -> None:
    """A second certificate of the same issuer and number, which is there to lend its name."""
    key = ec.generate_private_key(ec.SECP256R1())
    real, famous = authority.certificate, "An Authority That Everybody Knows and Trusts"
    name = [x509.NameAttribute(kind, famous) for kind in (NameOID.COMMON_NAME, NameOID.TITLE)]
    lent = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(name))
        .issuer_name(real.issuer)
        .serial_number(real.serial_number)
        .public_key(key.public_key())
        .not_valid_before(real.not_valid_before_utc)
        .not_valid_after(real.not_valid_after_utc)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
        .sign(key, SHA256())
        .public_bytes(Encoding.DER)
    )
    status, token = children(reply)
    kind, content = children(token)
    (signed,) = children(content)
    *first, certificates, signers = children(signed)
    both = b"".join(sorted([*children(certificates), lent]))
    signed = der(0x30, *first, der(0xA0, both), signers)
    crowded = der(0x30, status, der(0x30, kind, der(0xA0, signed)))
    with pytest.raises(TimestampError, match="does not tell who signed it"):
        timestamps.check_timestamp(crowded, MESSAGE, [authority.root])


def test_asking_again_gives_another_digest(authority: Authority) -> None:
    request = timestamps.request(MESSAGE)
    assert len({timestamps.token_sha256(authority.stamp(request)) for _ in range(3)}) == 3


def test_the_digest_is_of_what_openssl_prints(authority: Authority, reply: bytes) -> None:
    (authority.folder / "in.tsr").write_bytes(reply)
    text = openssl(authority.folder, "ts", "-reply", "-in", "in.tsr", "-text")

    def said(name: str) -> str:
        found = re.search(rf"^{name}: (.+)$", text, re.MULTILINE)
        assert found is not None, text
        return found[1]

    time = datetime.strptime(said("Time stamp"), "%b %d %H:%M:%S %Y GMT")
    content = [
        "auditkit/timestamp-v1",
        said("Policy OID"),
        "2.16.840.1.101.3.4.2.1",
        hashlib.sha256(MESSAGE).hexdigest(),
        str(int(said("Serial number"), 16)),
        f"{time.isoformat()}Z",
        str(int(said("Nonce"), 16)),
    ]
    assert said("Hash Algorithm") == "sha256"
    expected = hashlib.sha256(canonical.dumps(content)).hexdigest()
    assert timestamps.token_sha256(reply) == expected


# In an envelope


def two_signers() -> bytes:
    return envelopes.add_signature(envelopes.sign_statement(PAYLOAD, ALICE), BOB)


def test_a_stamp_goes_to_the_signature_that_it_is_over(authority: Authority) -> None:
    data = two_signers()
    before = envelopes.open_envelope(data)
    reply = authority.stamp(timestamps.request(before.signatures[1].value))
    assert timestamps.stamped_signature(before, reply) == 1
    stamped = timestamps.attach(data, reply)
    after = envelopes.open_envelope(stamped)
    assert [s.timestamps for s in after.signatures] == [(), (reply,)]
    assert (after.payload, after.payload_type) == (before.payload, before.payload_type)
    assert [s.value for s in after.signatures] == [s.value for s in before.signatures]
    assert timestamps.attach(stamped, reply) == stamped
    again = authority.stamp(timestamps.request(before.signatures[1].value))
    both = envelopes.open_envelope(timestamps.attach(stamped, again))
    assert both.signatures[1].timestamps == (reply, again)
    signed_on = envelopes.add_signature(stamped, keys.generate_key())
    assert envelopes.open_envelope(signed_on).signatures[1].timestamps == (reply,)


def test_a_stamp_of_something_else_is_not_attached(reply: bytes) -> None:
    with pytest.raises(TimestampError, match="of none of the signatures in manifest"):
        timestamps.attach(two_signers(), reply)


def test_no_more_stamps_are_attached_than_are_read_again(authority: Authority) -> None:
    data = envelopes.sign_statement(PAYLOAD, ALICE)
    request = timestamps.request(envelopes.open_envelope(data).signatures[0].value)
    for _ in range(8):
        data = timestamps.attach(data, authority.stamp(request))
    assert len(envelopes.open_envelope(data).signatures[0].timestamps) == 8
    with pytest.raises(SchemaError, match="maxItems"):
        timestamps.attach(data, authority.stamp(request))


def test_openssl_verifies_an_attached_stamp(authority: Authority, tmp_path: Path) -> None:
    data = envelopes.sign_statement(PAYLOAD, ALICE)
    value = envelopes.open_envelope(data).signatures[0].value
    stamped = json.loads(timestamps.attach(data, authority.stamp(timestamps.request(value))))
    (signature,) = stamped["signatures"]
    (tmp_path / "r").write_bytes(base64.b64decode(signature["timestamps"][0]["data"]))
    (tmp_path / "sig").write_bytes(base64.b64decode(signature["sig"]))
    command = ["ts", "-verify", "-data", "sig", "-in", "r", "-CAfile", str(authority.root_file)]
    assert "Verification: OK" in openssl(tmp_path, *command)


# Certificates in another order than DER's


def certificates_of(reply: bytes) -> list[bytes]:
    """In the reply's order."""
    (signed,) = children(children(children(reply)[1])[1])
    return children(children(signed)[3])


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority whose certificates openssl writes in an order that is not DER's."""
    folder = tmp_path_factory.mktemp("talkative")
    for attempt in range(8):  # the signer's is the longer one; their keys and names are random
        made = make_authority(folder / str(attempt), sends_root=True)
        found = certificates_of(made.stamp(timestamps.request(MESSAGE)))
        if found != sorted(found):
            return made
    pytest.fail("openssl sorts them")


def test_a_reply_whose_certificates_are_not_sorted_is_read(talkative: Authority) -> None:
    reply = talkative.stamp(timestamps.request(MESSAGE))
    with pytest.raises(ValueError, match="InvalidSetOrdering"):  # or nothing is shown here
        decode_timestamp_response(reply)
    stamp = timestamps.check_timestamp(reply, MESSAGE, [talkative.root])
    assert stamp.authority == "CN=Test Authority"
    assert timestamps.token_sha256(reply) == timestamps.token_sha256(ordered_reply(reply))
    with pytest.raises(TimestampError, match="something else"):
        timestamps.check_timestamp(reply, b"other", [talkative.root])


def test_a_reply_is_kept_as_the_authority_gave_it_and_openssl_takes_it(
    talkative: Authority, tmp_path: Path
) -> None:
    data = envelopes.sign_statement(PAYLOAD, ALICE)
    value = envelopes.open_envelope(data).signatures[0].value
    reply = talkative.stamp(timestamps.request(value))
    assert ordered_reply(reply) != reply
    stamped = timestamps.attach(data, reply)
    assert timestamps.attach(stamped, reply) == stamped
    (kept,) = envelopes.open_envelope(stamped).signatures[0].timestamps
    assert kept == reply
    (tmp_path / "sig").write_bytes(value)
    for form in (kept, ordered_reply(kept)):
        (tmp_path / "r").write_bytes(form)
        command = ["ts", "-verify", "-data", "sig", "-in", "r"]
        checked = openssl(tmp_path, *command, "-CAfile", str(talkative.root_file))
        assert "Verification: OK" in checked


# Files


def test_certificates_are_read_in_both_forms(authority: Authority, tmp_path: Path) -> None:
    both = authority.root_file.read_bytes() + authority.certificate.public_bytes(Encoding.PEM)
    (tmp_path / "both.pem").write_bytes(b"# a bundle\n" + both)
    (tmp_path / "root.der").write_bytes(authority.root.public_bytes(Encoding.DER))
    found = timestamps.load_certificates(tmp_path / "both.pem")
    assert found == [authority.root, authority.certificate]
    assert timestamps.load_certificates(tmp_path / "root.der") == [authority.root]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\n" * 30_000,
        b"#" * (timestamps.MAX_CERTIFICATE_BYTES + 1),
    ],
)
def test_a_bad_certificate_file_is_a_key_file_error(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(KeyFileError) as caught:
        timestamps.load_certificates(tmp_path / "file")
    assert caught.value.exit_code == 2


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_damaged_certificate_is_refused_where_it_is_read_or_vouches_for_nothing(
    authority: Authority, reply: bytes, tmp_path: Path
) -> None:
    data, draw = authority.root.public_bytes(Encoding.DER), random.Random(0)
    refused = {KeyFileError: 0, TimestampError: 0}
    for _ in range(1000):
        changed = bytearray(data)
        changed[draw.randrange(len(data))] ^= draw.randrange(1, 256)
        (tmp_path / "root").write_bytes(changed)
        try:
            certificates = timestamps.load_certificates(tmp_path / "root")
            timestamps.check_timestamp(reply, MESSAGE, certificates)
        except (KeyFileError, TimestampError) as error:
            refused[type(error)] += 1
    assert min(refused.values()) > 100


def test_files_that_cannot_be_read_are_our_errors(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        timestamps.load_certificates(tmp_path / "none")
    (tmp_path / "large").write_bytes(bytes(timestamps.MAX_REPLY_BYTES + 1))
    with pytest.raises(MalformedError, match="longer than"):
        timestamps.read_reply(tmp_path / "large")
