from __future__ import annotations

import getpass
import socket
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from auditkit.errors import StoreError
from auditkit.formats.structure import from_dict, to_dict
from auditkit.observe.machine.determinism import deterministic
from auditkit.observe.machine.environment import environment
from auditkit.records.environment import RECORDED_VARIABLES


def _texts() -> list[str]:
    found = environment()
    texts = [found.python]
    for field in fields(found):
        value = getattr(found, field.name)
        if isinstance(value, dict):
            texts.extend([*value.keys(), *value.values()])
    return texts


def test_nobodys_name_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice-the-author")
    monkeypatch.setenv("USER", "alice-the-author")
    monkeypatch.setenv("OMP_NUM_THREADS", "/home/alice-the-author/1")
    monkeypatch.setenv("PYTHONPATH", "/home/alice-the-author/secret")
    names = {"alice", "/home", socket.gethostname(), str(Path.cwd()), str(Path.home())}
    if len(getpass.getuser()) > 4:  # a name like "root" may be part of a word
        names.add(getpass.getuser())
    for text in _texts():
        assert not any(name in text for name in names), text


def test_variables_are_those_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITKIT_TEST_SECRET", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    found = environment().variables
    assert found["OMP_NUM_THREADS"] == "2"
    assert found["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert set(found) <= set(RECORDED_VARIABLES)


@pytest.mark.parametrize(
    "name",
    [
        *("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"),
        *("NPY_DISABLE_CPU_FEATURES", "ONEDNN_DEFAULT_FPMATH_MODE", "OPENBLAS_CORETYPE"),
    ],
)
def test_a_variable_that_chooses_kernels_makes_another_environment(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without it, an honest record would differ here for no reason that is told: an edit.
    monkeypatch.delenv(name, raising=False)
    before = environment()
    monkeypatch.setenv(name, "other")
    assert [*before.differences(environment())] == [
        f"variables: {name} is absent there, other here"
    ]


def test_what_changes_bits_is_in_it() -> None:
    with deterministic(threads=1):
        found = environment()
    assert {"auditkit", "numpy", "torch"} <= set(found.packages)
    assert found.hardware["cpu capability"]
    assert found.hardware["processor"]
    assert found.determinism["torch threads"] == "1"
    assert all(found.libraries.values())
    assert found.libraries["libc"]
    assert list(found.differences(environment())) or found.determinism == environment().determinism


def test_it_survives_json() -> None:
    found = environment()
    assert from_dict(type(found), to_dict(found), what="x") == found
    assert not list(found.differences(environment()))


def test_without_cpuinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> bytes:
        raise StoreError("no such file")

    monkeypatch.setattr("auditkit.files.store.read_bytes", missing)
    assert environment().hardware["processor"]
