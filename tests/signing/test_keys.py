from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from auditkit.errors import KeyEncrypted, KeyFileError
from auditkit.signing import keys

ED = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))  # fixed: it is in the tests' names
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
SPKI = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
SSH = (Encoding.OpenSSH, PublicFormat.OpenSSH)
LINE = keys.public_line(ED)
NOW = datetime(2026, 5, 1, tzinfo=UTC)

#: An Ed25519 key under the object identifier of Ed448, whose keys are longer.
OF_ANOTHER_KIND = keys.private_key_bytes(ED).replace(b"K2Vw", b"K2Vx")

#: A P-256 key whose point does not begin as an uncompressed one.
_BLOB = base64.b64decode(keys.public_line(P256).split()[1])
NO_WHOLE_POINT = b"ecdsa-sha2-nistp256 " + base64.b64encode(_BLOB[:-65] + b"\x02" + _BLOB[-64:])


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def fingerprints(data: bytes) -> list[str]:
    found = keys.parse_public_keys(data, source="f", now=NOW)
    assert all(key.fingerprint == keys.fingerprint(key.public_key) for key in found)
    return [key.fingerprint for key in found]


@pytest.mark.parametrize("key", [ED, P256], ids=["ed25519", "p256"])
@pytest.mark.parametrize("password", [None, "pässword"])
def test_private_keys_round_trip(key: keys.PrivateKey, password: str | None) -> None:
    data = keys.private_key_bytes(key, password)
    found = keys.parse_private_key(data, password, source="f")
    assert keys.fingerprint(found) == keys.fingerprint(key)
    message = b"message"
    assert keys.verifies(found.public_key(), keys.sign_bytes(key, message), message)
    assert not keys.verifies(found.public_key(), keys.sign_bytes(key, message), b"other")


@pytest.mark.parametrize("key", [ED, P256], ids=["ed25519", "p256"])
def test_other_forms_of_a_private_key_are_read(key: keys.PrivateKey) -> None:
    forms = [PrivateFormat.OpenSSH]
    if key is P256:
        forms.append(PrivateFormat.TraditionalOpenSSL)
    for form in forms:
        data = key.private_bytes(Encoding.PEM, form, NoEncryption())
        found = keys.parse_private_key(data, "ignored, as it is not encrypted", source="f")
        assert keys.fingerprint(found) == keys.fingerprint(key)


def test_the_public_line_names_nobody() -> None:
    assert len(LINE.split()) == 2
    assert keys.public_line(ED, "alice") == f"{LINE} alice"


@pytest.mark.parametrize("key", [ED, P256], ids=["ed25519", "p256"])
def test_public_keys_are_read_in_every_form(key: keys.PrivateKey) -> None:
    public, wanted = key.public_key(), [keys.fingerprint(key)]
    assert fingerprints(public.public_bytes(*SPKI)) == wanted
    assert fingerprints(public.public_bytes(*SSH)) == wanted
    assert fingerprints(public.public_bytes(*SSH) + b" a comment\n\n# note\n") == wanted
    assert fingerprints(b'me@x namespaces="git,auditkit" ' + public.public_bytes(*SSH)) == wanted
    private = keys.parse_public_keys(keys.private_key_bytes(key), source="f")
    assert [k.fingerprint for k in private] == wanted
    assert private[0].own


def test_a_file_may_hold_several_keys() -> None:
    both = [keys.fingerprint(ED), keys.fingerprint(P256)]
    lines = f"# co-authors\r\na@x {LINE} note\r\n\r\n{keys.public_line(P256)}\r\n"
    assert fingerprints(lines.encode()) == both
    pems = b"".join(key.public_key().public_bytes(*SPKI) for key in (ED, P256))
    assert fingerprints(pems) == both


@pytest.mark.parametrize(
    ("options", "applies"),
    [
        ('namespaces="auditkit"', True),
        ('namespaces="git,audit*"', True),
        ('NAMESPACES="file,auditkit",valid-after="20260430Z"', True),
        ('valid-after="20260401",valid-before="202606011200"', True),
        ('valid-before="20260501000001Z"', True),
        ('namespaces="git,*"', True),
        ('namespaces="a?ditki?"', True),
        ('namespaces="!git,*"', True),
        ('namespaces="!!auditkit,*"', True),  # negates the pattern !auditkit
        ('namespaces="git"', False),
        ('namespaces="*,!auditkit"', False),
        ('namespaces="!auditkit,*"', False),
        ('namespaces="auditkit,!audit*"', False),
        ('namespaces="!git"', False),  # a negated pattern alone allows nothing
        ('namespaces="[a]uditkit"', False),  # no such thing in OpenSSH
        ('namespaces="[!b]uditkit"', False),
        ('namespaces="![a]uditkit,*"', True),
        ('namespaces="Auditkit"', False),
        ('namespaces="git, auditkit"', False),  # a blank belongs to the pattern
        ('namespaces=""', False),
        ('valid-before="20260501Z"', False),
        ('valid-after="20260601"', False),
    ],
)
def test_options_of_allowed_signers_are_kept_to(options: str, applies: bool) -> None:
    line = f'"a b@x",c@x {options} {LINE} comment'
    if applies:
        assert fingerprints(line.encode()) == [keys.fingerprint(ED)]
    else:
        with pytest.raises(KeyFileError, match="no key that may sign"):
            fingerprints(line.encode())


@pytest.mark.parametrize(
    ("line", "principals"),
    [
        (f"{LINE} alice@example.org", ()),  # a comment names nobody
        (f"alice@example.org {LINE} comment", ("alice@example.org",)),
        (f'alice@x,bob@x namespaces="auditkit" {LINE}', ("alice@x", "bob@x")),
        (f'"Alice Liddell,*@x" {LINE}', ("Alice Liddell", "*@x")),
        (f"alice@x,,bob@x, {LINE}", ("alice@x", "bob@x")),
        (f"*@x,!bob@x {LINE}", ("*@x", "!bob@x")),
        (f"!alice@x,!bob@x {LINE}", ()),  # that says only whose it is not
    ],
)
def test_whose_key_it_is_is_what_the_reader_wrote(line: str, principals: tuple[str, ...]) -> None:
    (key,) = keys.parse_public_keys(line.encode(), source="f", now=NOW)
    assert key.principals == principals
    named = f" ({', '.join(principals)})" if principals else ""
    assert key.label == keys.fingerprint(ED) + named


RSA_LINE = RSA.public_key().public_bytes(*SSH)
P384_LINE = P384.public_key().public_bytes(*SSH)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"garbage", "no key in 'garbage'"),
        (b"alice@x", "no key"),
        (b"ssh-ed25519", "no key"),
        (b"a b c " + LINE.encode(), "no key"),
        (b"ssh-ed25519 AAAA", "damaged"),
        (b"ssh-ed25519 !!!!", "damaged"),
        (NO_WHOLE_POINT, "damaged"),
        (b"ecdsa-sha2-nistp256 " + LINE.split()[1].encode(), "damaged"),
        (LINE.encode()[:-9], "damaged"),
        (RSA_LINE, "unsupported kind of key 'ssh-rsa'"),
        (b"a@x " + P384_LINE, "unsupported kind of key 'ecdsa-sha2-nistp384'"),
        (b"a@x sk-ssh-ed25519@openssh.com AAAA", "unsupported kind of key"),
        (b"a@x cert-authority " + LINE.encode(), "unsupported option"),
        (b"a@x no-touch-required " + LINE.encode(), "unsupported option"),
        (b'a@x valid-after="soon" ' + LINE.encode(), "'soon' is no time"),
        (b'a@x valid-after="00000101" ' + LINE.encode(), "is no time"),
        (b"a@x namespaces " + LINE.encode(), "no key that may sign"),
        (
            b'a@x namespaces="git",Namespaces="auditkit" ' + LINE.encode(),
            "the option namespaces is given twice",
        ),
        (
            b'a@x valid-after="20200101",valid-after="20200101" ' + LINE.encode(),
            "the option valid-after is given twice",
        ),
    ],
)
def test_a_bad_line_is_named_by_its_number(line: bytes, says: str) -> None:
    if "may sign" in says:
        with pytest.raises(KeyFileError, match=says):
            keys.parse_public_keys(line, source="signers")
        return
    with pytest.raises(KeyFileError, match=r"^signers, line 3: ") as caught:
        keys.parse_public_keys(LINE.encode() + b"\n\n" + line, source="signers")
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xff\xfe", "no key file"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "damaged"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n", "damaged"),
        (b"-----BEGIN PUBLIC KEY-----\n" * 30_000, "damaged"),  # read in linear time
        (b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n", "certificate"),
        (RSA.public_key().public_bytes(*SPKI), "unsupported"),
        (P384.public_key().public_bytes(*SPKI), "unsupported"),
        (keys.private_key_bytes(ED, "pw"), "encrypted"),
        (pem(RSA), "unsupported"),
    ],
)
def test_a_bad_public_key_file_is_a_key_file_error(data: bytes, says: str) -> None:
    with pytest.raises(KeyFileError, match=says):
        keys.parse_public_keys(data, source="f")


# Weak Ed25519 keys

PRIME = 2**255 - 19
_D = -121665 * pow(121666, -1, PRIME) % PRIME


def small_order_ys() -> set[int]:
    """The y of all points whose order divides 8, found on the curve -x² + y² = 1 + d·x²·y².

    Of order 1, 2 and 4 are (0, 1), (0, -1) and those with y = 0. A point that doubled has y = 0
    has x² = -y², and so d·y⁴ + 2·y² - 1 = 0.
    """
    root = pow(2, (PRIME - 1) // 4, PRIME)  # of -1

    def roots(square: int) -> set[int]:
        guess = pow(square, (PRIME + 3) // 8, PRIME)
        found = {guess, guess * root % PRIME}
        return {s * g % PRIME for g in found for s in (1, -1) if g * g % PRIME == square % PRIME}

    squares = {(s - 1) * pow(_D, -1, PRIME) % PRIME for s in roots(1 + _D)}
    return {0, 1, PRIME - 1} | {y for square in squares for y in roots(square)}


WEAK = [
    (encoded + sign * 2**255).to_bytes(32, "little")
    for y in sorted(small_order_ys())
    for encoded in (y, y + PRIME)
    if encoded < 2**255
    for sign in (0, 1)
]
NOT_CANONICAL = [
    (PRIME + more + sign * 2**255).to_bytes(32, "little")
    for more in range(2, 19)
    for sign in (0, 1)
]


def forms_of(raw: bytes) -> list[bytes]:
    """A public key in every form that is read."""
    public = Ed25519PublicKey.from_public_bytes(raw)
    line = public.public_bytes(*SSH)
    return [public.public_bytes(*SPKI), line, b'a@x namespaces="auditkit" ' + line]


def test_the_weak_keys_are_the_known_ones() -> None:
    # libsodium's list of seven, whose highest bit is ignored
    assert len(small_order_ys()) == 5
    assert len({raw[:31] + bytes([raw[31] & 127]) for raw in WEAK}) == 7
    assert {raw.hex() for raw in WEAK} >= {
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    }


def test_a_weak_key_verifies_what_nobody_signed() -> None:
    raw = (1).to_bytes(32, "little")
    forged = raw + bytes(32)
    assert keys.verifies(Ed25519PublicKey.from_public_bytes(raw), forged, b"any message")


@pytest.mark.parametrize("raw", WEAK, ids=bytes.hex)
def test_a_weak_key_is_refused_in_every_form(raw: bytes) -> None:
    for data in forms_of(raw):
        with pytest.raises(KeyFileError, match="is weak: it would verify any message"):
            keys.parse_public_keys(data, source="f", now=NOW)


@pytest.mark.parametrize("raw", NOT_CANONICAL, ids=bytes.hex)
def test_a_key_in_another_than_its_canonical_form_is_refused(raw: bytes) -> None:
    for data in forms_of(raw):
        with pytest.raises(KeyFileError, match="not in canonical form"):
            keys.parse_public_keys(data, source="f", now=NOW)


def test_the_public_half_of_a_private_key_is_looked_at_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keys, "_weakness", lambda _: "weak")
    data = keys.private_key_bytes(ED)
    with pytest.raises(KeyFileError, match="the key is weak"):
        keys.parse_private_key(data, source="f")
    with pytest.raises(KeyFileError, match="the key is weak"):
        keys.parse_public_keys(data, source="f")


ENCRYPTED = keys.private_key_bytes(ED, "right")


@pytest.mark.parametrize(
    ("data", "password", "says"),
    [
        (b"", None, "empty"),
        (b"garbage", None, "no private key"),
        (LINE.encode(), None, "no private key"),
        (ED.public_key().public_bytes(*SPKI), None, "no private key"),
        (ENCRYPTED, None, "encrypted: give its password"),
        (ENCRYPTED, "wrong", "password is wrong"),
        (ENCRYPTED[:80] + ENCRYPTED[90:], "right", "wrong or the key is damaged"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", None, "damaged"),
        (OF_ANOTHER_KIND, None, "damaged"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", None, "damaged"),
        (pem(RSA), None, "supported are Ed25519 and ECDSA P-256"),
        (pem(P384), None, "supported are"),
        (pem(x25519.X25519PrivateKey.generate()), None, "supported are"),
    ],
)
def test_a_bad_private_key_is_a_key_file_error(
    data: bytes, password: str | None, says: str
) -> None:
    with pytest.raises(KeyFileError, match=says) as caught:
        keys.parse_private_key(data, password, source="f")
    assert caught.value.exit_code == 2


def test_a_missing_bcrypt_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(encrypted_openssh(ED))
    program = (
        "import pathlib, sys\n"
        "sys.modules['bcrypt'] = None\n"
        "from auditkit import errors\n"
        "from auditkit.signing import keys\n"
        "try:\n"
        "    keys.parse_private_key(pathlib.Path('key').read_bytes(), 'pw', source='f')\n"
        "except errors.KeyFileError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "f: an encrypted OpenSSH key needs the package bcrypt" in done.stdout
    assert 'pip install "auditkit[ssh]"' in done.stdout


def encrypted_openssh(key: keys.PrivateKey) -> bytes:
    pytest.importorskip("bcrypt", reason="bcrypt is not installed")
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, BestAvailableEncryption(b"pw"))


@pytest.mark.parametrize("key", [ED, P256], ids=["ed25519", "p256"])
def test_encrypted_openssh_keys_are_read_with_their_password(key: keys.PrivateKey) -> None:
    data = encrypted_openssh(key)
    assert keys.fingerprint(keys.parse_private_key(data, "pw", source="f")) == keys.fingerprint(key)
    with pytest.raises(KeyFileError, match="password is wrong"):
        keys.parse_private_key(data, "other", source="f")
    with pytest.raises(KeyEncrypted, match="encrypted: give its password"):
        keys.parse_private_key(data, source="f")


def test_a_key_that_is_encrypted_is_told_from_one_that_is_damaged() -> None:
    for password in (None, ""):
        with pytest.raises(KeyEncrypted) as caught:
            keys.parse_private_key(ENCRYPTED, password, source="f")
        assert caught.value.exit_code == 2
    for data, password in ((ENCRYPTED, "wrong"), (ENCRYPTED[:80] + ENCRYPTED[90:], "right")):
        with pytest.raises(KeyFileError) as refused:
            keys.parse_private_key(data, password, source="f")
        assert not isinstance(refused.value, KeyEncrypted)


def test_an_encrypted_key_given_for_its_public_half_asks_for_that() -> None:
    with pytest.raises(KeyFileError, match="give its public half") as caught:
        keys.parse_public_keys(ENCRYPTED, source="f")
    assert not isinstance(caught.value, KeyEncrypted)  # nobody is to be asked for a password


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
@pytest.mark.parametrize("password", ["", "pass word"], ids=["plain", "encrypted"])
def test_keys_of_ssh_keygen_are_read_and_named_alike(
    kind: str, password: str, tmp_path: Path
) -> None:
    if password:
        pytest.importorskip("bcrypt", reason="bcrypt is not installed")
    path = tmp_path / "id"
    ssh_keygen("-q", "-t", kind, "-N", password, "-f", str(path))
    listed = ssh_keygen("-lf", f"{path}.pub").split()[1]
    private = keys.parse_private_key(path.read_bytes(), password or None, source="id")
    assert keys.fingerprint(private) == listed
    assert fingerprints(Path(f"{path}.pub").read_bytes()) == [listed]
    verified = keys.verifies(private.public_key(), keys.sign_bytes(private, b"m"), b"m")
    assert verified


def ssh_keygen(*arguments: str) -> str:
    done = subprocess.run(
        ["ssh-keygen", *arguments],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


@given(st.binary(max_size=99) | st.text().map(lambda text: text.encode()))
def test_any_bytes_give_keys_or_a_key_file_error(data: bytes) -> None:
    for candidate in (data, b"a@x " + data + b" " + LINE.encode(), b"-----BEGIN " + data):
        try:
            keys.parse_public_keys(candidate, source="fuzz")
        except KeyFileError:
            continue


@given(st.text(alphabet='anvs-="\\,# \t20Z', max_size=40))
def test_any_options_give_keys_or_a_key_file_error(options: str) -> None:
    try:
        keys.parse_public_keys(f"a@x {options} {LINE}".encode(), source="fuzz")
    except KeyFileError as error:
        message = str(error)
    else:
        return
    assert "\n" not in message
