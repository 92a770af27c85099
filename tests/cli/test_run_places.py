"""``--out URL``: a run that is built here, and moved when it is finished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from cli_shell import Shell

from auditkit.errors import StoreError
from auditkit.files.far_folders import FarFolder

STUDY = ("run", "tiny_study.py", "--seeds", "0", "--perturb", "carry", "--jobs", "1")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield Shell.at(tmp_path / "user")
    fsspec.filesystem("memory").store.clear()


def test_a_run_goes_to_a_url_and_is_verified_there(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "memory://bucket/mine"

    def unreachable(*_: object) -> None:
        raise StoreError("cannot reach it")

    with monkeypatch.context() as patch:
        patch.setattr(FarFolder, "_put", unreachable)
        done = shell(*STUDY, "--out", url)
        assert done.code == 2
        assert done.err.endswith("auditkit: cannot reach it (auditkit explain StoreError)\n")
    done = shell(*STUDY, "--out", url)
    assert done.code == 2
    assert "a run for memory://bucket/mine is finished, and was not moved there" in done.line
    other = [*STUDY, "--out", url, "--resume"]
    other[other.index("--seeds") + 1] = "7"
    assert shell(*other, "--dry-run").code == 0
    assert not fsspec.filesystem("memory").store
    done = shell(*other)
    assert done.code == 0
    assert "an earlier command finished this run: it is moved as it is" in done.err
    assert f"manifest: {url}/manifest.json" in done.err
    assert not any((tmp_path / "cache" / "auditkit" / "staging").iterdir())
    for place in (url, f"{url}/manifest.json"):
        assert shell("verify", place, "--replay", "none").code == 0
    assert shell(*STUDY, "--out", url).line.endswith("holds a finished run; give another --out")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ((*STUDY, "--out", "nobody://x"), "cannot reach nobody://x: "),
        ((*STUDY, "--out", "memory://x", "--add-seeds", "1"), "--add-seeds"),
        ((*STUDY, "--out", "memory://"), "--out memory:// names no folder"),
        (("reproduce", "study", "--out", "memory://x"), "is a URL"),
        (("verify", "memory://nothing", "--replay", "none"), "there is no manifest"),
    ],
)
def test_what_cannot_be_is_said(shell: Shell, line: tuple[str, ...], message: str) -> None:
    done = shell(*line)
    assert done.code == 2
    assert message in done.line
