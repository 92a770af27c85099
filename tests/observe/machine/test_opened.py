"""What a program opens while it is built is listed; what only Python or auditkit opens is not."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from auditkit.files import store
from auditkit.observe.machine import open_notes, opened
from auditkit.observe.machine.imports import noted_opens, watched_imports
from auditkit.observe.machine.opened import changed_files, opened_files
from auditkit.records.job import ProgramSource
from auditkit.records.opened import OpenedFile, OpenedFiles, merged_opened, unhashed_notes

DATA = b"1,2,3\n"
MEMORY = "/dev/shm"  # noqa: S108


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.csv").write_bytes(DATA)
    (folder / "inner" / "b.csv").write_bytes(DATA)
    np.save(folder / "c.npy", np.arange(3))
    return folder


def opened_by(
    read: Callable[[], object], folder: Path, arguments: Mapping[str, str] | None = None
) -> OpenedFiles:
    """What a program in a folder opened."""
    (folder / "program").mkdir(exist_ok=True)
    with watched_imports(folder / "program", "study.py"):
        with noted_opens():
            read()
        found = opened_files(arguments or {})
    assert found is not None
    return found


def names(found: OpenedFiles) -> list[str]:
    return [file.name for file in found.files]


def test_files_below_a_folder_that_an_argument_names(data: Path, tmp_path: Path) -> None:
    def read() -> None:
        np.load(data / "c.npy")
        np.load(data / "c.npy", mmap_mode="r")
        (data / "inner" / "b.csv").open().close()
        os.close(os.open(data / "a.csv", os.O_RDONLY))

    found = opened_by(read, tmp_path, {"root": str(data), "epochs": "3", "odd": "\0"})
    assert names(found) == ["data/root/a.csv", "data/root/c.npy", "data/root/inner/b.csv"]
    digest = hashlib.sha256(DATA).hexdigest()
    assert found.files[0] == OpenedFile("data/root/a.csv", len(DATA), digest)


def test_files_that_changed_since_they_were_hashed_are_named(data: Path, tmp_path: Path) -> None:
    own = tmp_path / "program" / "own.txt"

    def read() -> None:
        own.write_bytes(DATA)
        for file in (data / "a.csv", data / "inner" / "b.csv", data / "c.npy"):
            file.open().close()

    arguments = {"root": str(data), "csv": str(data / "a.csv"), "lr": "0.1"}
    found = opened_by(read, tmp_path, arguments)
    found = OpenedFiles(
        (*found.files, OpenedFile("program/own.txt", 3, store.stream_sha256(own)[1]))
    )
    source = ProgramSource("study.py:f", str(tmp_path / "program"), arguments)
    assert changed_files(found, source) == ()
    (data / "a.csv").write_bytes(b"other")
    (data / "inner" / "b.csv").unlink()
    own.write_bytes(b"other")
    changed = ("data/csv", "data/root/inner/b.csv", "program/own.txt")
    assert changed_files(found, source) == changed
    assert changed_files(None, source) == ()


def test_the_innermost_folder_names_a_file_and_an_argument_may_be_the_file(
    data: Path, tmp_path: Path
) -> None:
    arguments = {"outer": str(data), "inner": str(data / "inner"), "file": str(data / "a.csv")}

    def read() -> None:
        for path in ("a.csv", "inner/b.csv", "c.npy"):
            (data / path).read_bytes()

    assert names(opened_by(read, tmp_path, arguments)) == [
        *("data/file", "data/inner/b.csv", "data/outer/c.npy")
    ]


def test_links_are_followed_both_ways(data: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(data)
    (data / "far.csv").symlink_to(tmp_path / "far.csv")
    (tmp_path / "far.csv").write_bytes(DATA)

    def read() -> None:
        (tmp_path / "link" / "a.csv").read_bytes()
        (data / "far.csv").read_bytes()

    found = opened_by(read, tmp_path, {"root": str(data)})
    assert names(found) == ["data/root/a.csv", "data/root/far.csv"]


def test_relative_paths_and_files_beside_the_program(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "settings.json").write_text("{}")

    def read() -> None:
        Path("data/a.csv").read_bytes()
        Path("program/settings.json").read_text()

    found = opened_by(read, tmp_path, {"root": "data"})
    assert names(found) == ["data/root/a.csv", "program/settings.json"]
    assert len(found.hashed) == 2


def test_a_replay_finds_listed_files_by_its_working_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "c.npy").write_bytes(DATA)
    (tmp_path / "far.csv").write_bytes(DATA)
    monkeypatch.chdir(data.parent)

    def read() -> None:
        for path in ("data/a.csv", "data/inner/b.csv", "data/c.npy", "program/c.npy"):
            Path(path).read_bytes()

    listed = ["program/a.csv", "program/inner/b.csv", "program/b.csv", "program/c.npy"]
    with watched_imports(tmp_path / "program", "study.py"):
        with noted_opens():
            read()
        monkeypatch.chdir(data)
        with noted_opens():
            (tmp_path / "far.csv").read_bytes()
        found = opened_files({}, [*listed, "program/far.csv"])
    assert found is not None
    assert list(found.hashed) == ["program/a.csv", "program/c.npy", "program/inner/b.csv"]
    # What is called so already, or lies elsewhere, is not taken for it.
    assert [Path(name).name for name in found.unhashed] == ["c.npy", "far.csv"]


def test_a_file_elsewhere_is_named_and_not_hashed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = opened_by((data / "a.csv").read_bytes, tmp_path)
    assert found.files == (OpenedFile("~/data/a.csv", None, None, "elsewhere"),)
    (note,) = unhashed_notes(found)
    assert "nobody hashed: ~/data/a.csv; give the folder" in note


def test_no_home_is_named_that_is_a_link(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").symlink_to(tmp_path / "disk" / "alice")
    (tmp_path / "disk").mkdir()
    data.rename(tmp_path / "disk" / "alice")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")

    def read() -> None:
        Path("a.csv").read_bytes()
        (Path.home() / "c.npy").read_bytes()

    assert names(opened_by(read, tmp_path)) == ["~/a.csv", "~/c.npy"]


@pytest.mark.skipif(not os.access(MEMORY, os.W_OK), reason="there are no files in memory here")
def test_data_in_memory_are_data(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as staged:
        file = Path(staged, "a.csv")
        file.write_text("1,2\n")

        def read() -> None:
            file.read_bytes()
            Path("/dev/null").read_bytes()

        assert names(opened_by(read, tmp_path, {"data": staged})) == ["data/data/a.csv"]


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("import fonts_of_lib", []),
        ("import fonts_of_lib; fonts_of_lib.look()", ["fonts"]),  # asked for by the program
        ("import fonts_of_lib; open(fonts_of_lib.FONTS).close()", ["fonts"]),
        ("import fonts_of_own", ["fonts"]),
        ("import models_of_lib", ["models"]),  # in no cache
    ],
)
def test_a_cache_that_only_the_import_of_a_library_reads_is_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, found: list[str]
) -> None:
    cache, lib, own = (tmp_path / name for name in ("cache", "lib", "own"))
    text = "FONTS = {!r}\ndef look():\n    open(FONTS).close()\nlook()\n"
    for name, place in (("fonts", cache), ("models", tmp_path)):
        place.mkdir(exist_ok=True)
        (place / name).write_text("[]")
        for kind in (lib, own):
            kind.mkdir(exist_ok=True)
            (kind / f"{name}_of_{kind.name}.py").write_text(text.format(str(place / name)))
            monkeypatch.syspath_prepend(kind)
    real = open_notes.library_folders()
    monkeypatch.setattr(open_notes, "library_folders", lambda: (f"{lib}{os.sep}", *real))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    try:
        listed = names(opened_by(lambda: exec(program), tmp_path))  # noqa: S102
    finally:
        for name in [name for name in sys.modules if name.endswith(("_of_lib", "_of_own"))]:
            del sys.modules[name]
    assert [Path(name).name for name in listed if not name.endswith(".py")] == found


def test_what_is_no_data_is_not_listed(data: Path, tmp_path: Path) -> None:
    module = tmp_path / "helper_for_opened.py"
    module.write_text("import json.tool\n")

    def read() -> None:
        Path("/proc/self/status").read_bytes()
        Path("/etc/passwd").read_bytes()
        Path(json.__file__).read_bytes()
        Path(np.__file__).read_bytes()
        (data / "made.txt").write_text("x")
        (data / "made.txt").read_text()
        with tempfile.NamedTemporaryFile(dir=data) as file:
            Path(file.name).read_bytes()
        with pytest.raises(FileNotFoundError):
            (data / "missing.csv").read_bytes()
        list(data.iterdir())
        sys.path.insert(0, str(tmp_path))
        __import__("helper_for_opened")

    try:
        assert names(opened_by(read, tmp_path, {"root": str(data), "top": str(tmp_path)})) == []
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["helper_for_opened"]


def test_a_file_that_was_read_before_it_was_written_is_listed(data: Path, tmp_path: Path) -> None:
    def read() -> None:
        (data / "a.csv").read_bytes()
        (data / "a.csv").write_bytes(b"x")
        with (data / "c.npy").open("a+b") as file:  # adds to what was there
            file.write(b"")

    assert names(opened_by(read, tmp_path, {"r": str(data)})) == ["data/r/a.csv", "data/r/c.npy"]


def test_only_while_notes_are_taken(data: Path, tmp_path: Path) -> None:
    with watched_imports(tmp_path, "study.py"):
        (data / "a.csv").read_bytes()
        with noted_opens():
            thread = threading.Thread(target=(data / "inner" / "b.csv").read_bytes)
            thread.start()
            thread.join()
        (data / "c.npy").read_bytes()
        found = opened_files({"root": str(data)})
    assert found is not None
    assert names(found) == ["data/root/inner/b.csv"]
    with noted_opens():  # of no job
        (data / "a.csv").read_bytes()
    assert opened_files({}) is None


def test_what_goes_wrong_in_the_notes_is_nothing_to_the_program(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(open_notes.OpenNotes, "note", fails)
    read: list[bytes] = []
    found = opened_by(lambda: read.append((data / "a.csv").read_bytes()), tmp_path)
    assert (read, found.files) == ([DATA], ())


def test_what_cannot_be_hashed_is_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> None:
        for path in ("a.csv", "inner/b.csv", "c.npy"):
            (data / path).read_bytes()
        (data / "inner" / "b.csv").unlink()

    monkeypatch.setattr(opened, "MAX_HASHED", 100)
    found = opened_by(read, tmp_path, {"root": str(data)})
    assert [file.reason for file in found.files] == [None, "too much", "not read"]
    assert len(list(unhashed_notes(found))) == 2


def test_no_more_than_so_many_are_listed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "MAX_OPENED", 1)

    def read() -> None:
        for path in ("a.csv", "inner/b.csv", "c.npy"):
            (data / path).read_bytes()

    found = opened_by(read, tmp_path, {"root": str(data)})
    assert (names(found), found.left_out) == (["data/root/a.csv"], 2)
    assert "2 files more" in next(unhashed_notes(found))


def test_a_name_that_is_no_utf_8_is_escaped(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.csv"
    with builtins.open(path, "wb") as file:  # noqa: PTH123 # bytes
        file.write(DATA)

    def read() -> None:
        with builtins.open(path, "rb") as file:  # noqa: PTH123
            file.read()

    found = opened_by(read, tmp_path, {"root": str(tmp_path)})
    assert names(found) == ["data/root/\\xff.csv"]


def test_each_file_is_hashed_a_piece_at_a_time(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK_BYTES", 4)
    assert store.stream_sha256(data / "a.csv") == (6, hashlib.sha256(DATA).hexdigest())


def test_lists_of_several_processes_are_one() -> None:
    one, other = (OpenedFile("data/x", 1, digit * 64) for digit in "ab")
    away = OpenedFile("/y", None, None, "elsewhere")
    gone = OpenedFile("data/x", None, None, "not read")
    assert merged_opened([None, None]) is None
    assert merged_opened([OpenedFiles((one,)), OpenedFiles((away, one), 2)]) == OpenedFiles(
        (away, one), 2
    )
    changed = OpenedFile("data/x", None, None, "changed")
    (note,) = unhashed_notes(OpenedFiles((changed,)))
    assert "data/x; they changed while the study ran" in note
    assert "trained on other bytes" in note
    for parts in ([one, other], [one, other, one], [other, one, one]):
        assert merged_opened(OpenedFiles((part,)) for part in parts) == OpenedFiles((changed,))
    for parts in ([one, gone], [gone, one]):
        assert merged_opened(OpenedFiles((part,)) for part in parts) == OpenedFiles((gone,))
