"""A study by two real workers of an engine, beside the one of this machine: the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from cli_shell import Shell, content, timeless

STUDY = ("run", "tiny_study.py", "--seeds", "0-2", "--perturb", "carry", "--jobs", "2")


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_the_manifest_is_that_of_one_machine_and_verifies(
    tmp_path: Path, engine: str, package: str
) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'needs pip install "auditkit[{engine}]"')
    shell = Shell.at(tmp_path / "user")
    lines = (
        (*STUDY, "--out", "here"),
        (*STUDY, "--out", "there", "--engine", engine),
        ("verify", "there", "--engine", engine, "--jobs", "2"),
    )
    for line in lines:
        process = shell.start(*line)
        _, said = process.communicate()
        assert process.returncode == 0, said
    here, there = (shell.folder / name for name in ("here", "there"))
    assert content(here) == content(there)
    assert timeless(here / "manifest.json") == timeless(there / "manifest.json")
    assert {path.name for path in there.iterdir()} - {"report.json"} == {
        path.name for path in here.iterdir()
    }
