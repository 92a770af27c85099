"""``auditkit export --format ro-crate``: a run for archives and artifact committees."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_shell import CompletedCommand, Shell
from studies import Run, check_files
from synthetic_recordings import write_recording

from auditkit.cli.earlier_reports import read_statement
from auditkit.formats import canonical
from auditkit.records.report import CheckResult, Finding
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.keys import PrivateKey, fingerprint, public_line

SAID = (
    *("--title", "Momentum", "--description", "What a reset does.", "--license", "CC-BY-4.0"),
    *("--author", "Ada Lovelace <0000-0002-1825-0097>", "--author", "Bo", "--published"),
    "2026-11-30",
)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell.at(tmp_path_factory.mktemp("crate") / "user")


@pytest.fixture
def trusting(shell: Shell, key: PrivateKey) -> tuple[str, ...]:
    return ("--key", str(shell.write("author.pub", public_line(key) + "\n")))


Export = Callable[..., CompletedCommand]


@pytest.fixture
def export(shell: Shell, trusting: tuple[str, ...]) -> Export:
    def call(folder: Path, out: Path, *options: str) -> CompletedCommand:
        given = ("--format", "ro-crate", "--out", str(out), *trusting, *options)
        return shell("export", str(folder), *given)

    return call


def graph_of(crate: Path) -> dict[str, Any]:
    told = json.loads((crate / "ro-crate-metadata.json").read_bytes())
    return {entity["@id"]: entity for entity in told["@graph"]}


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def offline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The validator, with the context that rocrate brings in place of the one on the web."""
    why = "roc-validator is not installed (it needs an older rich than the tests do: pip install "
    reason = (
        f"{why}--no-deps roc-validator, and rdflib pyshacl requests-cache enum-tools toml colorlog)"
    )
    validator = pytest.importorskip("rocrate_validator.services", reason=reason)
    import requests
    from rocrate.vocabs import RO_CRATE
    from rocrate_validator.utils.http import HttpRequester

    def get(_: object, url: str, **__: object) -> requests.Response:
        response = requests.Response()
        response.url, known = url, url == "https://w3id.org/ro/crate/1.1/context"
        response.status_code = 200 if known else 504
        response.headers["Content-Type"] = "application/ld+json"
        response._content = json.dumps(RO_CRATE if known else {}).encode()
        return response

    monkeypatch.setattr(HttpRequester, "get", get, raising=False)
    return validator


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("said", [(), SAID], ids=["nothing said", "all said"])
def test_it_conforms_to_the_profile(
    small: Run,
    export: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: tuple[str, ...],
) -> None:
    validator = offline(monkeypatch)
    assert export(small.folder, tmp_path / "crate", *said).code == 0
    settings = validator.ValidationSettings(
        rocrate_uri=str(tmp_path / "crate"),
        profile_identifier="process-run-crate",
        offline=True,
        cache_path=str(tmp_path / "cache"),
    )
    found = validator.validate(settings)
    assert [issue.message for issue in found.get_issues()] == []
    assert found.passed()


def test_its_copy_of_the_run_verifies(
    shell: Shell, small: Run, export: Export, trusting: tuple[str, ...], tmp_path: Path
) -> None:
    done = export(small.folder, tmp_path / "crate")
    assert done.code == 0, done.err
    signer = fingerprint(small.key)
    study = str(tmp_path / "crate" / "study")
    assert f"a reader: auditkit verify {study} --fingerprint {signer}" in done.out
    copy = files_of(tmp_path / "crate")
    theirs = files_of(small.folder)
    theirs.pop("report.json", None)  # of another test's verification, and nothing signed
    for name, data in theirs.items():
        assert copy.pop(f"study/{name}") == data
    assert sorted(copy) == ["ro-crate-metadata.json", "statement.json"]
    assert copy["statement.json"] == open_envelope(small.path.read_bytes()).payload
    for options in ((*trusting, "--strict"), ("--fingerprint", signer)):
        checked = shell("verify", study, *options, "--replay", "none")
        assert checked.code == 0, checked.out


def test_an_archive_is_the_same_and_verifies_as_it_is(
    shell: Shell, small: Run, export: Export, trusting: tuple[str, ...], tmp_path: Path
) -> None:
    assert export(small.folder, tmp_path / "crate", *SAID).code == 0
    for name in ("a.zip", "b.ZIP"):
        assert export(small.folder, tmp_path / name, *SAID).code == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.ZIP").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    assert held == files_of(tmp_path / "crate")
    checked = shell("verify", str(tmp_path / "a.zip"), *trusting, "--replay", "none")
    assert checked.code == 0, checked.out
    assert export(tmp_path / "a.zip", tmp_path / "again.zip", *SAID).code == 0
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "a.zip").read_bytes()


def test_what_is_recorded_is_described(small: Run, export: Export, tmp_path: Path) -> None:
    assert export(small.folder, tmp_path / "crate").code == 0
    graph, manifest = graph_of(tmp_path / "crate"), small.manifest
    for file in manifest.files:
        told = graph[f"study/{file.name}"]
        assert (told["sha256"], told["contentSize"]) == (file.sha256, str(file.size))
    run = graph["#run"]
    instruments = [graph[item["@id"]] for item in run["instrument"]]
    assert instruments[0]["@id"] == "study/code/tiny_study.py"
    versions = {item["name"]: item.get("softwareVersion") for item in instruments[1:]}
    assert versions["Python"] == manifest.environment.python
    assert versions["auditkit"] == manifest.producer.version
    for name, version in manifest.environment.packages.items():
        assert versions[name] == version
    machine = {
        graph[item["@id"]]["name"]: graph[item["@id"]]["value"]
        for item in graph["#machine"]["additionalProperty"]
    }
    assert machine.items() >= manifest.environment.hardware.items()
    results = {item["@id"] for item in run["result"]}
    assert "study/seed-0000/control.outcome.safetensors" in results
    assert "study/code/tiny_study.py" not in results
    assert run["object"] == {"@id": "study/code/tiny_study.py"}
    assert fingerprint(small.key) in graph["./"]["description"]


def test_what_only_people_can_say_is_marked_or_given(
    small: Run, export: Export, tmp_path: Path
) -> None:
    done = export(small.folder, tmp_path / "bare")
    assert "a person must still say: a title, a description, a licence, the authors" in done.err
    root = graph_of(tmp_path / "bare")["./"]
    assert root["creativeWorkStatus"].startswith("TO BE FILLED IN BY A PERSON: a title")
    named = graph_of(tmp_path / "bare")[root["license"]["@id"]]["name"]
    assert named == "TO BE FILLED IN BY A PERSON: licence"
    assert "author" not in root
    done = export(small.folder, tmp_path / "said", *SAID)
    assert done.err == ""
    graph = graph_of(tmp_path / "said")
    root = graph["./"]
    assert (root["name"], root["datePublished"]) == ("Momentum", "2026-11-30")
    assert root["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    people = [graph[item["@id"]] for item in root["author"]]
    assert [person["name"] for person in people] == ["Ada Lovelace", "Bo"]
    assert people[0]["@id"] == "https://orcid.org/0000-0002-1825-0097"
    assert graph["#run"]["agent"] == root["author"]
    assert "TO BE FILLED IN" not in json.dumps(graph)


def test_a_recording_has_a_crate_too(
    shell: Shell, export: Export, key: PrivateKey, trusting: tuple[str, ...], tmp_path: Path
) -> None:
    recording = write_recording(tmp_path / "run", key)
    done = export(recording.folder, tmp_path / "crate")
    assert done.code == 0, done.err
    graph = graph_of(tmp_path / "crate")
    assert graph["./"]["name"].startswith("Recorded training: ")
    checked = shell("verify", str(tmp_path / "crate" / "recording"), *trusting, "--replay", "none")
    assert checked.code == 0, checked.out


def test_what_does_not_verify_is_not_exported(forged: Run, export: Export, tmp_path: Path) -> None:
    code = forged.folder / "code" / "tiny_study.py"
    code.write_text(code.read_text() + "\n")
    before = sorted(tmp_path.iterdir())
    done = export(forged.folder, tmp_path / "crate")
    assert done.code == 1
    assert "does not verify, so nothing is exported" in done.err
    assert "check 3 artifacts: code/tiny_study.py" in done.err
    forged.path.write_bytes(b"{}")
    assert export(forged.folder, tmp_path / "crate.zip").code == 5
    assert sorted(tmp_path.iterdir()) == before


def test_what_did_not_verify_when_it_was_replayed_is_not_exported(
    forged: Run, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(tmp_path.iterdir())
    good = check_files(forged)
    wrong = CheckResult(8, "failed", "1 finding", (Finding("other weights"),))
    checks = tuple(wrong if one.number == 8 else one for one in good.checks)
    seen = forged.manifest.environment
    failed = replace(good, checks=checks, verdict="failed", exit_code=1, environment=seen)
    kept = tmp_path / "kept.json"
    monkeypatch.setattr("auditkit.cli.earlier_reports.find", lambda sha256: kept)
    for report, code in ((failed, 1), (replace(failed, environment=None), 0), (good, 0)):
        kept.write_bytes(canonical.encode(report))
        done = export(forged.folder, tmp_path / "crate.zip")
        assert done.code == code
        assert (tmp_path / "crate.zip").is_file() == (code == 0)
        assert ("check 8 replay: other weights" in done.err) == (code == 1)
        (tmp_path / "crate.zip").unlink(missing_ok=True)
    kept.unlink()
    assert sorted(tmp_path.iterdir()) == before


def test_what_nobody_trusted_signed_is_not_exported(
    shell: Shell, small: Run, tmp_path: Path
) -> None:
    out = str(tmp_path / "crate")
    done = shell("export", str(small.folder), "--format", "ro-crate", "--out", out)
    assert (done.code, "check 2 signature" in done.err) == (3, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changed", ["seed-0000/trunk.trace.safetensors", "manifest.json"])
def test_what_changes_after_it_was_verified_leaves_nothing(
    forged: Run, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    before = sorted(tmp_path.iterdir())
    file = forged.folder / changed
    whole = file.read_bytes()

    def meanwhile(path: Path, report: Any) -> bytes:
        statement = read_statement(path, report)
        file.write_bytes(b"other")
        return statement

    monkeypatch.setattr("auditkit.cli.crate.read_statement", meanwhile)
    for name in ("crate", "crate.zip"):
        done = export(forged.folder, tmp_path / name)
        assert (done.code, changed in done.line) == (1, True)
        file.write_bytes(whole)
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_overwritten(small: Run, export: Export, tmp_path: Path) -> None:
    (tmp_path / "crate").mkdir()
    (tmp_path / "a.zip").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "none")
    for name in ("crate", "a.zip", "link"):
        done = export(small.folder, tmp_path / name)
        said = f"--out {str(tmp_path / name)!r} exists already, and stays as it is"
        assert (done.code, done.line.startswith(said)) == (2, True)
    assert export(small.folder, tmp_path / "none" / "crate").code == 2
    assert export(small.folder, small.folder / "crate").code == 2
    assert not (small.folder / "crate").exists()
    assert export(small.folder, Path("-")).code == 2
    assert list((tmp_path / "crate").iterdir()) == []
    assert (tmp_path / "a.zip").read_bytes() == b"mine"


def test_a_manifest_of_another_name_has_no_folder(
    forged: Run, export: Export, tmp_path: Path
) -> None:
    shutil.move(forged.path, forged.folder / "other.json")
    done = export(forged.folder / "other.json", tmp_path / "crate")
    assert (done.code, "give the run's folder" in done.line) == (2, True)


def test_without_rocrate_it_is_said_what_to_install(
    small: Run, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rocrate.model", None)
    monkeypatch.delitem(sys.modules, "auditkit.paper.crate", raising=False)
    done = export(small.folder, tmp_path / "crate")
    assert done.code == 2
    assert 'pip install "auditkit[crate]"' in done.line
    assert not (tmp_path / "crate").exists()


@pytest.mark.parametrize(
    ("form", "option"),
    [
        ("sigstore", ("--license", "MIT")),
        ("sigstore", ("--author", "Bo")),
        ("sigstore", ("--fingerprint", "SHA256:x")),
        ("ro-crate", ("--by", "SHA256:x")),
    ],
)
def test_an_option_of_the_other_form_is_wrong_use(
    shell: Shell, small: Run, tmp_path: Path, form: str, option: tuple[str, ...]
) -> None:
    out = str(tmp_path / "out")
    done = shell("export", str(small.folder), "--format", form, "--out", out, *option)
    assert done.code == 2
    assert done.line == f"{option[0]} would do nothing with --format {form}"
