"""Every argument of the Python interface, given what it cannot be: an error that names it."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import auditkit
from auditkit.errors import AuditError, StoreError, UsageError


class Unprintable:
    """Something whose own methods fail."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, _: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


#: None of these is a path, text, command, number, flag or verdict.
WRONG: list[Any] = [
    *(b"x", 1j, [1], {1: 2}, {"a": None}, object(), Unprintable(), [Unprintable()], math.nan),
    *(np.zeros((2, 2)), np.array(3.0), torch.arange(3), torch.tensor(1.5), torch.zeros(2, 0)),
]


def arguments(call: Any) -> list[str]:
    return list(inspect.signature(call).parameters)


@pytest.mark.parametrize("name", arguments(auditkit.verify))
def test_every_argument_of_verify_is_checked_and_named(tmp_path: Path, name: str) -> None:
    for value in WRONG:
        given = {"path": tmp_path, "replay": "none", name: value}
        with pytest.raises(UsageError, match=name.replace("[", "\\[")):
            auditkit.verify(**given)


@pytest.mark.parametrize("name", arguments(auditkit.power))
def test_every_argument_of_power_is_checked_and_named(name: str) -> None:
    for value in WRONG:
        given = {"sd": 0.1, "effect": 0.1, name: value}
        if name == "pilot":
            del given["sd"]
        with pytest.raises(UsageError, match=name):
            auditkit.power(**given)
    for needed in ("effect", "power"):
        with pytest.raises(UsageError, match=f"{needed} is a number above 0, not None"):
            auditkit.power(**{"sd": 0.1, "effect": 0.1, needed: None})  # type: ignore[arg-type]


def test_every_path_is_checked_and_named(tmp_path: Path) -> None:
    for value in (*WRONG, None, True, ""):
        for call, name in ((auditkit.load_report, "path"), (auditkit.load_manifest, "path")):
            with pytest.raises(UsageError, match=f"{name} is a path, not "):
                call(value)
        with pytest.raises(UsageError, match="left is a path, not "):
            auditkit.diff(value, tmp_path)
    with pytest.raises(StoreError, match=r"File name too long|No such file"):
        auditkit.verify("x" * 5000)


def test_a_text_is_no_flag_and_no_list_of_words(tmp_path: Path) -> None:
    for name in ("strict", "allow_code", "generalise_probe"):
        with pytest.raises(UsageError, match=f"{name} is True or False, not 'false'"):
            auditkit.verify(tmp_path, **{name: "false"})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"command is a list of words.*not 'python train.py'"):
        auditkit.verify(tmp_path, command="python train.py")
    with pytest.raises(UsageError, match=r"arguments\['data'\] is a text, not "):
        auditkit.verify(tmp_path, arguments={"data": tmp_path})  # type: ignore[dict-item]


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    report = auditkit.power(sd=np.float32(2), effect=np.float64(1), tests=np.int64(3))  # type: ignore[arg-type]
    assert report == auditkit.power(sd=2.0, effect=1.0, tests=3)
    with pytest.raises(AuditError, match="No such file"):
        auditkit.verify(tmp_path / "none", replay=np.int64(2), jobs=np.int64(1))  # type: ignore[arg-type]
