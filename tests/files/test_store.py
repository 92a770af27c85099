from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.errors import (
    ArtifactMismatch,
    ArtifactMissing,
    AuditError,
    MalformedError,
    StoreError,
    UnsafePath,
)
from auditkit.files import artifacts, store
from auditkit.records.tensor import RawTensor


def fail(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Writing


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    pieces: list[store.Buffer] = [b"ne", bytearray(b"w"), memoryview(b"!")]
    store.write_bytes(path, b"old")
    store.write_bytes(path, iter(pieces))
    assert store.read_bytes(path) == b"new!"
    store.write_text(path, "grün\n")
    assert path.read_text(encoding="utf-8") == "grün\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["replace", "fsync", "open", "link"])
def test_a_failing_system_call_leaves_the_old_file_and_nothing_else(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StoreError, match="cannot write"):
        store.write_bytes(path, b"new", replace=call != "link")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_source_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write_bytes(tmp_path / "file", chunks())
    assert list(tmp_path.iterdir()) == []


def test_while_it_is_written_only_a_partial_file_exists(tmp_path: Path) -> None:
    seen: list[str] = []

    def chunks() -> Iterator[bytes]:
        yield b"half"
        seen.extend(path.name for path in tmp_path.iterdir())
        yield b"half"

    store.write_bytes(tmp_path / "file", chunks())
    assert len(seen) == 1
    assert seen[0].endswith(store.PARTIAL)


def test_a_failing_write_is_one_line(tmp_path: Path) -> None:
    full = Path("/dev/full")
    for path in (tmp_path / "no" / "file", tmp_path, tmp_path / ("n" * 300), tmp_path / "a\0b"):
        with pytest.raises(StoreError) as caught:
            store.write_bytes(path, b"x")
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert not full.exists() or full.is_char_device()  # never replaced


def test_a_read_only_folder_is_a_store_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        store.write_bytes(tmp_path / "file", b"x")


def test_a_private_file_is_never_wider_than_0600(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            modes.append(stat.S_IMODE(status.st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    old = os.umask(0)
    try:
        store.write_bytes(tmp_path / "key", b"secret", private=True)
        store.write_bytes(tmp_path / "open", b"", private=False)
        store.make_folder(tmp_path / "folder", private=True)
    finally:
        os.umask(old)
    assert modes == [0o600, 0o666]
    assert mode_of(tmp_path / "key") == 0o600
    assert mode_of(tmp_path / "folder") == 0o700


def test_replace_false_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    store.write_bytes(path, b"first", replace=False)
    with pytest.raises(StoreError, match="File exists"):
        store.write_bytes(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_replace_false_works_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", fail)
    store.write_bytes(tmp_path / "file", b"first", replace=False)
    assert (tmp_path / "file").read_bytes() == b"first"


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"kept")
    link.symlink_to(target)
    store.write_bytes(link, b"new")
    assert target.read_bytes() == b"kept"
    assert not link.is_symlink()


def test_copy_rename_and_remove(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "a" / "copy"
    source.write_bytes(b"x" * (2 * artifacts.CHUNK_BYTES + 1))
    store.make_folder(copy.parent)
    store.make_folder(copy.parent)
    store.copy_file(source, copy)
    assert copy.read_bytes() == source.read_bytes()
    store.rename(copy, tmp_path / "moved")
    assert (tmp_path / "moved").read_bytes() == source.read_bytes()
    store.remove(source)
    store.remove(source)
    store.remove_folder(tmp_path / "a")
    store.remove_folder(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def test_failures_of_the_other_operations_are_store_errors(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    calls: list[Callable[[], Any]] = [
        lambda: store.copy_file(tmp_path / "none", tmp_path / "b"),
        lambda: store.copy_file(tmp_path, tmp_path / "b"),
        lambda: store.rename(tmp_path / "none", tmp_path / "b"),
        lambda: store.remove(tmp_path),
        lambda: store.make_folder(file / "below"),
        lambda: store.make_folder(file),
        lambda: store.remove_folder(file),
        lambda: store.read_bytes(tmp_path / "none"),
        lambda: store.read_bytes("a\0b"),
        lambda: artifacts.list_files(tmp_path / "none"),
        lambda: artifacts.open_artifact(tmp_path / "none", "x"),
    ]
    for call in calls:
        with pytest.raises(StoreError):
            call()


def test_tensor_files_are_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    store.write_tensors(path, {"a": RawTensor("int16", (2,), b"1234")}, {"step": 3})
    for source in (path, str(path), path.read_bytes()):
        tensors, metadata = store.read_tensors(source, what="x")
        assert bytes(tensors["a"].data) == b"1234"
        assert metadata == {"step": 3}


# Reading what the caller named


def test_a_file_that_is_too_long_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert store.read_bytes(path, max_bytes=5) == b"12345"
    with pytest.raises(MalformedError, match="longer than 4 bytes"):
        store.read_bytes(path, max_bytes=4)


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_only_regular_files_are_read_and_nothing_hangs(kind: str, tmp_path: Path) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "odd"
    if kind == "fifo":
        os.mkfifo(path)
    if kind == "folder":
        path.mkdir()
    with pytest.raises(StoreError, match="not a regular file"):
        store.read_bytes(path)


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
