from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from auditkit.errors import ArtifactMismatch, StoreError, UnsafePath
from auditkit.files import far_folders
from auditkit.files.far_folders import FarFolder, is_url

FILES = {"manifest.json": b"{}", "seed-0000/fork.safetensors": b"fork", "code/a.py": b"pass"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_bytes(data)
    return tmp_path / "run"


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield f"memory://{tmp_path}/far" if request.param == "memory" else f"file://{tmp_path}/far"
    fsspec.filesystem("memory").store.clear()


def there(url: str) -> dict[str, bytes]:
    system, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(f"{root}/"): system.cat_file(path) for path in system.find(root)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/run", True),
        ("memory://x", True),
        ("sftp://host/run", True),
        ("simplecache::s3://b/run", True),
        ("runs/mine", False),
        ("C:/runs", False),
        ("://x", False),
        ("a b://x", False),
    ],
)
def test_a_url_is_told_from_a_path(text: str, expected: bool) -> None:
    assert is_url(text) is expected


def test_a_run_is_moved_whole_and_comes_back(folder: Path, url: str) -> None:
    assert FarFolder(f"{url}/").move_here(folder) == f"{url}/manifest.json"
    assert not folder.exists()
    assert there(url) == FILES
    with FarFolder(url).fetched() as manifest:
        assert manifest.read_bytes() == b"{}"
        assert (manifest.parent / "seed-0000" / "fork.safetensors").read_bytes() == b"fork"
    assert not manifest.exists()
    with pytest.raises(StoreError, match="the folder holds a finished run"):
        FarFolder(url).require_free()


@pytest.mark.parametrize("n_files", [0, 1, 2])
def test_a_killed_upload_leaves_no_manifest_and_is_begun_anew(
    folder: Path, url: str, n_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = FarFolder(url)
    done: list[None] = []
    put = far._put

    def killed(*told: Any) -> None:
        if len(done) == n_files:
            raise KeyboardInterrupt
        put(*told)
        done.append(None)

    monkeypatch.setattr(far, "_put", killed)
    with pytest.raises(KeyboardInterrupt):
        far.move_here(folder)
    assert "manifest.json" not in there(url)
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "seed-0000", "code"}
    FarFolder(url).move_here(folder)
    assert there(url) == FILES


def test_what_another_run_has_left_there_is_in_the_way(folder: Path, url: str) -> None:
    system, root = fsspec.core.url_to_fs(url)
    system.makedirs(f"{root}/seed-0001", exist_ok=True)
    system.pipe_file(f"{root}/seed-0001/fork.safetensors", b"another")
    far = FarFolder(url)
    for is_refused in (far.require_no_others, lambda: far.move_here(folder)):
        with pytest.raises(StoreError, match=r"not empty: it holds seed-0001/fork\.safetensors"):
            is_refused()
    assert "manifest.json" not in there(url)
    assert (folder / "manifest.json").exists()


def test_what_is_read_back_as_something_else_is_an_error(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = far_folders._sha256

    def wrong(system: Any, path: str) -> tuple[int, str]:
        size, digest = sha256(system, path)
        return size - path.endswith("fork.safetensors"), digest

    monkeypatch.setattr(far_folders, "_sha256", wrong)
    with pytest.raises(ArtifactMismatch, match="is not there what was written"):
        FarFolder(url).move_here(folder)
    assert "manifest.json" not in there(url)
    assert (folder / "manifest.json").exists()


def test_names_that_lead_elsewhere_are_not_taken() -> None:
    system = fsspec.filesystem("memory")
    system.pipe_file("/evil/manifest.json", b"{}")
    system.pipe_file("/evil/a\\b", b"x")
    with pytest.raises(UnsafePath), FarFolder("memory://evil").fetched():
        pass
    system.store.clear()


@pytest.mark.parametrize("url", ["nobody-knows://x/y", "memory://empty"])
def test_what_cannot_be_reached_is_one_line(url: str) -> None:
    with pytest.raises(StoreError), FarFolder(url).fetched():
        pass
