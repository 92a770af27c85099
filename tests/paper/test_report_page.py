from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from checklist_example import example_manifest, example_report
from report_reading import named, parsed, tables, words

from auditkit.cli.console import LAYOUTS
from auditkit.evidence.verdicts import NOT_APPLICABLE
from auditkit.paper.citations import why_withheld
from auditkit.paper.drawing import to_svg
from auditkit.paper.pictures import study_pictures
from auditkit.paper.report_page import Picture, Said, Shown, is_page, page
from auditkit.paper.report_tables import ReportTable
from auditkit.paper.style import PALETTES, SERIES
from auditkit.paper.words import anchor, glossary, hover
from auditkit.records.manifest import StudyManifest
from auditkit.records.report import CheckResult, Finding, VerificationReport

HOSTILE = "</title><script>alert(1)</script>\" onload='x' & <img src=//e.org>"


def example_page(manifest: StudyManifest | None = None, said: Said | None = None) -> str:
    report = example_report()
    assert report.estimates is not None
    pictures = [
        Picture(drawn.title, drawn.caption, to_svg(drawn))
        for drawn in study_pictures(report.estimates)
    ]
    shown = Shown(pictures=tuple(pictures))
    return page("example", report, manifest or example_manifest(), said or Said(), shown)


@pytest.fixture(scope="module")
def whole() -> str:
    return example_page()


def failed() -> VerificationReport:
    """A report with a failed check, and, against the rules, with estimates."""
    checks = tuple(
        replace(check, status="failed", findings=(Finding("other bytes", where="a.txt"),))
        if check.number == 3
        else check
        for check in example_report().checks
    )
    return replace(example_report(), checks=checks, verdict="failed", exit_code=1)


def test_it_is_well_formed_and_no_identifier_is_given_twice(whole: str) -> None:
    found = [node.get("id") for node in parsed(whole).iter() if node.get("id")]
    assert found
    assert len(found) == len(set(found))


def test_nothing_is_loaded_from_anywhere(whole: str) -> None:
    tree = parsed(whole)
    assert not list(named(tree, "script"))
    for node in tree.iter():
        for name, value in node.attrib.items():
            if str(name).rpartition("}")[2] in ("href", "src", "srcset", "data", "action"):
                assert value.startswith("#"), (node.tag, value)
            assert not str(name).startswith("on")
    assert "//" not in re.sub(r"sha256://\S*", "", whole)
    assert "@import" not in whole
    assert all(place.startswith("#") for place in re.findall(r"url\(([^)]*)", whole))
    (policy,) = [n for n in named(tree, "meta") if n.get("http-equiv")]
    assert policy.get("content").startswith("default-src 'none'")


def test_every_inner_link_leads_somewhere(whole: str) -> None:
    tree = parsed(whole)
    ids = {node.get("id") for node in tree.iter()}
    found = [
        target
        for node in tree.iter()
        for name, value in node.attrib.items()
        for target in (
            [value[1:]]
            if str(name).rpartition("}")[2] == "href"
            else re.findall(r"url\(#([^)]+)\)", value)
        )
    ]
    assert found
    assert set(found) <= ids


def test_the_basics_of_accessibility(whole: str) -> None:
    tree = parsed(whole)
    assert tree.get("lang") == "en"
    assert words(tree.find("head/title")) == "Verified: example"
    levels = [int(node.tag[1]) for node in tree.iter() if re.fullmatch(r"h[1-6]", str(node.tag))]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for table in named(tree, "table"):
        assert words(table.find("caption"))
        for cell in named(table, "th"):
            assert cell.get("scope") in ("col", "row")
    pictures = list(named(tree, "svg"))
    assert len(pictures) == 4
    for picture in pictures:
        assert picture.get("role") == "img"
        assert picture.get("aria-label")
    assert any(n.get("name") == "viewport" for n in named(tree, "meta"))
    assert len(list(named(tree, "main"))) == 1


@pytest.mark.parametrize("palette", PALETTES)
def test_every_colour_can_be_read_on_its_ground(palette: str) -> None:
    colours = PALETTES[palette]
    for name in ("text", "muted", "link", "good", "open", "bad"):
        for ground in ("ground", "raised"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for colour in (*SERIES, colours["line"]):  # graphics and lines: WCAG 1.4.11
        assert contrast(colour, colours["ground"]) >= 3, colour


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_of_a_manifest_means_only_itself() -> None:
    manifest = example_manifest()
    environment = replace(manifest.environment, python=HOSTILE, hardware={HOSTILE: HOSTILE})
    manifest = replace(manifest, environment=environment)
    said = Said(verdict=(HOSTILE,), findings=(HOSTILE,), facts=((HOSTILE, HOSTILE),), note=HOSTILE)
    shown = page(HOSTILE, replace(example_report(), trust=HOSTILE), manifest, said, Shown())
    tree = parsed(shown)
    assert not list(named(tree, "script"))
    assert not list(named(tree, "img"))
    flat = " ".join(HOSTILE.split())
    assert tables(shown)["Hardware"][1:] == [[flat, flat]]
    assert words(tree.find("head/title")) == f"Verified: {flat}"


def test_what_cannot_be_printed_is_an_escape() -> None:
    said = Said(verdict=("bell \x07, half \udce4, order \u202e",))
    shown = example_page(said=said)
    assert r"bell \x07, half \udce4, order \u202e" in shown
    shown.encode()


def test_who_signed_stands_large_and_each_check_in_words(whole: str) -> None:
    tree = parsed(whole)
    (large,) = [node for node in tree.iter() if node.get("class") == "fingerprint"]
    assert words(large) == example_report().signed_by
    rows = tables(whole)["What was checked"]
    assert [row[1:3] for row in rows[1:4]] == [
        ["envelope", "passed"],
        ["signature", "passed"],
        ["artifacts", "passed"],
    ]


def test_what_a_phone_cannot_show_beside_each_other_is_broken_or_moved(whole: str) -> None:
    prose = {
        words(table.find("caption")): table.get("class") == "prose"
        for table in named(parsed(whole), "table")
    }
    assert prose["What was checked"]
    assert prose["Packages"]
    assert not prose["Seed 0: recipe auditkit-seed/1"]
    for place in named(parsed(whole), "div"):
        if place.get("class") == "wide":  # moved by the keyboard, too
            assert place.get("tabindex") == "0"
            assert place.get("aria-label")
    estimate = ReportTable("x", "Effects: all rows", ("a", "verdict"), (), (("b", "effect"),))
    shown = Shown(everything=(estimate,))
    every = page("example", example_report(), example_manifest(), Said(), shown)
    (table,) = (
        t
        for d in named(parsed(every), "details")
        for t in named(d, "table")
        if estimate.title in words(t)
    )
    assert table.get("class") == "grouped"  # nothing of it has to be moved
    assert "position: sticky" not in whole  # it hides what lies below
    assert "@page { margin: " in whole
    assert "no-repeat scroll" in whole  # the shadow at an end that hides columns


def test_headings_say_what_they_mean(whole: str) -> None:
    tree = parsed(whole)
    links = {words(node): node.get("title") for node in named(tree, "a")}
    assert links["check"]
    entries = {words(node) for node in named(tree, "dt")}
    assert {"Control", "Placebo", "Replica", "Number, check, result"} <= entries


@pytest.mark.parametrize("name", ["levels", "distances", "effects", "logged", "checks"])
def test_every_heading_is_explained(name: str) -> None:
    for word in LAYOUTS[name].headings:
        place = anchor(word)
        assert place is not None, word
        assert hover(word)
        assert f'id="{place}"' in glossary([word])


def test_no_two_tables_of_the_glossary_have_one_name() -> None:
    page_ = f"<!DOCTYPE html><title>x</title>{glossary(f'check {n}' for n in range(1, 11))}"
    names = [words(node.find("caption")) for node in named(parsed(page_), "table")]
    assert {"Check 8, replay", "Check 8, replay (2)"} <= set(names)
    assert len(names) == len(set(names))


def test_a_manifest_that_does_not_verify_says_so_first_and_shows_nothing_of_itself() -> None:
    manifest = replace(
        example_manifest(),
        environment=replace(example_manifest().environment, python="CLAIMED"),
    )
    shown = page("example", failed(), manifest, Said(findings=("check 3: a.txt",)), Shown())
    tree = parsed(shown)
    first = next(text for text in tree.find("body").itertext() if text.strip())
    assert first.startswith("Does not verify: something is wrong; see check 3 artifacts (failed).")
    assert words(tree.find("head/title")).startswith("Does not verify")
    headings = {words(node) for node in named(tree, "h2")}
    assert not headings & {"Estimands", "Plan", "Environment", "Random numbers"}
    assert "CLAIMED" not in shown
    assert "check 3: a.txt" in shown


def test_plan_optimizer_and_data_are_marked_where_nothing_was_replayed(whole: str) -> None:
    mark = "Not replayed: as recorded, and executed by no check."
    report = example_report(replayed=False)
    shown = page("example", report, example_manifest(), Said(), Shown())
    assert mark in shown.partition(">Plan<")[2].partition(">Estimands<")[0]
    assert mark not in whole


def test_without_a_replay_it_says_how_to_get_estimates() -> None:
    report = example_report(replayed=False)
    shown = page("example", report, example_manifest(), Said(), Shown())
    assert "Integrity only" in shown
    assert "auditkit report --replay all" in shown


def test_a_report_says_why_it_has_no_estimates() -> None:
    report = example_report(replayed=False)
    assert why_withheld(report) == "check 10, nothing was replayed"
    diverged = "every control or treatment diverged"
    for check, reason in (
        (CheckResult(10, "failed", diverged, (Finding("no pair"),)), diverged),
        (CheckResult(10, "failed", "", (Finding("no pair"),)), "no pair"),
        (CheckResult(10, "not run", NOT_APPLICABLE), NOT_APPLICABLE),
    ):
        told = replace(report, checks=(*report.checks[:9], check))
        assert why_withheld(told) == f"check 10, {reason}"


def test_a_page_is_recognised_and_the_same_bytes_again(whole: str) -> None:
    assert is_page(whole.encode())
    assert not is_page(b"<!DOCTYPE html><p>mine")
    assert example_page() == whole
