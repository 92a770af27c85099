"""The page in a real Chromium: what a reader sees, for every way in which files can be wrong."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checklist_example import example_manifest, example_report
from self_checking import GOLDEN, copies, signed_of

from auditkit.paper.drawing import to_svg
from auditkit.paper.pictures import study_pictures
from auditkit.paper.report_page import Picture, Said, Shown, page
from auditkit.paper.report_tables import ReportTable
from auditkit.paper.self_check import SignedStatement
from auditkit.signing.keys import generate_key, parse_public_keys

CHROMIUM = os.environ.get("AUDITKIT_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

#: What Chromium says in place of knowing the algorithm.
NO_ED25519 = """
  crypto.subtle.importKey = async () => {
    throw new DOMException("Algorithm: Unrecognized name", "NotSupportedError");
  };
"""

#: What stands beside every green line.
SHOWN = (
    "This says nothing of the numbers, pictures and verdicts shown on this page: none of them is "
    "under the signature."
)

#: A table that is wider than a phone.
WIDE = ReportTable(
    "effects",
    "Effects",
    ("perturbation", *(f"column {n}" for n in range(9))),
    tuple(f"column {n}" for n in range(9)),
    tuple((name, *("-0.000123" for _ in range(9))) for name in ("a", "a", "b")),
)

DONE = "#self-check-files.good, #self-check-files.bad, #self-check-files.open"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return copies(tmp_path_factory.mktemp("cases"))


@pytest.fixture(scope="module")
def signed() -> SignedStatement:
    return signed_of(GOLDEN / "study")


@pytest.fixture(scope="module")
def key() -> str:
    line = (GOLDEN / "study" / "signer.pub").read_bytes()
    return parse_public_keys(line, source="signer.pub")[0].fingerprint


@functools.cache
def page_of(signed: SignedStatement) -> str:
    report = replace(example_report(), statement_sha256=hashlib.sha256(signed.payload).hexdigest())
    assert report.estimates is not None
    pictures = tuple(
        Picture(drawn.title, drawn.caption, to_svg(drawn))
        for drawn in study_pictures(report.estimates)
    )
    shown = Shown(tables=(WIDE,), pictures=pictures)
    return page("example", report, example_manifest(), Said(), shown, signed)


class Reader:
    """Somebody who opens a page and looks at what it says."""

    def __init__(self, browser: Any, file: Path, signed: SignedStatement, **context: Any) -> None:
        prepared, served_at = context.pop("prepared", None), context.pop("served_at", None)
        edited = context.pop("edited", None)
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self.wrong.append(said.text))
        self.page.on("request", lambda request: self.asked.append(request.url))
        if prepared is not None:
            self.page.add_init_script(prepared)
        file.write_text(edited or page_of(signed), encoding="utf-8")
        if served_at is not None:  # as by a server, without one
            self.page.route(served_at, lambda route: route.fulfill(path=file))
        self.page.goto(served_at or file.as_uri())

    def says(self, part: str) -> tuple[str, str]:
        found = self.page.locator(f"#self-check-{part}")
        return found.get_attribute("class") or "", found.inner_text()

    def gives(self, folder: Path) -> tuple[str, str]:
        self.page.set_input_files("#self-check-folder", folder)
        self.page.wait_for_selector(DONE)
        return self.says("files")

    def drops(self, *given: Path, on: str = "#self-check-folder") -> tuple[str, str]:
        place = self.page.locator(on)
        place.scroll_into_view_if_needed()
        box = place.bounding_box()
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        session = self.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in given], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})
        self.page.wait_for_selector(DONE)
        return self.says("files")

    @property
    def found(self) -> list[str]:
        lines: list[str] = self.page.locator("#self-check-found li").all_inner_texts()
        return lines


@pytest.fixture
def reader(browser: Any, tmp_path: Path, signed: SignedStatement) -> Iterator[Reader]:
    found = Reader(browser, tmp_path / "report.html", signed)
    found.page.wait_for_selector("html[data-self-check=ready]", state="attached")
    yield found
    assert not found.wrong
    assert [url.partition(":")[0] for url in found.asked] == ["file"]  # the page, and no more
    found.context.close()


def test_an_honest_run_of_the_paper_s_key(reader: Reader, cases: dict[str, Path], key: str) -> None:
    assert reader.says("key")[1] == key
    assert reader.says("signature")[0] == "good"
    assert reader.says("whose")[0] == "open"
    reader.page.fill("#self-check-typed", key)
    assert reader.says("whose") == (
        "good",
        "Check 2 passed: the key of this fingerprint signed the statement in this page. " + SHOWN,
    )
    assert reader.says("signature")[1].endswith(SHOWN)
    kind, words = reader.gives(cases["honest"])
    assert kind == "good"
    assert words.startswith("Check 3 passed: size and SHA-256 of all ")
    assert words.endswith(SHOWN)
    assert not reader.found
    assert not reader.page.locator("#self-check-off").is_visible()
    assert not reader.page.locator("#self-check-progress").is_visible()


def test_what_was_signed_stands_beside_what_the_page_shows(
    reader: Reader, signed: SignedStatement
) -> None:
    digest = hashlib.sha256(signed.payload).hexdigest()
    lines = reader.page.locator("#self-check-signed li").all_inner_texts()
    assert lines[:3] == [
        f"statement SHA-256: {digest}",
        "program: study.py:make_program",
        "seeds: 0, 1",
    ]
    assert lines[-1] == "fork, window, horizon: 6; 4; 14"
    assert reader.says("digest") == (
        "muted",
        "The last section of this page names the same SHA-256.",
    )


def test_a_page_whose_last_section_names_another_statement(
    browser: Any, tmp_path: Path, signed: SignedStatement
) -> None:
    digest = hashlib.sha256(signed.payload).hexdigest()
    edited = page_of(signed).replace(digest, "0" * 64)
    reader = Reader(browser, tmp_path / "report.html", signed, edited=edited)
    reader.page.wait_for_selector("html[data-self-check=ready]", state="attached")
    kind, words = reader.says("digest")
    assert kind == "bad"
    assert words == f"The last section of this page names another SHA-256: {'0' * 64}."
    reader.context.close()


def test_a_wrong_fingerprint(reader: Reader, key: str) -> None:
    last = "A" if key[-1] != "A" else "B"
    reader.page.fill("#self-check-typed", key[:-1] + last)
    kind, words = reader.says("whose")
    assert kind == "bad"
    assert words == "Check 2 failed: that is the fingerprint of another key."


@pytest.mark.parametrize(
    ("case", "kind", "begins"),
    [
        ("flipped", "bad", "Check 3 failed: 1 edited."),
        ("missing", "bad", "Check 3 failed: 1 missing."),
        ("more", "open", "Check 3 passed with a warning: "),
        ("nothing", "bad", "Check 3 failed: none of "),
        ("other", "bad", "Check 3 failed: 1 of another study."),
    ],
)
def test_what_was_done_to_the_files(
    reader: Reader, cases: dict[str, Path], case: str, kind: str, begins: str
) -> None:
    found = reader.gives(cases[case])
    assert found[0] == kind
    assert found[1].startswith(begins)
    assert reader.found
    honest = reader.gives(cases["honest"])  # and the next folder is judged by itself
    assert honest[0] == "good" or reader.page.wait_for_selector("#self-check-files.good")


def test_a_folder_that_is_dropped(reader: Reader, cases: dict[str, Path]) -> None:
    kind, words = reader.drops(cases["honest"])
    assert kind == "good", words
    reader.page.reload()
    reader.page.wait_for_selector("html[data-self-check=ready]", state="attached")
    assert reader.drops(cases["flipped"])[1] == "Check 3 failed: 1 edited."
    reader.asked.pop()  # the page again


def test_what_is_dropped_beside_the_field_is_taken_or_refused_in_words(
    reader: Reader, cases: dict[str, Path]
) -> None:
    _, words = reader.drops(cases["honest"], on="#self-check-key")
    assert "Drop the folder on the field itself" in words or words.startswith("Check 3 passed")
    assert reader.page.url.endswith("report.html")


def test_what_is_dropped_on_a_page_from_a_server_is_read(
    browser: Any, tmp_path: Path, signed: SignedStatement, cases: dict[str, Path]
) -> None:
    reader = Reader(browser, tmp_path / "report.html", signed, served_at="https://a.invalid/")
    reader.page.wait_for_selector("html[data-self-check=ready]", state="attached")
    kind, words = reader.drops(cases["honest"], on="#self-check-key")
    assert kind == "good", words
    assert not reader.wrong
    assert reader.asked == ["https://a.invalid/"]
    reader.page.reload()
    reader.page.wait_for_selector("html[data-self-check=ready]", state="attached")
    kind, words = reader.drops(*sorted(cases["flipped"].iterdir()), on="#self-check-key")
    assert words == "Check 3 failed: 1 edited."
    reader.context.close()


def test_a_page_over_an_unsafe_connection_says_what_it_cannot(
    browser: Any, tmp_path: Path, signed: SignedStatement, cases: dict[str, Path], key: str
) -> None:
    reader = Reader(browser, tmp_path / "report.html", signed, served_at="http://a.invalid/")
    reader.page.wait_for_selector("html[data-self-check=ready]", state="attached")
    assert reader.says("key")[1] == key
    assert "browsers have no WebCrypto" in reader.says("signature")[1]
    assert reader.gives(cases["honest"])[0] == "open"
    assert reader.gives(cases["missing"])[0] == "bad"
    reader.context.close()


def test_a_page_whose_key_did_not_sign(
    browser: Any, tmp_path: Path, signed: SignedStatement, cases: dict[str, Path], key: str
) -> None:
    other = replace(signed, key=generate_key().public_key().public_bytes_raw())
    reader = Reader(browser, tmp_path / "report.html", other)
    reader.page.wait_for_selector("html[data-self-check=ready]", state="attached")
    assert reader.says("signature") == (
        "bad",
        "Check 2 failed: this key did not sign the statement in this page.",
    )
    assert reader.says("key")[1] != key
    assert not reader.page.locator("#self-check-signed li").count()
    assert reader.gives(cases["honest"])[0] == "open"
    assert "who signed that list is open" in reader.says("files")[1]
    reader.context.close()


def test_a_browser_without_ed25519_says_so(
    browser: Any, tmp_path: Path, signed: SignedStatement, cases: dict[str, Path], key: str
) -> None:
    reader = Reader(browser, tmp_path / "report.html", signed, prepared=NO_ED25519)
    reader.page.wait_for_selector("html[data-self-check=ready]", state="attached")
    kind, words = reader.says("signature")
    assert kind == "open"
    assert "this browser has no Ed25519" in words
    reader.page.fill("#self-check-typed", key)
    assert reader.says("whose")[0] == "open"
    assert reader.gives(cases["honest"])[0] == "open"
    assert reader.gives(cases["flipped"])[0] == "bad"
    reader.context.close()


def test_without_javascript_the_page_is_whole(
    browser: Any, tmp_path: Path, signed: SignedStatement
) -> None:
    reader = Reader(browser, tmp_path / "report.html", signed, java_script_enabled=False)
    assert reader.page.locator("#self-check-off").is_visible()
    assert not reader.page.locator("#self-check-on").is_visible()
    assert reader.page.locator("h2").count() > 5
    reader.context.close()


def test_the_policy_forbids_every_connection_and_every_other_script(
    browser: Any, tmp_path: Path, signed: SignedStatement
) -> None:
    reader = Reader(browser, tmp_path / "report.html", signed)
    reader.page.evaluate(
        """() => {
          const script = document.createElement("script");
          try { script.textContent = "document.title = 'taken over'"; } catch {}
          document.body.append(script);
          const picture = document.createElement("img");
          picture.src = "https://auditkit.invalid/picture";
          document.body.append(picture);
        }"""
    )
    refused = reader.page.evaluate(
        "() => fetch('https://auditkit.invalid/').then(() => false, () => true)"
    )
    assert refused
    assert reader.page.title().startswith("Verified")
    assert any("Content Security Policy" in line for line in reader.wrong)
    reader.context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 768), ("light", 375)])
def test_axe_finds_no_serious_fault(
    browser: Any, tmp_path: Path, signed: SignedStatement, scheme: str, width: int
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    size = {"width": width, "height": 800}
    reader = Reader(browser, tmp_path / "report.html", signed, color_scheme=scheme, viewport=size)
    reader.page.wait_for_selector("html[data-self-check=ready]", state="attached")
    results = axe.Axe().run(reader.page).response
    serious = [
        (item["id"], item["nodes"][0]["html"][:120])
        for item in results["violations"]
        if item["impact"] in ("serious", "critical")
    ]
    assert not serious
    assert len(results["passes"]) > 10
    wide = reader.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width  # tables and pictures are moved by themselves
    ends = reader.page.evaluate(
        "[...document.querySelectorAll('.grouped td')].map(e => e.getBoundingClientRect().right)"
    )
    assert len(ends) == 27
    assert max(ends) <= width  # and of the first ones nothing has to be
    shown = reader.page.locator(".grouped tbody th").evaluate_all(
        "all => all.filter(e => e.getBoundingClientRect().width > 1).map(e => e.innerText)"
    )
    assert shown == (["a", "b"] if width <= 768 else ["a", "a", "b"])
    reader.context.close()
