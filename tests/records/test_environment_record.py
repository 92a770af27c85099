from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from record_examples import ENVIRONMENT

SECTIONS = ("packages", "hardware", "libraries", "variables", "determinism")


def test_an_environment_does_not_differ_from_itself() -> None:
    assert list(ENVIRONMENT.differences(replace(ENVIRONMENT))) == []


def test_another_python_is_a_difference() -> None:
    other = replace(ENVIRONMENT, python="3.12.1 CPython")
    assert list(ENVIRONMENT.differences(other)) == [
        "python: 3.11.7 CPython there, 3.12.1 CPython here"
    ]


@pytest.mark.parametrize("section", SECTIONS)
def test_changed_missing_and_new_entries_are_differences(section: str) -> None:
    values: dict[str, Any] = {section: {"changed": "1", "gone": "2", "same": "3"}}
    there = replace(ENVIRONMENT, **values)
    values = {section: {"changed": "9", "new": "4", "same": "3"}}
    here = replace(ENVIRONMENT, **values)
    assert list(there.differences(here)) == [
        f"{section}: changed is 1 there, 9 here",
        f"{section}: gone is 2 there, absent here",
        f"{section}: new is absent there, 4 here",
    ]


@pytest.mark.parametrize("name", ["pip", "setuptools", "wheel"])
def test_what_never_changes_bits_is_no_difference(name: str) -> None:
    here = replace(ENVIRONMENT, packages={**ENVIRONMENT.packages, name: "1"})
    assert list(ENVIRONMENT.differences(here)) == []


def test_every_section_is_compared() -> None:
    here = replace(
        ENVIRONMENT,
        packages={"torch": "0"},
        hardware={"processor": "arm64"},
        libraries={"mkl": "0"},
        variables={"PYTHONHASHSEED": "1"},
        determinism={"torch threads": "2"},
    )
    lines = list(ENVIRONMENT.differences(here))
    assert [line.partition(":")[0] for line in lines] == ["packages", *SECTIONS]
