from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from auditkit.errors import (
    MalformedError,
    StoreError,
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


def test_a_tensor_stays_in_its_file_until_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    store.write_tensors(path, {"a": RawTensor("int16", (2,), b"1234")}, {"step": 3})
    with store.open_tensors(path, what="x") as (tensors, metadata):
        assert metadata == {"step": 3}
        path.write_bytes(path.read_bytes().replace(b"1234", b"5678"))
        assert b"".join(tensors["a"].pieces()) == b"5678"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(StoreError, match="changed meanwhile"):
            list(tensors["a"].pieces())


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
