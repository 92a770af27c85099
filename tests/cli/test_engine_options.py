"""``--engine``: what is said while an engine starts."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from cli_shell import SerialisingWorkers, Shell


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ((), ""),
        (("--engine", "ray"), "starting ray, then "),
        (("--engine", "dask:tcp://node:8786"), "connecting to dask, then "),
    ],
)
def test_what_is_waited_for_first_is_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], first: str
) -> None:
    said: list[str] = []

    def waiting(text: str) -> nullcontext[None]:
        said.append(text)
        return nullcontext()

    monkeypatch.setattr("auditkit.cli.run.waiting", waiting)
    monkeypatch.setattr("auditkit.cli.run.remote_workers", lambda *_: SerialisingWorkers())
    shell = Shell.at(tmp_path / "user", keygen=False)
    assert shell("run", "tiny_study.py", "--dry-run", *options).code == 0
    assert said == [f"{first}building the program ..."]
