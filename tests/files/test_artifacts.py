from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.errors import (
    ArtifactMismatch,
    ArtifactMissing,
    AuditError,
    StoreError,
    UnsafePath,
)
from auditkit.files import artifacts, store

# Files of a run

UNSAFE = [
    "",
    ".",
    "..",
    "/etc/hostname",
    "/dev/zero",
    "../x",
    "a/../x",
    "a/./x",
    "a//x",
    "a/",
    "./x",
    "a\\x",
    "C:x",
    "a\nx",
    "a\0x",
    "a\x7fx",
    "a\x9bx",
    "\udc80",
    "x" * 5000,
    "~/../x",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names_are_refused_before_anything_is_touched(name: str) -> None:
    with pytest.raises(UnsafePath) as caught:
        artifacts.safe_read("/no/such/folder", name)
    assert str(caught.value).isprintable()


@given(st.text())
def test_a_name_that_passes_stays_below_the_root(name: str) -> None:
    try:
        artifacts.check_name(name)
    except UnsafePath:
        return
    assert os.path.normpath(f"/root/{name}") == f"/root/{name}"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = tmp_path / "run"
    (root / "seed-0000").mkdir(parents=True)
    (root / "seed-0000" / "file").write_bytes(b"content")
    return root


def test_a_listed_file_is_read_and_hashed(run: Path) -> None:
    digest = hashlib.sha256(b"content").hexdigest()
    name = "seed-0000/file"
    assert artifacts.safe_read(run, name, expected_size=7, expected_sha256=digest) == b"content"
    assert artifacts.file_sha256(run, name, expected_size=7) == digest
    assert artifacts.file_size(run, name) == 7


def test_the_root_itself_may_be_a_link(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    assert artifacts.safe_read(tmp_path / "link", "seed-0000/file") == b"content"


def test_size_and_digest_are_checked(run: Path) -> None:
    name = "seed-0000/file"
    with pytest.raises(ArtifactMismatch, match=r"seed-0000/file: another size \(expected 8"):
        artifacts.file_sha256(run, name, expected_size=8)
    with pytest.raises(ArtifactMismatch, match="another size"):
        artifacts.safe_read(run, name, expected_size=6)
    with pytest.raises(ArtifactMismatch, match="another SHA-256"):
        artifacts.safe_read(run, name, expected_sha256="0" * 64)
    with pytest.raises(ArtifactMismatch, match="too long"):
        artifacts.safe_read(run, name, max_bytes=6)


@pytest.mark.parametrize("name", ["none", "none/file", "seed-0000/file/below"])
def test_a_missing_file_is_missing(name: str, run: Path) -> None:
    with pytest.raises(ArtifactMissing, match="no such file"):
        artifacts.safe_read(run, name)


def make_odd(root: Path, kind: str) -> str:
    path = root / "odd"
    if kind == "link":
        path.symlink_to(root / "seed-0000" / "file")
    elif kind == "linked folder":
        path.symlink_to(root / "seed-0000")
        return "odd/file"
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    return "odd"


@pytest.mark.parametrize(
    "kind", ["link", "linked folder", "dangling link", "FIFO", "folder", "socket"]
)
def test_only_regular_files_are_opened_and_nothing_hangs(kind: str, run: Path) -> None:
    name = make_odd(run, kind)
    with pytest.raises(UnsafePath, match=f"^{name}: not a regular file but a"):
        artifacts.open_artifact(run, name)
    assert "odd" in artifacts.list_files(run) or kind == "folder"


def test_a_folder_that_becomes_a_link_after_the_look_is_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_odd(run, "FIFO")
    regular = (run / "seed-0000" / "file").stat()
    monkeypatch.setattr(os, "stat", lambda *_, **__: regular)
    with pytest.raises(UnsafePath, match="FIFO"):
        artifacts.open_artifact(run, "odd")


def test_a_file_that_grows_while_it_is_read_is_a_mismatch(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run / "seed-0000" / "file"
    monkeypatch.setattr(artifacts, "CHUNK_BYTES", 4)
    with artifacts.open_artifact(run, "seed-0000/file") as file:
        chunks = artifacts._chunks(file, "seed-0000/file", 7)
        next(chunks)
        path.write_bytes(b"content and more")
        with pytest.raises(ArtifactMismatch, match="changed while it was read"):
            list(chunks)


def test_a_file_that_shrinks_while_it_is_read_is_a_mismatch(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "_checked_size", lambda *_: 9)
    for read in (artifacts.safe_read, artifacts.file_sha256):
        with pytest.raises(ArtifactMismatch, match="changed while it was read"):
            read(run, "seed-0000/file")


def test_a_large_file_is_hashed_in_constant_memory(run: Path) -> None:
    size = 64 * 2**20
    with (run / "large").open("wb") as file:
        file.truncate(size)
    tracemalloc.start()
    artifacts.file_sha256(run, "large", expected_size=size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_descriptors_are_closed(run: Path) -> None:
    make_odd(run, "FIFO")
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("no /proc here")
    before = len(list(folder.iterdir()))
    for _ in range(20):
        for name in ("odd", "none", "seed-0000/file", "seed-0000/none", "../x"):
            with contextlib.suppress(AuditError):
                artifacts.safe_read(run, name)
        with pytest.raises(StoreError):
            store.read_bytes(run / "odd")
    assert len(list(folder.iterdir())) == before


def test_listing_is_sorted_and_follows_no_links(run: Path) -> None:
    (run / "a").mkdir()
    (run / "a" / "z").write_bytes(b"")
    (run / "a.txt").write_bytes(b"")
    (run / "empty").mkdir()
    (run / "loop").symlink_to(run)
    os.mkfifo(run / "fifo")
    assert artifacts.list_files(run) == ["a.txt", "a/z", "fifo", "loop", "seed-0000/file"]


def test_a_survey_sees_what_it_can_and_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder" / "empty").mkdir(parents=True)
    (tmp_path / "folder" / "file").touch()
    assert artifacts.survey(tmp_path) == artifacts.Survey(("folder/file",), (), True)
    monkeypatch.setattr(artifacts, "MAX_SURVEYED", 1)
    assert not artifacts.survey(tmp_path).is_whole
    monkeypatch.setattr(artifacts, "MAX_SURVEYED", 100)
    monkeypatch.setattr(artifacts, "MAX_SURVEYED_DEPTH", 0)
    assert artifacts.survey(tmp_path).unread == ("folder/",)
    assert artifacts.survey(tmp_path / "none") == artifacts.Survey((), ("",), True)
