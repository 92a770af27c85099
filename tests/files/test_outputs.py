"""Where options may write: nothing that somebody else wrote is replaced."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditkit.errors import StoreError
from auditkit.files import store
from auditkit.files.outputs import Output, check_rewritable, json_with, never

REPORT = json_with("verdict", "checks")
OWN = b'{"checks":[],"verdict":"verified","more":1}'


def output(path: Path, manifest: Path | None = None) -> Output:
    return Output("--json", path, REPORT, "report", manifest)


def write_manifest(path: Path, *names: str) -> None:
    """A manifest that lists files; nothing else of it is in order."""
    told = {"subject": [{"name": name} for name in names]}
    payload = base64.b64encode(json.dumps(told).encode()).decode()
    path.write_text(json.dumps({"payload": payload}))


def refused(output: Output) -> str:
    """Why an output is refused, before and at writing; what lies there stays."""
    with pytest.raises(StoreError) as caught:
        output.check()
    with pytest.raises(StoreError) as again:
        output.write(b"new")
    assert str(caught.value) == str(again.value)
    assert output.option in str(caught.value)
    assert str(output.path) in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_new_file_is_written_and_ones_own_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert not output(path).check()
    output(path).write(OWN)
    assert output(path).check()
    output(path).write(OWN + b"\n")
    assert path.read_bytes() == OWN + b"\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    "content", [b"", b"notes", b"[]", b'{"verdict":1}', b"\xff", b"[" * 10**5, b"9" * 5000]
)
def test_what_the_option_did_not_write_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    assert "exists already, and is no report of this option" in refused(output(path))
    assert path.read_bytes() == content


def test_an_option_that_recognises_nothing_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(OWN)
    assert "a key is never overwritten" in refused(Output("--out", path, never, "key"))


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(path))


def _to_ones_own(path: Path) -> None:
    (path.parent / "own.json").write_bytes(OWN)
    path.symlink_to("own.json")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (os.mkfifo, "it is a FIFO"),
        (Path.mkdir, "it is a folder"),
        (_socket, "it is a socket"),
        (_to_ones_own, "it is a link"),
        (lambda path: path.symlink_to("nowhere"), "it is a link"),
        (lambda path: path.symlink_to("/dev/null"), "it is a link"),
    ],
)
def test_only_regular_files_are_replaced(
    tmp_path: Path, make: Callable[[Path], object], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    path = Path("target")
    make(path)
    before = path.lstat()
    assert says in refused(output(path))
    assert path.lstat() == before


@pytest.mark.parametrize("name", ["", ".", "..", "/", "inside/.."])
def test_a_folder_is_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "inside").mkdir()
    assert "it is a folder" in refused(output(tmp_path / name if name != "/" else Path("/")))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("no/where", "there is no folder"),
        ("x" * 5000, "File name too long"),
        ("x" * 240, "File name too long"),  # a file that is being written has a longer name
        ("x" * 5000 + "/report", "File name too long"),
        ("a\0b", "null"),
    ],
)
def test_what_could_not_be_written_is_refused_before(
    tmp_path: Path, path: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=says):
        output(Path(path)).check()


@pytest.mark.parametrize("name", ["report.json", "seed-0000/report.json"])
@pytest.mark.parametrize("exists", [True, False])
def test_what_a_manifest_lists_is_never_written(tmp_path: Path, name: str, exists: bool) -> None:
    run = tmp_path / "run"
    (run / "seed-0000").mkdir(parents=True)
    write_manifest(run / "manifest.json", "other", name)
    if exists:
        (run / name).write_bytes(OWN)  # it looks like a report
    (tmp_path / "way").symlink_to("run/seed-0000")
    paths = [run / name, run / "seed-0000" / ".." / name]
    if "/" in name:
        paths.append(tmp_path / "way" / "report.json")
    for path in paths:
        assert "lists it" in refused(output(path))
    assert (run / name).exists() == exists
    output(run / "seed-0000" / "unlisted.json").check()


def test_the_manifest_that_was_given_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "manifest.json"
    write_manifest(manifest, "fork")
    read: list[Path] = []
    read_bytes = store.read_bytes

    def reading(path: Path, **how: Any) -> bytes:
        read.append(path)
        return read_bytes(path, **how)

    monkeypatch.setattr(store, "read_bytes", reading)
    assert not output(tmp_path / "report.json", manifest).check()
    assert read.count(manifest) == 1


def test_a_manifest_is_never_written_whatever_it_is_called(tmp_path: Path) -> None:
    write_manifest(tmp_path / "study.json", "a.json")
    (tmp_path / "a.json").write_bytes(OWN)
    (tmp_path / "to").symlink_to("study.json")
    for name in ("study.json", "to"):
        for target in ("study.json", "a.json", "manifest.json"):
            refused(output(tmp_path / target, tmp_path / name))
    output(tmp_path / "a.json").check()  # no manifest is known to list it
    (tmp_path / "study.json").write_bytes(OWN)
    assert "it is the manifest" in refused(output(tmp_path / "study.json", tmp_path / "study.json"))


@pytest.mark.parametrize("text", ["", "1", "[]", "{}", '{"payload":"!"}', '{"payload":"e30="}'])
def test_what_is_no_manifest_lists_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    (tmp_path / "report.json").write_bytes(OWN)
    assert output(tmp_path / "report.json").check()


def test_what_came_in_the_meantime_stays(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    made = output(path)
    made.check()
    path.write_bytes(b"somebody else's")
    with pytest.raises(StoreError, match="exists already"):
        made.write(OWN)
    assert path.read_bytes() == b"somebody else's"


def test_what_is_added_to_is_a_file_that_no_other_manifest_lists(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.json", "plan.json")
    for name in ("plan.json", "free.json"):
        (tmp_path / name).write_bytes(b"{}")
    (tmp_path / "link.json").symlink_to("free.json")
    check_rewritable(tmp_path / "manifest.json")
    check_rewritable(tmp_path / "free.json")
    for name, says in (("plan.json", "lists it"), ("link.json", "a link"), ("none", "No such")):
        with pytest.raises(StoreError, match=says):
            check_rewritable(tmp_path / name)
