"""The functions that a program calls: they give what the command line writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_shell import Shell
from studies import InProcessWorkers, Run

import auditkit
from auditkit.errors import ArchiveError, KeyFileError, StoreError, UnknownArgument, UsageError
from auditkit.formats import canonical
from auditkit.signing.keys import fingerprint, generate_key


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auditkit.replay.study_replay.Workers", InProcessWorkers)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell.at(tmp_path_factory.mktemp("api") / "user")


def test_a_report_is_what_the_command_line_writes(shell: Shell, small: Run, tmp_path: Path) -> None:
    name = fingerprint(small.key)
    options = ("--fingerprint", name, "--allow-code", "--jobs", "1")
    done = shell("verify", str(small.folder), *options, "--json", str(tmp_path / "r.json"))
    report = auditkit.verify(small.folder, fingerprint=name, allow_code=True, jobs=1)
    assert (done.code, report.verdict, bool(report)) == (0, "verified", True)
    assert canonical.encode(report) == (tmp_path / "r.json").read_bytes()
    assert auditkit.load_report(tmp_path / "r.json") == report
    assert report.to_json().encode() == (tmp_path / "r.json").read_bytes()


def test_the_json_says_what_schema_it_follows_and_who_made_it(small: Run) -> None:
    told = json.loads(auditkit.verify(small.path, replay="none").to_json())
    assert (told["schema"], told["schema_version"]) == ("report", "1")
    assert told["auditkit"] == auditkit.__version__


def test_what_is_found_is_no_error(small: Run, forged: Run) -> None:
    untrusted = auditkit.verify(small.path)
    assert (untrusted.exit_code, bool(untrusted)) == (3, False)
    assert [need.option for need in untrusted.needs][1:] == ["--allow-code"]
    name = fingerprint(small.key)
    less = auditkit.verify(small.path, fingerprint=[name], replay="none", require="sampled")
    assert (less.exit_code, less.verdict, bool(less)) == (7, "integrity-only", False)
    next((forged.folder / "seed-0000").glob("*.outcome.*")).unlink()
    assert auditkit.verify(forged.folder, fingerprint=name, replay="none").exit_code == 1


def test_a_key_may_be_one_or_several(shell: Shell, small: Run) -> None:
    key = small.folder / "signer.pub"
    for given in (key, str(key), [key]):
        assert auditkit.verify(small.path, key=given, replay="none").exit_code == 0


def test_an_archive_is_taken_as_it_is(shell: Shell, small: Run, tmp_path: Path) -> None:
    assert shell("pack", str(small.folder), "--out", str(tmp_path / "a.zip")).code == 0
    name = fingerprint(small.key)
    report = auditkit.verify(tmp_path / "a.zip", fingerprint=name, allow_code=True, replay=1)
    assert report.verdict == "sampled"
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ArchiveError):
        auditkit.verify(tmp_path / "b.zip")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"replay": 0}, "replay is 'all', 'none' or a whole number of at least 1, not 0"),
        ({"replay": True}, "not True"),
        ({"replay": "some"}, "not 'some'"),
        ({"jobs": 0}, "jobs must be at least 1, not 0"),
        (
            {"require": "all"},
            "require is one of verified, sampled, integrity, integrity-only, not 'all'",
        ),
    ],
)
def test_arguments_that_mean_nothing_are_refused(
    small: Run, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        auditkit.verify(small.path, **options)


def test_other_errors_are_those_of_the_command_line(small: Run, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        auditkit.verify(tmp_path / "nothing")
    with pytest.raises(KeyFileError):
        auditkit.verify(small.path, fingerprint="SHA256:short")
    with pytest.raises(UnknownArgument):
        auditkit.verify(small.path, arguments={"pth": "x"})
    (tmp_path / "run.json.partial").touch()
    for call in (auditkit.verify, auditkit.load_manifest):
        with pytest.raises(StoreError, match="an unfinished run"):
            call(tmp_path)


def test_a_fingerprint_of_no_key_there_is_a_warning(small: Run) -> None:
    with pytest.warns(UserWarning, match="--fingerprint: .*no key with that fingerprint") as told:
        report = auditkit.verify(small.path, fingerprint=fingerprint(generate_key()), replay="none")
    assert report.exit_code == 3
    assert told[0].filename == __file__


def test_a_manifest_is_read_and_not_verified(small: Run, forged: Run) -> None:
    assert auditkit.load_manifest(small.folder) == small.manifest
    (forged.folder / "code" / "tiny_study.py").unlink()
    assert auditkit.load_manifest(forged.path) == small.manifest


def test_two_runs_are_compared(small: Run, copied: Callable[[Run], Run]) -> None:
    assert auditkit.diff(small.folder, copied(small).folder).same
    found = auditkit.diff(f"{small.folder}#seed-0/control", f"{small.folder}#seed-0/placebo-0")
    assert not found.same
    assert found.traces[0].component


def test_without_replay_no_torch_is_loaded(small: Run) -> None:
    code = (
        "import sys, auditkit\n"
        f"report = auditkit.verify({str(small.path)!r}, fingerprint={fingerprint(small.key)!r}, "
        "replay='none')\n"
        "assert report.verdict == 'integrity-only', report\n"
        "assert not {'torch', 'scipy', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
