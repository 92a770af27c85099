"""The page in a real Firefox, beside what Chromium makes of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from checklist_example import example_manifest, example_report
from firefox import Firefox, waited
from self_checking import GOLDEN, copies, signed_of

from auditkit.paper.report_page import Said, Shown, page
from auditkit.paper.self_check import SignedStatement
from auditkit.signing.keys import generate_key, parse_public_keys

FIREFOX = os.environ.get("AUDITKIT_FIREFOX") or next(
    filter(None, map(shutil.which, ("firefox", "firefox-esr"))), None
)

pytestmark = pytest.mark.skipif(FIREFOX is None, reason="Firefox is not installed")

FOLDER = "#self-check-folder"

SAYS = """
const found = document.querySelector(`#self-check-${arguments[0]}`);
return [found.className, found.innerText];
"""

TYPES = """
const field = document.querySelector("#self-check-typed");
field.value = arguments[0];
field.dispatchEvent(new Event("input", { bubbles: true }));
"""

#: Which part of the page's policy refused a connection.
FETCHES = """
const refused = new Promise((resolve) => {
  document.addEventListener("securitypolicyviolation", (e) => resolve(e.effectiveDirective));
});
fetch(arguments[0]).catch(() => {});
return refused;
"""

READY = "return document.documentElement.dataset.selfCheck === 'ready'"


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    with Firefox(str(FIREFOX), tmp_path_factory.mktemp("profile")) as started:
        yield started


def opened(firefox: Firefox, folder: Path, signed: SignedStatement) -> None:
    file = folder / "report.html"
    text = page("example", example_report(), example_manifest(), Said(), Shown(), signed)
    file.write_text(text, encoding="utf-8")
    firefox.opens(file)
    waited(lambda: firefox.evaluate(READY))
    waited(lambda: firefox.evaluate(SAYS, "signature")[0] != "muted")


def given(firefox: Firefox, folder: Path) -> list[str]:
    firefox.gives(FOLDER, folder)
    waited(lambda: firefox.evaluate(SAYS, "files")[0] in ("good", "bad", "open"))
    found: list[str] = firefox.evaluate(SAYS, "files")
    return found


def test_it_checks_signature_fingerprint_and_files(firefox: Firefox, tmp_path: Path) -> None:
    opened(firefox, tmp_path, signed_of(GOLDEN / "study"))
    line = (GOLDEN / "study" / "signer.pub").read_bytes()
    (key,) = parse_public_keys(line, source="signer.pub")
    assert firefox.evaluate(SAYS, "key")[1] == key.fingerprint
    assert firefox.evaluate(SAYS, "signature")[0] == "good"
    firefox.evaluate(TYPES, key.fingerprint)
    waited(lambda: firefox.evaluate(SAYS, "whose")[0] != "open")
    assert firefox.evaluate(SAYS, "whose")[1].startswith("Check 2 passed: ")
    firefox.evaluate(TYPES, f"{key.fingerprint[:-1]}{'A' if key.fingerprint[-1] != 'A' else 'B'}")
    waited(lambda: firefox.evaluate(SAYS, "whose")[0] != "good")
    assert firefox.evaluate(SAYS, "whose")[1].startswith("Check 2 failed: ")
    cases = copies(tmp_path)
    for case, kind, begins in (
        ("honest", "good", "Check 3 passed: size and SHA-256 of all "),
        ("flipped", "bad", "Check 3 failed: 1 edited."),
        ("missing", "bad", "Check 3 failed: 1 missing."),
        ("more", "open", "Check 3 passed with a warning: "),
        ("other", "bad", "Check 3 failed: 1 of another study."),
    ):
        found = given(firefox, cases[case])
        assert found[0] == kind, (case, found)
        assert found[1].startswith(begins)


def test_a_key_that_did_not_sign(firefox: Firefox, tmp_path: Path) -> None:
    signed = signed_of(GOLDEN / "study")
    other = replace(signed, key=generate_key().public_key().public_bytes_raw())
    opened(firefox, tmp_path, other)
    assert firefox.evaluate(SAYS, "signature") == [
        "bad",
        "Check 2 failed: this key did not sign the statement in this page.",
    ]


def test_nothing_is_sent_and_no_other_script_runs(firefox: Firefox, tmp_path: Path) -> None:
    opened(firefox, tmp_path, signed_of(GOLDEN / "study"))
    assert firefox.evaluate(FETCHES, "https://auditkit.invalid/") == "connect-src"
    title = firefox.evaluate("return document.title")
    firefox.evaluate(
        """
        const script = document.createElement("script");
        try { script.textContent = "document.title = 'taken over'"; } catch {}
        document.body.append(script);
        """
    )
    assert firefox.evaluate("return document.title") == title
