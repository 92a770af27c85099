"""Attacks on the signed file itself: its bytes, its shape, its signatures."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import forging
from cryptography.hazmat.primitives.asymmetric import ec
from studies import Run

from attacks.attack import Attack
from auditkit.formats import canonical
from auditkit.records.declaration import DECLARATIONS
from auditkit.signing.envelopes import pae, sign_statement
from auditkit.signing.keys import fingerprint, generate_key, sign_bytes

GROUP = "envelope"

_STRANGER = generate_key()
_P256 = ec.generate_private_key(ec.SECP256R1())
_MANIFEST = "manifest.json"


def bytes_of(change: Callable[[bytes], bytes]) -> Callable[[Run], object]:
    """Change the file's bytes."""
    return lambda run: run.path.write_bytes(change(run.path.read_bytes()))


def _broken_line(told: dict[str, Any]) -> None:
    told["payload"] = told["payload"][:76] + "\n" + told["payload"][76:]


def text_of(change: Callable[[str], str]) -> Callable[[Run], object]:
    """Change the statement's text and sign it, whatever it then is."""

    def apply(run: Run) -> None:
        text = canonical.dumps(forging.statement_of(run)).decode()
        changed = change(text)
        assert changed != text
        forging.sign_payload(run, changed.encode())

    return apply


def envelope(change: Callable[[dict[str, Any]], object]) -> Callable[[Run], object]:
    """Change the envelope; nothing is signed anew."""

    def apply(run: Run) -> None:
        def edit(told: dict[str, Any]) -> None:
            change(told)

        forging.edit_envelope(run, edit)

    return apply


def signature(change: Callable[[dict[str, Any]], object]) -> Callable[[Run], object]:
    """Change the one signature."""
    return envelope(lambda told: change(told["signatures"][0]))


def statement(change: Callable[[dict[str, Any]], object]) -> Callable[[Run], object]:
    """Change the statement and sign it."""

    def apply(run: Run) -> None:
        def edit(told: dict[str, Any]) -> None:
            change(told)

        forging.edit_statement(run, edit)

    return apply


def predicate(change: Callable[[dict[str, Any]], object]) -> Callable[[Run], object]:
    """Change the predicate and sign it."""
    return statement(lambda told: change(told["predicate"]))


def _flip(told: dict[str, Any]) -> None:
    value = bytearray(base64.b64decode(told["sig"]))
    value[7] ^= 1
    told["sig"] = base64.b64encode(value).decode()


def _padding_bits(text: str) -> str:
    """Other letters for the same bytes: the unused bits of the last one are set."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = text.rstrip("=")
    assert body != text
    return body[:-1] + letters[letters.index(body[-1]) + 1] + text[len(body) :]


def _unaligned(run: Run) -> None:
    """A payload with padding, written in two ways."""
    payload = canonical.dumps(forging.statement_of(run))
    forging.sign_payload(run, payload + b" " * (1 + -(len(payload) + 2) % 3))
    forging.edit_envelope(run, lambda told: told.update(payload=_padding_bits(told["payload"])))


def _url_safe(run: Run) -> None:
    def translate(told: dict[str, Any]) -> None:
        table = str.maketrans("+/", "-_")
        told["payload"] = told["payload"].translate(table)
        told["signatures"][0]["sig"] = told["signatures"][0]["sig"].translate(table)

    forging.edit_envelope(run, translate)


def _by_another(named: str, key: Any) -> Callable[[Run], object]:
    """Sign with another key, under a name of one's choice (``own``: the trusted key's)."""

    def apply(run: Run) -> None:
        payload = canonical.dumps(forging.statement_of(run))
        value = base64.b64encode(sign_bytes(key, pae(payload))).decode()
        name = fingerprint(run.key) if named == "own" else named
        forging.edit_envelope(run, lambda told: told["signatures"][0].update(keyid=name, sig=value))

    return apply


def _second(run: Run, name: str, sig: str) -> None:
    forging.edit_envelope(run, lambda told: told["signatures"].append({"keyid": name, "sig": sig}))


def _second_forged(run: Run) -> None:
    _second(run, fingerprint(run.key), base64.b64encode(bytes(64)).decode())


def _countersigned(run: Run) -> None:
    theirs = json.loads(sign_statement(canonical.dumps(forging.statement_of(run)), _STRANGER))
    (told,) = theirs["signatures"]
    _second(run, told["keyid"], told["sig"])


def _edited(run: Run) -> None:
    forging.edit_payload_unsigned(run, lambda told: told["predicate"]["run"].update(started=_EPOCH))


def _edited_and_unnamed(run: Run) -> None:
    _edited(run)
    signature(lambda told: told.pop("keyid"))(run)


_EPOCH = "2020-01-01T00:00:00Z"


def _other_payload_type(run: Run) -> None:
    """Signed as it stands, so that only the type is wrong."""
    kind = "application/json"
    payload = canonical.dumps(forging.statement_of(run))
    value = base64.b64encode(sign_bytes(run.key, pae(payload, kind))).decode()
    run.path.write_text(
        json.dumps(
            {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": kind,
                "signatures": [{"keyid": fingerprint(run.key), "sig": value}],
            }
        )
    )


def _crowded(run: Run) -> None:
    """As many branches as fit into a manifest, so that what is quadratic never ends."""

    def crowd(told: dict[str, Any]) -> None:
        plan, (seed,) = told["predicate"]["plan"], told["predicate"]["seeds"]
        model = {**seed["branches"][-1], "digests": {"t0": {}, "t0+W": {}, "T": {}}}
        declared = DECLARATIONS["ulp"]
        for draw in range(5000):
            spec = {"name": declared.name, "parameters": {"scale": 1, "draw": draw}}
            plan["perturbations"].append(spec)
            name = f"ulp--draw-{draw}--scale-1"
            seed["branches"].append({**model, "name": name, "perturbation": spec, "version": 1})

    forging.edit_statement(run, crowd)


def _malformed(name: str, apply: Callable[[Run], object], says: str) -> Attack:
    return Attack(name, GROUP, apply, 1, 5, says, where=_MANIFEST)


MALFORMED = (
    _malformed("truncated", bytes_of(lambda data: data[:-40]), "not JSON"),
    _malformed("empty file", bytes_of(lambda _: b""), "not JSON"),
    _malformed(
        "finished before it started",
        predicate(lambda told: told["run"].update(finished="2025-12-31T23:59:59Z")),
        "run: finished before it started",
    ),
    _malformed(
        "started after it finished, by a thousand years",
        predicate(lambda told: told["run"].update(started="3026-01-01T00:00:00Z")),
        "run: finished before it started",
    ),
    _malformed(
        "finished on a day that no calendar has",
        predicate(lambda told: told["run"].update(finished="2026-02-30T00:00:00Z")),
        "is no time",
    ),
    _malformed("the number 1", bytes_of(lambda _: b"1"), "expected object"),
    _malformed("a list", bytes_of(lambda data: b"[" + data + b"]"), "expected object"),
    _malformed("not UTF-8", bytes_of(lambda data: data.replace(b"sig", b"s\xffg")), "UTF-8"),
    _malformed("byte order mark", bytes_of(lambda data: b"\xef\xbb\xbf" + data), "byte order mark"),
    _malformed(
        "duplicate keys in the envelope",
        bytes_of(lambda data: data.replace(b"{", b'{"payload":"e30=",', 1)),
        "duplicate",
    ),
    _malformed(
        "duplicate keys in the payload",
        text_of(lambda text: text.replace('"fork_at":6', '"fork_at":1,"fork_at":6', 1)),
        "duplicate",
    ),
    _malformed(
        "NaN in the payload",
        text_of(lambda text: text.replace('"fork_at":6', '"fork_at":NaN', 1)),
        "NaN",
    ),
    _malformed(
        "infinity by overflow in the payload",
        text_of(lambda text: text.replace('"fork_at":6', '"fork_at":1e999', 1)),
        "not JSON",
    ),
    _malformed(
        "a number of a million digits",
        text_of(lambda text: text.replace('"fork_at":6', '"fork_at":' + "9" * 10**6, 1)),
        "not JSON",
    ),
    _malformed(
        "a seed beyond 64 bits",
        predicate(lambda told: told["plan"].update(seeds=[str(2**64)])),
        "seeds",
    ),
    _malformed("deep nesting", bytes_of(lambda _: b"[" * 100_000), "nested"),
    _malformed(
        "deep nesting in the payload",
        lambda run: forging.sign_payload(run, b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        "nested",
    ),
    _malformed("other payloadType", _other_payload_type, "payloadType"),
    _malformed(
        "other predicateType",
        statement(lambda told: told.update(predicateType="https://slsa.dev/provenance/v1")),
        "predicateType is another",
    ),
    _malformed(
        "predicateType of a replay",
        statement(lambda told: told.update(predicateType="urn:auditkit:replay:v1")),
        "predicateType is another",
    ),
    _malformed(
        "predicateType of a recording",
        statement(lambda told: told.update(predicateType="urn:auditkit:recording:v1")),
        "$.predicate",
    ),
    _malformed(
        "a later version of the schema",
        predicate(lambda told: told.update(schema_version="2")),
        "another version",
    ),
    _malformed("base64 that is not canonical", _unaligned, "$.payload: not base64"),
    _malformed(
        "base64 with line breaks",
        envelope(_broken_line),
        "$.payload",
    ),
    _malformed(
        "an empty signature", signature(lambda told: told.update(sig="")), "$.signatures[0].sig"
    ),
    _malformed(
        "more signatures than anybody makes",
        envelope(lambda told: told.update(signatures=told["signatures"] * 1000)),
        "$.signatures",
    ),
    _malformed(
        "a keyid of a megabyte",
        signature(lambda told: told.update(keyid="SHA256:" + "A" * 10**6)),
        "$.signatures[0].keyid",
    ),
    _malformed("five thousand branches", _crowded, "perturbations"),
    Attack(
        "a huge file",
        GROUP,
        bytes_of(lambda data: data + b" " * canonical.MAX_BYTES),
        1,
        5,
        "longer than",
    ),
)

_IN_NAME_OF_TRUSTED = "does not match the payload"


def _signed(
    name: str, apply: Callable[[Run], object], exit_code: int, says: str, **others: Any
) -> Attack:
    return Attack(name, GROUP, apply, 2, exit_code, says, **others)


SIGNATURES = (
    _signed("no signatures", envelope(lambda told: told.update(signatures=[])), 4, "no signature"),
    _signed("payload edited", _edited, 1, _IN_NAME_OF_TRUSTED),
    _signed("payload edited, keyid removed", _edited_and_unnamed, 3, "not a trusted key"),
    _signed("signature byte flipped", signature(_flip), 1, _IN_NAME_OF_TRUSTED),
    _signed(
        "signature cut short",
        signature(lambda told: told.update(sig=told["sig"][:40])),
        1,
        _IN_NAME_OF_TRUSTED,
    ),
    _signed(
        "signed anew by a stranger",
        lambda run: forging.resign(run, _STRANGER),
        3,
        fingerprint(_STRANGER),
    ),
    _signed(
        "a stranger's signature in the trusted key's name",
        _by_another("own", _STRANGER),
        1,
        _IN_NAME_OF_TRUSTED,
    ),
    _signed(
        "a P-256 signature in the Ed25519 key's name",
        _by_another("own", _P256),
        1,
        _IN_NAME_OF_TRUSTED,
    ),
    _signed("a P-256 signature without name", _by_another("", _P256), 3, "not a trusted key"),
    _signed(
        "a keyid that writes to the terminal",
        _by_another("\x1b[32mVERIFIED\x1b[0m", _STRANGER),
        3,
        "a key without fingerprint",
    ),
    _signed(
        "another verifier's key", lambda _: None, 3, "not a trusted key", options={"trusted": ()}
    ),
    _signed("two signatures of one keyid, one forged", _second_forged, 1, _IN_NAME_OF_TRUSTED),
)

#: DSSE says of all of these that they are good.
CONTROLS = tuple(
    Attack(name, GROUP, apply, 0, 0)
    for name, apply in (
        ("control: nothing is done", lambda _: None),
        ("control: URL-safe base64", _url_safe),
        ("control: no keyid", signature(lambda told: told.pop("keyid"))),
        ("control: empty keyid", signature(lambda told: told.update(keyid=""))),
        (
            "control: a stranger's keyid on a good signature",
            signature(lambda told: told.update(keyid=fingerprint(_STRANGER))),
        ),
        ("control: countersigned by a stranger", _countersigned),
        (
            "control: the same signature twice",
            envelope(lambda told: told["signatures"].append(told["signatures"][0])),
        ),
        (
            "control: further fields, which DSSE allows",
            envelope(lambda told: told.update(verdict="verified")),
        ),
    )
)

ATTACKS = (*MALFORMED, *SIGNATURES, *CONTROLS)
