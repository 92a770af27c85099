from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import pytest
from checklist_example import example_manifest, example_report
from click.testing import CliRunner, Result

from auditkit.cli import checklist as command
from auditkit.cli.group import main
from auditkit.formats import canonical
from auditkit.formats.statements import to_statement
from auditkit.paper.lists import LISTS
from auditkit.records.report import Finding, VerificationReport
from auditkit.signing.envelopes import open_envelope, sign_statement
from auditkit.signing.keys import generate_key, public_line
from auditkit.verification.procedure import VerifyRequest


@dataclass
class Stub:
    """Stands where the verifier does, and remembers what it was asked for.

    Attributes:
        report: What it answers.
        request: What it was asked for.
    """

    report: VerificationReport
    request: VerifyRequest | None = None

    def __call__(self, path: Path, request: VerifyRequest) -> VerificationReport:
        self.request = request
        if request.replay != "none":
            return replace(example_report(), statement_sha256=self.report.statement_sha256)
        return self.report


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's manifest, signed; its files do not exist."""
    folder = tmp_path_factory.mktemp("run")
    key = generate_key()
    path = folder / "manifest.json"
    path.write_bytes(sign_statement(to_statement(example_manifest()), key))
    (folder / "author.pub").write_text(public_line(key) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def stub(signed: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """A verifier that finds nothing wrong."""
    digest = hashlib.sha256(open_envelope(signed.read_bytes()).payload).hexdigest()
    found = Stub(replace(example_report(replayed=False), statement_sha256=digest))
    monkeypatch.setattr(command, "verify_path", found)
    return found


def invoke(path: Path, *options: str) -> Result:
    key = path.parent / "author.pub"
    return CliRunner().invoke(main, ["checklist", str(path), "--key", str(key), *options])


def report_file(folder: Path, stub: Stub, **change: Any) -> str:
    report = replace(example_report(), statement_sha256=stub.report.statement_sha256)
    path = folder / "report.json"
    path.write_bytes(canonical.encode(replace(report, **change)))
    return str(path)


def test_the_checklist_of_a_manifest_that_fails_says_so_and_holds_nothing(signed: Path) -> None:
    result = invoke(signed)  # really verified: none of its files exists
    assert result.exit_code == 1
    said = "# Checklist: THIS MANIFEST DOES NOT VERIFY: check 3 (artifacts) failed"
    assert result.stdout.splitlines()[0].startswith(said)
    assert "**Evidence:**" not in result.stdout
    assert "**Answer:** Yes" not in result.stdout
    assert "torch" not in result.stdout
    assert "manifest.json does not verify, so nothing is filled in" in result.stderr
    assert "auditkit: check 3 artifacts: code/study.py" in result.stderr


def test_the_exit_code_is_the_verifier_s(signed: Path, tmp_path: Path) -> None:
    broken = tmp_path / "manifest.json"
    broken.write_bytes(b"{}")
    result = CliRunner().invoke(main, ["checklist", str(broken), "--strict"])
    assert result.exit_code == 5
    assert "check 1 envelope" in result.stderr
    assert "check 1 (envelope) failed" in result.stdout.splitlines()[0]


def test_a_missing_manifest_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["checklist", str(tmp_path / "none.json"), "--strict"])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_by_default_nothing_is_replayed(signed: Path, stub: Stub) -> None:
    result = invoke(signed)
    assert result.exit_code == 0
    assert result.stdout.startswith("# Checklist\n")
    assert "**Answer:** Yes" in result.stdout
    assert "run auditkit checklist with --replay all" in result.stdout
    assert stub.report.manifest_sha256 in result.stdout
    assert stub.request is not None
    assert stub.request.replay == "none"


def test_a_replay_fills_the_floor(signed: Path, stub: Stub) -> None:
    options = ("--replay", "all", "--allow-code", "--arg", "data=here", "--jobs", "2", "--strict")
    result = invoke(signed, *options, "--format", "latex")
    assert result.exit_code == 0
    assert "The floor has developed at T" in result.stdout
    assert r"\item[] Answer: \answerYes{}" in result.stdout
    request = stub.request
    assert request is not None
    assert (request.replay, request.allow_code, request.strict) == ("all", True, True)
    assert (request.arguments, request.jobs) == ({"data": "here"}, 2)


def test_it_can_be_written_to_a_file(signed: Path, stub: Stub, tmp_path: Path) -> None:
    out = tmp_path / "CHECKLIST.md"
    result = invoke(signed, "--out", str(out))
    assert result.exit_code == 0
    assert result.stdout == ""
    assert out.read_text(encoding="utf-8") == invoke(signed).stdout


def test_lists_and_form_are_chosen(signed: Path, stub: Stub, tmp_path: Path) -> None:
    assert "AAAI" not in invoke(signed).stdout
    two = invoke(signed, "--for", "aaai", "--for", "reforms").stdout
    assert "### 4.7 Seeds" in two
    assert "## REFORMS, items 2a to 2c" in two
    assert "NeurIPS" not in two
    out = tmp_path / "checklist.html"
    for _ in range(2):  # its own earlier file is replaced
        done = invoke(signed, "--for", "all", "--format", "html", "--out", str(out))
        assert done.exit_code == 0, done.stderr
    page = out.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert all(f">{escape(source.title)}</h2>" in page for source in LISTS.values())
    out.write_text("<!DOCTYPE html>\n<p>mine</p>")
    assert invoke(signed, "--format", "html", "--out", str(out)).exit_code == 2


def test_a_report_fills_what_needs_a_replay(signed: Path, stub: Stub, tmp_path: Path) -> None:
    result = invoke(signed, "--report", report_file(tmp_path, stub))
    assert result.exit_code == 0
    assert "The floor has developed at T" in result.stdout
    assert "that nobody signed" in result.stdout
    assert stub.request is not None
    assert stub.request.replay == "none"


def test_the_manifest_is_named_by_its_own_bytes_and_not_by_the_reports(
    signed: Path, stub: Stub, tmp_path: Path
) -> None:
    result = invoke(signed, "--report", report_file(tmp_path, stub, manifest_sha256="0" * 64))
    assert result.exit_code == 0
    assert "0" * 64 not in result.stdout
    assert f"SHA-256 `{stub.report.manifest_sha256}`" in result.stdout
    assert "names another state of the manifest file" in result.stderr


def test_a_report_on_another_manifest_is_refused(signed: Path, stub: Stub, tmp_path: Path) -> None:
    result = invoke(signed, "--report", report_file(tmp_path, stub, statement_sha256="0" * 64))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "report.json: the report's statement_sha256 is another" in result.stderr
    assert "give the one that auditkit verify wrote of this manifest" in result.stderr


def test_a_report_does_not_outvote_what_is_verified_here(
    signed: Path, stub: Stub, tmp_path: Path
) -> None:
    checks = tuple(
        replace(check, status="failed", findings=(Finding("other order", exit_code=1),))
        if check.number == 6
        else check
        for check in stub.report.checks
    )
    good = report_file(tmp_path, stub)
    stub.report = replace(stub.report, checks=checks, exit_code=1, verdict="failed")
    result = invoke(signed, "--report", good)
    assert result.exit_code == 1
    assert "check 6 order: other order" in result.stderr
    assert "THIS MANIFEST DOES NOT VERIFY: check 6 (order)" in result.stdout.splitlines()[0]


def test_a_failed_report_fills_nothing(signed: Path, stub: Stub, tmp_path: Path) -> None:
    checks = tuple(
        replace(check, status="failed", findings=(Finding("no data here", exit_code=6),))
        if check.number == 8
        else replace(check, status="not run" if check.number == 10 else "passed")
        for check in example_report().checks
    )
    change = {"checks": checks, "exit_code": 6, "verdict": "undecided", "estimates": None}
    result = invoke(signed, "--report", report_file(tmp_path, stub, **change))
    assert result.exit_code == 6
    assert "check 8 replay: no data here" in result.stderr
    assert "DOES NOT VERIFY: check 8 (replay) failed" in result.stdout.splitlines()[0]
    assert "**Evidence:**" not in result.stdout


def test_what_is_no_report_is_refused(signed: Path, stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(b'{"verdict":"verified"}')
    result = invoke(signed, "--report", str(file))
    assert result.exit_code == 5
    assert "missing" in result.stderr


def test_report_and_replay_exclude_each_other(signed: Path, stub: Stub, tmp_path: Path) -> None:
    result = invoke(signed, "--report", report_file(tmp_path, stub), "--replay", "all")
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr


def test_a_manifest_that_changes_meanwhile_is_refused(signed: Path, stub: Stub) -> None:
    stub.report = replace(stub.report, statement_sha256="0" * 64)
    result = invoke(signed)
    assert result.exit_code == 1
    assert "changed while it was verified" in result.stderr


@pytest.mark.parametrize(
    "options", [("--format", "pdf"), ("--for", "nips"), ("--replay", "0"), ("--jobs", "0")]
)
def test_wrong_use(signed: Path, stub: Stub, options: tuple[str, str]) -> None:
    assert invoke(signed, *options).exit_code == 2
