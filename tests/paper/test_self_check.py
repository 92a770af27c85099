from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checklist_example import example_manifest, example_report
from cryptography.hazmat.primitives.asymmetric import ec
from report_reading import named, parsed, words
from self_checking import GOLDEN, copies, held_by, largest_file, signed_of

from auditkit.paper import self_check
from auditkit.paper.report_page import Said, Shown, page
from auditkit.paper.self_check import SignedStatement, script, script_source, signed_statement
from auditkit.signing.envelopes import open_envelope, sign_statement
from auditkit.signing.keys import TrustedKey, fingerprint, generate_key, parse_public_keys
from auditkit.verification.authenticity import is_companion

NODE = shutil.which("node")
SCRIPT = Path(self_check.__file__).with_name("self_check.js")
DRIVER = Path(__file__).with_name("self_check_driver.cjs")

needs_node = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")

Check = Callable[..., dict[str, Any]]


def page_of(signed: SignedStatement | None, **changes: Any) -> str:
    report = replace(example_report(), **changes)
    return page("example", report, example_manifest(), Said(), Shown(), signed)


@pytest.fixture(scope="module")
def signed() -> SignedStatement:
    return signed_of(GOLDEN / "study")


def test_the_page_holds_what_was_signed_and_allows_this_script_only(
    signed: SignedStatement,
) -> None:
    shown = page_of(signed)
    held = held_by(shown)
    assert zlib.decompress(base64.b64decode(held["statement"])) == signed.payload
    assert base64.b64decode(held["key"]) == signed.key
    (own,) = named(parsed(shown), "script")
    digest = base64.b64encode(hashlib.sha256(own.text.encode()).digest()).decode()
    (policy,) = (n.get("content") for n in named(parsed(shown), "meta") if n.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert "connect-src" not in rules  # so that default-src holds for it
    assert page_of(signed) == shown


def test_the_script_cannot_end_its_element_and_asks_nobody() -> None:
    source = script()
    assert "</script" not in source.lower()
    assert "<!--" not in source
    for word in ("fetch(", "XMLHttpRequest", "WebSocket", "import(", "eval(", "innerHTML", "//w"):
        assert word not in source
    assert script_source().startswith("'sha256-")


def test_what_is_shown_without_javascript_says_so(signed: SignedStatement) -> None:
    tree = parsed(page_of(signed))
    by_id = {node.get("id"): node for node in tree.iter() if node.get("id")}
    assert by_id["self-check-on"].get("hidden") is not None
    assert "JavaScript is off" in words(by_id["self-check-off"])
    labels = {node.get("for") for node in named(tree, "label")}
    assert labels == {node.get("id") for node in named(tree, "input")}


def test_a_page_that_cannot_check_itself_says_why_and_has_no_script(
    signed: SignedStatement, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = page_of(None)
    assert not list(named(parsed(shown), "script"))
    assert "the key that signed it is not at hand" in shown
    monkeypatch.setattr(self_check, "MAX_STATEMENT_BYTES", 100)
    shown = page_of(signed)
    assert not list(named(parsed(shown), "script"))
    assert "too large for a page" in shown
    assert "script-src" not in shown


def test_a_page_of_a_manifest_that_does_not_verify_has_none_of_it(
    signed: SignedStatement,
) -> None:
    shown = page_of(signed, verdict="failed", exit_code=1)
    assert not list(named(parsed(shown), "script"))
    assert "Check it in this browser" not in shown


def test_the_signature_is_that_of_the_key_that_the_report_names() -> None:
    payload = open_envelope((GOLDEN / "study" / "manifest.json").read_bytes()).payload
    first, second, other = generate_key(), generate_key(), ec.generate_private_key(ec.SECP256R1())
    envelope = open_envelope(sign_statement(payload, first))
    keys = [TrustedKey(fingerprint(k), k.public_key(), "k") for k in (second, first, other)]
    found = signed_statement(envelope, keys, fingerprint(first))
    assert found is not None
    assert found.key == first.public_key().public_bytes_raw()
    assert signed_statement(envelope, keys, fingerprint(second)) is None
    assert signed_statement(envelope, keys, None) is None
    envelope = open_envelope(sign_statement(payload, other))
    found = signed_statement(envelope, keys, fingerprint(other))
    assert found is not None
    assert (found.kind, len(found.key), len(found.signature)) == ("P-256", 65, 64)


# What the script does, by Node.js, on real files


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Runs the script's functions on what a page holds, and on folders."""

    def run(held: dict[str, str], *folders: Path) -> dict[str, Any]:
        file = tmp_path_factory.mktemp("held") / "held.json"
        file.write_text(json.dumps(held))
        command = [str(NODE), str(DRIVER), str(SCRIPT), str(file), *map(str, folders)]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        found: dict[str, Any] = json.loads(told.stdout)
        return found

    return run


@needs_node
@pytest.mark.parametrize("kind", ["study", "recording"])
def test_it_finds_what_was_done_to_the_files(tmp_path: Path, check: Check, kind: str) -> None:
    signed, cases = signed_of(GOLDEN / kind), copies(tmp_path, kind)
    found = check(held_by(page_of(signed)), *cases.values())
    line = (GOLDEN / kind / "signer.pub").read_bytes()
    assert found["key"] == parse_public_keys(line, source="signer.pub")[0].fingerprint
    assert found["state"] == "good"
    results = dict(zip(cases, found["results"], strict=True))
    name = largest_file(GOLDEN / kind)
    assert results["honest"]["kind"] == "good"
    assert results["honest"]["words"].startswith("Check 3 passed: size and SHA-256 of all ")
    assert not results["honest"]["unlisted"]
    for case, counted in (
        ("flipped", "1 edited"),
        ("shorter", "1 edited"),
        ("missing", "1 missing"),
    ):
        assert results[case]["kind"] == "bad"
        assert results[case]["words"] == f"Check 3 failed: {counted}."
        (line_,) = results[case]["wrong"]
        assert line_.startswith(f"{name}: ")
    assert results["more"]["kind"] == "open"
    assert "1 file lies there unlisted" in results["more"]["words"]
    assert results["more"]["unlisted"] == ["more.bin"]
    assert "none of " in results["nothing"]["words"]
    assert results["other"]["words"] == "Check 3 failed: 1 of another study."
    for result in results.values():  # progress only grows, and ends with all of it
        done = [step[0] for step in result["steps"]]
        assert done == sorted(done)
        assert result["steps"][-1] == [result["nBytes"]] * 2


@needs_node
@pytest.mark.parametrize("is_p_256", [False, True])
def test_a_folder_without_the_signature_of_the_page_is_not_called_good(
    tmp_path: Path, check: Check, is_p_256: bool
) -> None:
    run, other = tmp_path / "run", generate_key()
    shutil.copytree(GOLDEN / "study", run)
    manifest = run / "manifest.json"
    payload = open_envelope(manifest.read_bytes()).payload
    key = ec.generate_private_key(ec.SECP256R1()) if is_p_256 else generate_key()
    manifest.write_bytes(sign_statement(payload, key))
    trusted = [TrustedKey(fingerprint(key), key.public_key(), "k")]
    signed = signed_statement(open_envelope(manifest.read_bytes()), trusted, fingerprint(key))
    held = held_by(page_of(signed))
    assert check(held, run)["results"][0]["kind"] == "good"
    told = json.loads(manifest.read_bytes())
    *start, last = base64.b64decode(told["signatures"][0]["sig"])
    broken = bytes([*start, last ^ 1])  # one bit: a byte set to 0 may have been 0 before
    wrong = {**told["signatures"][0], "sig": base64.b64encode(broken).decode()}
    for data, words_ in (
        (sign_statement(payload, other), "1 otherwise signed"),
        (json.dumps({**told, "signatures": [wrong]}).encode(), "1 otherwise signed"),
        (json.dumps({**told, "signatures": []}).encode(), "1 otherwise signed"),
        (json.dumps({**told, "payloadType": "text/plain"}).encode(), "1 of another study"),
        (b"{", "1 malformed"),
    ):
        manifest.write_bytes(data)
        (result,) = check(held, run)["results"]
        assert (result["kind"], result["words"]) == ("bad", f"Check 3 failed: {words_}.")
    countersigned = json.loads(sign_statement(payload, other))["signatures"]
    both = json.dumps({**told, "signatures": [*countersigned, *told["signatures"]]})
    manifest.write_text(both)
    assert check(held, run)["results"][0]["kind"] == "good"
    manifest.unlink()
    (result,) = check(held, run)["results"]
    assert result["kind"] == "open"
    assert result["words"].startswith("Check 3 is open: ")
    assert result["words"].endswith("but manifest.json is missing from the folder.")


@needs_node
def test_it_says_what_was_signed(check: Check) -> None:
    signed = signed_of(GOLDEN / "study")
    assert check(held_by(page_of(signed)))["facts"] == {
        "statement SHA-256": hashlib.sha256(signed.payload).hexdigest(),
        "program": "study.py:make_program",
        "seeds": "0, 1",
        "perturbations": "adam-reset (moments=mv, step=reset); batchnorm-reset; order-reverse",
        "fork, window, horizon": "6; 4; 14",
    }
    facts = check(held_by(page_of(signed_of(GOLDEN / "recording"))))["facts"]
    assert {name: facts[name] for name in ("program", "seed", "processes")} == {
        "program": "loop.py",
        "seed": "0",
        "processes": "1",
    }


@needs_node
def test_the_run_s_folder_may_lie_in_what_was_chosen(tmp_path: Path, check: Check) -> None:
    above = tmp_path / "paper"
    shutil.copytree(GOLDEN / "study", above / "runs" / "mine")
    shutil.copytree(GOLDEN / "recording", above / "other")
    (above / "README.md").write_text("not of the run")
    found = check(held_by(page_of(signed_of(GOLDEN / "study"))), above)
    assert found["results"][0]["kind"] == "good"


@needs_node
def test_a_p_256_signature_is_judged_too(check: Check) -> None:
    payload = open_envelope((GOLDEN / "study" / "manifest.json").read_bytes()).payload
    key = ec.generate_private_key(ec.SECP256R1())
    trusted = [TrustedKey(fingerprint(key), key.public_key(), "k")]
    envelope = open_envelope(sign_statement(payload, key))
    signed = signed_statement(envelope, trusted, fingerprint(key))
    assert signed is not None
    found = check(held_by(page_of(signed)))
    assert (found["state"], found["key"]) == ("good", fingerprint(key))
    wrong = replace(signed, signature=signed.signature[32:] + signed.signature[:32])
    assert check(held_by(page_of(wrong)))["state"] == "bad"


@needs_node
def test_another_key_or_statement_is_no_good_signature(
    check: Check, signed: SignedStatement
) -> None:
    other = generate_key().public_key().public_bytes_raw()
    changed = signed.payload.replace(b"seed-0000", b"seed-0009")
    for wrong in (
        replace(signed, key=other),
        replace(signed, payload=changed),
        replace(signed, payload_type="text/plain"),
        replace(signed, signature=bytes(64)),
    ):
        found = check(held_by(page_of(wrong)), GOLDEN / "study")
        assert found["state"] == "bad"
        (result,) = found["results"]
        assert result["kind"] != "good"  # a list that nobody signed is worth nothing


def in_node(source: str) -> Any:
    """What an expression of the script's exports is."""
    told = subprocess.run(
        [str(NODE), "-e", f"const c = require({json.dumps(str(SCRIPT))});\n{source}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(told.stdout)


@needs_node
def test_its_sha_256_is_sha_256() -> None:
    # every length around the ends of blocks, in two pieces
    found = in_node(
        """
        const data = Uint8Array.from({ length: 300 }, (_, n) => (n * 7 + 3) % 256);
        const digests = Array.from({ length: 300 }, (_, n) => {
          const digest = new c.Sha256().update(data.subarray(0, (n * 5) % (n + 1)));
          return c.hex(digest.update(data.subarray((n * 5) % (n + 1), n)).digest());
        });
        process.stdout.write(JSON.stringify(digests));
        """
    )
    data = bytes((n * 7 + 3) % 256 for n in range(300))
    assert found == [hashlib.sha256(data[:n]).hexdigest() for n in range(300)]


@needs_node
@pytest.mark.slow
def test_a_count_of_bits_may_need_33_of_them() -> None:
    found = in_node(
        """
        const zeros = new Uint8Array(2 ** 25);
        const large = new c.Sha256();
        for (let n = 0; n < 17; n++) large.update(zeros);
        process.stdout.write(JSON.stringify(c.hex(large.digest())));
        """
    )
    assert found == hashlib.sha256(bytes(17 * 2**25)).hexdigest()


@needs_node
def test_a_file_has_the_same_digest_with_and_without_the_browser_s_own() -> None:
    found = in_node(
        """
        const file = new Blob([new Uint8Array(9 * 2 ** 20 + 5).fill(9)]);
        const reads = [[], []];
        Promise.all([
          c.fileSha256(file, (n) => reads[0].push(n), null),
          c.fileSha256(file, (n) => reads[1].push(n), crypto.subtle),
        ]).then((d) => process.stdout.write(JSON.stringify([...d, ...reads])));
        """
    )
    n_bytes = 9 * 2**20 + 5
    digest = hashlib.sha256(b"\t" * n_bytes).hexdigest()
    assert found == [digest, digest, [8 * 2**20, 2**20 + 5], [n_bytes]]


@needs_node
def test_a_fingerprint_counts_only_as_a_whole(signed: SignedStatement) -> None:
    key = "SHA256:" + "aB+/" * 10 + "xyz"
    typed = [
        key,
        key[7:],
        f" {key[:20]} {key[20:]}\n",
        "",
        "SHA256:",
        key[:30],
        key.lower(),
        "nonsense",
    ]
    found = in_node(
        f"const key = {json.dumps(key)};"
        f"const found = {json.dumps(typed)}.map((t) => c.isSame(t, key));"
        "process.stdout.write(JSON.stringify(found));"
    )
    assert found == [True, True, True, None, None, None, False, False]


@needs_node
def test_what_may_lie_beside_a_manifest_is_what_verify_lets_pass() -> None:
    digest, now = "0123456789abcdef", "20261129T010203000000Z"
    names = [
        *("manifest.json", "signer.pub", "CHECKLIST.md", "report.json", "replay.json"),
        *(f"countersign-{digest}.json", f"replay-{digest}-{now}.json", "replay-1.json"),
        *("a/manifest.json", "countersign-xyz.json", "manifest_json", "signer.pub.bak", "README"),
    ]
    found = in_node(
        f"const found = {json.dumps(names)}.map((name) => c.COMPANION.test(name));"
        "process.stdout.write(JSON.stringify(found));"
    )
    assert found == [is_companion(name) for name in names]
    assert found.count(True) == 7
