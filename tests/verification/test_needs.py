"""What a replay would lack, from the manifest alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from record_examples import MANIFEST

from auditkit.records.opened import OpenedFile, OpenedFiles
from auditkit.verification.needs import lacking_needs, replay_needs


def wanted(
    arguments: dict[str, str], opened: tuple[str, ...] = (), given: tuple[str, ...] = ()
) -> list[str]:
    """Options that a replay of a study with such arguments lacks, consent left out."""
    program = replace(MANIFEST.program, arguments=arguments)
    files = OpenedFiles(tuple(OpenedFile(name, 1, "0" * 64) for name in opened))
    manifest = replace(MANIFEST, program=program, opened=files)
    return [need.option for need in replay_needs(manifest, given, allowed=True)]


def test_consent_comes_before_data(tmp_path: Path) -> None:
    program = replace(MANIFEST.program, arguments={"data": str(tmp_path / "none")})
    manifest = replace(MANIFEST, program=program, opened=None)
    needs = list(replay_needs(manifest, (), allowed=False))
    assert [need.option for need in needs] == ["--allow-code", "--arg data=PATH"]
    assert needs[1].why == f"where it lies here: '{tmp_path}/none' does not"


def test_a_path_of_which_nothing_lies_here_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("/nowhere/train.bin", "./none", "../none", "~/none"):
        assert wanted({"data": value}) == ["--arg data=PATH"], value
    for value in ("./there", "~/there", str(tmp_path), "org/name", "cifar10", "", "a\0b", "/a\0b"):
        assert wanted({"data": value}) == [], value
    assert wanted({"data": "/nowhere/a", "more": "/nowhere/b"}, given=("data",)) == [
        "--arg more=PATH"
    ]


def test_what_data_were_read_through_is_a_path_whatever_it_looks_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert wanted({"data": "cifar"}, ("data/data/train.bin",)) == ["--arg data=PATH"]
    assert wanted({"data": "cifar"}, ("data/data",)) == ["--arg data=PATH"]
    assert wanted({"data": "cifar"}, ("data/other/a", "program/data/a", "data")) == []


def test_where_listed_data_are_looked_for_is_said_before_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar").mkdir()
    opened = OpenedFiles((OpenedFile("data/data/train.bin", 1, "0" * 64),))
    program = replace(MANIFEST.program, arguments={"data": "cifar"})
    manifest = replace(MANIFEST, program=program, opened=opened)
    (need,) = replay_needs(manifest, (), allowed=True)
    assert need.option == "--arg data=PATH"
    assert need.why == "where its data lie here: 'cifar' is without train.bin"
    (tmp_path / "cifar" / "train.bin").touch()
    (need,) = replay_needs(manifest, (), allowed=True)
    assert need.option == "--arg data=cifar"
    assert need.why.startswith("a replay looks there for train.bin; give another path if")
    assert not list(replay_needs(manifest, (), allowed=True, ran=True))
    assert not list(replay_needs(manifest, ("data",), allowed=True))


def test_a_name_that_nobody_can_type_is_not_asked_for() -> None:
    assert wanted({"a b; rm": "/nowhere", "": "/nowhere"}) == []


def test_what_a_program_says_that_it_lacks_is_taken_for_data_and_variables_only() -> None:
    good = ["--arg data=PATH", "--env DATA_ROOT"]
    odd = ["--allow-code", "--fingerprint SHA256:x", "--arg data=/x", "--env A B", "--arg", ""]
    assert [need.option for need in lacking_needs([*odd, *good, "--env x=PATH"])] == good
