"""Where a report stays, which earlier one it replaces, and which is found again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checklist_example import example_report

from auditkit.paper.crate import METADATA_NAME
from auditkit.records.report import Finding, VerificationReport
from auditkit.verification.crate_around import CRATE_NAME
from auditkit.verification.report_files import cached, find, keep
from auditkit.verification.report_json import report_from_json

VERIFIED = example_report()
WEAKER = example_report(replayed=False)
SHA256 = VERIFIED.manifest_sha256


def found_wrong(exit_code: int, verdict: Any) -> VerificationReport:
    """A report in which check 8 says something of an exit code."""
    status: Any = "undecided" if exit_code == 6 else "failed"
    wrong = replace(WEAKER.checks[7], status=status, findings=(Finding("x", exit_code=exit_code),))
    checks = tuple(wrong if check.number == 8 else check for check in WEAKER.checks)
    return replace(WEAKER, checks=checks, exit_code=exit_code, verdict=verdict)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "manifest.json"
    path.parent.mkdir()
    path.write_text("{}")
    return path


def verdict_of(path: Path | None) -> str:
    assert path is not None
    return report_from_json(path.read_bytes(), what=path.name).verdict


def test_it_stays_beside_the_manifest_and_in_the_cache(manifest: Path, env: dict[str, str]) -> None:
    assert find(SHA256, env) is None
    beside = keep(VERIFIED, manifest, env)
    assert beside == manifest.with_name("report.json")
    assert verdict_of(beside) == verdict_of(find(SHA256, env)) == "verified"


def test_nothing_is_put_into_an_ro_crate(tmp_path: Path, env: dict[str, str]) -> None:
    assert CRATE_NAME == METADATA_NAME
    manifest = tmp_path / "crate" / "run" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    (tmp_path / "crate" / CRATE_NAME).write_text("{}")
    assert keep(VERIFIED, manifest, env) == find(SHA256, env) is not None
    assert [path.name for path in manifest.parent.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    ("earlier", "later", "kept"),
    [
        (WEAKER, VERIFIED, "verified"),
        (VERIFIED, WEAKER, "verified"),
        (VERIFIED, found_wrong(6, "undecided"), "verified"),
        (VERIFIED, found_wrong(3, "failed"), "verified"),
        (VERIFIED, found_wrong(1, "failed"), "failed"),
        (found_wrong(1, "failed"), VERIFIED, "verified"),
        (found_wrong(3, "failed"), WEAKER, "integrity-only"),
        (found_wrong(1, "failed"), WEAKER, "failed"),
        (replace(found_wrong(1, "failed"), manifest_sha256="0" * 64), WEAKER, "integrity-only"),
        (replace(VERIFIED, manifest_sha256="0" * 64), WEAKER, "integrity-only"),
    ],
)
def test_a_weaker_report_replaces_no_stronger_one_of_the_same_manifest(
    manifest: Path,
    env: dict[str, str],
    earlier: VerificationReport,
    later: VerificationReport,
    kept: str,
) -> None:
    keep(earlier, manifest, env)
    keep(later, manifest, env)
    assert verdict_of(manifest.with_name("report.json")) == kept


def test_an_earlier_report_that_claims_no_more_is_not_judged(
    manifest: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []

    def judge(data: bytes, *, what: str) -> VerificationReport:
        judged.append(what)
        return report_from_json(data, what=what)

    monkeypatch.setattr("auditkit.verification.report_json.report_from_json", judge)
    for report in (WEAKER, WEAKER, VERIFIED, VERIFIED):
        keep(report, manifest, env)
    assert judged == []
    keep(WEAKER, manifest, env)
    assert len(judged) == 2


def test_nothing_that_somebody_else_wrote_is_replaced(manifest: Path, env: dict[str, str]) -> None:
    beside = manifest.with_name("report.json")
    beside.write_text("mine")
    assert keep(VERIFIED, manifest, env) == cached(SHA256, env)
    beside.unlink()
    beside.symlink_to(manifest)
    assert keep(VERIFIED, manifest, env) == cached(SHA256, env)
    assert manifest.read_text() == "{}"


def test_without_a_home_folder_it_stays_beside_the_manifest_only(manifest: Path) -> None:
    assert keep(VERIFIED, manifest, {}) == manifest.with_name("report.json")
    assert find(SHA256, {}) is None
    assert keep(VERIFIED, None, {}) is None
    assert cached(SHA256, {"HOME": "/home/a", "XDG_CACHE_HOME": "relative"}).is_relative_to(
        "/home/a/.cache/auditkit"
    )


def test_what_is_no_manifest_has_no_report(manifest: Path, env: dict[str, str]) -> None:
    assert keep(replace(VERIFIED, statement_sha256=None), manifest, env) is None
    assert [path.name for path in manifest.parent.iterdir()] == ["manifest.json"]


def test_no_copy_names_the_home_folder(manifest: Path, env: dict[str, str]) -> None:
    place = f"cannot read {Path.home()}/data/train.bin"
    keep(replace(VERIFIED, replay=place), manifest, env)
    for path in (manifest.with_name("report.json"), cached(SHA256, env)):
        assert json.loads(path.read_text())["replay"] == "cannot read ~/data/train.bin"
