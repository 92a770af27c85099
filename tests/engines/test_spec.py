from __future__ import annotations

import sys

import pytest

from auditkit.engines.spec import EngineSpec, parse_engine
from auditkit.errors import UsageError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("dask", EngineSpec("dask", None)),
        ("ray", EngineSpec("ray", None)),
        ("dask:tcp://node:8786", EngineSpec("dask", "tcp://node:8786")),
        ("ray:ray://head:10001", EngineSpec("ray", "ray://head:10001")),
    ],
)
def test_an_engine_is_a_name_and_perhaps_an_address(text: str, spec: EngineSpec) -> None:
    assert parse_engine(text) == spec
    assert spec.is_local is (":" not in text)


@pytest.mark.parametrize("text", ["", "slurm", "dask:", "dask: ", "Dask", ":8786"])
def test_what_names_no_engine_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no engine; give dask, ray"):
        parse_engine(text)


@pytest.mark.parametrize(("name", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_an_engine_that_is_not_installed_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"auditkit.engines.{name}_engine", raising=False)
    with pytest.raises(UsageError) as caught:
        EngineSpec(name, None).require_installed()
    assert caught.value.hint == f'pip install "auditkit[{name}]"'
    assert package in caught.value.message
