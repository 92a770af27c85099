"""Arguments that a factory lacks, does not take, or looks for data with in vain."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from auditkit.errors import DataMissing, ProgramError, ProgramFailed, UnknownArgument
from auditkit.program.arguments import (
    check_arguments,
    kind_of_failure,
    lacking_options,
    own_files_note,
    where_data_lie,
)
from auditkit.records.opened import OpenedFile, OpenedFiles


def _takes(seed: int, data: str, *, parts: str = "") -> None: ...


def _reads(
    seed: int, data: str = "/nowhere/train.bin", out: Path = Path("/nowhere/else")
) -> None: ...


def _parameters(make: Any) -> Any:
    return inspect.signature(make).parameters


def test_what_a_factory_needs_is_named_with_what_to_type() -> None:
    with pytest.raises(ProgramError) as caught:
        check_arguments("make_program", _parameters(_takes), {})
    assert str(caught.value) == (
        "the factory make_program needs the argument 'data'; give --arg data=VALUE"
    )
    check_arguments("make_program", _parameters(_takes), {"data": "x", "parts": "y"})


def test_what_it_does_not_take_comes_with_what_it_does() -> None:
    with pytest.raises(UnknownArgument, match=r"'dta' \(expected data, parts, found dta\)"):
        check_arguments("make_program", _parameters(_takes), {"dta": "x"})
    check_arguments("f", _parameters(lambda seed, **more: None), {"dta": "x"})
    check_arguments("f", _parameters(lambda *all, **more: None), {"dta": "x"})


def test_the_argument_whose_path_leads_nowhere_says_where_data_lie(tmp_path: Path) -> None:
    parameters, error = _parameters(_reads), RuntimeError("Dataset not found")
    lacking = lacking_options(parameters, {"data": str(tmp_path)}, error)
    assert lacking == ("--arg out=PATH",)
    assert where_data_lie(lacking) == "where data lie elsewhere here, give --arg out=PATH"
    here = {"data": str(tmp_path), "out": str(tmp_path)}
    assert lacking_options(parameters, here, error) == ()
    assert where_data_lie(()) is None
    missing = FileNotFoundError(2, "No such file", f"{tmp_path}/train.bin")
    lacking = lacking_options(parameters, {**here, "out": str(tmp_path / "..")}, missing)
    assert lacking == ("--arg data=PATH",)
    assert lacking_options(_parameters(_takes), {"data": "cifar"}, error) == ()
    assert lacking_options(_parameters(_takes), {"data": "a\0/b"}, missing) == ()


@pytest.mark.parametrize(
    ("data", "message", "found"),
    [
        ("data/cifar", "data/cifar has no one.bin", True),
        ("data/cifar", "no images below data/cifar or elsewhere", True),
        ("cifar", "cifar has no one.bin", True),
        (".", ". has no one.bin", True),
        ("cifar", "no images of cifar here", False),  # any word could be
        ("data/cifar", "data/cifar100 has no one.bin", False),
    ],
)
def test_a_program_s_own_words_name_the_argument_too(data: str, message: str, found: bool) -> None:
    error = FileNotFoundError(message)
    lacking = lacking_options(_parameters(_takes), {"data": data}, error)
    assert lacking == (("--arg data=PATH",) if found else ())
    kind, hint = kind_of_failure(lacking, {"data": data}, error)
    assert kind is (DataMissing if found else ProgramFailed)
    assert (hint is not None) == found
    assert lacking_options(_parameters(_takes), {"data": data}, OSError(message)) == ()


def test_files_of_the_own_folder_are_named_with_the_argument_that_leads_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def takes(seed: int, data: str = "./da ta", other: object = None, odd: str = "a\0") -> None: ...

    monkeypatch.chdir(tmp_path)
    own = OpenedFile("program/da ta/x.csv", 1, "a" * 64)
    elsewhere = OpenedFile("data/root/y.csv", 1, "a" * 64)

    def note(*files: OpenedFile) -> list[str]:
        return list(own_files_note(_parameters(takes), tmp_path, OpenedFiles(files)))

    assert note(elsewhere) == []
    assert list(own_files_note(_parameters(takes), tmp_path, None)) == []
    (line,) = note(elsewhere, own)
    assert "no argument names: program/da ta/x.csv; " in line
    assert ": give --arg data='./da ta', so that" in line
    (line,) = note(own, replace(own, name="program/z.csv"))
    assert "data='./da ta' and let the factory take the path of program/z.csv as" in line


def test_a_variable_that_is_not_there_is_an_option_and_another_key_is_none() -> None:
    def lacking(mapping: Any) -> tuple[str, ...]:
        try:
            mapping["AUDITKIT_TEST_NOWHERE"]
        except KeyError as error:
            return lacking_options(_parameters(_takes), {}, error)
        raise AssertionError

    assert lacking(os.environ) == ("--env AUDITKIT_TEST_NOWHERE",)
    assert lacking({}) == ()
    assert where_data_lie(lacking(os.environ)) is None
