"""The functions that a program calls: they give what the command line writes."""

from __future__ import annotations

import base64
import inspect
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_shell import Shell
from studies import InProcessWorkers, Run

import auditkit
from auditkit.cli.power import power as power_command
from auditkit.cli.verify import verify_command
from auditkit.errors import (
    ArchiveError,
    ArtifactError,
    KeyFileError,
    StoreError,
    UnknownArgument,
    UsageError,
)
from auditkit.formats import canonical
from auditkit.records.report import VerificationReport
from auditkit.signing.keys import fingerprint, generate_key
from auditkit.verification import procedure
from auditkit.verification.request import VerifyRequest


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
        ({"jobs": 0}, "jobs is a whole number of at least 1, not 0"),
        ({"threshold": 0}, "threshold is a whole number of at least 1, not 0"),
        ({"replay_seed": -1}, "replay_seed is a whole number of at least 0, not -1"),
        ({"budget": float("nan")}, "budget is a number of seconds above 0, not nan"),
        ({"budget": "90s"}, "budget is a number of seconds above 0, not '90s'"),
        ({"tolerance": 1.5}, "tolerance is a total variation, 0 to 1, not 1.5"),
        (
            {"replay": "none", "generalise_probe": True, "budget": 5},
            "budget, generalise_probe would do nothing: replay='none' replays nothing",
        ),
        (
            {"environment": "HOME", "command": ["python", "x.py"]},
            "environment would do nothing: your own command runs in your environment",
        ),
        ({"environment": "NO_SUCH_VARIABLE"}, "--env 'NO_SUCH_VARIABLE' is no variable"),
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


def test_whatever_verify_takes_as_an_option_a_program_can_give(small: Run) -> None:
    """Of each command that verifies; what only says how something is printed is no argument."""
    arguments = set(inspect.signature(auditkit.verify).parameters)
    called = {
        **{"keys": "key", "amount": "replay", "authorities": "authority", "manifest": "path"},
        **{"variables": "environment", "countersigner": "countersign"},
    }
    printing = {"wide", "everything", "json_out"}
    options = {str(option.name) for option in verify_command.params} - printing
    assert {called.get(name, name) for name in options} | {"command"} == arguments
    spelt = {"sd", "effect", "metric", "margin", "tests", "pilot"} | {"power"}
    assert spelt == set(inspect.signature(auditkit.power).parameters) - {"key", "fingerprint"}
    options = {str(option.name) for option in power_command.params}
    assert options - {"as_json"} == spelt - {"power"} | {"aimed"}


def test_effects_for_other_examples_are_given_where_asked_for(
    monkeypatch: pytest.MonkeyPatch, small: Run
) -> None:
    asked: list[VerifyRequest] = []

    def verified(place: Path, request: VerifyRequest) -> VerificationReport:
        asked.append(request)
        return procedure.verify(place, replace(request, replay="none", pilot=None))

    monkeypatch.setattr("auditkit.api.calls.verify_as_asked", verified)
    monkeypatch.setenv("OF_MINE", "7")
    name = fingerprint(small.key)
    auditkit.verify(
        small.path,
        fingerprint=name,
        threshold=1,
        environment=["OF_MINE"],
        replay=2,
        replay_seed=3,
        budget=60,
        tolerance=0.1,
        generalise_probe=True,
        pilot=small.folder,
    )
    (request,) = asked
    assert (request.replay, request.replay_seed, request.budget) == (2, 3, 60)
    assert (request.tolerance, request.generalise_probe) == (0.1, True)
    assert dict(request.variables) == {"OF_MINE": "7"}
    assert request.pilot is not None
    assert set(request.pilot.initial) == set(small.manifest.plan.seeds)


def test_a_report_is_countersigned_for_a_program(
    shell: Shell, small: Run, copied: Callable[[Run], Run], tmp_path: Path
) -> None:
    assert shell("keygen", "--out", str(tmp_path / "mine")).code == 0
    theirs, name = copied(small), fingerprint(small.key)
    report = auditkit.verify(
        theirs.folder, fingerprint=name, replay="none", countersign=tmp_path / "mine"
    )
    assert report.exit_code == 0
    (written,) = theirs.folder.glob("countersign-*.json")
    assert b"integrity" in base64.b64decode(json.loads(written.read_bytes())["payload"])
    with pytest.warns(UserWarning, match="not countersigned: the verdict is failed"):
        auditkit.verify(theirs.folder, strict=True, replay="none", countersign=tmp_path / "mine")
    assert shell("pack", str(small.folder), "--out", str(tmp_path / "c.zip")).code == 0
    with pytest.raises(UsageError, match="this one lies in an archive"):
        auditkit.verify(tmp_path / "c.zip", countersign=tmp_path / "mine")


def test_seeds_are_those_of_the_command_line(shell: Shell, small: Run) -> None:
    report = auditkit.power(sd=2, effect=1, margin=2.0, tests=3)
    options = ("--sd", "2", "--effect", "1", "--margin", "2", "--tests", "3", "--json")
    assert canonical.encode(report).decode() == shell("power", *options).out.strip()
    with pytest.raises(ArtifactError, match="the pilot does not verify"):
        auditkit.power(small.folder, effect=0.1)  # this machine does not trust its key


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"effect": 1}, "give either a pilot study or a standard deviation"),
        ({"pilot": "a", "sd": 1, "effect": 1}, "give either a pilot study or a standard deviation"),
        ({"sd": 1, "effect": math.nan}, "effect is a number above 0, not nan"),
        ({"sd": "1", "effect": 1}, "sd is a number above 0, not '1'"),
        ({"sd": 1, "effect": 1, "margin": -1}, "margin is a number above 0, not -1"),
        ({"sd": 1, "effect": 1, "power": 1}, "power is below 1, not 1"),
        ({"sd": 1, "effect": 1, "metric": "acuracy"}, "metric: unknown metric 'acuracy'"),
        ({"sd": 1, "effect": 1, "tests": 1.5}, "tests is a whole number of at least 1"),
    ],
)
def test_seeds_for_what_means_nothing_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        auditkit.power(**arguments)
